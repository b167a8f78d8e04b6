//! The record of one attempt, as its tenant sees it.
//!
//! Invariant: it holds no secret and no body, and for an address that could not be reached nothing that says why: neither a word nor
//! how long it took. Or whoever may enter addresses could look around in the operator's network.

use plinth_net::outbound::{Kind, OutboundError, Reached};
use plinth_types::Timestamp;
use serde::{Deserialize, Serialize};

/// One attempt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    /// When it began; what was signed.
    pub at: Timestamp,
    /// The status of the answer, or a word.
    pub ended: Ended,
    /// How long it took, in milliseconds; 0 if the receiver was not reached.
    pub duration_ms: u64,
    /// The bytes of the answer's body that were read.
    pub bytes: u64,
}

/// How an attempt ended: `200`, or a word such as `"timeout"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Ended {
    /// With an answer of this status.
    Status(u16),
    /// Without one.
    Failure(Failure),
}

/// Why there was no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Failure {
    /// No connection, for whatever reason.
    Unreachable,
    /// A connection, and no answer in time.
    Timeout,
    /// A connection that was closed, or an answer that is not HTTP.
    Broken,
    /// Nothing was tried: too many deliveries to this host were under way.
    Busy,
}

impl Failure {
    /// The word for what went wrong.
    pub(super) const fn of(error: &OutboundError) -> Self {
        match (error.reached, error.kind) {
            (Reached::NotSent, _) | (_, Kind::Refused(_) | Kind::Resolve | Kind::Connect | Kind::Tls) => Self::Unreachable,
            (_, Kind::Timeout(_)) => Self::Timeout,
            (_, Kind::Busy | Kind::Reset | Kind::Protocol(_) | Kind::TooLarge | Kind::Request(_)) => Self::Broken,
        }
    }

    /// For the tenant.
    pub(super) const fn text(self) -> &'static str {
        match self {
            Self::Unreachable => "the webhook's address could not be reached",
            Self::Timeout => "the webhook's receiver did not answer in time",
            Self::Broken => "the webhook's receiver broke off, or did not answer in HTTP",
            Self::Busy => "too many deliveries to the webhook's host are under way",
        }
    }
}
