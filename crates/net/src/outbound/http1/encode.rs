//! The head of a request, as bytes.

use std::io::Write;

use http::header::{CONNECTION, HOST, UPGRADE};
use http::{HeaderName, HeaderValue, Method};

use super::Asking;
use crate::outbound::body::OutBody;
use crate::outbound::error::{Kind, OutboundError};
use crate::outbound::headers;

/// How the end of a request's body is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sending {
    /// There is no body.
    Nothing,
    /// So many bytes.
    Length(u64),
    Chunked,
}

/// Writes the head into `out`, which is emptied first.
pub(super) fn request(out: &mut Vec<u8>, asking: Asking<'_>, body: &OutBody) -> Result<Sending, OutboundError> {
    let Asking { parts, address, upgrade, .. } = asking;
    if parts.method == Method::CONNECT {
        return Err(OutboundError::unsent(Kind::Request("CONNECT is not forwarded")));
    }
    out.clear();
    let (prefix, path) = address.target(&parts.uri);
    for text in [parts.method.as_str(), " ", prefix, path, " HTTP/1.1\r\n"] {
        out.extend_from_slice(text.as_bytes());
    }
    line(out, &HOST, address.authority());
    let named: Vec<&str> = if parts.headers.contains_key(CONNECTION) { headers::named(&parts.headers).collect() } else { Vec::new() };
    for (name, value) in &parts.headers {
        let passes = !headers::is_own(name.as_str()) && !named.iter().any(|named| name.as_str().eq_ignore_ascii_case(named));
        if passes {
            line(out, name, value);
        }
    }
    if upgrade {
        let to = parts.headers.get(UPGRADE).ok_or_else(|| OutboundError::unsent(Kind::Request("it does not say what to upgrade to")))?;
        line(out, &CONNECTION, &HeaderValue::from_static("upgrade"));
        line(out, &UPGRADE, to);
    }
    let sending = match body.len() {
        Some(0) if matches!(parts.method, Method::POST | Method::PUT | Method::PATCH) => {
            out.extend_from_slice(b"content-length: 0\r\n");
            Sending::Nothing
        }
        Some(0) => Sending::Nothing,
        Some(length) => {
            // Writing into a vector does not fail.
            let _ = write!(out, "content-length: {length}\r\n");
            Sending::Length(length)
        }
        None => {
            out.extend_from_slice(b"transfer-encoding: chunked\r\n");
            Sending::Chunked
        }
    };
    out.extend_from_slice(b"\r\n");
    Ok(sending)
}

fn line(out: &mut Vec<u8>, name: &HeaderName, value: &HeaderValue) {
    out.extend_from_slice(name.as_str().as_bytes());
    out.extend_from_slice(b": ");
    out.extend_from_slice(value.as_bytes());
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use http::Request;
    use proptest::prelude::*;

    use super::*;
    use crate::RequestBody;

    fn encode(request: http::request::Builder, body: &OutBody, upgrade: bool) -> Result<(String, Sending), Kind> {
        let (parts, ()) = request.body(()).unwrap().into_parts();
        let address = "http://up.example:8000/v1".parse().unwrap();
        let mut out = b"left from before".to_vec();
        let asking = Asking { parts: &parts, address: &address, upgrade, max_head: 1 << 15 };
        let sending = super::request(&mut out, asking, body).map_err(|error| error.kind)?;
        Ok((String::from_utf8(out).unwrap(), sending))
    }

    #[test]
    fn what_belongs_to_the_client_s_connection_stays_there() {
        let request = Request::post("http://me/x?y=z")
            .header("host", "me")
            .header("connection", "keep-alive, X-Secret")
            .header("connection", "close, x-other")
            .header("x-secret", "1")
            .header("x-other", "2")
            .header("keep-alive", "timeout=5")
            .header("te", "trailers")
            .header("trailer", "x")
            .header("transfer-encoding", "chunked")
            .header("content-length", "77")
            .header("proxy-authorization", "x")
            .header("proxy-connection", "close")
            .header("upgrade", "h2c")
            .header("http2-settings", "AA")
            .header("expect", "100-continue")
            .header("accept", "a")
            .header("accept", "b");
        let (head, sending) = encode(request, &OutBody::full("abc"), false).unwrap();
        assert_eq!(head, "POST /v1/x?y=z HTTP/1.1\r\nhost: up.example:8000\r\naccept: a\r\naccept: b\r\ncontent-length: 3\r\n\r\n");
        assert_eq!(sending, Sending::Length(3));
    }

    #[test]
    fn bodies_are_framed() {
        let tail = |method: &str, body: &OutBody| {
            let (head, sending) = encode(Request::builder().method(method).uri("/"), body, false).unwrap();
            (head.split_once("8000\r\n").unwrap().1.to_owned(), sending)
        };
        assert_eq!(tail("GET", &OutBody::empty()), ("\r\n".into(), Sending::Nothing));
        assert_eq!(tail("POST", &OutBody::empty()), ("content-length: 0\r\n\r\n".into(), Sending::Nothing));
        let unknown = OutBody::streaming(RequestBody::stuck());
        assert_eq!(tail("PUT", &unknown), ("transfer-encoding: chunked\r\n\r\n".into(), Sending::Chunked));
    }

    #[test]
    fn an_upgrade_says_what_to() {
        let request = || Request::get("/").header("connection", "Upgrade");
        let (head, _) = encode(request().header("upgrade", "websocket"), &OutBody::empty(), true).unwrap();
        assert!(head.ends_with("connection: upgrade\r\nupgrade: websocket\r\n\r\n"), "{head}");
        assert!(matches!(encode(request(), &OutBody::empty(), true), Err(Kind::Request(_))));
        assert!(matches!(encode(Request::connect("a:1"), &OutBody::empty(), false), Err(Kind::Request(_))));
    }

    proptest! {
        /// Whatever a client sends, the upstream reads one request with one framing.
        #[test]
        fn one_request_stays_one(headers in prop::collection::vec(("[a-zA-Z-]{1,12}", "[ -~]{0,20}"), 0..12)) {
            let mut request = Request::post("/");
            for (name, value) in &headers {
                request = request.header(name, value);
            }
            let (head, _) = encode(request, &OutBody::full("abc"), false).unwrap();
            prop_assert_eq!(head.matches("\r\n\r\n").count(), 1);
            let lower = head.to_ascii_lowercase();
            prop_assert_eq!(lower.matches("\r\ncontent-length:").count(), 1);
            prop_assert_eq!(lower.matches("\r\ntransfer-encoding:").count(), 0);
            prop_assert_eq!(lower.matches("\r\nhost:").count(), 1);
        }
    }
}
