//! Compression of bodies: gzip, and deflate in the zlib form that HTTP means by it (RFC 9110, 8.4.1).
//!
//! Invariant: decompression stops at the limit on the body, whatever the input promises; work on
//! more than a few KiB is done on a blocking thread, not on one that serves.

use std::io::{Read, Write};

use bytes::Bytes;
use flate2::Compression;
use http::header::{ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_LENGTH, VARY};
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
            let (name, parameters) = item.split_once(';').unwrap_or((item, ""));
            let quality = parameters.trim().strip_prefix("q=").map_or(Some(1.0), |q| q.trim().parse::<f32>().ok()).unwrap_or(0.0);
            // "*" is not taken as a wish: clients that send it rarely mean it.
            let Some(coding) = Self::named(name.trim()) else { continue };
            if quality > 0.0 && best.is_none_or(|(_, known)| quality > known) {
                best = Some((coding, quality));
            }
        }
        best.map(|(coding, _)| coding)
    }
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
    parts.headers.remove(CONTENT_LENGTH);
    parts.headers.insert(CONTENT_ENCODING, HeaderValue::from_static(coding.as_str()));
    parts.headers.append(VARY, HeaderValue::from_static("Accept-Encoding"));
    http::Response::from_parts(parts, body.replaced(compressed))
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
            ("identity", None),
        ] {
            assert_eq!(accepted(value), coding, "{value}");
        }
        assert_eq!(Coding::accepted(&HeaderMap::new()), None);
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
