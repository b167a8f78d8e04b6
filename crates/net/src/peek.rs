//! The beginning of a body's first message, looked at before anybody takes the body.
//!
//! Invariants: at most a bounded beginning is kept, and all of it is put back, so that whoever reads the body next finds it as it came;
//! a body that is slow to begin is given up after the time that a body has.

use std::collections::VecDeque;

use bytes::Bytes;
use plinth_types::{Error, Reason};
use tokio::time::{Instant, timeout_at};

use crate::RequestBody;
use crate::encoding::{self, Coding};
use crate::messages::PREFIX;
use crate::read_body::{BodyLimits, broke_off};

/// What came first of a body.
#[derive(Default)]
struct Ahead {
    pieces: VecDeque<Bytes>,
    length: usize,
}

impl Ahead {
    fn push(&mut self, piece: Bytes) {
        self.length += piece.len();
        self.pieces.push_back(piece);
    }

    /// The first bytes in one piece: a slice of the first where they all are.
    fn begin(&self, length: usize) -> Bytes {
        let length = length.min(self.length);
        if let Some(first) = self.pieces.front().filter(|first| first.len() >= length) {
            return first.slice(..length);
        }
        let mut begin = Vec::with_capacity(length);
        for piece in &self.pieces {
            let room = length - begin.len();
            begin.extend_from_slice(&piece[..piece.len().min(room)]);
        }
        begin.into()
    }
}

/// Shows the beginning of the first message to `look` until that has seen enough; `None` when it has seen the whole message, or `most` bytes of it,
/// in vain, or when the body has no message. `look` is told whether it sees all of the message; a compressed one it sees decompressed.
///
/// Cancel safe only in that nothing else is harmed: a dropped call loses the body.
///
/// # Errors
/// `upload_incomplete` when the message does not begin within the time of a body, or the body breaks off.
pub async fn peek_message<T>(
    body: &mut RequestBody,
    coding: Option<Coding>,
    limits: &BodyLimits,
    most: usize,
    look: impl Fn(&[u8], bool) -> Option<T>,
) -> Result<Option<T>, Error> {
    let deadline = Instant::now() + limits.timeout;
    let mut ahead = Ahead::default();
    let found = loop {
        match judge(&ahead, coding, most, &look) {
            Judged::Found(found) => break Some(found),
            Judged::Vain => break None,
            Judged::More => {}
        }
        match timeout_at(deadline, body.data()).await {
            Ok(Some(piece)) => ahead.push(piece.map_err(broke_off)?),
            Ok(None) => break None,
            Err(_elapsed) => {
                let text = format!("the first message did not arrive within {} s, so the call was given up", limits.timeout.as_secs());
                return Err(Error::new(Reason::UploadIncomplete, text));
            }
        }
    };
    body.put_back(ahead.pieces);
    Ok(found)
}

enum Judged<T> {
    Found(T),
    More,
    Vain,
}

fn judge<T>(ahead: &Ahead, coding: Option<Coding>, most: usize, look: &impl Fn(&[u8], bool) -> Option<T>) -> Judged<T> {
    if ahead.length < PREFIX {
        return Judged::More;
    }
    let prefix = ahead.begin(PREFIX);
    let length = u32::from_be_bytes([prefix[1], prefix[2], prefix[3], prefix[4]]) as usize;
    let there = (ahead.length - PREFIX).min(length);
    let begin = ahead.begin(PREFIX + there.min(most));
    let mut whole = there == length && there <= most;
    let plain = match (prefix[0], coding) {
        (0, _) => begin.slice(PREFIX..),
        (1, Some(coding)) => {
            let (plain, ended) = encoding::decode_beginning(coding, &begin[PREFIX..], most);
            whole &= ended;
            plain.into()
        }
        // What this is, the reader says.
        _ => return Judged::Vain,
    };
    match look(&plain, whole) {
        Some(found) => Judged::Found(found),
        None if whole || there == length || there >= most || plain.len() >= most => Judged::Vain,
        None => Judged::More,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{BodyMemory, Messages};
    use plinth_types::ByteSize;
    use std::time::Duration;

    fn limits() -> BodyLimits {
        BodyLimits {
            max: ByteSize::mib(1),
            min_rate: ByteSize(10),
            window: Duration::from_secs(10),
            timeout: Duration::from_secs(60),
            memory: BodyMemory::new(ByteSize::mib(4)),
        }
    }

    fn framed(message: &[u8]) -> Vec<u8> {
        [&crate::messages::prefix(false, message.len()).unwrap()[..], message].concat()
    }

    /// Looks for a colon.
    fn colon(begin: &[u8], _: bool) -> Option<String> {
        let end = begin.iter().position(|byte| *byte == b':')?;
        Some(String::from_utf8_lossy(&begin[..end]).into_owned())
    }

    async fn peek(body: &mut RequestBody, coding: Option<Coding>, most: usize) -> Result<Option<String>, Reason> {
        peek_message(body, coding, &limits(), most, colon).await.map_err(|error| error.reason())
    }

    #[tokio::test]
    async fn what_was_looked_at_is_there_again() {
        let bytes = framed(b"name: and what follows, which is longer");
        for size in [1, 3, 7, 100] {
            let mut body = RequestBody::pieces(bytes.chunks(size).map(Bytes::copy_from_slice));
            assert_eq!(peek(&mut body, None, 1000).await.unwrap().as_deref(), Some("name"), "{size}");
            assert_eq!(http_body::Body::size_hint(&body).exact(), Some(bytes.len() as u64));
            let message = Messages::new(body, None, limits()).only().await.unwrap().open(&limits()).await.unwrap();
            assert_eq!(message, bytes[PREFIX..], "{size}");
        }
    }

    #[tokio::test]
    async fn a_compressed_message_shows_its_beginning() {
        let plain: Vec<u8> = b"name: ".iter().copied().chain((0..60_000u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8)).collect();
        for coding in [Coding::Gzip, Coding::Deflate] {
            let packed = crate::messages::compressed(coding, vec![framed(&plain).into()]).await.unwrap();
            let mut body = RequestBody::pieces(packed.concat().chunks(700).map(Bytes::copy_from_slice));
            assert_eq!(peek(&mut body, Some(coding), 4096).await.unwrap().as_deref(), Some("name"));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn looking_is_bounded_in_bytes_and_time() {
        let long = framed(&[b'x'; 10_000]);
        let mut body = RequestBody::pieces(long.chunks(100).map(Bytes::copy_from_slice));
        assert_eq!(peek(&mut body, None, 1000).await, Ok(None));
        for odd in [&b""[..], &[0, 0, 0], &[7, 0, 0, 0, 1, 1], &[1, 0, 0, 0, 1, 1], &framed(b"")] {
            assert_eq!(peek(&mut RequestBody::from(Bytes::copy_from_slice(odd)), None, 1000).await, Ok(None), "{odd:?}");
        }
        assert_eq!(peek(&mut RequestBody::stuck(), None, 1000).await, Err(Reason::UploadIncomplete));
    }
}
