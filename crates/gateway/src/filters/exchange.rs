//! Between HTTP and what filters are told and say. Pure.
//!
//! Invariants: a filter sees no credentials and no cookies; it changes no header by which connections are kept or bodies are framed,
//! and none that it may not see; a change that cannot be made makes none of its answer's changes.

use std::sync::Arc;

use bytes::Bytes;
use http::header::{
    AUTHORIZATION, CONNECTION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, COOKIE, EXPECT, HOST, PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION, SET_COOKIE, TE, TRAILER, TRANSFER_ENCODING, UPGRADE,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri};
use plinth_filters::abi::kind;
use plinth_filters::{Answer, Change, Message};
use plinth_net::{Body, Response};

use super::loaded::Loaded;

/// What is not shown, and not changed.
const HIDDEN: [HeaderName; 5] = [AUTHORIZATION, PROXY_AUTHORIZATION, PROXY_AUTHENTICATE, COOKIE, SET_COOKIE];
/// What is shown and not changed.
const FIXED: [HeaderName; 9] = [CONNECTION, CONTENT_ENCODING, CONTENT_LENGTH, EXPECT, HOST, TE, TRAILER, TRANSFER_ENCODING, UPGRADE];

/// What is said of any request.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    pub route: Arc<str>,
    pub method: Method,
    pub uri: Uri,
}

/// Tells a filter of a request, or with `status` of its answer.
pub(super) fn message(asked: &Asked, status: Option<StatusCode>, headers: &HeaderMap, filter: &Loaded, body: Option<Bytes>) -> Message {
    let mut message = Message::new();
    message.add(kind::METHOD, b"", asked.method.as_str().as_bytes());
    message.add(kind::PATH, b"", asked.uri.path_and_query().map_or("/", |path| path.as_str()).as_bytes());
    message.add(kind::ROUTE, b"", asked.route.as_bytes());
    if let Some(status) = status {
        message.add(kind::STATUS, b"", status.as_str().as_bytes());
    }
    for (name, value) in &filter.values {
        message.add(kind::VALUE, name.as_bytes(), value.as_bytes());
    }
    for (name, value) in headers.iter().filter(|(name, _)| !HIDDEN.contains(name)) {
        message.add(kind::HEADER, name.as_str().as_bytes(), value.as_bytes());
    }
    match body {
        Some(body) => message.with_body(body),
        None => message,
    }
}

/// A change that can be made.
pub(super) enum Edit {
    Set(HeaderName, HeaderValue),
    Add(HeaderName, HeaderValue),
    Remove(HeaderName),
}

/// The changes of an answer.
///
/// # Errors
/// What is wrong with one of them.
pub(super) fn edits(answer: &Answer) -> Result<Vec<Edit>, &'static str> {
    let name = |bytes: &Bytes| {
        let name = HeaderName::from_bytes(bytes).map_err(|_| "it names a header that is none")?;
        let free = !HIDDEN.contains(&name) && !FIXED.contains(&name) && name != "keep-alive" && name != "proxy-connection";
        if free { Ok(name) } else { Err("it changes a header that filters may not change") }
    };
    let value = |bytes: &Bytes| HeaderValue::from_bytes(bytes).map_err(|_| "it has a value that no header can have");
    let edit = |change: &Change| {
        Ok(match change {
            Change::Set(key, text) => Edit::Set(name(key)?, value(text)?),
            Change::Add(key, text) => Edit::Add(name(key)?, value(text)?),
            Change::Remove(key) => Edit::Remove(name(key)?),
        })
    };
    answer.headers.iter().map(edit).collect()
}

/// Makes changes.
pub(super) fn apply(edits: Vec<Edit>, headers: &mut HeaderMap) {
    for edit in edits {
        match edit {
            Edit::Set(name, value) => drop(headers.insert(name, value)),
            Edit::Add(name, value) => drop(headers.append(name, value)),
            Edit::Remove(name) => drop(headers.remove(name)),
        }
    }
}

/// The answer that a filter gives itself.
pub(super) fn own_answer(status: u16, edits: Vec<Edit>, body: Option<Bytes>) -> Response {
    let mut answer = Response::new(body.map_or_else(Body::empty, Body::full));
    *answer.status_mut() = StatusCode::from_u16(status).unwrap_or_default();
    apply(edits, answer.headers_mut());
    answer
}

/// Whether a body is said to be JSON.
pub(super) fn is_json(headers: &HeaderMap) -> bool {
    let kind = headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    kind == "application/json" || (kind.starts_with("application/") && kind.ends_with("+json"))
}

/// Whether a request's body is a stream of messages, which cannot be read whole before it goes on.
pub(super) fn is_grpc(headers: &HeaderMap) -> bool {
    headers.get(CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"))
}

/// Says how long a body is now, and that it is not packed.
pub(super) fn frame(headers: &mut HeaderMap, length: usize) {
    for name in [CONTENT_ENCODING, TRANSFER_ENCODING, TRAILER] {
        headers.remove(name);
    }
    headers.insert(CONTENT_LENGTH, length.into());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_filters_may_not_change_they_do_not() {
        let set =
            |name: &'static str, value: &'static str| Answer { headers: vec![Change::Set(name.into(), value.into())], ..Answer::default() };
        assert!(edits(&set("x-good", "yes")).is_ok());
        for (name, value) in [
            ("Authorization", "Bearer x"),
            ("cookie", "a=b"),
            ("set-cookie", "a=b"),
            ("Content-Length", "3"),
            ("transfer-encoding", "chunked"),
            ("connection", "close"),
            ("keep-alive", "1"),
            ("host", "other"),
            ("upgrade", "websocket"),
            ("bad name", "x"),
            ("", "x"),
            ("x-split", "a\r\nx-evil: b"),
            ("x-nul", "a\0b"),
        ] {
            assert!(edits(&set(name, value)).is_err(), "{name}");
        }
    }

    #[test]
    fn json_is_known_by_its_name() {
        let said = |kind: &'static str| is_json(&HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static(kind))]));
        assert!(said("application/json") && said("Application/JSON; charset=utf-8") && said("application/problem+json"));
        assert!(!said("text/event-stream") && !said("application/octet-stream") && !said("text/json-lines"));
        assert!(!is_json(&HeaderMap::new()));
    }
}
