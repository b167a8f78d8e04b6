//! The judgement of a raw HTTP/1 head, before anything is made of it.
//!
//! Two readers of one byte stream must not disagree on where a request ends: what one takes for a body,
//! the other may take for a request of somebody else (request smuggling). Invariant: a head passes only
//! if every reader that follows RFC 9112 finds the same end, the same host and the same length of the
//! body in it; everything that the RFC lets a recipient repair or guess is refused. One pass over the
//! bytes. Method, target and the characters of names are left to the parser behind, which refuses on its
//! own what is not a token or a URI; it never sees another framing than the one that passed here.

use http::StatusCode;
use memchr::memchr;

/// The most fields that a head may have; the parser behind has the same bound.
const MAX_FIELDS: usize = 100;

/// How the end of a body is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// It has this many bytes; 0 where there is none.
    Length(u64),
    /// RFC 9112, 7.1.
    Chunked,
}

/// Why a head does not pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refusal {
    pub status: StatusCode,
    /// For the client.
    pub why: &'static str,
}

impl Refusal {
    const fn bad(why: &'static str) -> Self {
        Self { status: StatusCode::BAD_REQUEST, why }
    }

    /// A head over its size, or with too many fields.
    const fn large(why: &'static str) -> Self {
        Self { status: StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, why }
    }
}

/// What was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Judgement {
    /// More bytes are needed.
    Partial,
    /// The head ends after `length` bytes.
    Whole {
        length: usize,
        framing: Framing,
    },
    Refused(Refusal),
}

/// Judges the head with which `bytes` begin. Heads of more than `max` bytes are refused.
pub fn judge(bytes: &[u8], max: usize) -> Judgement {
    match read(bytes, max) {
        Ok(Some((length, framing))) => Judgement::Whole { length, framing },
        Ok(None) => Judgement::Partial,
        Err(refusal) => Judgement::Refused(refusal),
    }
}

fn read(bytes: &[u8], max: usize) -> Result<Option<(usize, Framing)>, Refusal> {
    const TOO_LARGE: Refusal = Refusal::large("the head is larger than allowed");
    let mut at = 0;
    // RFC 9112, 2.2: empty lines before a request are passed over.
    while bytes[at..].starts_with(b"\r\n") {
        at += 2;
    }
    let (mut start, mut fields) = (None, Fields::default());
    loop {
        let Some(end) = memchr(b'\n', &bytes[at..]) else {
            return if bytes.len() > max { Err(TOO_LARGE) } else { Ok(None) };
        };
        let Some((b'\r', line)) = bytes[at..at + end].split_last() else {
            return Err(Refusal::bad("a line of the head ends without a carriage return"));
        };
        at += end + 1;
        if at > max {
            return Err(TOO_LARGE);
        }
        if has_control(line) {
            return Err(Refusal::bad("the head has a control character"));
        }
        match start {
            None => start = Some(Start::read(line)?),
            Some(start) if line.is_empty() => return fields.end(start).map(|framing| Some((at, framing))),
            Some(_) => fields.read(line)?,
        }
    }
}

/// Whether a line has a character that belongs to no field: all controls but the tab. Without an early
/// end, so that it takes 16 bytes at a time.
fn has_control(line: &[u8]) -> bool {
    line.iter().fold(false, |found, &byte| found | ((byte < 0x20) & (byte != b'\t')) | (byte == 0x7f))
}

/// The request line, as far as framing and host depend on it.
#[derive(Clone, Copy)]
struct Start<'a> {
    http_11: bool,
    /// Of a target in absolute form.
    authority: Option<&'a [u8]>,
}

