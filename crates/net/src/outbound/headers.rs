//! Headers that belong to one connection and not to the message (RFC 9110, 7.6.1).
//!
//! Invariant: none of them passes, in either direction; what `Connection` names does not pass either. Lengths and the transfer
//! coding are those of the connection at hand and are written anew.

use http::header::CONNECTION;
use http::{HeaderMap, HeaderName};

/// Whether a header ends here. `name` is in lower case.
pub(super) fn is_hop(name: &str) -> bool {
    matches!(name, "connection" | "keep-alive" | "te" | "trailer" | "transfer-encoding" | "upgrade" | "http2-settings")
        || name.starts_with("proxy-")
}

/// Whether a header of a request is not passed on: it ends here, or is written anew.
pub(super) fn is_own(name: &str) -> bool {
    is_hop(name) || matches!(name, "host" | "content-length" | "expect")
}

/// The names in `Connection` that are not said of the connection itself.
pub(super) fn named(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    let values = headers.get_all(CONNECTION).into_iter();
    values.filter_map(|value| value.to_str().ok()).flat_map(tokens).filter(|token| !is_plain(token))
}

/// The tokens of a list.
pub(super) fn tokens(value: &str) -> impl Iterator<Item = &str> {
    value.split(',').map(str::trim).filter(|token| !token.is_empty())
}

/// What stands in `Connection` on nearly every message.
fn is_plain(token: &str) -> bool {
    token.eq_ignore_ascii_case("close") || token.eq_ignore_ascii_case("keep-alive") || token.eq_ignore_ascii_case("upgrade")
}

/// Takes out what a client said of its own connection. [`Endpoint::send`](super::Endpoint::send) does it too; who adds headers
/// of its own calls this before, or a client could name them in `Connection` and so have them taken out again.
pub fn strip_hop_by_hop(headers: &mut HeaderMap) {
    let named = named(headers).filter_map(|name| name.parse().ok());
    let hop = headers.keys().filter(|name| is_hop(name.as_str()) && *name != "trailer").cloned();
    let out: Vec<HeaderName> = named.chain(hop).collect();
    for name in out {
        headers.remove(name);
    }
}
