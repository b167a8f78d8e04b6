//! The head of an answer, from bytes.
//!
//! Invariant: how long the body is never depends on which of two statements one believes: two lengths that differ, a length beside
//! chunks, a coding other than `chunked` are errors (RFC 9112, 6.3). Folded lines and control characters are errors too.

use std::mem::MaybeUninit;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use http::header::{CONNECTION, UPGRADE};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

use crate::outbound::chunked::{Chunks, Framing};
use crate::outbound::error::Kind;
use crate::outbound::headers::{is_hop, tokens};

/// The most header lines.
const MAX_HEADERS: usize = 100;

/// Room in the headers of an answer for what is added to them on the way to the client, so that they need not grow.
const ROOM: usize = 12;

/// What was asked, as far as it says how to read the answer.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asked {
    pub head: bool,
    pub upgrade: bool,
}

/// The head of an answer.
#[derive(Debug)]
pub(in crate::outbound) struct Head {
    pub status: StatusCode,
    /// Without what belongs to the connection.
    pub headers: HeaderMap,
    /// `None`: there is no body.
    pub framing: Option<Framing>,
    /// Whether the connection can be used again.
    pub keep: bool,
    /// How long the upstream keeps it.
    pub kept_for: Option<Duration>,
}

#[derive(Debug)]
pub(super) enum Parsed {
    /// More bytes are needed.
    Partial,
    /// A 1xx, which was passed over.
    Informational,
    Head(Head),
}

/// Takes the head off the buffer when it is whole.
pub(super) fn answer(buffer: &mut BytesMut, asked: Asked, max_head: usize) -> Result<Parsed, Kind> {
    let mut lines = [const { MaybeUninit::uninit() }; MAX_HEADERS];
    let mut parsed = httparse::Response::new(&mut []);
    let config = httparse::ParserConfig::default();
    let length = match config.parse_response_with_uninit_headers(&mut parsed, buffer, &mut lines).map_err(wrong)? {
        httparse::Status::Complete(length) if length <= max_head => length,
        httparse::Status::Partial if buffer.len() <= max_head => return Ok(Parsed::Partial),
        _ => return Err(Kind::TooLarge),
    };
    let status = parsed.code.and_then(|code| StatusCode::from_u16(code).ok()).ok_or(Kind::Protocol("no such status"))?;
    let switches = status == StatusCode::SWITCHING_PROTOCOLS;
    if status.is_informational() && !switches {
        buffer.advance(length);
        return Ok(Parsed::Informational);
    }
    if switches && !asked.upgrade {
        return Err(Kind::Protocol("it switches protocols unasked"));
    }
    let whole = Bytes::copy_from_slice(buffer.get(..length).unwrap_or_default());
    let mut reading = Reading::new(parsed.headers.len(), parsed.version == Some(1));
    for line in parsed.headers.iter() {
        let name = HeaderName::from_bytes(line.name.as_bytes()).map_err(|_| Kind::Protocol("a header has no valid name"))?;
        // Where the value stands in the copy is where it stood in the buffer.
        let start = (line.value.as_ptr().addr()).saturating_sub(buffer.as_ptr().addr());
        let value = whole.slice(start..start + line.value.len());
        let value = HeaderValue::from_maybe_shared(value).map_err(|_| Kind::Protocol("a header has no valid value"))?;
        reading.header(name, value, switches)?;
    }
    buffer.advance(length);
    reading.finish(status, asked).map(Parsed::Head)
}

fn wrong(error: httparse::Error) -> Kind {
    match error {
        httparse::Error::TooManyHeaders => Kind::TooLarge,
        httparse::Error::HeaderName | httparse::Error::HeaderValue => Kind::Protocol("a header that is not valid"),
        httparse::Error::Version => Kind::Protocol("not HTTP/1"),
        _ => Kind::Protocol("not an answer of HTTP/1"),
    }
}

/// What was read of a head so far.
struct Reading {
    headers: HeaderMap,
    /// Whether this is HTTP/1.1, not 1.0.
    current: bool,
    length: Option<u64>,
    chunked: bool,
    close: bool,
    keep_alive: bool,
    kept_for: Option<Duration>,
    named: Vec<HeaderName>,
}

impl Reading {
    fn new(lines: usize, current: bool) -> Self {
        Self {
            headers: HeaderMap::with_capacity(lines + ROOM),
            current,
            length: None,
            chunked: false,
            close: false,
            keep_alive: false,
            kept_for: None,
            named: Vec::new(),
        }
    }

