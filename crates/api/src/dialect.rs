//! In which shape an error is said: each protocol has its own.

use http::StatusCode;
use plinth_net::Response;
use plinth_types::{Error, RequestId};

use crate::{oip, problem, reply};

/// The protocol that a path belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// Plinth's own routes: `application/problem+json`.
    Native,
    /// The Open Inference Protocol with Triton's extensions: `{"error": "…"}`.
    OpenInference,
    /// Everything on a gRPC listener: a status in the metadata, and no body.
    Grpc,
}

impl Dialect {
    /// The protocol of a path on an HTTP listener, whether or not it has a route.
    #[must_use]
    pub fn of_path(path: &str) -> Self {
        if path == "/v2" || path.starts_with("/v2/") { Self::OpenInference } else { Self::Native }
    }

    /// The answer that says what went wrong.
    #[must_use]
    pub fn render(self, error: &Error, request_id: &RequestId) -> Response {
        match self {
            Self::Native => problem::render(error, request_id),
            Self::Grpc => oip::grpc::status::refuse(error),
            Self::OpenInference => {
                let status = StatusCode::from_u16(oip::error::status(error.class())).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
                reply::with_body(status, "application/json", oip::error::body(error))
            }
        }
    }
}
