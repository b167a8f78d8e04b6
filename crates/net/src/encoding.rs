//! Compression of bodies: gzip, and deflate in the zlib form that HTTP means by it (RFC 9110, 8.4.1).
//!
//! Invariant: decompression stops at the limit on the body, whatever the input promises; work on
//! more than a few KiB is done on a blocking thread, not on one that serves.

mod stream;

use std::io::{Read, Write};

use bytes::Bytes;
use flate2::Compression;
use http::header::{ACCEPT_ENCODING, ACCEPT_RANGES, CONTENT_ENCODING, CONTENT_LENGTH, ETAG, VARY};
use http::{HeaderMap, HeaderValue};
use plinth_types::{ByteSize, Error, Reason};

use crate::Response;
use crate::body_memory::{BodyMemory, HeldMemory};
use crate::read_body::too_large;

/// Compressed bodies above this size are decompressed elsewhere: a KiB may become a MiB.
const INLINE_COMPRESSED: usize = 1 << 10;

/// Plain bodies above this size are compressed elsewhere.
const INLINE_PLAIN: usize = 32 << 10;

/// Answers below this size are not compressed: the gain is not worth the work.
pub const MIN_COMPRESSED: u64 = 1 << 10;

/// A way to compress.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Coding {
    /// gzip (RFC 1952).
    Gzip,
    /// deflate, which is zlib (RFC 1950).
    Deflate,
}

impl Coding {
    /// The coding with this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        match name.to_ascii_lowercase().as_str() {
            "gzip" | "x-gzip" => Some(Self::Gzip),
            "deflate" => Some(Self::Deflate),
            _ => None,
        }
    }

    /// Its name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Deflate => "deflate",
        }
    }

    /// The coding that the request prefers for its answer; `None` when it asks for none that is known here.
    #[must_use]
    pub fn accepted(headers: &HeaderMap) -> Option<Self> {
        let mut best: Option<(Self, f32)> = None;
        let values = headers.get_all(ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok());
        for item in values.flat_map(|value| value.split(',')) {
            let (name, weight) = item.split_once(';').map_or((item, None), |(name, weight)| (name, Some(weight)));
            let quality = weight.map_or(1.0, |weight| quality(weight).unwrap_or(0.0));
            // "*" is not taken as a wish: clients that send it rarely mean it.
            let Some(coding) = Self::named(name.trim()) else { continue };
            if quality > 0.0 && best.is_none_or(|(_, known)| quality > known) {
                best = Some((coding, quality));
            }
        }
        best.map(|(coding, _)| coding)
    }
}

/// A weight as RFC 9110, 12.4.2 has it: from 0 to 1 with at most three decimals.
fn quality(weight: &str) -> Option<f32> {
    let (name, value) = weight.trim().split_once('=')?;
    let (value, decimals) = (value.trim(), value.trim().split_once('.').map_or("", |(_, decimals)| decimals));
    let plain = value.starts_with(['0', '1']) && decimals.len() <= 3 && value.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    value.parse().ok().filter(|quality| plain && name.trim().eq_ignore_ascii_case("q") && *quality <= 1.0)
}

/// Decompresses a whole body.
pub(crate) async fn decode(coding: Coding, body: Bytes, max: ByteSize, memory: &BodyMemory) -> Result<Bytes, Error> {
    let held = memory.hold();
    if body.len() <= INLINE_COMPRESSED {
        return decode_now(coding, &body, max, held);
    }
    let work = move || decode_now(coding, &body, max, held);
    tokio::task::spawn_blocking(work).await.map_err(|e| Error::internal("decompression").source(e))?
}

fn decode_now(coding: Coding, body: &[u8], max: ByteSize, held: HeldMemory) -> Result<Bytes, Error> {
    match coding {
        Coding::Gzip => read_to(&mut flate2::read::MultiGzDecoder::new(body), max, held),
        Coding::Deflate => {
            let mut decoder = flate2::read::ZlibDecoder::new(body);
            let bytes = read_to(&mut decoder, max, held)?;
            // gzip allows several members, zlib does not: what follows was never looked at.
            if decoder.total_in() != body.len() as u64 { Err(malformed()) } else { Ok(bytes) }
        }
    }
}

