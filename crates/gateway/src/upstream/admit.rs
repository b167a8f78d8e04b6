//! Whose turn it is when an upstream has more to do than it can: the way into its queue, and what is said to who is not let in.
//!
//! Invariants: an upstream without adaptive concurrency has no queue, because nothing is known of what it bears; a request holds its place
//! until it is done there, a stream until its last byte. The queue itself is `overload::gate`'s.

use std::time::Duration;

use http::request::Parts;
use plinth_net::{Response, content_length};
use plinth_types::{Error, Reason};
use tokio::time::Instant;

use super::Forward;
use super::body::REPLAYED;
use super::pool::Pool;
use crate::overload::gate::{Ask, Pass, Turned, Why};

/// Waits for the turn of a request.
///
/// # Errors
/// `upstream_unavailable` when the queue is full or too slow; `deadline_exceeded` when the request's time is over.
pub(super) async fn enter(pool: &Pool, parts: &Parts, how: &Forward) -> Result<Option<Pass>, Error> {
    if !pool.settings().adaptive {
        return Ok(None);
    }
    let now = pool.now();
    let ask = Ask {
        urgency: how.urgency,
        // Larger bodies wait in the socket.
        bytes: content_length(&parts.headers).unwrap_or(0).min(REPLAYED.0),
        left: how.deadline.map(|deadline| deadline.saturating_duration_since(Instant::now())),
        limit: pool.bears(now),
        latency: pool.latency(now).unwrap_or_default(),
    };
    pool.shared.gate.enter(ask).await.map(Some).map_err(|turned| refused(pool, turned))
}

/// The answer, holding its place while it comes.
pub(super) fn hold(answer: Response, pass: Option<Pass>) -> Response {
    match pass {
        // One that is there as a whole is done.
        Some(pass) if answer.body().len().is_none() => answer.map(|body| body.with_guard(pass)),
        _ => answer,
    }
}

fn refused(pool: &Pool, turned: Turned) -> Error {
    let (reason, text) = match turned.why {
        Why::Full => (Reason::UpstreamUnavailable, "the upstream has as many requests as it can bear, and those that wait come first"),
        Why::TenantFull => {
            (Reason::UpstreamUnavailable, "the upstream has as many requests as it can bear, and yours that wait come first")
        }
        Why::Expired => (Reason::DeadlineExceeded, "the time of the request has passed while it waited for the upstream (queued)"),
    };
    if let Some(count) = pool.shared.gate.refused() {
        let [tenant, upstream] = pool.metrics.name();
        let (limit, waiting) = (pool.bears(pool.now()), pool.shared.gate.waiting());
        tracing::warn!(%tenant, %upstream, count, limit, waiting, "an upstream has more requests than it bears: some are refused");
    }
    pool.metrics.refused.inc();
    pool.metrics.answered(reason.class().status(), Duration::ZERO);
    Error::new(reason, text).retry_after(turned.come_back)
}
