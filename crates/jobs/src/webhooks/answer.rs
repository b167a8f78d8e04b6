//! What an answer means for a delivery.
//!
//! Invariant: only 2xx is a delivery, whatever the body says, and only 410 ends it for good. Everything else may be the matter of a
//! release that is under way, 404 too, and is tried again until the schedule ends. A redirect is a failure: the tenant has to
//! enter the new address, which then passes the guard (Standard Webhooks, "Delivery success and failure").

use std::time::Duration;

use http::{HeaderMap, StatusCode};
use plinth_types::Timestamp;

/// The longest that a receiver may ask to be left alone for.
pub const LONGEST_WISH: Duration = Duration::from_secs(3600);

/// What becomes of a delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The receiver has it.
    Delivered,
    /// Try again, by the schedule of [`next_wait`](super::next_wait).
    Retry {
        /// The receiver asks for at least this long; at most [`LONGEST_WISH`].
        after: Option<Duration>,
    },
    /// The receiver does not want any deliveries any more: this one has failed, and the webhook should be switched off.
    Gone,
}

/// Judges the head of an answer.
#[must_use]
pub fn judge(status: StatusCode, headers: &HeaderMap, now: Timestamp) -> Outcome {
    match status.as_u16() {
        200..=299 => Outcome::Delivered,
        410 => Outcome::Gone,
        _ => Outcome::Retry { after: retry_after(headers, now) },
    }
}

/// `Retry-After` in seconds or as a date (RFC 9110, 10.2.3); nothing when it is malformed, over or there twice.
fn retry_after(headers: &HeaderMap, now: Timestamp) -> Option<Duration> {
    let mut values = headers.get_all(http::header::RETRY_AFTER).into_iter();
    let value = values.next().filter(|_| values.next().is_none())?.to_str().ok()?.trim();
    let wish = if !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit()) {
        // More digits than fit are a long time too.
        Duration::from_secs(value.parse().unwrap_or(u64::MAX))
    } else {
        Timestamp::from(httpdate::parse_http_date(value).ok()?).since(now)
    };
    (!wish.is_zero()).then(|| wish.min(LONGEST_WISH))
}
