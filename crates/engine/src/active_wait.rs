//! Waiting with open eyes for a moment before sleeping: to wake an idle processor of a virtual machine costs 20 to 30 µs.
//!
//! [`ActiveWait`] is the rule, pure; its owner does the looking and counts how often the kernel took the processor away. Invariants:
//! one wait looks for at most [`LONGEST`]; who finds nothing in most of his waits stops for a while; who was pushed off the processor
//! meanwhile, because somebody else had work for it, stops for longer each time, also when his waits are not in vain: on a busy machine
//! the time that he looks is taken from those whom he waits for. So a busy machine, a slow model and sparse requests cost nothing but a
//! look now and then.

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
/// After looking for so long without being pushed, one doubling is forgotten.
const CALM: Duration = Duration::from_millis(500);
/// After so many finds the count of pushes is looked at: that is a call of the system.
const CHECK: u32 = 16;

/// Whether to look before sleeping, learned from how it went.
#[derive(Debug, Default, Clone)]
pub(crate) struct ActiveWait {
    vain: u32,
    pushed: u32,
    /// Since the count was looked at.
    finds: u32,
    /// The count of pushes, as far as it is known; `None` after a rest.
    known: Option<i64>,
    /// Since when nobody was pushed.
    calm_since: Duration,
    not_before: Duration,
}

impl ActiveWait {
    /// Whether it is worth a look now. `pushes` counts how often the processor was taken away.
    pub(crate) fn may(&mut self, now: Duration, pushes: impl FnOnce() -> i64) -> bool {
        if now < self.not_before {
            return false;
        }
        if self.known.is_none() {
            (self.known, self.finds, self.calm_since) = (Some(pushes()), 0, now);
        }
        true
    }

    /// What was waited for came while looking.
    pub(crate) fn found(&mut self, now: Duration, pushes: impl FnOnce() -> i64) {
        self.vain = self.vain.saturating_sub(1);
        self.finds += 1;
        if self.finds >= CHECK {
            self.was_pushed(now, pushes());
        }
    }

    /// It did not.
    pub(crate) fn found_nothing(&mut self, now: Duration, pushes: impl FnOnce() -> i64) {
        if self.was_pushed(now, pushes()) {
            return;
        }
        self.vain += 1;
        if self.vain >= PATIENCE {
            self.rest(now + REST);
        }
    }

    /// Steps aside when somebody else needed the processor.
    fn was_pushed(&mut self, now: Duration, count: i64) -> bool {
        self.finds = 0;
        let pushed = self.known.is_some_and(|known| count > known);
        self.known = Some(count);
        if pushed {
            self.rest(now + STEP_ASIDE * (1 << self.pushed.min(MOST_DOUBLINGS)));
            self.pushed = (self.pushed + 1).min(MOST_DOUBLINGS);
        } else if now.saturating_sub(self.calm_since) >= CALM {
            (self.pushed, self.calm_since) = (self.pushed.saturating_sub(1), now);
        }
        pushed
    }

    fn rest(&mut self, until: Duration) {
        (self.vain, self.known, self.not_before) = (0, None, until);
    }
}

/// Whose pushes are counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pushes {
    /// Of this thread, for who stays on it.
    Thread,
    /// Of all threads, for a task that changes them.
    Process,
}

impl Pushes {
    /// How often the processor was taken away while there was work (`getrusage`, `ru_nivcsw`).
    #[allow(unsafe_code, reason = "the usage of one thread has no safe interface")]
    pub(crate) fn count(self) -> i64 {
        let whose = match self {
            Self::Thread => libc::RUSAGE_THREAD,
            Self::Process => libc::RUSAGE_SELF,
        };
        // SAFETY: a struct of numbers, for which zeros are valid, that the call fills and that outlives it.
        unsafe {
            let mut usage: libc::rusage = std::mem::zeroed();
            libc::getrusage(whose, &raw mut usage);
            usage.ru_nivcsw
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Duration = Duration::from_secs(1);

    fn ready() -> ActiveWait {
        let mut wait = ActiveWait::default();
        assert!(wait.may(NOW, || 0));
        wait
    }

    #[test]
    fn vain_waits_are_given_up_and_finds_make_up_for_them() {
        let mut wait = ready();
        for _ in 0..1000 {
            wait.found_nothing(NOW, || 0);
            wait.found(NOW, || 0);
        }
        assert!(wait.may(NOW, || 0));
        for _ in 0..PATIENCE {
            wait.found_nothing(NOW, || 0);
        }
        assert!(!wait.may(NOW, || 0) && wait.may(NOW + REST, || 0));
    }

    #[test]
    fn who_is_pushed_steps_aside_also_when_he_finds() {
        let mut wait = ready();
        for _ in 0..CHECK - 1 {
            wait.found(NOW, || unreachable!("the system is asked now and then"));
        }
        wait.found(NOW, || 1);
        assert!(!wait.may(NOW, || 1) && wait.may(NOW + STEP_ASIDE, || 5));
        // What was counted while resting does not count.
        wait.found_nothing(NOW + STEP_ASIDE, || 5);
        assert!(wait.may(NOW + STEP_ASIDE, || 5));
    }

    #[test]
    fn who_is_pushed_again_and_again_steps_aside_for_longer_until_it_is_calm() {
        let (mut wait, mut now, mut rests) = (ready(), NOW, Vec::new());
        for count in 1..10 {
            wait.found_nothing(now, || count);
            rests.push(wait.not_before - now);
            now = wait.not_before;
            assert!(wait.may(now, || count));
        }
        assert!(rests.is_sorted() && rests[0] == STEP_ASIDE && rests[8] == STEP_ASIDE * 64, "{rests:?}");
        for _ in 0..CHECK * MOST_DOUBLINGS {
            now += CALM / CHECK;
            wait.found(now, || 9);
        }
        wait.found_nothing(now, || 10);
        assert_eq!(wait.not_before - now, STEP_ASIDE);
    }

    #[test]
    fn the_count_of_pushes_does_not_fall() {
        for pushes in [Pushes::Thread, Pushes::Process] {
            let before = pushes.count();
            assert!(before >= 0 && pushes.count() >= before);
        }
    }
}
