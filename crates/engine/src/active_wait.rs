//! Waiting with open eyes for a moment before sleeping: to wake an idle processor of a virtual machine costs 20 to 30 µs.
//!
//! [`ActiveWait`] is the rule, pure; its owner does the looking. Invariants: one wait looks for at most [`LONGEST`]; who
//! finds nothing in most of his waits stops for a while; who was pushed off the processor meanwhile, because somebody
//! else had work for it, stops for longer each time. So a busy machine, a slow model and sparse requests cost nothing
//! but a look now and then.

use std::time::Duration;

/// The longest wait of this kind: some times what it costs to wake a processor.
pub(crate) const LONGEST: Duration = Duration::from_micros(100);
/// So many waits without a find more than with one, and it is given up for [`REST`].
const PATIENCE: u32 = 6;
/// How long nothing is tried after too many vain waits.
const REST: Duration = Duration::from_millis(100);
/// How long nothing is tried after being pushed off the processor for the first time in a row; doubled each time.
const STEP_ASIDE: Duration = Duration::from_millis(20);
const MOST_DOUBLINGS: u32 = 6;
/// Finds after which having been pushed off is forgotten by one doubling.
const FORGET: u32 = 64;

/// Whether to look before sleeping, learned from how it went.
#[derive(Debug, Default, Clone)]
pub(crate) struct ActiveWait {
    vain: u32,
    pushed: u32,
    finds: u32,
    not_before: Duration,
}

/// How one wait went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Went {
    /// What was waited for came while looking.
    Found,
    /// It did not.
    Vain,
    /// Somebody else needed the processor meanwhile.
    Pushed,
}

impl ActiveWait {
    /// Whether it is worth a look now.
    pub(crate) fn may(&self, now: Duration) -> bool {
        now >= self.not_before
    }

    /// Learns from a wait that ended now.
    pub(crate) fn learn(&mut self, now: Duration, went: Went) {
        match went {
            Went::Found => {
                self.vain = self.vain.saturating_sub(1);
                self.finds += 1;
                if self.finds >= FORGET {
                    (self.finds, self.pushed) = (0, self.pushed.saturating_sub(1));
                }
            }
            Went::Vain => {
                self.vain += 1;
                if self.vain >= PATIENCE {
                    (self.vain, self.not_before) = (0, now + REST);
                }
            }
            Went::Pushed => {
                self.not_before = now + STEP_ASIDE * (1 << self.pushed.min(MOST_DOUBLINGS));
                self.pushed = (self.pushed + 1).min(MOST_DOUBLINGS);
                self.finds = 0;
            }
        }
    }
}

/// How often this thread was made to leave the processor while it had work (`getrusage`, `ru_nivcsw`).
#[allow(unsafe_code, reason = "the usage of one thread has no safe interface")]
pub(crate) fn times_pushed() -> i64 {
    // SAFETY: a struct of numbers, for which zeros are valid, that the call fills and that outlives it.
    unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        libc::getrusage(libc::RUSAGE_THREAD, &raw mut usage);
        usage.ru_nivcsw
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Duration = Duration::from_secs(1);

    #[test]
    fn vain_waits_are_given_up_and_finds_make_up_for_them() {
        let mut wait = ActiveWait::default();
        for _ in 0..1000 {
            wait.learn(NOW, Went::Vain);
            wait.learn(NOW, Went::Found);
        }
        assert!(wait.may(NOW));
        for _ in 0..PATIENCE {
            wait.learn(NOW, Went::Vain);
        }
        assert!(!wait.may(NOW) && wait.may(NOW + REST));
    }

    #[test]
    fn who_is_pushed_again_and_again_steps_aside_for_longer() {
        let mut wait = ActiveWait::default();
        let mut rests = Vec::new();
        for _ in 0..9 {
            wait.learn(NOW, Went::Pushed);
            rests.push(wait.not_before - NOW);
        }
        assert!(rests.is_sorted() && rests[0] == STEP_ASIDE && rests[8] == STEP_ASIDE * 64);
        for _ in 0..FORGET * 7 {
            wait.learn(NOW, Went::Found);
        }
        wait.learn(NOW, Went::Pushed);
        assert_eq!(wait.not_before - NOW, STEP_ASIDE);
    }

    #[test]
    fn the_count_of_pushes_does_not_fall() {
        let before = times_pushed();
        assert!(before >= 0 && times_pushed() >= before);
    }
}
