//! The attempts of one request.
//!
//! ```text
//! first ──well──▶ answer
//!   │ late: a hedge, the first good answer counts and the other one is cancelled
//!   └─failed──▶ wait ──▶ another endpoint ──▶ … as long as policy, budget and deadline allow
//! ```
//!
//! Invariants: nothing is sent again after a byte of an answer went to the caller, nor what must not happen twice, unless the
//! upstream certainly did not begin; the deadline spans everything; a failure that cannot be mended is the caller's answer as
//! the upstream gave it.

use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use futures_util::future::{Either, select};
use http::request::Parts;
use http::{HeaderName, HeaderValue, Method};
use plinth_net::Response;
use plinth_net::outbound::{Deadlines, OutBody, OutboundError};
use plinth_policy::balance::hash;
use plinth_policy::resilience::Outcome;
use plinth_policy::resilience::retry;
use plinth_policy::resilience::throttled::Throttle;
use plinth_types::{Error, TraceContext};
use tokio::time::{Instant, sleep, timeout};

use super::flight::Flight;
use super::pool::{Kind, Pool, Wish};
use super::verdict::{Verdict, public};
use super::{Attempted, Forward};
use crate::trace::PARENT;

/// Who is asked to stay away for longer gives that to its caller, and does not keep the request that long.
const PATIENCE: Duration = Duration::from_secs(2);

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// A request on its way.
pub(super) struct Call<'a> {
    pool: &'a Arc<Pool>,
    parts: Parts,
    deadlines: Deadlines,
    sticky: Option<u64>,
    /// Whether it may be sent more than once at all.
    extra: bool,
    /// Whether the upstream may carry it out twice.
    idempotent: bool,
    began: Duration,
    /// Where it stands in its trace; the head says that of the first attempt.
    trace: Option<TraceContext>,
    /// How many attempts were begun.
    begun: AtomicU32,
}

/// An attempt that has ended, or whose answer has begun.
struct Done {
    /// The endpoint, in the pool.
    at: usize,
    answer: Result<Response, OutboundError>,
    again: Outcome,
    /// How long the endpoint asked for peace.
    hold: Option<Duration>,
    /// When it ended, or its answer began.
    now: Duration,
}

impl Done {
    fn is_good(&self) -> bool {
        !self.again.is_failure()
    }
}

/// What came of all attempts.
struct Settled {
    done: Done,
    attempts: u32,
    hedged: bool,
    /// In the order of the attempts.
    tried: Vec<usize>,
}

impl<'a> Call<'a> {
    pub(super) fn new(pool: &'a Arc<Pool>, parts: Parts, how: &Forward) -> Self {
        let settings = pool.settings();
        let idempotent = is_idempotent(&parts) || how.idempotent.unwrap_or(settings.idempotent);
        let deadlines = Deadlines { total: how.deadline, ..settings.deadlines };
        let extra = how.extra && settings.attempts > 1;
        let (trace, begun) = (how.forwarded.trace, AtomicU32::new(0));
        Self { pool, parts, deadlines, sticky: how.sticky, extra, idempotent, began: pool.now(), trace, begun }
    }

    /// Asks until there is an answer, or none can be had.
    ///
    /// # Errors
    /// `upstream_unavailable` when nobody may be asked; those of [`public`].
    pub(super) async fn answer(&self, body: OutBody) -> Result<(Response, Attempted), Error> {
        let pool = self.pool;
        pool.shared.budget.requested(self.began);
        let again = if self.extra { body.replay() } else { None };
        let wish = Wish { sticky: self.sticky, tried: &[], kind: Kind::First { probe: self.idempotent && again.is_some() } };
        let flight = pool.begin(self.began, &wish).inspect_err(|error| {
            pool.metrics.refused.inc();
            pool.metrics.answered(error.class().status(), Duration::ZERO);
        })?;
        let late = again.as_ref().and_then(|_| self.late(&flight));
        let mut settled = match (late, &again) {
            (Some(late), Some(copy)) => Box::pin(self.hedged(flight, body, copy, late)).await,
            _ => Settled { done: self.run(flight, body).await, attempts: 1, hedged: false, tried: Vec::new() },
        };
        if let (false, Some(again)) = (settled.done.is_good(), &again) {
            settled = Box::pin(self.retried(settled, again)).await;
        }
        self.close(settled)
    }