impl<'a> Start<'a> {
    fn read(line: &'a [u8]) -> Result<Self, Refusal> {
        const MALFORMED: Refusal = Refusal::bad("the request line is not a method, a target and a version");
        let mut parts = line.split(|&byte| byte == b' ');
        let (Some(method), Some(target), Some(version), None) = (parts.next(), parts.next(), parts.next(), parts.next()) else {
            return Err(MALFORMED);
        };
        if method.is_empty() || target.is_empty() || line.contains(&b'\t') {
            return Err(MALFORMED);
        }
        let http_11 = match version {
            b"HTTP/1.1" => true,
            b"HTTP/1.0" => false,
            _ => return Err(Refusal::bad("the version is neither HTTP/1.0 nor HTTP/1.1")),
        };
        Ok(Self { http_11, authority: authority(target) })
    }
}

/// The authority of a target in absolute form.
fn authority(target: &[u8]) -> Option<&[u8]> {
    if target.first() == Some(&b'/') {
        return None;
    }
    let after =
        |scheme: &[u8]| target.get(..scheme.len()).filter(|start| start.eq_ignore_ascii_case(scheme)).map(|_| &target[scheme.len()..]);
    let rest = after(b"http://").or_else(|| after(b"https://"))?;
    let end = rest.iter().position(|byte| matches!(byte, b'/' | b'?' | b'#')).unwrap_or(rest.len());
    Some(&rest[..end])
}

/// What the fields say of framing and host.
#[derive(Default)]
struct Fields<'a> {
    count: usize,
    host: Option<&'a [u8]>,
    length: Option<u64>,
    chunked: bool,
}

impl<'a> Fields<'a> {
    fn read(&mut self, line: &'a [u8]) -> Result<(), Refusal> {
        self.count += 1;
        if self.count > MAX_FIELDS {
            return Err(Refusal::large("the head has too many fields"));
        }
        if matches!(line.first(), Some(b' ' | b'\t')) {
            return Err(Refusal::bad("a field goes on in a second line"));
        }
        let Some(colon) = memchr(b':', line) else {
            return Err(Refusal::bad("a line of the head has no colon"));
        };
        let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
        if matches!(name.last(), None | Some(b' ' | b'\t')) {
            return Err(Refusal::bad("a field has no name, or a space before its colon"));
        }
        match name.len() {
            4 if name.eq_ignore_ascii_case(b"host") => self.host(value),
            14 if name.eq_ignore_ascii_case(b"content-length") => self.length(value),
            17 if name.eq_ignore_ascii_case(b"transfer-encoding") => self.coding(value),
            _ => Ok(()),
        }
    }

    fn host(&mut self, value: &'a [u8]) -> Result<(), Refusal> {
        if self.host.replace(value).is_some() {
            return Err(Refusal::bad("there is more than one Host"));
        }
        if value.iter().any(|byte| matches!(byte, b' ' | b'\t' | b',' | b'/' | b'@' | b'?' | b'#' | b'\\')) {
            return Err(Refusal::bad("the Host is not a host and a port"));
        }
        Ok(())
    }

