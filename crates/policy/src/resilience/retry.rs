//! Whether to try again, when, and how often altogether.
//!
//! [`RetryPolicy::may_retry`] judges one failed attempt, [`RetryBudget`] all of a target's. Ask the budget last, because asking takes.
//! Invariants: never a retry after the first byte of an answer went out; what must not happen twice is sent again only when the
//! upstream certainly never began; within any window retries are at most the budget's share of requests, or its floor. The gateway is the only
//! layer that retries; it never goes back to the endpoint that has just failed, which is the choice's to see to.

use std::time::Duration;

use super::Outcome;
use super::window::Window;
use crate::balance::hash;

/// How many retries a target's requests earn.
#[derive(Debug, Clone, PartialEq)]
pub struct BudgetSettings {
    /// Retries for each hundred requests.
    pub percent: u32,
    /// Over how long both are counted.
    pub window: Duration,
    /// So many retries per second of the window are allowed however few requests there were. **The larger of floor and share holds,
    /// not their sum**: with the defaults a target with ten requests a second or more sees at most 1.1 attempts for each over any whole window. A quiet
    /// target may see up to twice as many as requests, at no more than this rate.
    pub floor_per_second: u32,
}

impl Default for BudgetSettings {
    /// A tenth over ten seconds, and one a second.
    fn default() -> Self {
        Self { percent: 10, window: Duration::from_secs(10), floor_per_second: 1 }
    }
}

/// The retries that a target's requests have earned. No lock: a request is one atomic write.
#[derive(Debug)]
pub struct RetryBudget {
    percent: u64,
    floor: u64,
    window: Window,
}

impl RetryBudget {
    /// An empty one; its floor is there from the start.
    #[must_use]
    pub fn new(settings: &BudgetSettings) -> Self {
        let floor = settings.window.as_secs_f64() * f64::from(settings.floor_per_second);
        Self { percent: settings.percent.into(), floor: floor as u64, window: Window::new(settings.window) }
    }

    /// A request came in. Once for each request, however often it is tried.
    pub fn requested(&self, now: Duration) {
        self.window.came(now);
    }

    /// Takes a retry, if there is one. It is not given back.
    #[must_use]
    pub fn withdraw(&self, now: Duration) -> bool {
        self.window.take(now, |requests| self.allowed(requests))
    }

    /// How many retries are left now, for display.
    #[must_use]
    pub fn left(&self, now: Duration) -> u64 {
        let (requests, retries) = self.window.totals(now);
        self.allowed(requests).saturating_sub(retries)
    }

    fn allowed(&self, requests: u64) -> u64 {
        (requests.saturating_mul(self.percent) / 100).max(self.floor)
    }
}

/// How long to wait: exponential with full jitter, `random(0, min(cap, base × 2ⁿ))` (gRPC A6).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backoff {
    /// The most before the first retry.
    pub base: Duration,
    /// The most before any.
    pub cap: Duration,
}

impl Default for Backoff {
    /// 50 ms to 500 ms.
    fn default() -> Self {
        Self { base: Duration::from_millis(50), cap: Duration::from_millis(500) }
    }
}

impl Backoff {
    /// The wait before retry number `retry`, counted from 0. When the upstream said how long to stay away, that comes first, and the jitter on
    /// top of it.
    #[must_use]
    pub fn delay(&self, retry: u32, push_back: Option<Duration>, draw: u64) -> Duration {
        let most = self.base.saturating_mul(2_u32.saturating_pow(retry)).min(self.cap);
        push_back.unwrap_or_default().saturating_add(most.mul_f64(hash::unit(draw)))
    }
}

/// When a request may be tried again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RetryPolicy {
    /// Attempts for one request, the first included.
    pub most_attempts: u32,
    /// How long to wait.
    pub backoff: Backoff,
}

impl Default for RetryPolicy {
    /// One retry.
    fn default() -> Self {
        Self { most_attempts: 2, backoff: Backoff::default() }
    }
}

/// An attempt that has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    /// How it ended.
    pub outcome: Outcome,
    /// Whether the request may be carried out twice. Inference without state may; a sequence's step may not.
    pub idempotent: bool,
    /// Whether any byte of an answer has gone to the client.
    pub first_byte_sent: bool,
    /// How many attempts there were, this one included.
    pub attempts: u32,
    /// What is left of the request's time.
    pub deadline_left: Duration,
    /// How long an attempt usually takes; with less than that left after the wait it is not begun. Zero when nobody knows.
    pub expected: Duration,
    /// `Retry-After`, or `grpc-retry-pushback-ms`.
    pub push_back: Option<Duration>,
}

/// Why there is no retry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// It was answered, if only with a 4xx or 429; or nobody waits for it.
    NotAFailure,
    /// The client has part of an answer.
    FirstByteSent,
    /// The upstream may have begun, and it must not happen twice.
    NotIdempotent,
    /// It was tried often enough.
    AttemptsSpent,
    /// The wait and the attempt would not fit in.
    NoTime,
}

impl RetryPolicy {
    /// How long to wait before trying again. Take from the budget after this said yes.
    ///
    /// # Errors
    /// Why not, the reason that no time or budget could change first.
    pub fn may_retry(&self, attempt: &Attempt, draw: u64) -> Result<Duration, Refusal> {
        if !attempt.outcome.is_failure() {
            return Err(Refusal::NotAFailure);
        }
        if attempt.first_byte_sent {
            return Err(Refusal::FirstByteSent);
        }
        if !attempt.idempotent && !attempt.outcome.never_began() {
            return Err(Refusal::NotIdempotent);
        }
        if attempt.attempts >= self.most_attempts {
            return Err(Refusal::AttemptsSpent);
        }
        let wait = self.backoff.delay(attempt.attempts.saturating_sub(1), attempt.push_back, draw);
        if wait.saturating_add(attempt.expected) >= attempt.deadline_left {
            return Err(Refusal::NoTime);
        }
        Ok(wait)
    }
}

#[cfg(test)]
mod tests;