    fn header(&mut self, name: HeaderName, value: HeaderValue, switches: bool) -> Result<(), Kind> {
        match name.as_str() {
            "content-length" => {
                if self.length(&value)? {
                    self.headers.insert(name, value);
                }
            }
            "transfer-encoding" => {
                if self.chunked || !value.as_bytes().eq_ignore_ascii_case(b"chunked") {
                    return Err(Kind::Protocol("a transfer coding other than chunked"));
                }
                self.chunked = true;
            }
            "connection" => self.connection(&value),
            "keep-alive" => self.kept_for = kept_for(&value),
            "upgrade" if switches => {
                self.headers.append(name, value);
            }
            hop if is_hop(hop) => {}
            _ => {
                self.headers.append(name, value);
            }
        }
        Ok(())
    }

    /// Whether this is the first statement of a length.
    fn length(&mut self, value: &HeaderValue) -> Result<bool, Kind> {
        let text = value.to_str().unwrap_or_default();
        let first = self.length.is_none();
        for part in text.split(',').map(str::trim) {
            let digits = !part.is_empty() && part.len() <= 19 && part.bytes().all(|byte| byte.is_ascii_digit());
            let length = part.parse().ok().filter(|_| digits).ok_or(Kind::Protocol("a Content-Length that is not a number"))?;
            if self.length.is_some_and(|known| known != length) {
                return Err(Kind::Protocol("two lengths that differ"));
            }
            self.length = Some(length);
        }
        // A list of equal lengths is one length.
        Ok(first && !text.contains(','))
    }

    fn connection(&mut self, value: &HeaderValue) {
        for token in value.to_str().into_iter().flat_map(tokens) {
            if token.eq_ignore_ascii_case("close") {
                self.close = true;
            } else if token.eq_ignore_ascii_case("keep-alive") {
                self.keep_alive = true;
            } else if let Ok(name) = token.parse::<HeaderName>() {
                self.named.push(name);
            }
        }
    }

    fn finish(mut self, status: StatusCode, asked: Asked) -> Result<Head, Kind> {
        if self.chunked && (self.length.is_some() || !self.current) {
            return Err(Kind::Protocol("a length beside chunks"));
        }
        for name in std::mem::take(&mut self.named) {
            if name != UPGRADE && name != http::header::CONTENT_LENGTH {
                self.headers.remove(name);
            }
        }
        let switches = status == StatusCode::SWITCHING_PROTOCOLS;
        if switches {
            self.headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        }
        if switches || status == StatusCode::NO_CONTENT {
            self.headers.remove(http::header::CONTENT_LENGTH);
        }
        let no_body = asked.head || switches || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
        let framing = match self.length {
            _ if no_body => None,
            _ if self.chunked => Some(Framing::Chunked(Chunks::Size)),
            Some(length) => Some(Framing::Length(length)),
            None => Some(Framing::Close),
        };
        let keep = !self.close && !switches && (self.current || self.keep_alive) && framing != Some(Framing::Close);
        Ok(Head { status, headers: self.headers, framing, keep, kept_for: self.kept_for })
    }
}

