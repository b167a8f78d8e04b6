//! Compression of a body that is still coming.
//!
//! Invariants: what has come is never kept back while nothing more comes: when the source pauses, the compressor is flushed, so an event
//! that was sent arrives; what is compressed without a pause for others is bounded by [`TURN`]; trailers and errors pass as they are, and after
//! an error nothing is finished, so that a broken answer does not look whole.

use std::io::{self, Write};
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};
use flate2::Compression;
use flate2::write::{GzEncoder, ZlibEncoder};
use futures_util::Stream;
use futures_util::stream::BoxStream;
use http_body::Frame;

use super::Coding;

/// Compressed at a time: about 200 µs of work.
const STEP: usize = 16 << 10;

/// So much is put together before it goes on, unless the source pauses.
const PIECE: usize = 8 << 10;

/// After so much, what there is goes on, however little it is: others want the thread.
const TURN: usize = 128 << 10;

type Source = BoxStream<'static, io::Result<Frame<Bytes>>>;

enum Encoder {
    Gzip(GzEncoder<Vec<u8>>),
    Deflate(ZlibEncoder<Vec<u8>>),
}

impl Encoder {
    fn new(coding: Coding) -> Self {
        match coding {
            Coding::Gzip => Self::Gzip(GzEncoder::new(Vec::new(), Compression::fast())),
            Coding::Deflate => Self::Deflate(ZlibEncoder::new(Vec::new(), Compression::fast())),
        }
    }

    fn writer(&mut self) -> &mut dyn Write {
        match self {
            Self::Gzip(encoder) => encoder,
            Self::Deflate(encoder) => encoder,
        }
    }

    fn finish(&mut self) -> io::Result<()> {
        match self {
            Self::Gzip(encoder) => encoder.try_finish(),
            Self::Deflate(encoder) => encoder.try_finish(),
        }
    }

    fn made(&mut self) -> &mut Vec<u8> {
        match self {
            Self::Gzip(encoder) => encoder.get_mut(),
            Self::Deflate(encoder) => encoder.get_mut(),
        }
    }

    fn take(&mut self) -> Bytes {
        std::mem::take(self.made()).into()
    }
}

/// A body on its way through a compressor.
pub(super) struct Compressing {
    source: Source,
    encoder: Encoder,
    /// Of the piece that came last, what was not compressed yet.
    rest: Bytes,
    /// The bytes in the compressor since it was last flushed or emptied.
    held: usize,
    end: End,
}

enum End {
    Open,
    /// Finished; the trailers follow, if there are any.
    Finished(Option<Frame<Bytes>>),
    Over,
}

impl Compressing {
    pub(super) fn new(source: Source, coding: Coding) -> Self {
        Self { source, encoder: Encoder::new(coding), rest: Bytes::new(), held: 0, end: End::Open }
    }

    fn flush(&mut self) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        self.held = 0;
        let flushed = self.encoder.writer().flush();
        Poll::Ready(Some(flushed.map(|()| Frame::data(self.encoder.take()))))
    }

    fn finish(&mut self, trailers: Option<Frame<Bytes>>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        self.end = End::Finished(trailers);
        let finished = self.encoder.finish();
        Poll::Ready(Some(finished.map(|()| Frame::data(self.encoder.take()))))
    }

    fn broken(&mut self, error: io::Error) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        self.end = End::Over;
        Poll::Ready(Some(Err(error)))
    }
}

