//! What to do when a runner dies: start it again, or hold the version back.
//!
//! Rule: a runner is started again after a short, growing delay; when it has died
//! [`CrashLimits::crashes`] times within [`CrashLimits::window`] the version is quarantined and
//! another one serves. Invariant: never more than `crashes` starts within one window.

use std::collections::VecDeque;
use std::time::Duration;

/// How many crashes are too many.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CrashLimits {
    /// So many crashes …
    pub crashes: usize,
    /// … within this time lead to quarantine.
    pub window: Duration,
    /// The delay before the second start within a window; the first is at once. Doubles for each further one.
    pub first_delay: Duration,
}

impl Default for CrashLimits {
    /// Three crashes within a minute; a runner is back well within two seconds.
    fn default() -> Self {
        Self { crashes: 3, window: Duration::from_secs(60), first_delay: Duration::from_millis(250) }
    }
}

/// What to do after a crash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Start the runner again after this delay.
    Restart {
        /// How long to wait first.
        after: Duration,
    },
    /// Do not start it again; let another version serve.
    Quarantine,
}

/// The crashes of one version on one node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CrashHistory {
    times: VecDeque<Duration>,
}

impl CrashHistory {
    /// Takes a crash in at `now` (monotonic) and decides.
    pub fn crashed(&mut self, now: Duration, limits: &CrashLimits) -> Verdict {
        while self.times.front().is_some_and(|t| now.saturating_sub(*t) >= limits.window) {
            self.times.pop_front();
        }
        self.times.push_back(now);
        let recent = self.times.len();
        if recent >= limits.crashes {
            return Verdict::Quarantine;
        }
        let after = match u32::try_from(recent) {
            Ok(0 | 1) => Duration::ZERO,
            Ok(n) => limits.first_delay.saturating_mul(2u32.saturating_pow(n - 2)),
            Err(_) => limits.window,
        };
        Verdict::Restart { after }
    }

    /// Forgets everything: somebody asked for a fresh start.
    pub fn forget(&mut self) {
        self.times.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const fn s(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    #[test]
    fn three_within_a_minute_is_quarantine() {
        let (mut history, limits) = (CrashHistory::default(), CrashLimits::default());
        assert_eq!(history.crashed(s(100), &limits), Verdict::Restart { after: Duration::ZERO });
        assert_eq!(history.crashed(s(110), &limits), Verdict::Restart { after: limits.first_delay });
        assert_eq!(history.crashed(s(159), &limits), Verdict::Quarantine);
    }

    #[test]
    fn old_crashes_do_not_count() {
        let (mut history, limits) = (CrashHistory::default(), CrashLimits::default());
        for n in 0..20 {
            assert_ne!(history.crashed(s(n * 31), &limits), Verdict::Quarantine, "crash {n}");
        }
    }

    proptest! {
        #[test]
        fn quarantine_exactly_when_the_window_is_full(gaps in proptest::collection::vec(0u64..90, 1..40)) {
            let (mut history, limits) = (CrashHistory::default(), CrashLimits::default());
            let mut now = 0;
            let mut times: Vec<u64> = Vec::new();
            for gap in gaps {
                now += gap;
                times.push(now);
                let recent = times.iter().filter(|t| now - **t < 60).count();
                let verdict = history.crashed(s(now), &limits);
                prop_assert_eq!(verdict == Verdict::Quarantine, recent >= 3);
            }
        }
    }
}
