//! A body as a stream, for uploads that are larger than memory.
//!
//! Invariant: the stream ends with an error unless the body arrived whole, within its limit and at
//! its minimum rate; nothing is buffered here but the piece that is handed on.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::Stream;
use plinth_types::{ByteSize, Error};
use tokio::time::{Instant, Sleep, sleep_until};

use crate::RequestBody;
use crate::pace::Pace;
use crate::read_body::{broke_off, too_large, too_slow};

/// What an upload may cost.
#[derive(Debug, Clone, Copy)]
pub struct UploadLimits {
    /// The most bytes.
    pub max: ByteSize,
    /// The bytes per second that must arrive at least.
    pub min_rate: ByteSize,
    /// Over which time that is judged.
    pub window: Duration,
}

/// The pieces of a body as they arrive. Time in which nobody asks for a piece does not count against the peer.
pub struct UploadStream {
    body: RequestBody,
    limits: UploadLimits,
    received: u64,
    pace: Option<(Pace, Pin<Box<Sleep>>)>,
    handed_on: Option<Instant>,
    ended: bool,
}

impl UploadStream {
    /// The stream of a body.
    #[must_use]
    pub const fn new(body: RequestBody, limits: UploadLimits) -> Self {
        Self { body, limits, received: 0, pace: None, handed_on: None, ended: false }
    }

    /// How many bytes arrived.
    #[must_use]
    pub const fn received(&self) -> u64 {
        self.received
    }

    /// The error for the caller that an error of a stream stands for, when this stream made it.
    #[must_use]
    pub fn cause(error: &mut io::Error) -> Option<Error> {
        error.get_mut()?.downcast_mut::<Carried>()?.0.take()
    }

    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Error>>> {
        if let (Some(since), Some((pace, timer))) = (self.handed_on.take(), &mut self.pace) {
            pace.skip(since.elapsed());
            timer.as_mut().reset(pace.judged_at());
        }
        loop {
            match self.body.poll_data(cx) {
                Poll::Ready(None) => return Poll::Ready(None),
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Some(Err(broke_off(error)))),
                Poll::Ready(Some(Ok(piece))) => {
                    self.received = self.received.saturating_add(piece.len() as u64);
                    if self.received > self.limits.max.0 {
                        return Poll::Ready(Some(Err(too_large(self.limits.max))));
                    }
                    if let Some((pace, _)) = &mut self.pace {
                        pace.received(piece.len());
                    }
                    if !piece.is_empty() {
                        self.handed_on = Some(Instant::now());
                        return Poll::Ready(Some(Ok(piece)));
                    }
                }
                Poll::Pending => break,
            }
        }
        let (pace, timer) = self.pace.get_or_insert_with(|| {
            let pace = Pace::start(self.limits.min_rate, self.limits.window);
            let timer = Box::pin(sleep_until(pace.judged_at()));
            (pace, timer)
        });
        while timer.as_mut().poll(cx).is_ready() {
            if !pace.judge() {
                return Poll::Ready(Some(Err(too_slow(self.limits.min_rate))));
            }
            timer.as_mut().reset(pace.judged_at());
        }
        Poll::Pending
    }
}

impl Stream for UploadStream {
    type Item = io::Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Bytes>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        let item = std::task::ready!(self.poll_piece(cx));
        self.ended = !matches!(item, Some(Ok(_)));
        Poll::Ready(item.map(|item| item.map_err(|error| io::Error::other(Carried(Some(error))))))
    }
}

/// Carries the error through an `io::Error`.
#[derive(Debug, thiserror::Error)]
#[error("the upload failed: {}", .0.as_ref().map_or("", |error| error.public_text()))]
struct Carried(Option<Error>);

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::StreamExt;
    use plinth_types::Reason;

    fn limits(max: u64) -> UploadLimits {
        UploadLimits { max: ByteSize(max), min_rate: ByteSize(10), window: Duration::from_secs(10) }
    }

    #[tokio::test]
    async fn pieces_pass_until_the_limit() {
        let body = || RequestBody::pieces([Bytes::from_static(b"abc"), Bytes::from_static(b"de")]);
        let whole: Vec<_> = UploadStream::new(body(), limits(5)).map(Result::unwrap).collect().await;
        assert_eq!(whole.concat(), b"abcde");
        let mut items: Vec<_> = UploadStream::new(body(), limits(4)).collect().await;
        assert_eq!(items.len(), 2);
        let mut error = items.pop().unwrap().unwrap_err();
        assert_eq!(UploadStream::cause(&mut error).unwrap().reason(), Reason::BodyTooLarge);
        assert!(UploadStream::cause(&mut io::Error::other("x")).is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_reader_does_not_count_against_the_peer() {
        let mut stream = UploadStream::new(RequestBody::stuck(), limits(50));
        let waited = tokio::time::timeout(Duration::from_secs(9), stream.next()).await;
        assert!(waited.is_err(), "the window is not over");
        stream.body = RequestBody::from(Bytes::from_static(b"x"));
        assert!(stream.next().await.unwrap().is_ok());
        tokio::time::sleep(Duration::from_secs(100)).await;
        stream.body = RequestBody::stuck();
        let start = Instant::now();
        assert!(stream.next().await.unwrap().is_err(), "one byte in ten seconds is too slow");
        assert_eq!(start.elapsed().as_millis() / 100, 10);
    }

    #[tokio::test(start_paused = true)]
    async fn a_stuck_upload_is_given_up() {
        let start = tokio::time::Instant::now();
        let mut items: Vec<_> = UploadStream::new(RequestBody::stuck(), limits(5)).collect().await;
        let mut error = items.pop().unwrap().unwrap_err();
        assert_eq!(UploadStream::cause(&mut error).unwrap().reason(), Reason::UploadIncomplete);
        assert_eq!(start.elapsed().as_secs(), 10);
    }
}
