//! What an endpoint costs: peak-sensitive latency times what is in flight.
//!
//! Peak EWMA as in Finagle: a sample above the estimate is the new estimate, one below moves it by `1 − e^(−Δt/τ)`. Three things are added. A request counts as in flight until
//! its last byte, so a stream weighs as long as it lasts. A failure counts as a penalty, because failing fast must not look fast. And an
//! endpoint of which nothing is heard while somebody waits costs at least that silence: one that hangs is noticed before its first time-out.
//!
//! Invariants: what was begun is taken off again exactly once, also when its future is dropped; an idle endpoint's estimate fades, so that
//! a bad one gets another chance. Atomics only; an answer is three or four writes.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use crate::resilience::nanos;

#[cfg(test)]
mod tests;

/// What is known of one endpoint's load.
#[derive(Debug)]
pub struct Load {
    /// Nanoseconds.
    tau: f64,
    /// The bits of an `f64`: nanoseconds as of `at`.
    estimate: AtomicU64,
    at: AtomicU64,
    /// Until their last byte.
    in_flight: AtomicU32,
    /// Those of them that wait for their first byte.
    waiting: AtomicU32,
    /// The last answer, or since when somebody waits.
    heard: AtomicU64,
}

/// No endpoint is believed to be faster than this, so that what is in flight counts also where the estimate has faded.
const FASTEST: f64 = 100_000.0;

impl Load {
    /// How fast old samples fade, by default.
    pub const TAU: Duration = Duration::from_secs(10);

    /// A new endpoint, believed to take `first` until it has answered. Use what its neighbours take: much less, and it is flooded.
    #[must_use]
    pub fn new(now: Duration, tau: Duration, first: Duration) -> Self {
        Self {
            tau: (nanos(tau) as f64).max(1.0),
            estimate: AtomicU64::new((nanos(first) as f64).to_bits()),
            at: AtomicU64::new(nanos(now)),
            in_flight: AtomicU32::new(0),
            waiting: AtomicU32::new(0),
            heard: AtomicU64::new(nanos(now)),
        }
    }

    /// A request goes to it. Keep what is returned until the answer's last byte.
    #[must_use]
    pub fn begin(self: &Arc<Self>, now: Duration) -> InFlight {
        self.in_flight.fetch_add(1, Relaxed);
        if self.waiting.fetch_add(1, Relaxed) == 0 {
            self.heard.fetch_max(nanos(now), Relaxed);
        }
        InFlight { load: Arc::clone(self), began: now, waits: true }
    }

    /// Forgets what was learned: from now on it is believed to take `latency`. For an endpoint of which the penalties of its failures say
    /// nothing any more, because somebody else keeps requests away from it or has found it well again; else they would keep it idle for long after.
    pub fn believe(&self, now: Duration, latency: Duration) {
        self.at.fetch_max(nanos(now), Relaxed);
        self.estimate.store((nanos(latency) as f64).to_bits(), Relaxed);
    }

    /// What it costs to send one more there: lower is better. `weight` is its share of capacity, 1 for all alike; `None` when that is not above zero.
    #[must_use]
    pub fn cost(&self, now: Duration, weight: f64) -> Option<f64> {
        let in_flight = f64::from(self.in_flight.load(Relaxed));
        (weight > 0.0).then(|| self.nanos(now).max(FASTEST) * (in_flight + 1.0) / weight)
    }

    /// The latency to expect.
    #[must_use]
    pub fn latency(&self, now: Duration) -> Duration {
        Duration::from_nanos(self.nanos(now) as u64)
    }

    /// How many are in flight, until their last byte.
    #[must_use]
    pub fn in_flight(&self) -> u32 {
        self.in_flight.load(Relaxed)
    }

    fn nanos(&self, now: Duration) -> f64 {
        let now = nanos(now);
        let estimate = f64::from_bits(self.estimate.load(Relaxed));
        if self.waiting.load(Relaxed) > 0 {
            // Somebody has waited at least since it was last heard of; no reason to think better of it meanwhile.
            return estimate.max(now.saturating_sub(self.heard.load(Relaxed)) as f64);
        }
        estimate * self.kept(now.saturating_sub(self.at.load(Relaxed)))
    }

    /// The part of an estimate that is left after so many nanoseconds.
    fn kept(&self, age: u64) -> f64 {
        (-(age as f64) / self.tau).exp()
    }

    fn sample(&self, now: Duration, latency: Duration) {
        let (now, latency) = (nanos(now), nanos(latency) as f64);
        self.heard.fetch_max(now, Relaxed);
        // Each stretch of time is taken by one thread, so that none counts twice.
        let age = now.saturating_sub(self.at.fetch_max(now, Relaxed));
        let kept = self.kept(age);
        let mut bits = self.estimate.load(Relaxed);
        loop {
            let estimate = f64::from_bits(bits);
            let next = if latency > estimate { latency } else { estimate * kept + latency * (1.0 - kept) };
            match self.estimate.compare_exchange_weak(bits, next.to_bits(), Relaxed, Relaxed) {
                Ok(_) => return,
                Err(other) => bits = other,
            }
        }
    }
}

/// A request in flight. Dropping it takes it off.
#[derive(Debug)]
pub struct InFlight {
    load: Arc<Load>,
    began: Duration,
    waits: bool,
}

impl InFlight {
    /// Its first byte has come.
    pub fn answered(&mut self, now: Duration) {
        self.first(now, Duration::ZERO);
    }

    /// It failed: counts as at least `penalty`, for example twice the p99.
    pub fn failed(&mut self, now: Duration, penalty: Duration) {
        self.first(now, penalty);
    }

    /// The client went away before the first byte: says only that it takes at least as long as it was waited for.
    pub fn cancelled(mut self, now: Duration) {
        let waited = now.saturating_sub(self.began);
        if self.waits && nanos(waited) as f64 > f64::from_bits(self.load.estimate.load(Relaxed)) {
            self.first(now, Duration::ZERO);
        }
    }

    fn first(&mut self, now: Duration, at_least: Duration) {
        if std::mem::take(&mut self.waits) {
            self.load.sample(now, now.saturating_sub(self.began).max(at_least));
            self.load.waiting.fetch_sub(1, Relaxed);
        }
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        if self.waits {
            self.load.waiting.fetch_sub(1, Relaxed);
        }
        self.load.in_flight.fetch_sub(1, Relaxed);
    }
}
