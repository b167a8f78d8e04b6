//! How a call ends: the status codes of gRPC and the metadata that carry them.
//!
//! Source: gRPC over HTTP2, "Responses" and "Percent-Encoded"; `google.rpc.Code`.

use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use plinth_net::{Body, Response};
use plinth_types::{Class, Error, Reason};

use crate::oip::error::text;

/// The content type of every answer.
const GRPC: HeaderValue = HeaderValue::from_static("application/grpc");

/// The codings that are understood.
const CODINGS: HeaderValue = HeaderValue::from_static("identity,deflate,gzip");

pub(super) const STATUS: HeaderName = HeaderName::from_static("grpc-status");
const MESSAGE: HeaderName = HeaderName::from_static("grpc-message");
const ACCEPT_ENCODING: HeaderName = HeaderName::from_static("grpc-accept-encoding");
/// The stable word of the failure, for programs; the code alone is coarse.
const REASON: HeaderName = HeaderName::from_static("plinth-reason");

/// The longest message, in bytes before it is encoded; clients bound their metadata, by default at 8 KiB.
const MAX_MESSAGE: usize = 2048;

/// A status code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "the variants are gRPC's own words")]
pub enum Code {
    Ok = 0,
    InvalidArgument = 3,
    DeadlineExceeded = 4,
    NotFound = 5,
    AlreadyExists = 6,
    PermissionDenied = 7,
    ResourceExhausted = 8,
    FailedPrecondition = 9,
    Aborted = 10,
    Unimplemented = 12,
    Internal = 13,
    Unavailable = 14,
    Unauthenticated = 16,
}

/// The code of an error.
#[must_use]
pub const fn code(error: &Error) -> Code {
    match (error.reason(), error.class()) {
        // To gRPC a path without a route is a method that is not implemented.
        (Reason::RouteNotFound, _) => Code::Unimplemented,
        (Reason::AlreadyExists, _) => Code::AlreadyExists,
        // The client ended its side early, or was too slow: not something to correct in the message.
        (Reason::UploadIncomplete, _) => Code::Aborted,
        (_, class) => code_of_class(class),
    }
}

const fn code_of_class(class: Class) -> Code {
    match class {
        Class::InvalidArgument | Class::Unprocessable => Code::InvalidArgument,
        Class::Unauthenticated => Code::Unauthenticated,
        Class::Forbidden => Code::PermissionDenied,
        Class::NotFound => Code::NotFound,
        Class::MethodNotAllowed | Class::UnsupportedMedia | Class::Unimplemented => Code::Unimplemented,
        Class::Conflict | Class::LoopDetected => Code::FailedPrecondition,
        Class::TooLarge | Class::OverQuota => Code::ResourceExhausted,
        Class::Internal | Class::RunnerFailed => Code::Internal,
        Class::Unavailable => Code::Unavailable,
        Class::DeadlineExceeded => Code::DeadlineExceeded,
    }
}

/// The answer that is a failure and nothing else ("Trailers-Only").
#[must_use]
pub fn refuse(error: &Error) -> Response {
    let mut answer = Response::new(Body::empty());
    // The one case for which gRPC asks for another status: who calls does not speak gRPC.
    if error.class() == Class::UnsupportedMedia && error.field_name() == Some("content-type") {
        *answer.status_mut() = StatusCode::UNSUPPORTED_MEDIA_TYPE;
    }
    *answer.headers_mut() = trailers_of(error);
    answer.headers_mut().insert(CONTENT_TYPE, GRPC);
    if error.class() == Class::UnsupportedMedia {
        answer.headers_mut().insert(ACCEPT_ENCODING, CODINGS);
    }
    answer
}

/// A good answer in front of its messages.
pub(super) fn accept(body: Body) -> Response {
    let mut answer = Response::new(body);
    answer.headers_mut().insert(CONTENT_TYPE, GRPC);
    answer
}

/// The trailers of a call that went well.
pub(super) fn good() -> HeaderMap {
    let mut trailers = HeaderMap::with_capacity(1);
    trailers.insert(STATUS, HeaderValue::from_static("0"));
    trailers
}

/// The trailers of a call that failed.
pub(super) fn trailers_of(error: &Error) -> HeaderMap {
    let mut trailers = HeaderMap::with_capacity(4);
    trailers.insert(STATUS, HeaderValue::from(code(error) as u16));
    if let Ok(message) = HeaderValue::from_str(&encoded(&text(error))) {
        trailers.insert(MESSAGE, message);
    }
    trailers.insert(REASON, HeaderValue::from_static(error.reason().slug()));
    trailers
}

/// Percent-encodes what may not stand in a header, and the percent sign.
fn encoded(text: &str) -> String {
    let mut end = text.len().min(MAX_MESSAGE);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    let mut encoded = String::with_capacity(end);
    for byte in text[..end].bytes() {
        if (0x20..=0x7e).contains(&byte) && byte != b'%' {
            encoded.push(char::from(byte));
        } else {
            let digit = |n: u8| char::from_digit(u32::from(n), 16).unwrap_or('0').to_ascii_uppercase();
            encoded.extend(['%', digit(byte >> 4), digit(byte & 15)]);
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn every_reason_has_a_code() {
        let of = |reason| code(&Error::new(reason, "x"));
        for reason in Reason::ALL {
            assert_ne!(of(*reason), Code::Ok, "{reason}");
        }
        assert_eq!(of(Reason::RouteNotFound), Code::Unimplemented);
        assert_eq!(of(Reason::ModelNotFound), Code::NotFound);
        assert_eq!(of(Reason::QueueFull), Code::Unavailable);
        assert_eq!(of(Reason::BodyTooLarge), Code::ResourceExhausted);
        assert_eq!(of(Reason::RunnerCrashed), Code::Internal);
        assert_eq!(of(Reason::CredentialsMissing), Code::Unauthenticated);
        assert_eq!(of(Reason::NotPermitted), Code::PermissionDenied);
    }

    #[test]
    fn a_refusal_is_trailers_only() {
        let answer = refuse(&Error::new(Reason::InvalidTensor, "100 % wrong: é\n").field("inputs[0]"));
        assert!(answer.body().is_empty() && answer.status() == 200);
        assert_eq!(answer.headers()[&STATUS], "3");
        assert_eq!(answer.headers()[&MESSAGE], "100 %25 wrong: %C3%A9%0A (inputs[0])");
        assert_eq!(answer.headers()[&REASON], "invalid_tensor");
        let strange = refuse(&Error::new(Reason::UnsupportedEncoding, "x").field("content-type"));
        assert_eq!((strange.status().as_u16(), &strange.headers()[&STATUS]), (415, &HeaderValue::from_static("12")));
    }

    proptest! {
        #[test]
        fn any_text_becomes_a_header_that_can_be_read_back(text in any::<String>()) {
            let encoded = encoded(&text);
            prop_assert!(HeaderValue::from_str(&encoded).is_ok());
            let mut bytes = Vec::new();
            let mut rest = encoded.bytes();
            while let Some(byte) = rest.next() {
                let hex = |b: Option<u8>| char::from(b.unwrap()).to_digit(16).unwrap() as u8;
                bytes.push(if byte == b'%' { hex(rest.next()) << 4 | hex(rest.next()) } else { byte });
            }
            prop_assert!(text.as_bytes().starts_with(&bytes) && (bytes.len() == text.len() || bytes.len() + 4 > MAX_MESSAGE));
        }
    }
}