/// Decompresses the beginning of a body, up to `most` bytes; whether that is all of it. What is damaged ends it.
pub(crate) fn decode_beginning(coding: Coding, body: &[u8], most: usize) -> (Vec<u8>, bool) {
    let mut plain = Vec::new();
    // One more than is kept: a body that ends there is whole.
    let limit = most as u64 + 1;
    let read = match coding {
        Coding::Gzip => flate2::read::MultiGzDecoder::new(body).take(limit).read_to_end(&mut plain),
        Coding::Deflate => flate2::read::ZlibDecoder::new(body).take(limit).read_to_end(&mut plain),
    };
    let ended = read.is_ok() && plain.len() <= most;
    plain.truncate(most);
    (plain, ended)
}

fn malformed() -> Error {
    Error::new(Reason::MalformedRequest, "the body is not what its Content-Encoding says").field("Content-Encoding")
}

fn read_to(reader: &mut impl Read, max: ByteSize, mut held: HeldMemory) -> Result<Bytes, Error> {
    const STEP: usize = 64 << 10;
    let mut bytes = Vec::new();
    loop {
        // The buffer grows before it is filled, so that the bound on memory holds at every moment.
        if bytes.capacity() - bytes.len() < STEP {
            let capacity = bytes.capacity().saturating_mul(2).min(max.as_usize()).max(bytes.len().saturating_add(STEP));
            held.grow_to(capacity)?;
            bytes.reserve_exact(capacity - bytes.len());
        }
        let read = reader.take(STEP as u64).read_to_end(&mut bytes).map_err(|e| malformed().source(e))?;
        if bytes.len() as u64 > max.0 {
            return Err(too_large(max).diagnostic("while decompressing"));
        }
        if read == 0 {
            return Ok(held.into_bytes(bytes));
        }
    }
}

/// Compresses an answer when the request asked for it and the answer is whole, not compressed yet and large enough.
///
/// The guards of the body stay with it. Cancel safe.
pub async fn compress(response: Response, coding: Option<Coding>) -> Response {
    let Some(coding) = coding else { return response };
    let large = response.body().len().is_some_and(|length| length >= MIN_COMPRESSED);
    let Some(pieces) = response.body().pieces().filter(|_| large && !response.headers().contains_key(CONTENT_ENCODING)) else {
        return response;
    };
    let Some(compressed) = encode(coding, pieces).await else { return response };
    let (mut parts, body) = response.into_parts();
    say(&mut parts.headers, coding);
    http::Response::from_parts(parts, body.replaced(compressed))
}

/// The same also for an answer that is still coming, whose length is not known or was announced as large enough. Whether an answer may be
/// compressed at all is for the caller to know.
pub async fn compress_coming(response: Response, coding: Coding) -> Response {
    if response.body().len().is_some() {
        return compress(response, Some(coding)).await;
    }
    let small = crate::content_length(response.headers()).is_some_and(|length| length < MIN_COMPRESSED);
    if small || response.headers().contains_key(CONTENT_ENCODING) {
        return response;
    }
    let (mut parts, body) = response.into_parts();
    say(&mut parts.headers, coding);
    http::Response::from_parts(parts, body.changed(|stream| Box::pin(stream::Compressing::new(stream, coding))))
}

/// Says in the headers of an answer that it is compressed.
fn say(headers: &mut HeaderMap, coding: Coding) {
    headers.remove(CONTENT_LENGTH);
    // Ranges of the plain bytes are no ranges of these.
    headers.remove(ACCEPT_RANGES);
    headers.insert(CONTENT_ENCODING, HeaderValue::from_static(coding.as_str()));
    if let Some(weak) = headers.get(ETAG).filter(|tag| !tag.as_bytes().starts_with(b"W/")).map(|tag| [b"W/", tag.as_bytes()].concat())
        && let Ok(weak) = HeaderValue::from_maybe_shared(Bytes::from(weak))
    {
        headers.insert(ETAG, weak);
    }
    vary(headers);
}

