//! From a request to one contiguous buffer with its whole body, decompressed.
//!
//! Invariant: a body over the limit is refused before it is buffered, whether its announced length
//! says so, or more arrives than was announced, or it grows while it is decompressed. A body that
//! arrives in one piece is handed on as it is, without a copy.

use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH};
use plinth_types::{ByteSize, Error, Reason};
use tokio::time::{Instant, timeout_at};

use crate::body_memory::{BodyMemory, HeldMemory};
use crate::encoding::{self, Coding};
use crate::pace::Pace;
use crate::{Request, RequestBody};

/// The buffer is made as large as announced up to this size, or up to so many times what has arrived, but not over `MOST_TRUSTED`; beyond that
/// it grows with what arrives. So a peer who only announces holds next to nothing of the memory for bodies, and others' bodies find room.
const TRUSTED_LENGTH: usize = 2 << 10;
const TRUSTED_TIMES: usize = 8;
const MOST_TRUSTED: usize = 1 << 20;

/// What a body may cost.
#[derive(Debug, Clone)]
pub struct BodyLimits {
    /// The largest body, before and after decompression.
    pub max: ByteSize,
    /// The bytes per second that must arrive at least.
    pub min_rate: ByteSize,
    /// Over which time that is judged; a body has this long in any case.
    pub window: Duration,
    /// How long the whole body may take.
    pub timeout: Duration,
    /// What all bodies together may take.
    pub memory: BodyMemory,
}

/// Reads the whole body. The request keeps its head; its body is empty afterwards.
///
/// Cancel safe in that nothing is left behind; what was read is lost.
///
/// # Errors
/// `body_too_large`, `unsupported_encoding`, `upload_incomplete` when it breaks off or is too slow,
/// `malformed_request` when it cannot be decompressed, `over_capacity` when all bodies together take too much.
pub async fn read_body(request: &mut Request, limits: &BodyLimits) -> Result<Bytes, Error> {
    let coding = coding(request.headers())?;
    let announced = content_length(request.headers());
    if let Some(length) = announced.filter(|length| *length > limits.max.0) {
        return Err(too_large(limits.max).diagnostic(format!("announced {length} bytes")));
    }
    let body = std::mem::take(request.body_mut());
    let bytes = Reader { body, limits, announced, pace: Pace::start(limits.min_rate, limits.window) }.read().await?;
    match coding {
        None => Ok(bytes),
        Some(coding) => encoding::decode(coding, bytes, limits.max, &limits.memory).await,
    }
}

/// The announced length of a body, if there is one.
#[must_use]
pub fn content_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// How the body is compressed.
fn coding(headers: &HeaderMap) -> Result<Option<Coding>, Error> {
    let refuse = || {
        Error::new(Reason::UnsupportedEncoding, "this Content-Encoding is not understood; send gzip, deflate, or none")
            .field("Content-Encoding")
    };
    let mut values = headers.get_all(CONTENT_ENCODING).iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(refuse());
    }
    let value = value.to_str().map_err(|_| refuse())?.trim();
    if value.is_empty() || value.eq_ignore_ascii_case("identity") { Ok(None) } else { Coding::named(value).map(Some).ok_or_else(refuse) }
}

pub(crate) fn too_large(max: ByteSize) -> Error {
    Error::new(Reason::BodyTooLarge, format!("the body is larger than {max}, the most that this server takes"))
}

pub(crate) fn too_slow(limits_rate: ByteSize) -> Error {
    Error::new(Reason::UploadIncomplete, format!("the body arrived more slowly than {limits_rate} per second, so it was given up"))
}

pub(crate) fn broke_off(error: hyper::Error) -> Error {
    Error::new(Reason::UploadIncomplete, "the body ended before it was complete").source(error)
}

struct Reader<'a> {
    body: RequestBody,
    limits: &'a BodyLimits,
    announced: Option<u64>,
    pace: Pace,
}

impl Reader<'_> {
    async fn read(mut self) -> Result<Bytes, Error> {
        let deadline = Instant::now() + self.limits.timeout;
        let Some(first) = self.next(deadline).await? else { return Ok(Bytes::new()) };
        if http_body::Body::is_end_stream(&self.body) {
            return Ok(first);
        }
        let Some(second) = self.next(deadline).await? else { return Ok(first) };
        let mut buffer = Buffer { bytes: Vec::new(), held: self.limits.memory.hold(), max: self.limits.max, announced: self.announced };
        buffer.add(&first)?;
        buffer.add(&second)?;
        drop((first, second));
        while let Some(piece) = self.next(deadline).await? {
            buffer.add(&piece)?;
        }
        Ok(buffer.held.into_bytes(buffer.bytes))
    }

    /// The next piece that is not empty, within the limit on its own.
    async fn next(&mut self, deadline: Instant) -> Result<Option<Bytes>, Error> {
        loop {
            let until = self.pace.judged_at().min(deadline);
            match timeout_at(until, self.body.data()).await {
                Ok(None) => return Ok(None),
                Ok(Some(Err(error))) => return Err(broke_off(error)),
                Ok(Some(Ok(piece))) => {
                    self.pace.received(piece.len());
                    if piece.len() as u64 > self.limits.max.0 {
                        return Err(too_large(self.limits.max));
                    }
                    if !piece.is_empty() {
                        return Ok(Some(piece));
                    }
                }
                Err(_elapsed) => {}
            }
            if Instant::now() >= deadline {
                let text = format!("the body did not arrive within {} s, so it was given up", self.limits.timeout.as_secs());
                return Err(Error::new(Reason::UploadIncomplete, text));
            }
            if !self.pace.judge() {
                return Err(too_slow(self.limits.min_rate));
            }
        }
    }
}

