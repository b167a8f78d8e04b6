//! The circuit breaker of one endpoint: how well it does, and whether to ask it at all.
//!
//! ```text
//! closed ◀──────▶ degraded        by the error rate within the window
//!   ▲  └─── open ◀───┘            by the error rate or the share of slow calls
//!   │       ▼  ▲                  after 5 s, doubling to 60 s │ a probe failed
//!   └── half-open                 all probes answered
//! ```
//!
//! A sliding window of ten buckets as in resilience4j, with our own numbers (P7): 10 s, at least 20 calls, 30 % errors = degraded, 50 % = open,
//! 80 % slow = open. Timeouts, resets, 5xx and broken answers are errors; 4xx, 429 and clients that went away are not and do not count at all, so that
//! a flood of bad requests cannot hide an endpoint that fails the good ones. One exception: a client that gave up on a call that was slow already has seen a slow call.
//!
//! Invariants: an open breaker lets nothing through but its probes, whatever becomes of the pool; while half-open never more than
//! [`Settings::probes`] probes are out; a probe that is never heard of again is given up after [`Settings::patience`]; what began before the breaker
//! last changed sides changes nothing. Where nobody else could take over, [`Breaker::hasten`] makes probes more frequent and never calls.
//! [`Breaker::permit`] of a closed breaker is one relaxed load; [`Breaker::record`] takes one short lock, which only this endpoint's answers share.
//! Whether too few of a pool are well is [`ejection`](super::ejection)'s to say.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use self::buckets::Counts;
use self::machine::{Core, Phase};
use super::{Outcome, lock, nanos};
use crate::balance::hash;

mod buckets;
mod machine;
#[cfg(test)]
mod tests;

/// When to open and for how long.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// How far back calls count, in tenths of it.
    pub window: Duration,
    /// With fewer calls than this in the window nothing is judged.
    pub least_calls: u32,
    /// From this share of errors on the endpoint is degraded, in percent.
    pub degraded_percent: u32,
    /// From this share of errors on it is open, in percent.
    pub open_percent: u32,
    /// A call that takes as long as this is slow; `None`: none is.
    pub slow: Option<Duration>,
    /// From this share of slow calls on it is open, in percent.
    pub slow_percent: u32,
    /// How long it is open the first time. Doubles each time in a row; each time up to a fifth of it is left off by chance.
    pub first_open: Duration,
    /// … but no longer than this.
    pub longest_open: Duration,
    /// Closed for so long, it is open for `first_open` the next time.
    pub forgive: Duration,
    /// So many probes in a row must succeed.
    pub probes: u32,
    /// After so long without hearing of a probe others are let through in place of those that are out.
    pub patience: Duration,
    /// The part of its weight that a degraded endpoint keeps.
    pub degraded_weight: f64,
}

impl Default for Settings {
    /// P7's numbers; slow is a minute, as in resilience4j, because only the model knows what slow means for it.
    fn default() -> Self {
        Self {
            window: Duration::from_secs(10),
            least_calls: 20,
            degraded_percent: 30,
            open_percent: 50,
            slow: Some(Duration::from_secs(60)),
            slow_percent: 80,
            first_open: Duration::from_secs(5),
            longest_open: Duration::from_secs(60),
            forgive: Duration::from_secs(60),
            probes: 5,
            patience: Duration::from_secs(10),
            degraded_weight: 0.25,
        }
    }
}

/// How an endpoint does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum State {
    /// Well, or not asked enough to know.
    Closed,
    /// It fails too often: less weight, no hedging, no retries to it.
    Degraded,
    /// Not to be asked.
    Open,
    /// To be asked with a few probes.
    HalfOpen,
}

/// Which of the breaker's lives a call belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Era(u32);

/// What a call may do. Handed back with [`Breaker::record`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Permit {
    /// Ask.
    Go(Era),
    /// Ask; the answer decides whether the breaker closes. Every probe should be recorded, also as cancelled.
    Probe(Era),
    /// Do not ask.
    Refused {
        /// When it may be worth asking again.
        retry_after: Duration,
    },
}

/// The breaker of one endpoint.
#[derive(Debug)]
pub struct Breaker {
    settings: Settings,
    seed: u64,
    /// What [`Breaker::permit`] needs of `core`: the kind in the low two bits, above them the era or when it stops being open.
    gate: AtomicU64,
    /// Of an open one: when it may be probed if nobody else can take over. Nanoseconds; not after what `gate` says.
    soon: AtomicU64,
    core: Mutex<Core>,
}

const CLOSED: u64 = 0;
const DEGRADED: u64 = 1;
const OPEN: u64 = 2;
const HALF_OPEN: u64 = 3;

impl Breaker {
    /// A closed one. `seed` is a draw: it decides by how much each opening is shortened.
    #[must_use]
    pub fn new(settings: Settings, seed: u64) -> Self {
        let core = Core::new(settings.window);
        Self { settings, seed, gate: AtomicU64::new(CLOSED), soon: AtomicU64::new(0), core: Mutex::new(core) }
    }

    /// Whether to ask now.
    pub fn permit(&self, now: Duration) -> Permit {
        let gate = self.gate.load(Relaxed);
        match gate & 3 {
            CLOSED | DEGRADED => Permit::Go(Era((gate >> 2) as u32)),
            OPEN if nanos(now) < gate >> 2 => Permit::Refused { retry_after: Duration::from_nanos((gate >> 2) - nanos(now)) },
            _ => self.change(|core| core.permit(now, &self.settings)),
        }
    }