    fn close(&self, settled: Settled) -> Result<(Response, Attempted), Error> {
        let Settled { done, attempts, hedged, .. } = settled;
        let endpoint = self.pool.places().get(done.at).map_or(0, |place| place.index);
        let done_at = done.now;
        let answer = done.answer.map_err(public);
        let status = answer.as_ref().map_or_else(|error| error.class().status(), |answer| answer.status().as_u16());
        self.pool.metrics.answered(status, done_at.saturating_sub(self.began));
        Ok((answer?, Attempted { endpoint, attempts, hedged }))
    }

    /// One attempt.
    async fn run(&self, mut flight: Flight, body: OutBody) -> Done {
        let (pool, at) = (self.pool, flight.at());
        let Some(place) = pool.places().get(at) else { return Done::nowhere(at, self.began) };
        let again = self.again();
        let answer = place.core.client.send_head(again.as_ref().unwrap_or(&self.parts), body, &self.deadlines).await;
        let now = pool.now();
        let latency = now.saturating_sub(flight.began());
        let verdict = match &answer {
            Ok(answer) => Verdict::of_answer(answer, place.core.client.address().scheme(), latency, || pool.clock().now()),
            Err(error) => Verdict::of_error(error, latency),
        };
        // Up to a tenth more, so that not everybody comes back at once.
        let hold = verdict.hold.map(|hold| hold.min(Throttle::MOST).mul_f64(1.0 + 0.1 * hash::unit(pool.draw())));
        if let Some(hold) = hold {
            place.core.throttle.hold(now, hold);
        }
        flight.judge(now, &verdict);
        if pool.settings().hedge && verdict.outcome.is_answer() {
            pool.shared.hedge.observe(now, latency);
        }
        let answer = answer.map(|answer| answer.map(|body| flight.follow(body)));
        Done { at, answer, again: verdict.again, hold, now }
    }

    /// The head of an attempt after the first: in the trace each of them is a piece of work of its own.
    fn again(&self) -> Option<Parts> {
        let number = self.begun.fetch_add(1, Ordering::Relaxed);
        let trace = self.trace.filter(|_| number > 0)?.child(number);
        let mut parts = self.parts.clone();
        parts.headers.insert(PARENT, HeaderValue::from_bytes(&trace.traceparent()).ok()?);
        Some(parts)
    }

    /// After what time a second copy may be sent.
    fn late(&self, flight: &Flight) -> Option<Duration> {
        if !self.pool.settings().hedge {
            return None;
        }
        self.pool.shared.hedge.requested(self.began);
        let state = flight.place()?.core.breaker.state(self.began);
        self.pool.shared.hedge.delay(self.began, self.idempotent, state)
    }

    /// The first attempt, and another one when it is late.
    async fn hedged(&self, flight: Flight, body: OutBody, copy: &OutBody, late: Duration) -> Settled {
        let tried = vec![flight.at()];
        let mut first = pin!(self.run(flight, body));
        if let Ok(done) = timeout(late, first.as_mut()).await {
            return Settled { done, attempts: 1, hedged: false, tried };
        }
        let Some((second, copy)) = self.second(&tried).zip(copy.replay()) else {
            return Settled { done: first.await, attempts: 1, hedged: false, tried };
        };
        let tried = vec![tried.first().copied().unwrap_or_default(), second.at()];
        let done = first_good(first, pin!(self.run(second, copy))).await;
        Settled { done, attempts: 2, hedged: true, tried }
    }