impl Stream for Compressing {
    type Item = io::Result<Frame<Bytes>>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        match &mut this.end {
            End::Open => {}
            End::Finished(trailers) => {
                let trailers = trailers.take();
                this.end = End::Over;
                return Poll::Ready(trailers.map(Ok));
            }
            End::Over => return Poll::Ready(None),
        }
        loop {
            if !this.rest.is_empty() {
                let step = this.rest.split_to(this.rest.len().min(STEP));
                if let Err(error) = this.encoder.writer().write_all(&step) {
                    return this.broken(error);
                }
                this.held += step.len();
                if this.held >= TURN {
                    return this.flush();
                }
                if this.encoder.made().len() >= PIECE {
                    return Poll::Ready(Some(Ok(Frame::data(this.encoder.take()))));
                }
                if this.rest.has_remaining() {
                    continue;
                }
            }
            match this.source.as_mut().poll_next(cx) {
                Poll::Pending if this.held > 0 => return this.flush(),
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                    Ok(data) => this.rest = data,
                    Err(trailers) => return this.finish(Some(trailers)),
                },
                Poll::Ready(Some(Err(error))) => return this.broken(error),
                Poll::Ready(None) => return this.finish(None),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use futures_util::{FutureExt, StreamExt, stream};
    use tokio::sync::mpsc;

    use super::*;

    fn plain(coding: Coding, packed: &[u8]) -> io::Result<Vec<u8>> {
        let mut out = Vec::new();
        match coding {
            Coding::Gzip => flate2::read::GzDecoder::new(packed).read_to_end(&mut out)?,
            Coding::Deflate => flate2::read::ZlibDecoder::new(packed).read_to_end(&mut out)?,
        };
        Ok(out)
    }

    async fn all(mut compressing: Compressing) -> (Vec<u8>, bool, bool) {
        let (mut packed, mut trailers, mut broken) = (Vec::new(), false, false);
        while let Some(frame) = compressing.next().await {
            match frame.map(Frame::into_data) {
                Ok(Ok(data)) => packed.extend_from_slice(&data),
                Ok(Err(_)) => trailers = true,
                Err(_) => broken = true,
            }
        }
        (packed, trailers, broken)
    }

    #[tokio::test]
    async fn what_goes_in_comes_out_with_its_trailers() {
        let text: Vec<u8> = (0..300_000u32).flat_map(|n| n.to_string().into_bytes()).collect();
        for coding in [Coding::Gzip, Coding::Deflate] {
            let mut frames: Vec<_> = text.chunks(70_001).map(|chunk| Ok(Frame::data(Bytes::copy_from_slice(chunk)))).collect();
            frames.push(Ok(Frame::trailers(http::HeaderMap::new())));
            let (packed, trailers, broken) = all(Compressing::new(stream::iter(frames).boxed(), coding)).await;
            assert!(trailers && !broken && packed.len() < text.len() / 2, "{}", packed.len());
            assert_eq!(plain(coding, &packed).unwrap(), text);
        }
        let (packed, ..) = all(Compressing::new(stream::empty().boxed(), Coding::Gzip)).await;
        assert_eq!(plain(Coding::Gzip, &packed).unwrap(), b"");
    }

    #[tokio::test]
    async fn nothing_is_kept_back_while_nothing_comes() {
        let (send, mut receive) = mpsc::channel::<&'static str>(4);
        let source = stream::poll_fn(move |cx| receive.poll_recv(cx).map(|item| item.map(|text| Ok(Frame::data(Bytes::from(text))))));
        let mut compressing = Compressing::new(source.boxed(), Coding::Gzip);
        let mut packed = Vec::new();
        let mut said = String::new();
        for event in ["data: one\n\n", "data: two\n\n"] {
            send.send(event).await.unwrap();
            said.push_str(event);
            let piece = compressing.next().now_or_never().expect("the event goes on at once").unwrap().unwrap();
            packed.extend_from_slice(&piece.into_data().ok().unwrap());
            let mut out = Vec::new();
            let _ = flate2::read::GzDecoder::new(&packed[..]).read_to_end(&mut out);
            assert_eq!(String::from_utf8(out).unwrap(), said);
            assert!(compressing.next().now_or_never().is_none(), "and then there is nothing");
        }
    }

    #[tokio::test]
    async fn a_broken_source_does_not_look_whole() {
        let frames = [Ok(Frame::data(Bytes::from_static(b"half"))), Err(io::Error::other("gone"))];
        let (packed, _, broken) = all(Compressing::new(stream::iter(frames).boxed(), Coding::Gzip)).await;
        assert!(broken && plain(Coding::Gzip, &packed).is_err());
    }
}
