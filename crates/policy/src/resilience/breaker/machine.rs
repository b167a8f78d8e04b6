//! The breaker's transitions, under its lock.
//!
//! Invariant: whenever the phase changes sides the era does too, so that what was begun before can be told apart. What the gate
//! shows of it is [`Breaker`](super::Breaker)'s.

use std::time::Duration;

use super::buckets::{Buckets, Counts};
use super::{CLOSED, DEGRADED, Era, HALF_OPEN, OPEN, Permit, Settings};
use crate::balance::hash;
use crate::resilience::{Outcome, nanos};

#[derive(Debug)]
pub(super) struct Core {
    pub(super) phase: Phase,
    pub(super) era: u32,
    pub(super) window: Buckets,
    /// Openings in a row.
    openings: u32,
    closed_at: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Phase {
    Closed {
        degraded: bool,
    },
    /// `soon`: when it may be probed if nobody else can take over.
    Open {
        until: Duration,
        soon: Duration,
    },
    HalfOpen {
        out: u32,
        good: u32,
        slow: u32,
        last: Duration,
    },
}

impl Core {
    pub(super) fn new(window: Duration) -> Self {
        let window = Buckets::new(window);
        Self { phase: Phase::Closed { degraded: false }, era: 0, window, openings: 0, closed_at: Duration::ZERO }
    }

    pub(super) fn gate(&self) -> u64 {
        match self.phase {
            Phase::Closed { degraded: false } => u64::from(self.era) << 2 | CLOSED,
            Phase::Closed { degraded: true } => u64::from(self.era) << 2 | DEGRADED,
            Phase::Open { until, .. } => nanos(until).min(u64::MAX >> 2) << 2 | OPEN,
            Phase::HalfOpen { .. } => HALF_OPEN,
        }
    }

    pub(super) fn permit(&mut self, now: Duration, settings: &Settings) -> Permit {
        match self.phase {
            Phase::Closed { .. } => return Permit::Go(Era(self.era)),
            Phase::Open { until, .. } if now < until => return Permit::Refused { retry_after: until - now },
            Phase::Open { .. } => self.enter(Phase::HalfOpen { out: 0, good: 0, slow: 0, last: now }),
            Phase::HalfOpen { .. } => {}
        }
        let may = self.wants_probe(now, settings);
        let Phase::HalfOpen { out, good, last, .. } = &mut self.phase else { return Permit::Go(Era(self.era)) };
        if !may {
            return Permit::Refused { retry_after: settings.patience.saturating_sub(now.saturating_sub(*last)) };
        }
        if out.saturating_add(*good) >= settings.probes.max(1) {
            *out = 0; // Those that are out were waited for long enough.
        }
        *out = out.saturating_add(1);
        *last = now;
        Permit::Probe(Era(self.era))
    }

    pub(super) fn wants_probe(&self, now: Duration, settings: &Settings) -> bool {
        match self.phase {
            Phase::Closed { .. } => false,
            Phase::Open { until, .. } => now >= until,
            Phase::HalfOpen { out, good, last, .. } => {
                out.saturating_add(good) < settings.probes.max(1) || now.saturating_sub(last) >= settings.patience
            }
        }
    }

    pub(super) fn hasten(&mut self, now: Duration, settings: &Settings) {
        match &mut self.phase {
            Phase::Closed { .. } => {}
            Phase::Open { until, soon } => *until = (*soon).min(*until),
            // Probes that hang are not waited for.
            Phase::HalfOpen { out, last, .. } => {
                if now.saturating_sub(*last) >= settings.first_open {
                    *out = 0;
                }
            }
        }
    }

    pub(super) fn refused_for(&self, now: Duration, settings: &Settings) -> Option<Duration> {
        match self.phase {
            Phase::Open { until, .. } if now < until => Some(until - now),
            // Its probes may be answered at any moment.
            Phase::HalfOpen { last, .. } if !self.wants_probe(now, settings) => {
                Some(settings.patience.min(settings.first_open).saturating_sub(now.saturating_sub(last)))
            }
            Phase::Closed { .. } | Phase::Open { .. } | Phase::HalfOpen { .. } => None,
        }
    }

    pub(super) fn called(&mut self, now: Duration, era: Era, counts: Counts, settings: &Settings, seed: u64) {
        if era.0 != self.era || !matches!(self.phase, Phase::Closed { .. }) {
            return;
        }
        let sum = self.window.add(now, counts);
        if settings.is_open(sum) {
            self.open(now, settings, seed);
        } else {
            self.phase = Phase::Closed { degraded: settings.is_degraded(sum) };
        }
    }

    pub(super) fn probed(&mut self, now: Duration, era: Era, (outcome, is_slow): (Outcome, bool), settings: &Settings, seed: u64) {
        if era.0 != self.era {
            return;
        }
        match &mut self.phase {
            Phase::Closed { .. } | Phase::Open { .. } => {}
            Phase::HalfOpen { out, good, slow, .. } => {
                *out = out.saturating_sub(1);
                if outcome.is_failure() {
                    return self.open(now, settings, seed);
                }
                if outcome.is_answer() {
                    *good += 1;
                    *slow += u32::from(is_slow);
                }
                let sum = Counts { calls: *good, failed: 0, slow: *slow };
                match *good >= settings.probes.max(1) {
                    false => {}
                    true if sum.share(sum.slow, settings.slow_percent) => self.open(now, settings, seed),
                    true => self.close(now),
                }
            }
        }
    }

    fn open(&mut self, now: Duration, settings: &Settings, seed: u64) {
        if matches!(self.phase, Phase::Closed { .. }) && now.saturating_sub(self.closed_at) >= settings.forgive {
            self.openings = 0;
        }
        let length = |openings| settings.open_for(openings, hash::mix(seed, self.era.into()));
        let phase = Phase::Open { until: now.saturating_add(length(self.openings)), soon: now.saturating_add(length(0)) };
        self.openings = self.openings.saturating_add(1);
        self.enter(phase);
    }

    fn close(&mut self, now: Duration) {
        self.window.clear();
        self.closed_at = now;
        self.enter(Phase::Closed { degraded: false });
    }

    fn enter(&mut self, phase: Phase) {
        self.phase = phase;
        self.era = self.era.wrapping_add(1);
    }
}
