//! What an answer or an error says: of the endpoint, to its caller, and about trying again.
//!
//! Invariants: what the caller did wrong never speaks against an endpoint, nor does a request for peace; the text for the caller
//! names no address.

use std::time::Duration;

use http::StatusCode;
use http::header::RETRY_AFTER;
use http::{HeaderMap, HeaderName};
use plinth_net::Response;
use plinth_net::outbound::{Kind, OutboundError, Reached, Scheme, Stage};
use plinth_policy::resilience::Outcome;
use plinth_policy::resilience::gradient::Sample;
use plinth_types::{Error, Reason, Timestamp};

const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");

/// A caller whose deadline is shorter than this and passes says more of itself than of the upstream.
const PATIENCE: Duration = Duration::from_millis(250);

/// Answers that are faster than this differ by chance and not by load.
const NOISE: Duration = Duration::from_millis(10);

/// What an attempt says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Verdict {
    /// Of the endpoint.
    pub outcome: Outcome,
    /// About trying again.
    pub again: Outcome,
    /// Of its load.
    pub sample: Sample,
    /// How long it asks for peace.
    pub hold: Option<Duration>,
}

impl Verdict {
    const fn plain(outcome: Outcome, sample: Sample) -> Self {
        Self { outcome, again: outcome, sample, hold: None }
    }

    /// Of an answer whose head came after `latency`.
    pub(super) fn of_answer(answer: &Response, scheme: Scheme, latency: Duration, now: impl FnOnce() -> Timestamp) -> Self {
        let status = answer.status();
        let latency = Sample::Latency(latency.max(NOISE));
        if matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE) {
            let hold = retry_after(answer.headers(), now);
            let overloaded = status == StatusCode::SERVICE_UNAVAILABLE;
            let again = Outcome::from_status(status.as_u16());
            // With a time to come back it is well and says so.
            let outcome = if hold.is_some() { Outcome::Throttled } else { again };
            return Self { outcome, again, sample: if overloaded { Sample::Overload } else { Sample::Nothing }, hold };
        }
        // An error of gRPC without an answer stands in the head.
        let outcome = match scheme {
            Scheme::Http => None,
            Scheme::Https | Scheme::H2c | Scheme::Grpc | Scheme::Grpcs => of_grpc(answer.headers()),
        };
        match outcome.unwrap_or_else(|| Outcome::from_status(status.as_u16())) {
            outcome @ (Outcome::Success | Outcome::ClientError) => Self::plain(outcome, latency),
            outcome => Self::plain(outcome, Sample::Nothing),
        }
    }

    /// Of a failure after `waited`.
    pub(super) fn of_error(error: &OutboundError, waited: Duration) -> Self {
        let plain = |outcome| Self::plain(outcome, Sample::Nothing);
        match error.kind {
            Kind::Timeout(Stage::Total) if waited < PATIENCE => plain(Outcome::Cancelled),
            Kind::Timeout(Stage::FirstByte | Stage::Idle | Stage::Total) => Self::plain(Outcome::Timeout, Sample::Overload),
            Kind::Refused(_) | Kind::Resolve | Kind::Connect | Kind::Tls | Kind::Timeout(Stage::Resolve | Stage::Connect | Stage::Tls) => {
                plain(Outcome::ConnectFailed)
            }
            // Nothing speaks against it, and another one may have room.
            Kind::Busy => Self { outcome: Outcome::Cancelled, again: Outcome::RefusedStream, sample: Sample::Overload, hold: None },
            Kind::Reset if error.reached == Reached::NotSent => plain(Outcome::RefusedStream),
            Kind::Reset => plain(Outcome::Reset),
            Kind::Protocol(_) | Kind::TooLarge => plain(Outcome::BadAnswer),
            Kind::Request(_) => plain(Outcome::Cancelled),
        }
    }
}

/// What the end of a stream says of its endpoint, when that is bad: its error, or the status of gRPC in its trailers.
pub(super) fn of_broken(error: &std::io::Error) -> Option<Outcome> {
    match OutboundError::of(error)?.kind {
        Kind::Timeout(Stage::Idle) => Some(Outcome::Timeout),
        Kind::Reset => Some(Outcome::Reset),
        Kind::Protocol(_) => Some(Outcome::BadAnswer),
        _ => None,
    }
}

