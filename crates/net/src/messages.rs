//! Length-prefixed messages in a body, the framing of gRPC: a flag, four bytes of length, the message; again and again.
//!
//! Source: gRPC over HTTP2, "Length-Prefixed-Message".
//!
//! Invariants: a message is one contiguous buffer; one that lies whole in a piece of the body is a slice of it, any other
//! is copied once; what is set aside for a message grows with what has arrived, never with what its prefix says, and counts
//! in the memory of all bodies; a message that has begun must arrive at the least rate, while a peer may take its time
//! between messages (a dead one is found by the connection's own pings).

use bytes::{Buf, Bytes};
use plinth_types::{ByteSize, Error, Reason};
use tokio::time::{Instant, timeout_at};

use crate::RequestBody;
use crate::body_memory::HeldMemory;
use crate::encoding::{self, Coding};
use crate::pace::Pace;
use crate::read_body::{BodyLimits, broke_off, too_slow};

/// The length of a message's prefix.
pub const PREFIX: usize = 5;

/// Up to this size the buffer of a message is made at once.
const TRUSTED_LENGTH: usize = 1 << 20;

/// By how much a buffer grows: a peer must have sent a quarter of what is set aside for it.
const GROWTH: usize = 4;

/// A message as it came.
#[derive(Debug)]
pub struct Packed {
    bytes: Bytes,
    coding: Option<Coding>,
}

impl Packed {
    /// How many bytes came.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether no bytes came.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// The message, decompressed.
    ///
    /// # Errors
    /// `malformed_request`, `body_too_large` and `over_capacity`.
    pub async fn open(self, limits: &BodyLimits) -> Result<Bytes, Error> {
        match self.coding {
            None => Ok(self.bytes),
            Some(coding) => encoding::decode(coding, self.bytes, limits.max, &limits.memory).await.map_err(|error| match error.reason() {
                Reason::MalformedRequest => malformed("the message is not what grpc-encoding says").field("grpc-encoding"),
                Reason::BodyTooLarge => too_large(limits.max),
                _ => error,
            }),
        }
    }
}

/// The messages of a body, in order.
#[derive(Debug)]
pub struct Messages {
    body: RequestBody,
    coding: Option<Coding>,
    limits: BodyLimits,
    /// Of a piece, what was not read yet.
    rest: Bytes,
}

impl Messages {
    /// The messages of `body`; those that say that they are compressed are so with `coding`. The largest message, before
    /// and after decompression, has `limits.max` bytes; the limits of time hold for each message.
    #[must_use]
    pub const fn new(body: RequestBody, coding: Option<Coding>, limits: BodyLimits) -> Self {
        Self { body, coding, limits, rest: Bytes::new() }
    }

    /// The next message; `None` at the end of the body. A dropped call loses what it has read.
    ///
    /// # Errors
    /// `body_too_large`, `malformed_request`, `over_capacity`, and `upload_incomplete` when the body breaks off or is too
    /// slow. After an error there is nothing more to read.
    pub async fn next(&mut self) -> Result<Option<Packed>, Error> {
        // The end of a body often comes as a piece without bytes.
        while self.rest.is_empty() {
            match self.body.data().await {
                None => return Ok(None),
                Some(piece) => self.rest = piece.map_err(broke_off)?,
            }
        }
        self.read(&mut None).await.map(Some)
    }

    /// The one message of a body that has exactly one; the time for it runs from now on.
    ///
    /// # Errors
    /// As [`Self::next`]; `not_implemented` when there is another message.
    pub async fn only(mut self) -> Result<Packed, Error> {
        let mut clock = None;
        let message = self.read(&mut clock).await?;
        while self.rest.is_empty() {
            if http_body::Body::is_end_stream(&self.body) {
                return Ok(message);
            }
            match self.more(&mut clock).await? {
                Some(piece) => self.rest = piece,
                None => return Ok(message),
            }
        }
        Err(Error::new(Reason::NotImplemented, "this method takes one message; the call has more"))
    }

