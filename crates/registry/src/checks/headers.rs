//! Headers, cookies and methods that people write into records.
//!
//! Invariant: nothing that is written can break a message apart (control characters), speak for a connection
//! (hop-by-hop), or pretend to come from the gateway or from an authenticated caller.

use http::{HeaderName, HeaderValue, Method};
use plinth_store::resources::gateway::{HeaderChanges, HeaderMatch, StickyKey, TextMatch};

use super::{at_most, patterns, shown};
use crate::problems::Problems;

const MAX_VALUE: usize = 4 << 10;
const MAX_CHANGES: usize = 32;

/// Of one connection, and so never of a message that is passed on (RFC 9110, 7.6.1), or written anew by the gateway.
const OF_THE_CONNECTION: [&str; 11] = [
    "connection",
    "content-length",
    "expect",
    "host",
    "http2-settings",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];
/// Says who asks. Only who asks may say so; to take it away is allowed.
const OF_THE_CALLER: [&str; 4] = ["authorization", "forwarded", "proxy-authorization", "x-forwarded-for"];
/// Headers of the gateway's own.
const OWN: &str = "x-plinth-";

fn name(problems: &mut Problems, field: &str, text: &str) -> Option<HeaderName> {
    let parsed = text.parse::<HeaderName>().ok().filter(|_| text.len() <= 256);
    problems.must(parsed.is_some(), field, || format!("'{}' is not the name of a header", shown(text)));
    parsed
}

fn value(problems: &mut Problems, field: &str, text: &str) {
    if text.len() > MAX_VALUE {
        problems.add(field, format!("a header's value has at most {MAX_VALUE} bytes"));
    } else if text.bytes().any(|b| b < 0x20 && b != b'\t' || b == 0x7f) {
        problems.add(field, "a header's value holds no control characters, such as line breaks");
    } else if HeaderValue::from_str(text).is_err() || !text.is_ascii() {
        problems.add(field, "a header's value holds visible ASCII characters only");
    }
}

/// Checks the changes that a route makes.
pub(super) fn changes(problems: &mut Problems, changes: &HeaderChanges) {
    let HeaderChanges { remove, set, add } = changes;
    at_most(problems, "remove", remove, MAX_CHANGES);
    problems.each("remove", remove, |p, text| {
        if let Some(name) = name(p, "", text) {
            not_reserved(p, "", &name, &[]);
        }
    });
    for (step, map) in [("set", set), ("add", add)] {
        problems.must(map.len() <= MAX_CHANGES, step, || format!("there are {} here; at most {MAX_CHANGES}", map.len()));
        problems.within(step, |p| {
            for (text, said) in map {
                if let Some(name) = name(p, text, text) {
                    not_reserved(p, text, &name, &OF_THE_CALLER);
                }
                value(p, text, said);
            }
        });
    }
}

fn not_reserved(problems: &mut Problems, field: &str, name: &HeaderName, also: &[&str]) {
    let name = name.as_str();
    if OF_THE_CONNECTION.contains(&name) {
        problems.add(field, format!("'{name}' belongs to the connection and is written by the gateway itself"));
    } else if name.starts_with(OWN) {
        problems.add(field, format!("headers that begin with {OWN} are the gateway's own"));
    } else if also.contains(&name) {
        problems.add(field, format!("'{name}' says who asks, and a route must not say that for somebody else"));
    }
}

/// Checks a condition on a header.
pub(super) fn condition(problems: &mut Problems, condition: &HeaderMatch) {
    name(problems, "name", &condition.name);
    match &condition.value {
        Some(TextMatch::Regex(pattern)) => expression(problems, "value.regex", pattern),
        Some(TextMatch::Exact(text)) => value(problems, "value.exact", text),
        Some(TextMatch::Prefix(text)) => value(problems, "value.prefix", text),
        None => {}
    }
}

/// Checks an expression that must match as a whole.
pub(super) fn expression(problems: &mut Problems, field: &str, pattern: &str) {
    if let Err(error) = patterns::whole(pattern) {
        problems.add(field, error.to_string());
    }
}

/// Checks what a caller is recognised by.
pub(super) fn sticky(problems: &mut Problems, key: &StickyKey) {
    match key {
        StickyKey::Header(text) => drop(name(problems, "header", text)),
        StickyKey::Cookie(text) => cookie(problems, "cookie", text),
        StickyKey::Tenant | StickyKey::User | StickyKey::Address => {}
    }
}

/// Checks the name of a cookie: a token (RFC 6265, 4.1.1), as a header's name is.
pub(super) fn cookie(problems: &mut Problems, field: &str, text: &str) {
    problems
        .must(text.parse::<HeaderName>().is_ok() && text.len() <= 256, field, || format!("'{}' is not the name of a cookie", shown(text)));
}

/// Checks the value of a cookie.
pub(super) fn cookie_value(problems: &mut Problems, field: &str, text: &str) {
    let fine = |b: u8| b.is_ascii_graphic() && !matches!(b, b'"' | b',' | b';' | b'\\');
    problems.must(text.len() <= MAX_VALUE && text.bytes().all(fine), field, || {
        "a cookie's value holds visible ASCII characters without quotes, commas, semicolons and backslashes".into()
    });
}

/// Checks names of methods.
pub(super) fn methods(problems: &mut Problems, field: &str, methods: &[String]) {
    at_most(problems, field, methods, 16);
    super::no_twins(problems, field, methods);
    problems.each(field, methods, |p, text| {
        let known = text.parse::<Method>().is_ok() && text.bytes().all(|b| b.is_ascii_uppercase() || b == b'-') && text.len() <= 32;
        let fine = known && !matches!(text.as_str(), "CONNECT" | "TRACE");
        p.must(fine, "", || format!("'{}' is not a method that is passed on; write it in capitals, such as GET", shown(text)));
    });
}

/// Checks names of headers in lists.
pub(super) fn names(problems: &mut Problems, field: &str, names: &[String]) {
    at_most(problems, field, names, 64);
    problems.each(field, names, |p, text| drop(name(p, "", text)));
}

/// Checks a content type.
pub(super) fn content_type(problems: &mut Problems, field: &str, text: &str) {
    value(problems, field, text);
    problems.must(text.contains('/'), field, || format!("'{}' is not a content type such as application/json", shown(text)));
}