    fn length(&mut self, value: &[u8]) -> Result<(), Refusal> {
        const MALFORMED: Refusal = Refusal::bad("the Content-Length is not a number");
        if value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
            return Err(MALFORMED);
        }
        let length = str::from_utf8(value).ok().and_then(|text| text.parse().ok()).ok_or(MALFORMED)?;
        if self.length.replace(length).is_some() {
            return Err(Refusal::bad("there is more than one Content-Length"));
        }
        Ok(())
    }

    fn coding(&mut self, value: &[u8]) -> Result<(), Refusal> {
        if self.chunked || !value.eq_ignore_ascii_case(b"chunked") {
            return Err(Refusal::bad("the Transfer-Encoding is not exactly 'chunked'"));
        }
        self.chunked = true;
        Ok(())
    }

    /// The head is whole.
    fn end(self, start: Start<'_>) -> Result<Framing, Refusal> {
        match (self.host, start.authority) {
            (None, _) if start.http_11 => return Err(Refusal::bad("there is no Host")),
            (Some(host), Some(authority)) if !host.eq_ignore_ascii_case(authority) => {
                return Err(Refusal::bad("the target and the Host name different hosts"));
            }
            _ => {}
        }
        match (self.chunked, self.length) {
            (true, Some(_)) => Err(Refusal::bad("there are both Content-Length and Transfer-Encoding")),
            (true, None) if !start.http_11 => Err(Refusal::bad("HTTP/1.0 has no Transfer-Encoding")),
            (true, None) => Ok(Framing::Chunked),
            (false, length) => Ok(Framing::Length(length.unwrap_or(0))),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MAX: usize = 1024;

    fn of(text: &str) -> Judgement {
        judge(text.as_bytes(), MAX)
    }

    #[test]
    fn well_formed_heads_pass_with_their_framing() {
        for (fields, framing) in [
            ("", Framing::Length(0)),
            ("Content-Length: 7\r\n", Framing::Length(7)),
            ("content-length:\t18446744073709551615 \r\n", Framing::Length(u64::MAX)),
            ("Transfer-Encoding: Chunked\r\n", Framing::Chunked),
            ("x-empty:\r\nx: a\tb \u{e9}:\r\n", Framing::Length(0)),
        ] {
            let text = format!("POST /a?b=c HTTP/1.1\r\nHost: localhost:80\r\n{fields}\r\n");
            assert_eq!(of(&text), Judgement::Whole { length: text.len(), framing }, "{text:?}");
            assert_eq!(
                of(&format!("{text}GET / HTTP/1.1\r\n")),
                Judgement::Whole { length: text.len(), framing },
                "what follows is not its"
            );
        }
        for text in [
            "GET / HTTP/1.0\r\n\r\n",
            "\r\n\r\nGET http://LocalHost/x HTTP/1.1\r\nhost: localhost\r\n\r\n",
            "OPTIONS * HTTP/1.1\r\nhost:\r\n\r\n",
        ] {
            assert_eq!(of(text), Judgement::Whole { length: text.len(), framing: Framing::Length(0) }, "{text:?}");
        }
    }

    #[test]
    fn size_and_number_of_fields_are_bounded() {
        let large =
            |judgement| matches!(judgement, Judgement::Refused(Refusal { status: StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, .. }));
        assert!(large(of(&"\r\n".repeat(MAX))));
        assert!(large(of(&format!("GET / HTTP/1.1\r\nx: {}", "a".repeat(MAX)))));
        assert!(large(of(&format!("GET / HTTP/1.1\r\nx: {}\r\nhost: a\r\n\r\n", "a".repeat(MAX)))));
        assert!(large(of(&format!("GET / HTTP/1.1\r\nhost: a\r\n{}\r\n", "a:\r\n".repeat(100)))));
        assert!(!large(of(&format!("GET / HTTP/1.1\r\nhost: a\r\n{}\r\n", "a:\r\n".repeat(99)))));
    }

    proptest! {
        /// However a head is cut, its beginnings are partial, or refused for what the whole is refused for.
        #[test]
        fn a_beginning_never_passes_for_a_whole(
            fields in prop::collection::vec(prop::sample::select(vec![
                "host: a\r\n", "content-length: 3\r\n", "transfer-encoding: chunked\r\n", "x: y\r\n", " y\r\n", "x: y\n", "x\r\r\n",
            ]), 0..6),
            cut in any::<prop::sample::Index>(),
        ) {
            let text = format!("GET / HTTP/1.1\r\n{}\r\n", fields.concat());
            let (whole, part) = (of(&text), of(&text[..cut.index(text.len())]));
            prop_assert!(part == Judgement::Partial || part == whole, "{part:?} of {whole:?}");
            if let Judgement::Whole { length, .. } = whole {
                prop_assert_eq!(length, text.len());
                prop_assert_eq!(fields.iter().filter(|field| field.starts_with("host")).count(), 1);
                prop_assert!(fields.iter().filter(|field| !matches!(field.as_bytes()[0], b'h' | b'x')).count() <= 1);
            }
        }

        /// Nothing from outside makes it fail.
        #[test]
        fn any_bytes_are_judged(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            if let Judgement::Whole { length, .. } = judge(&bytes, 100) {
                prop_assert!(length <= bytes.len().min(100));
            }
        }
    }
}