/// By the status of gRPC, where there is one.
pub(super) fn of_grpc(headers: &HeaderMap) -> Option<Outcome> {
    Some(match headers.get(GRPC_STATUS)?.as_bytes() {
        b"0" => Outcome::Success,
        // RESOURCE_EXHAUSTED.
        b"8" => Outcome::Throttled,
        // DEADLINE_EXCEEDED: mostly the caller's.
        b"1" | b"4" => Outcome::Cancelled,
        // UNKNOWN, INTERNAL, UNAVAILABLE, DATA_LOSS.
        b"2" | b"13" | b"14" | b"15" => Outcome::ServerError,
        _ => Outcome::ClientError,
    })
}

/// Seconds or a date (RFC 9110, 10.2.3).
fn retry_after(headers: &HeaderMap, now: impl FnOnce() -> Timestamp) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse::<u32>() {
        return Some(Duration::from_secs(seconds.into()));
    }
    let date = httpdate::parse_http_date(text).ok()?;
    Some(Timestamp::from(date).since(now()))
}

/// As the caller sees a failure.
pub(super) fn public(error: OutboundError) -> Error {
    let (reason, text) = match error.kind {
        Kind::Refused(_) => (Reason::UpstreamRefused, "the upstream leads to an address that may not be called"),
        Kind::Busy => (Reason::UpstreamUnavailable, "all connections to the upstream are in use"),
        Kind::Resolve => (Reason::UpstreamFailed, "the name of the upstream has no address"),
        Kind::Connect | Kind::Timeout(Stage::Connect | Stage::Resolve) => (Reason::UpstreamFailed, "the upstream cannot be reached"),
        Kind::Tls | Kind::Timeout(Stage::Tls) => (Reason::UpstreamFailed, "TLS was not agreed on with the upstream"),
        Kind::Timeout(Stage::FirstByte | Stage::Idle) => (Reason::UpstreamTimeout, "the upstream did not begin to answer in time"),
        Kind::Timeout(Stage::Total) => (Reason::UpstreamTimeout, "the upstream did not answer before the deadline"),
        Kind::Reset => (Reason::UpstreamFailed, "the upstream ended the connection before it answered"),
        Kind::Protocol(_) => (Reason::UpstreamFailed, "the answer of the upstream is not HTTP"),
        Kind::TooLarge => (Reason::UpstreamFailed, "the head of the upstream's answer is too large"),
        Kind::Request(_) => (Reason::UploadIncomplete, "the request could not be sent on: it stopped or broke off"),
    };
    let busy = error.kind == Kind::Busy;
    let public = Error::new(reason, text).source(error);
    if busy { public.retry_after(Duration::from_secs(1)) } else { public }
}

#[cfg(test)]
mod tests {
    use super::*;
    use plinth_net::Body;

    const MS: Duration = Duration::from_millis(1);

    fn of(status: u16, headers: &[(&'static str, &str)], scheme: Scheme) -> Verdict {
        let mut answer = http::Response::builder().status(status);
        for (name, value) in headers {
            answer = answer.header(*name, *value);
        }
        // Sun, 06 Nov 1994 08:49:07 GMT.
        let now = || Timestamp::from_millis(784_111_747_000).unwrap();
        Verdict::of_answer(&answer.body(Body::empty()).unwrap(), scheme, MS, now)
    }

    #[test]
    fn who_asks_for_peace_is_not_at_fault() {
        for (after, held) in [("7", 7), ("Sun, 06 Nov 1994 08:49:37 GMT", 30), ("Sun, 06 Nov 1994 08:00:00 GMT", 0)] {
            let verdict = of(503, &[("retry-after", after)], Scheme::Http);
            assert_eq!((verdict.outcome, verdict.again), (Outcome::Throttled, Outcome::ServerError));
            assert_eq!(verdict.hold, Some(Duration::from_secs(held)));
        }
        assert_eq!(of(503, &[("retry-after", "soon")], Scheme::Http).outcome, Outcome::ServerError);
        assert_eq!(of(429, &[], Scheme::Http), Verdict::plain(Outcome::Throttled, Sample::Nothing));
    }

    #[test]
    fn grpc_says_it_in_its_status() {
        let status = |code| of(200, &[("grpc-status", code)], Scheme::Grpc).outcome;
        assert_eq!(["0", "14", "8", "3"].map(status), [Outcome::Success, Outcome::ServerError, Outcome::Throttled, Outcome::ClientError]);
        assert_eq!(of(200, &[("grpc-status", "14")], Scheme::Http).outcome, Outcome::Success);
        assert_eq!(of(200, &[], Scheme::Grpc).sample, Sample::Latency(NOISE));
    }
}