/// Says that the answer depends on what compression its caller takes.
pub fn vary(headers: &mut HeaderMap) {
    let said = headers.get_all(VARY).iter().filter_map(|value| value.to_str().ok());
    let named = said
        .flat_map(|value| value.split(','))
        .any(|name| matches!(name.trim(), "*") || name.trim().eq_ignore_ascii_case("accept-encoding"));
    if !named {
        headers.append(VARY, HeaderValue::from_static("Accept-Encoding"));
    }
}

/// Compresses pieces together; `None` when nothing is gained, or when it fails: the plain bytes are as good. Cancel safe.
pub async fn encode(coding: Coding, pieces: Vec<Bytes>) -> Option<Bytes> {
    let length: usize = pieces.iter().map(Bytes::len).sum();
    let compressed = if length <= INLINE_PLAIN {
        encode_now(coding, &pieces)
    } else {
        tokio::task::spawn_blocking(move || encode_now(coding, &pieces)).await.unwrap_or_else(|e| Err(std::io::Error::other(e)))
    };
    compressed.ok().filter(|compressed| compressed.len() < length).map(Bytes::from)
}

fn encode_now(coding: Coding, pieces: &[Bytes]) -> std::io::Result<Vec<u8>> {
    let level = Compression::fast();
    match coding {
        Coding::Gzip => {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), level);
            pieces.iter().try_for_each(|piece| encoder.write_all(piece))?;
            encoder.finish()
        }
        Coding::Deflate => {
            let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), level);
            pieces.iter().try_for_each(|piece| encoder.write_all(piece))?;
            encoder.finish()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Body;
    use std::sync::Arc;

    fn encoded(coding: Coding, bytes: &[u8]) -> Bytes {
        encode_now(coding, &[Bytes::copy_from_slice(bytes)]).unwrap().into()
    }

    async fn decoded(coding: Coding, body: Bytes, max: u64) -> Result<Bytes, Reason> {
        let memory = BodyMemory::new(ByteSize::mib(8));
        let result = decode(coding, body, ByteSize(max), &memory).await.map_err(|e| e.reason());
        if result.is_err() {
            assert_eq!(memory.used(), 0);
        }
        result
    }

    #[tokio::test]
    async fn what_was_compressed_comes_back() {
        let noise: Vec<u8> = (0..200_000u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        for coding in [Coding::Gzip, Coding::Deflate] {
            for plain in [&b""[..], b"x", &noise] {
                assert_eq!(decoded(coding, encoded(coding, plain), plain.len() as u64).await.unwrap(), plain);
            }
        }
        let members = [encoded(Coding::Gzip, b"a"), encoded(Coding::Gzip, b"b")].concat();
        assert_eq!(decoded(Coding::Gzip, members.into(), 10).await.unwrap(), "ab");
    }

    #[tokio::test]
    async fn a_bomb_stops_at_the_limit() {
        // 32 MiB of zeros: about 140 KiB of gzip with the fast level, decompressed no further than 1 MiB.
        for coding in [Coding::Gzip, Coding::Deflate] {
            let bomb = encoded(coding, &vec![0; 32 << 20]);
            assert!(bomb.len() < 400_000);
            assert_eq!(decoded(coding, bomb, 1 << 20).await, Err(Reason::BodyTooLarge));
        }
        let memory = BodyMemory::new(ByteSize::kib(256));
        let bomb = encoded(Coding::Gzip, &vec![0; 32 << 20]);
        let refused = decode(Coding::Gzip, bomb, ByteSize::mib(64), &memory).await.unwrap_err();
        assert_eq!(refused.reason(), Reason::OverCapacity);
    }

    #[tokio::test]
    async fn damaged_input_is_refused() {
        for coding in [Coding::Gzip, Coding::Deflate] {
            let good = encoded(coding, b"hello hello hello");
            assert_eq!(decoded(coding, good.slice(..good.len() - 3), 100).await, Err(Reason::MalformedRequest));
            assert_eq!(decoded(coding, Bytes::from_static(b"not compressed"), 100).await, Err(Reason::MalformedRequest));
            let trailing = [&good[..], b"rest"].concat();
            assert_eq!(decoded(coding, trailing.into(), 100).await, Err(Reason::MalformedRequest));
        }
    }

    #[test]
    fn the_client_chooses() {
        let accepted = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(ACCEPT_ENCODING, value.parse().unwrap());
            Coding::accepted(&headers)
        };
        for (value, coding) in [
            ("gzip, deflate", Some(Coding::Gzip)),
            ("gzip;q=0.2, deflate;q=0.9", Some(Coding::Deflate)),
            ("gzip;q=0", None),
            ("br, *", None),
            ("GZIP;q=x", None),
            ("gzip;q=inf, deflate;q=0.1", Some(Coding::Deflate)),
            ("gzip;q=1.5", None),
            ("gzip ; Q=0.5 , deflate;q=0.501", Some(Coding::Deflate)),
            ("gzip;q=0.0001", None),
            ("gzip;level=9", None),
            ("identity", None),
        ] {
            assert_eq!(accepted(value), coding, "{value}");
        }
        assert_eq!(Coding::accepted(&HeaderMap::new()), None);
    }

    #[tokio::test]
    async fn answers_that_come_are_compressed_as_they_come() {
        let held = Arc::new(());
        let answer = |headers: &[(http::HeaderName, &str)]| {
            let pieces = [Ok(Bytes::from(vec![b'a'; 50_000])), Ok(Bytes::from(vec![b'b'; 50_000]))];
            let mut answer = Response::new(Body::stream(futures_util::stream::iter(pieces)).with_guard(held.clone()));
            answer.headers_mut().extend(headers.iter().map(|(name, value)| (name.clone(), value.parse().unwrap())));
            answer
        };
        let packed =
            compress_coming(answer(&[(ETAG, "\"1\""), (ACCEPT_RANGES, "bytes"), (VARY, "origin, accept-encoding")]), Coding::Gzip).await;
        assert_eq!((&packed.headers()[CONTENT_ENCODING], &packed.headers()[ETAG]), (&"gzip".parse().unwrap(), &"W/\"1\"".parse().unwrap()));
        assert!(!packed.headers().contains_key(ACCEPT_RANGES) && packed.headers().get_all(VARY).iter().count() == 1);
        assert_eq!(Arc::strong_count(&held), 2);
        let bytes = packed.into_body().into_bytes().await.unwrap();
        assert_eq!(Arc::strong_count(&held), 1);
        assert!(bytes.len() < 1000 && decoded(Coding::Gzip, bytes, 100_000).await.unwrap().len() == 100_000);
        for header in [(CONTENT_LENGTH, "1000"), (CONTENT_ENCODING, "br")] {
            let as_it_was = compress_coming(answer(&[header]), Coding::Gzip).await;
            assert_eq!(as_it_was.into_body().into_bytes().await.unwrap().len(), 100_000);
        }
    }

    #[tokio::test]
    async fn large_answers_are_compressed_and_keep_their_guards() {
        let held = Arc::new(());
        let plain = Bytes::from(vec![b'a'; 100_000]);
        let body = Body::chain([plain.slice(..60_000), plain.slice(60_000..)]).with_guard(held.clone());
        let answer = compress(Response::new(body), Some(Coding::Gzip)).await;
        assert_eq!(answer.headers()[CONTENT_ENCODING], "gzip");
        assert_eq!(answer.headers()[VARY], "Accept-Encoding");
        assert_eq!(Arc::strong_count(&held), 2);
        let bytes = answer.into_body().into_bytes().await.unwrap();
        assert_eq!(Arc::strong_count(&held), 1);
        assert_eq!(decoded(Coding::Gzip, bytes, 100_000).await.unwrap(), plain);
        for (body, coding) in [(Body::full("small"), Some(Coding::Gzip)), (Body::full(plain), None)] {
            assert!(!compress(Response::new(body), coding).await.headers().contains_key(CONTENT_ENCODING));
        }
    }
}
