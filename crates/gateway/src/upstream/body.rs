//! The body of a request, so that it can be sent again where that may be needed.
//!
//! Invariant: only what says beforehand that it is small is read whole, within the limits for reading bodies; everything else
//! goes on as it comes and is sent once. A body that is there already is not copied.

use http::header::{CONTENT_ENCODING, TRAILER};
use http::request::Parts;
use http_body::Body as _;
use plinth_net::outbound::OutBody;
use plinth_net::{Request, RequestBody, content_length, read_body};
use plinth_types::{ByteSize, Error};

use super::pool::Pool;

/// The largest body that is kept.
pub(super) const REPLAYED: ByteSize = ByteSize::kib(64);

/// The body to send.
///
/// # Errors
/// Those of [`read_body`].
pub(super) async fn take(parts: &mut Parts, body: RequestBody, pool: &Pool, replays: bool) -> Result<OutBody, Error> {
    if body.is_end_stream() {
        return Ok(OutBody::empty());
    }
    let limits = pool.bodies();
    let is_small = content_length(&parts.headers).is_some_and(|length| length <= limits.max.0);
    // Trailers would be lost.
    if !replays || !is_small || parts.headers.contains_key(TRAILER) {
        return Ok(OutBody::streaming(body));
    }
    // Its coding is between the client and the upstream: it is kept as it is.
    let coding: Vec<_> = parts.headers.get_all(CONTENT_ENCODING).iter().cloned().collect();
    if !coding.is_empty() {
        parts.headers.remove(CONTENT_ENCODING);
    }
    let mut request = Request::new(body);
    std::mem::swap(request.headers_mut(), &mut parts.headers);
    let bytes = Box::pin(read_body(&mut request, limits)).await;
    std::mem::swap(request.headers_mut(), &mut parts.headers);
    for value in coding {
        parts.headers.append(CONTENT_ENCODING, value);
    }
    bytes.map(OutBody::full)
}
