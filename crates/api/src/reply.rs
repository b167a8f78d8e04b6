//! Answers in the shapes that handlers need.

use bytes::Bytes;
use futures_util::StreamExt;
use http::header::{CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderValue, StatusCode};
use plinth_net::{Body, Response};
use plinth_store::objects::ByteStream;
use plinth_types::{Error, Result};
use serde::Serialize;

/// 200 with a JSON body.
pub fn json<T: Serialize>(value: &T) -> Result<Response> {
    json_with(StatusCode::OK, value)
}

/// A status with a JSON body.
pub fn json_with<T: Serialize>(status: StatusCode, value: &T) -> Result<Response> {
    let text = serde_json::to_vec(value).map_err(|e| Error::internal("writing an answer").source(e))?;
    Ok(with_body(status, "application/json", text))
}

/// A status with bytes of this content type.
pub fn with_body(status: StatusCode, kind: &'static str, bytes: impl Into<Bytes>) -> Response {
    let mut response = Response::new(Body::full(bytes));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

/// 204.
pub fn nothing() -> Response {
    empty(StatusCode::NO_CONTENT)
}

/// A status without a body.
pub fn empty(status: StatusCode) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    response
}

/// 200 with so many bytes from a stream.
pub fn stream(size: u64, stream: ByteStream<'static>) -> Response {
    let mut response = Response::new(Body::stream(stream.boxed()));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    response.headers_mut().insert(CONTENT_LENGTH, size.into());
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