    /// A message, whose time begins with the first wait.
    async fn read(&mut self, clock: &mut Option<(Pace, Instant)>) -> Result<Packed, Error> {
        while self.rest.len() < PREFIX {
            let more = self.piece(clock).await?;
            // A prefix that was torn apart: rare, and at most four bytes before a piece.
            self.rest = if self.rest.is_empty() { more } else { [&self.rest[..], &more[..]].concat().into() };
        }
        let flag = self.rest[0];
        let length = u32::from_be_bytes([self.rest[1], self.rest[2], self.rest[3], self.rest[4]]) as usize;
        if length as u64 > self.limits.max.0 {
            return Err(too_large(self.limits.max).diagnostic(format!("announced {length} bytes")));
        }
        self.rest.advance(PREFIX);
        let coding = match (flag, self.coding) {
            (0, _) => None,
            (1, Some(coding)) => Some(coding),
            (1, None) => return Err(malformed("the message says that it is compressed, and no grpc-encoding says how")),
            _ => return Err(malformed("the message does not begin with 0 or 1 as gRPC's framing wants")),
        };
        let bytes = if self.rest.len() >= length { self.rest.split_to(length) } else { self.gather(length, clock).await? };
        Ok(Packed { bytes, coding })
    }

    /// Copies the pieces of a message together.
    async fn gather(&mut self, length: usize, clock: &mut Option<(Pace, Instant)>) -> Result<Bytes, Error> {
        let mut held = self.limits.memory.hold();
        let mut bytes = Vec::new();
        loop {
            let take = self.rest.len().min(length - bytes.len());
            grow(&mut bytes, take, length, &mut held)?;
            bytes.extend_from_slice(&self.rest[..take]);
            self.rest.advance(take);
            if bytes.len() == length {
                return Ok(held.into_bytes(bytes));
            }
            self.rest = self.piece(clock).await?;
        }
    }

    /// The next piece within a message, against the clock of that message.
    async fn piece(&mut self, clock: &mut Option<(Pace, Instant)>) -> Result<Bytes, Error> {
        let broken = || Error::new(Reason::UploadIncomplete, "the call ended before its message did");
        self.more(clock).await?.ok_or_else(broken)
    }

    /// The next piece that is not empty; `None` at the end of the body.
    async fn more(&mut self, clock: &mut Option<(Pace, Instant)>) -> Result<Option<Bytes>, Error> {
        let limits = &self.limits;
        let (pace, deadline) = clock.get_or_insert_with(|| (Pace::start(limits.min_rate, limits.window), Instant::now() + limits.timeout));
        loop {
            match timeout_at(pace.judged_at().min(*deadline), self.body.data()).await {
                Ok(None) => return Ok(None),
                Ok(Some(Err(error))) => return Err(broke_off(error)),
                Ok(Some(Ok(piece))) => {
                    pace.received(piece.len());
                    if !piece.is_empty() {
                        return Ok(Some(piece));
                    }
                }
                Err(_elapsed) => {}
            }
            if Instant::now() >= *deadline {
                let text = format!("the message did not arrive within {} s, so it was given up", limits.timeout.as_secs());
                return Err(Error::new(Reason::UploadIncomplete, text));
            }
            if !pace.judge() {
                return Err(too_slow(limits.min_rate));
            }
        }
    }
}

/// Makes room for `more` bytes of a message that has `length`.
fn grow(bytes: &mut Vec<u8>, more: usize, length: usize, held: &mut HeldMemory) -> Result<(), Error> {
    let wanted = bytes.len() + more;
    if wanted > bytes.capacity() {
        let capacity = TRUSTED_LENGTH.max(wanted.saturating_mul(GROWTH)).min(length).max(wanted);
        held.grow_to(capacity)?;
        bytes.reserve_exact(capacity - bytes.len());
    }
    Ok(())
}

fn malformed(text: &str) -> Error {
    Error::new(Reason::MalformedRequest, text)
}