    /// So few of a pool are well that nobody can take over what this endpoint does not get: to wait longer than [`Settings::first_open`] for
    /// its next probe, or for probes that hang, would spare nobody and only draw out the outage. Takes no lock while there is nothing to change
    /// of an open breaker.
    pub fn hasten(&self, now: Duration) {
        let gate = self.gate.load(Relaxed);
        match gate & 3 {
            CLOSED | DEGRADED => {}
            OPEN if self.soon.load(Relaxed) >= gate >> 2 => {}
            _ => self.change(|core| core.hasten(now, &self.settings)),
        }
    }

    /// How long until a probe may be due; `None` when calls or probes are let through now.
    #[must_use]
    pub fn refused_for(&self, now: Duration) -> Option<Duration> {
        let gate = self.gate.load(Relaxed);
        match gate & 3 {
            CLOSED | DEGRADED => None,
            OPEN => Some(Duration::from_nanos((gate >> 2).saturating_sub(nanos(now)))).filter(|left| !left.is_zero()),
            _ => lock(&self.core).refused_for(now, &self.settings),
        }
    }

    /// Whether [`permit`](Self::permit) would say anything but no. Takes nothing.
    #[must_use]
    pub fn allows(&self, now: Duration) -> bool {
        let gate = self.gate.load(Relaxed);
        match gate & 3 {
            CLOSED | DEGRADED => true,
            OPEN => nanos(now) >= gate >> 2,
            _ => self.wants_probe(now),
        }
    }

    /// Whether a probe is due. An endpoint in need of one should be taken before all others, for a call that may be tried again:
    /// left to the choice by cost it would be asked last.
    #[must_use]
    pub fn wants_probe(&self, now: Duration) -> bool {
        let gate = self.gate.load(Relaxed);
        match gate & 3 {
            CLOSED | DEGRADED => false,
            OPEN => nanos(now) >= gate >> 2,
            _ => lock(&self.core).wants_probe(now, &self.settings),
        }
    }

    /// How a permitted call went. `latency` is the time to its first byte, or until it was given up.
    pub fn record(&self, now: Duration, permit: Permit, outcome: Outcome, latency: Duration) {
        let slow = self.settings.slow.is_some_and(|slow| latency >= slow);
        match permit {
            Permit::Refused { .. } => {}
            Permit::Go(era) => {
                let counts = Counts { calls: 1, failed: outcome.is_failure().into(), slow: slow.into() };
                // Nothing to learn: no lock.
                if outcome == Outcome::Success || outcome.is_failure() || (outcome == Outcome::Cancelled && slow) {
                    self.change(|core| core.called(now, era, counts, &self.settings, self.seed));
                }
            }
            Permit::Probe(era) => self.change(|core| core.probed(now, era, (outcome, slow), &self.settings, self.seed)),
        }
    }

    /// An active health check has passed: an open breaker lets its probes through at once.
    pub fn check_passed(&self, now: Duration) {
        if self.gate.load(Relaxed) & 3 == OPEN {
            self.change(|core| {
                if let Phase::Open { until, soon } = &mut core.phase {
                    (*until, *soon) = (now.min(*until), now.min(*soon));
                }
            });
        }
    }

    /// How the endpoint does. Of a closed one, one load; of a degraded one it takes the lock, because it may be long since the last call.
    #[must_use]
    pub fn state(&self, now: Duration) -> State {
        let gate = self.gate.load(Relaxed);
        match gate & 3 {
            CLOSED => State::Closed,
            DEGRADED => {
                let sum = lock(&self.core).window.sum(now);
                if self.settings.is_degraded(sum) { State::Degraded } else { State::Closed }
            }
            OPEN if nanos(now) < gate >> 2 => State::Open,
            _ => State::HalfOpen,
        }
    }

    /// By what to multiply the endpoint's weight.
    #[must_use]
    pub fn weight(&self, now: Duration) -> f64 {
        match self.state(now) {
            State::Closed => 1.0,
            State::Degraded | State::Open | State::HalfOpen => self.settings.degraded_weight,
        }
    }

    /// Changes the core and shows at the gate what became of it.
    fn change<T>(&self, change: impl FnOnce(&mut Core) -> T) -> T {
        let mut core = lock(&self.core);
        let before = core.phase;
        let answer = change(&mut core);
        if core.phase != before {
            if let Phase::Open { soon, .. } = core.phase {
                self.soon.store(nanos(soon), Relaxed);
            }
            self.gate.store(core.gate(), Relaxed);
        }
        answer
    }
}

impl State {
    /// Whether retries may go to it, and calls to it be hedged.
    #[must_use]
    pub const fn takes_extra(self) -> bool {
        matches!(self, Self::Closed)
    }
}

impl Settings {
    fn is_open(&self, sum: Counts) -> bool {
        sum.calls >= self.least_calls.max(1) && (sum.share(sum.failed, self.open_percent) || sum.share(sum.slow, self.slow_percent))
    }

    fn is_degraded(&self, sum: Counts) -> bool {
        sum.calls >= self.least_calls.max(1) && sum.share(sum.failed, self.degraded_percent)
    }

    fn open_for(&self, openings: u32, draw: u64) -> Duration {
        let full = self.first_open.saturating_mul(2_u32.saturating_pow(openings)).min(self.longest_open);
        full.mul_f64(1.0 - 0.2 * hash::unit(draw))
    }
}
