//! Errors in the Triton dialect: `{"error": "…"}` and the dialect's own statuses.
//!
//! The body has one text and nothing else, so the field that is wrong is said in the text.

use std::borrow::Cow;

use plinth_types::{Class, Error};

/// The HTTP status of an error class on the routes of this protocol.
///
/// The dialect knows fewer statuses than the native routes: a conflict and content that does not hold are a bad request, an
/// encoding that is not understood is a missing feature.
#[must_use]
pub const fn status(class: Class) -> u16 {
    match class {
        Class::InvalidArgument | Class::Conflict | Class::Unprocessable => 400,
        Class::UnsupportedMedia | Class::Unimplemented => 501,
        same => same.status(),
    }
}

/// The body of an error.
#[must_use]
pub fn body(error: &Error) -> Vec<u8> {
    serde_json::json!({ "error": text(error) }).to_string().into_bytes()
}

/// The one text of an error, in which the field stands too.
pub(super) fn text(error: &Error) -> Cow<'_, str> {
    let text = error.public_text();
    match error.field_name() {
        Some(field) if !text.contains(field) => Cow::Owned(format!("{text} ({field})")),
        _ => Cow::Borrowed(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use plinth_types::Reason;

    #[test]
    fn every_reason_has_a_status_of_the_dialect() {
        for reason in Reason::ALL {
            assert!([400, 401, 403, 404, 405, 413, 429, 500, 501, 502, 503, 504, 508].contains(&status(reason.class())), "{reason}");
        }
        assert_eq!(status(Reason::ModelNotFound.class()), 404);
        assert_eq!(status(Reason::QueueFull.class()), 503);
        assert_eq!(status(Reason::RateLimited.class()), 429);
        assert_eq!(status(Reason::RunnerCrashed.class()), 502);
        assert_eq!(status(Reason::UnsupportedEncoding.class()), 501);
    }

    #[test]
    fn the_field_is_said_once() {
        let error = Error::new(Reason::InvalidTensor, "out of range").field("inputs[0].data[3]");
        assert_eq!(body(&error), br#"{"error":"out of range (inputs[0].data[3])"}"#);
        let error = Error::new(Reason::InvalidTensor, "inputs[0] is \"bad\"").field("inputs[0]");
        assert_eq!(body(&error), br#"{"error":"inputs[0] is \"bad\""}"#);
    }
}