fn too_large(max: ByteSize) -> Error {
    Error::new(Reason::BodyTooLarge, format!("the message is larger than {max}, the most that this server takes (grpc.max_message)"))
}

/// The prefix of a message.
///
/// # Errors
/// `internal` when its length does not fit the prefix.
pub fn prefix(compressed: bool, length: usize) -> Result<[u8; PREFIX], Error> {
    let length = u32::try_from(length).map_err(|e| Error::internal("a message for a client is too large").source(e))?;
    let [a, b, c, d] = length.to_be_bytes();
    Ok([u8::from(compressed), a, b, c, d])
}

/// A message in front of which stands its prefix already, compressed when that gains something.
///
/// # Errors
/// As [`prefix`].
pub async fn compressed(coding: Coding, pieces: Vec<Bytes>) -> Result<Vec<Bytes>, Error> {
    let mut payload = pieces.clone();
    if let Some(first) = payload.first_mut() {
        first.advance(PREFIX.min(first.len()));
    }
    let length: usize = payload.iter().map(Bytes::len).sum();
    if (length as u64) < encoding::MIN_COMPRESSED {
        return Ok(pieces);
    }
    let Some(packed) = encoding::encode(coding, payload).await else { return Ok(pieces) };
    Ok(vec![Bytes::copy_from_slice(&prefix(true, packed.len())?), packed])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::BodyMemory;
    use proptest::prelude::*;
    use std::time::Duration;

    fn limits(max: u64) -> BodyLimits {
        BodyLimits {
            max: ByteSize(max),
            min_rate: ByteSize(10),
            window: Duration::from_secs(10),
            timeout: Duration::from_secs(60),
            memory: BodyMemory::new(ByteSize::mib(4)),
        }
    }

    fn framed(message: &[u8]) -> Vec<u8> {
        [&prefix(false, message.len()).unwrap()[..], message].concat()
    }

    async fn read(pieces: impl IntoIterator<Item = Bytes>, coding: Option<Coding>, limits: &BodyLimits) -> Result<Vec<Bytes>, Reason> {
        let mut messages = Messages::new(RequestBody::pieces(pieces), coding, limits.clone());
        let mut all = Vec::new();
        loop {
            match messages.next().await {
                Ok(Some(packed)) => all.push(packed.open(limits).await.map_err(|e| e.reason())?),
                Ok(None) => return Ok(all),
                Err(error) => return Err(error.reason()),
            }
        }
    }

    #[tokio::test]
    async fn the_end_may_come_as_an_empty_piece() {
        let pieces = [Bytes::from(framed(b"abc")), Bytes::new(), Bytes::new()];
        assert_eq!(read(pieces, None, &limits(10)).await.unwrap(), [Bytes::from_static(b"abc")]);
    }

    #[tokio::test]
    async fn a_message_in_one_piece_is_not_copied() {
        let piece = Bytes::from([framed(&[7; 5000]), framed(b"")].concat());
        let read = read([piece.clone()], None, &limits(5000)).await.unwrap();
        assert_eq!((read[0].as_ptr(), read[0].len(), read[1].len()), (piece[5..].as_ptr(), 5000, 0));
    }

    #[tokio::test]
    async fn large_gathered_messages_are_counted_until_their_last_slice() {
        let limits = limits(2 << 20);
        let message = framed(&vec![3; 2 << 20]);
        let pieces: Vec<_> = message.chunks(16 << 10).map(Bytes::copy_from_slice).collect();
        let mut read = read(pieces.clone(), None, &limits).await.unwrap();
        assert_eq!((read[0].len(), limits.memory.used()), (2 << 20, 2 << 20));
        let slice = read.remove(0).slice(1..2);
        let other = Messages::new(RequestBody::pieces(pieces), None, limits.clone()).next().await;
        assert!(other.is_ok(), "two of them fit");
        drop((slice, other));
        assert_eq!(limits.memory.used(), 0);
    }

    #[tokio::test]
    async fn what_does_not_fit_is_refused_before_it_is_held() {
        let announced = [&prefix(false, 11).unwrap()[..], b"0"].concat();
        assert_eq!(read([announced.into()], None, &limits(10)).await, Err(Reason::BodyTooLarge));
        assert_eq!(read([Bytes::from_static(&[0, 0, 0, 0, 9, 1])], None, &limits(10)).await, Err(Reason::UploadIncomplete));
        assert_eq!(read([Bytes::from_static(&[0, 0, 0])], None, &limits(10)).await, Err(Reason::UploadIncomplete));
        assert_eq!(read([Bytes::from_static(&[1, 0, 0, 0, 0])], None, &limits(10)).await, Err(Reason::MalformedRequest));
        assert_eq!(read([Bytes::from_static(&[7, 0, 0, 0, 0])], None, &limits(10)).await, Err(Reason::MalformedRequest));
        let damaged = Bytes::from_static(&[1, 0, 0, 0, 1, 9]);
        assert_eq!(read([damaged], Some(Coding::Gzip), &limits(10)).await, Err(Reason::MalformedRequest));
    }

    #[tokio::test]
    async fn compressed_messages_come_back_and_bombs_stop() {
        let plain = framed(&vec![0; 100_000]);
        for coding in [Coding::Gzip, Coding::Deflate] {
            let packed = compressed(coding, vec![plain.clone().into()]).await.unwrap();
            assert_eq!(packed[0][0], 1);
            assert_eq!(read(packed.clone(), Some(coding), &limits(100_000)).await.unwrap(), [vec![0; 100_000]]);
            assert_eq!(read(packed, Some(coding), &limits(99_999)).await, Err(Reason::BodyTooLarge));
        }
        let small = vec![Bytes::from(framed(b"small"))];
        assert_eq!(compressed(Coding::Gzip, small.clone()).await.unwrap(), small);
    }

    #[tokio::test(start_paused = true)]
    async fn one_message_is_one_message() {
        let only = async |body| Messages::new(body, None, limits(10)).only().await.map(|p| p.len()).map_err(|e| e.reason());
        let one = Bytes::from(framed(b"abc"));
        assert_eq!(only(RequestBody::from(one.clone())).await, Ok(3));
        assert_eq!(only(RequestBody::pieces([one.clone(), Bytes::new()])).await, Ok(3));
        assert_eq!(only(RequestBody::pieces([one.clone(), one])).await, Err(Reason::NotImplemented));
        assert_eq!(only(RequestBody::empty()).await, Err(Reason::UploadIncomplete));
        assert_eq!(only(RequestBody::stuck()).await, Err(Reason::UploadIncomplete), "nothing came in time");
    }

    #[tokio::test(start_paused = true)]
    async fn a_message_that_gets_stuck_is_given_up_and_a_silence_before_one_is_not() {
        let mut messages = Messages::new(RequestBody::stuck(), None, limits(10));
        messages.rest = Bytes::from_static(&[0, 0]);
        let start = Instant::now();
        assert_eq!(messages.next().await.unwrap_err().reason(), Reason::UploadIncomplete);
        assert_eq!(start.elapsed().as_secs(), 10);
        messages.rest = Bytes::new();
        assert!(tokio::time::timeout(Duration::from_secs(1000), messages.next()).await.is_err());
    }

    proptest! {
        #[test]
        fn messages_come_out_however_the_bytes_are_cut(
            messages in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..40), 0..6),
            cuts in proptest::collection::vec(1usize..30, 1..20),
        ) {
            let mut bytes = Bytes::from(messages.iter().flat_map(|m| framed(m)).collect::<Vec<_>>());
            let mut pieces = Vec::new();
            for cut in cuts.iter().cycle() {
                if bytes.is_empty() { break }
                pieces.push(bytes.split_to((*cut).min(bytes.len())));
            }
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let read = runtime.block_on(read(pieces, None, &limits(100))).unwrap();
            prop_assert_eq!(read, messages.into_iter().map(Bytes::from).collect::<Vec<_>>());
        }
    }
}