/// `Keep-Alive: timeout=5, max=100`.
fn kept_for(value: &HeaderValue) -> Option<Duration> {
    let seconds = tokens(value.to_str().ok()?).find_map(|token| token.strip_prefix("timeout="))?;
    seconds.trim().parse().ok().map(Duration::from_secs)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const GET: Asked = Asked { head: false, upgrade: false };

    fn parse(text: impl AsRef<[u8]>, asked: Asked) -> Result<Head, Kind> {
        match answer(&mut BytesMut::from(text.as_ref()), asked, 1 << 15)? {
            Parsed::Head(head) => Ok(head),
            other => panic!("not a whole head: {other:?}"),
        }
    }

    fn of(lines: &str) -> Result<Head, Kind> {
        parse(format!("HTTP/1.1 200 OK\r\n{lines}\r\n"), GET)
    }

    #[test]
    fn the_length_of_a_body() {
        for (lines, framing, keep) in [
            ("content-length: 5\r\n", Framing::Length(5), true),
            ("content-length: 0\r\n", Framing::Length(0), true),
            ("content-length: 5\r\ncontent-length: 5\r\n", Framing::Length(5), true),
            ("content-length: 5, 5\r\n", Framing::Length(5), true),
            ("content-length: 5\r\nconnection: close\r\n", Framing::Length(5), false),
            ("transfer-encoding: Chunked\r\n", Framing::Chunked(Chunks::Size), true),
            ("", Framing::Close, false),
        ] {
            let head = of(lines).unwrap();
            assert_eq!((head.framing, head.keep), (Some(framing), keep), "{lines}");
        }
        for (status, asked, upgrade) in [("204 x", false, false), ("304 x", false, false), ("200 x", true, false), ("101 x", false, true)] {
            let head = parse(format!("HTTP/1.1 {status}\r\ncontent-length: 7\r\n\r\n"), Asked { head: asked, upgrade }).unwrap();
            assert_eq!((head.framing, head.keep), (None, !upgrade), "{status}");
        }
        assert!(parse("HTTP/1.0 200 x\r\ncontent-length: 1\r\nconnection: keep-alive\r\n\r\n", GET).unwrap().keep);
        assert!(!parse("HTTP/1.0 200 x\r\ncontent-length: 1\r\n\r\n", GET).unwrap().keep);
    }

    #[test]
    fn what_is_ambiguous_or_malformed_is_refused() {
        for lines in [
            "content-length: 5\r\ncontent-length: 6\r\n",
            "content-length: 5, 6\r\n",
            "content-length: 5,\r\n",
            "content-length: +5\r\n",
            "content-length: -5\r\n",
            "content-length: 0x5\r\n",
            "content-length: 5 5\r\n",
            "content-length:\r\n",
            "content-length: 99999999999999999999\r\n",
            "content-length: 5\r\ntransfer-encoding: chunked\r\n",
            "transfer-encoding: chunked\r\ncontent-length: 5\r\n",
            "transfer-encoding: gzip, chunked\r\n",
            "transfer-encoding: identity\r\n",
            "transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n",
            "transfer-encoding: \x0bchunked\r\n",
            "transfer-encoding : chunked\r\n",
            "x: a\r\n b\r\n",
            "x: a\0b\r\n",
            "x: a\x7fb\r\n",
            "x: a\rb\r\n",
            "x y: a\r\n",
            ": a\r\n",
            " x: a\r\n",
        ] {
            assert!(matches!(of(lines), Err(Kind::Protocol(_))), "{lines:?}");
        }
        for text in [
            "HTTP/2.0 200 OK\r\n\r\n",
            "HTTP/1.1 20 OK\r\n\r\n",
            "HTTP/1.1 099 x\r\n\r\n",
            "GET / HTTP/1.1\r\n\r\n",
            "\0\0\0\0\0",
            "HTTP/1.1 101 x\r\n\r\n",
        ] {
            assert!(matches!(parse(text, GET), Err(Kind::Protocol(_))), "{text:?}");
        }
        assert_eq!(of(&"x: y\r\n".repeat(101)).unwrap_err(), Kind::TooLarge);
        assert_eq!(of(&format!("x: {}\r\n", "y".repeat(40_000))).unwrap_err(), Kind::TooLarge);
        let both = parse("HTTP/1.0 200 x\r\ntransfer-encoding: chunked\r\n\r\n", GET);
        assert!(matches!(both, Err(Kind::Protocol(_))));
    }

    #[test]
    fn what_belongs_to_the_connection_stays_there() {
        let head = of("Connection: keep-alive, X-Own\r\nX-Own: 1\r\nKeep-Alive: timeout=5, max=9\r\nProxy-Authenticate: x\r\nUpgrade: h2c\r\nTrailer: x\r\ncontent-length: 1\r\nSet-Cookie: a\r\nSet-Cookie: b\r\n").unwrap();
        let mut names: Vec<_> = head.headers.iter().map(|(name, value)| format!("{name}={}", value.to_str().unwrap())).collect();
        names.sort();
        assert_eq!(names, ["content-length=1", "set-cookie=a", "set-cookie=b"]);
        assert_eq!(head.kept_for, Some(Duration::from_secs(5)));
        let switched = parse(
            "HTTP/1.1 101 x\r\nconnection: Upgrade\r\nupgrade: websocket\r\nsec-websocket-accept: y\r\n\r\n",
            Asked { upgrade: true, ..GET },
        )
        .unwrap();
        assert_eq!(
            (&switched.headers["connection"], &switched.headers["upgrade"]),
            (&HeaderValue::from_static("upgrade"), &HeaderValue::from_static("websocket"))
        );
    }

    proptest! {
        #[test]
        fn nothing_panics_and_a_head_is_taken_whole(lines in "[ -~\r\n\t]{0,200}") {
            let mut buffer = BytesMut::from(format!("HTTP/1.1 200 OK\r\n{lines}\r\n\r\nrest").as_bytes());
            if let Ok(Parsed::Head(_)) = answer(&mut buffer, GET, 1 << 15) {
                prop_assert!(buffer.ends_with(b"rest"));
            }
        }
    }
}