    fn second(&self, tried: &[usize]) -> Option<Flight> {
        let now = self.pool.now();
        let wish = Wish { sticky: self.sticky, tried, kind: Kind::Hedge };
        // Asked for only when somebody is there, because asking takes. What a hedge adds is a part of what may be sent again at all.
        let shared = &self.pool.shared;
        if !self.pool.has(now, &wish) || !shared.hedge.withdraw(now) || !shared.budget.withdraw(now) {
            return None;
        }
        let flight = self.pool.begin(now, &wish).ok()?;
        self.pool.metrics.hedges.inc();
        Some(flight)
    }

    /// What failed, again: elsewhere, a little later.
    async fn retried(&self, mut settled: Settled, body: &OutBody) -> Settled {
        let pool = self.pool;
        if settled.tried.is_empty() {
            settled.tried.push(settled.done.at);
        }
        loop {
            let now = pool.now();
            if self.push_back(&settled).is_some_and(|wait| wait > PATIENCE) {
                return settled;
            }
            let Ok(wait) = pool.retry().may_retry(&self.attempt(&settled, now), pool.draw()) else { return settled };
            let wanted = |tried| Wish { sticky: self.sticky, tried, kind: Kind::Again };
            // Where one has asked for peace and there is no other, it is free again after the wait.
            if !pool.has(now.saturating_add(wait), &wanted(&settled.tried)) {
                return settled;
            }
            let Some(copy) = body.replay() else { return settled };
            if !pool.shared.budget.withdraw(now) {
                pool.metrics.retries_refused.inc();
                return settled;
            }
            sleep(wait).await;
            let Ok(flight) = pool.begin(pool.now(), &wanted(&settled.tried)) else { return settled };
            pool.metrics.retries.inc();
            settled.tried.push(flight.at());
            settled.attempts += 1;
            // The failed answer is let go first: its connection may be the last one.
            settled.done = Done::nowhere(flight.at(), now);
            settled.done = self.run(flight, copy).await;
            if settled.done.is_good() {
                return settled;
            }
        }
    }

    fn attempt(&self, settled: &Settled, now: Duration) -> retry::Attempt {
        let left = self.deadlines.total.map_or(Duration::MAX, |total| total.saturating_duration_since(Instant::now()));
        retry::Attempt {
            outcome: settled.done.again,
            idempotent: self.idempotent,
            first_byte_sent: false,
            attempts: settled.attempts,
            deadline_left: left,
            expected: self.pool.latency(now).unwrap_or_default(),
            push_back: self.push_back(settled),
        }
    }

    /// How long to stay away at least. Where there are other endpoints, the gate of the one that asked for it is enough.
    fn push_back(&self, settled: &Settled) -> Option<Duration> {
        settled.done.hold.filter(|_| self.pool.places().len() == 1)
    }
}

impl Done {
    /// In place of an attempt that was not made, or whose answer was let go.
    fn nowhere(at: usize, now: Duration) -> Self {
        Self { at, answer: Ok(Response::default()), again: Outcome::Cancelled, hold: None, now }
    }
}

/// The first good one of two, or the last bad one.
async fn first_good(first: Pin<&mut impl Future<Output = Done>>, second: Pin<&mut impl Future<Output = Done>>) -> Done {
    match select(first, second).await {
        Either::Left((done, _)) | Either::Right((done, _)) if done.is_good() => done,
        Either::Left((_, other)) => other.await,
        Either::Right((_, other)) => other.await,
    }
}

/// Whether to carry it out twice is to carry it out once (RFC 9110, 9.2.2), or its sender has seen to that.
fn is_idempotent(parts: &Parts) -> bool {
    let by_method = matches!(parts.method, Method::GET | Method::HEAD | Method::OPTIONS | Method::PUT | Method::DELETE | Method::TRACE);
    by_method || parts.headers.contains_key(IDEMPOTENCY_KEY)
}