struct Buffer {
    bytes: Vec<u8>,
    held: HeldMemory,
    max: ByteSize,
    announced: Option<u64>,
}

impl Buffer {
    fn add(&mut self, piece: &[u8]) -> Result<(), Error> {
        let wanted = self.bytes.len().saturating_add(piece.len());
        if wanted as u64 > self.max.0 {
            return Err(too_large(self.max));
        }
        if wanted > self.bytes.capacity() {
            let announced = self.announced.map_or(usize::MAX, |length| usize::try_from(length).unwrap_or(usize::MAX));
            let trusted = TRUSTED_LENGTH.max(wanted.saturating_mul(TRUSTED_TIMES)).min(MOST_TRUSTED);
            let doubled = self.bytes.capacity().saturating_mul(2).max(trusted).min(announced).min(self.max.as_usize());
            let capacity = doubled.max(wanted);
            self.held.grow_to(capacity)?;
            self.bytes.reserve_exact(capacity - self.bytes.len());
        }
        self.bytes.extend_from_slice(piece);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(max: u64) -> BodyLimits {
        BodyLimits {
            max: ByteSize(max),
            min_rate: ByteSize(10),
            window: Duration::from_secs(10),
            timeout: Duration::from_secs(60),
            memory: BodyMemory::new(ByteSize::mib(4)),
        }
    }

    fn request(body: RequestBody, headers: &[(&str, &str)]) -> Request {
        let mut builder = http::Request::builder();
        for (name, value) in headers {
            builder = builder.header(*name, *value);
        }
        builder.body(body).unwrap()
    }

    fn pieces(pieces: &[&[u8]]) -> RequestBody {
        RequestBody::pieces(pieces.iter().map(|piece| Bytes::copy_from_slice(piece)))
    }

    #[tokio::test]
    async fn one_piece_is_not_copied_and_several_are_joined() {
        let whole = Bytes::from(vec![1; 50_000]);
        let read = read_body(&mut request(whole.clone().into(), &[]), &limits(100_000)).await.unwrap();
        assert_eq!(read.as_ptr(), whole.as_ptr());
        let limits = limits(100_000);
        let mut request = request(pieces(&[b"ab", b"", b"cd", b"e"]), &[("content-length", "5")]);
        let read = read_body(&mut request, &limits).await.unwrap();
        assert_eq!((&read[..], limits.memory.used()), (&b"abcde"[..], 5));
        drop(read);
        assert_eq!(limits.memory.used(), 0);
        assert!(read_body(&mut request, &limits).await.unwrap().is_empty());
    }

    #[tokio::test]
    async fn too_large_is_refused_announced_or_not() {
        let announced = read_body(&mut request(RequestBody::stuck(), &[("content-length", "11")]), &limits(10)).await;
        assert_eq!(announced.unwrap_err().reason(), Reason::BodyTooLarge);
        for body in [pieces(&[b"0123456789a"]), pieces(&[b"01234", b"56789", b"a"])] {
            let refused = read_body(&mut request(body, &[]), &limits(10)).await;
            assert_eq!(refused.unwrap_err().reason(), Reason::BodyTooLarge);
        }
        assert_eq!(read_body(&mut request(pieces(&[b"01234", b"56789"]), &[]), &limits(10)).await.unwrap().len(), 10);
    }

    #[tokio::test]
    async fn all_bodies_together_are_bounded() {
        let mut limits = limits(1 << 20);
        limits.memory = BodyMemory::new(ByteSize(150_000));
        let body = || pieces(&[&[0; 50_000], &[0; 50_000]]);
        let length = [("content-length", "100000")];
        let first = read_body(&mut request(body(), &length), &limits).await.unwrap();
        let second = read_body(&mut request(body(), &length), &limits).await;
        assert_eq!(second.unwrap_err().reason(), Reason::OverCapacity);
        drop(first);
        assert!(read_body(&mut request(body(), &length), &limits).await.is_ok());
        assert_eq!(limits.memory.used(), 0);
    }

    #[tokio::test]
    async fn who_only_announces_holds_little() {
        let mut limits = limits(1 << 20);
        limits.memory = BodyMemory::new(ByteSize::kib(100));
        let mut buffer = Buffer { bytes: Vec::new(), held: limits.memory.hold(), max: limits.max, announced: Some(1 << 20) };
        buffer.add(b"ab").unwrap();
        assert_eq!(limits.memory.used(), TRUSTED_LENGTH as u64);
        buffer.add(&[0; 8 << 10]).unwrap();
        assert!(limits.memory.used() <= 65 << 10, "{}", limits.memory.used());
    }

    #[tokio::test(start_paused = true)]
    async fn a_stuck_body_is_given_up() {
        let start = Instant::now();
        let error = read_body(&mut request(RequestBody::stuck(), &[]), &limits(10)).await.unwrap_err();
        assert_eq!(error.reason(), Reason::UploadIncomplete);
        assert_eq!(start.elapsed().as_secs(), 10);
    }

    #[tokio::test]
    async fn unknown_encodings_are_refused() {
        for value in ["br", "gzip, gzip", "zstd", "gzip;q=1"] {
            let refused = read_body(&mut request(pieces(&[b"x"]), &[("content-encoding", value)]), &limits(10)).await;
            assert_eq!(refused.unwrap_err().reason(), Reason::UnsupportedEncoding, "{value}");
        }
        let twice = [("content-encoding", "gzip"), ("content-encoding", "identity")];
        assert!(read_body(&mut request(pieces(&[b"x"]), &twice), &limits(10)).await.is_err());
        assert_eq!(read_body(&mut request(pieces(&[b"x"]), &[("content-encoding", "identity")]), &limits(10)).await.unwrap(), "x");
    }
}
