//! The judgement over a server's health: pure, told what was seen and when.
//!
//! A server may be busy without being ill: one that handles a request at a time answers no check meanwhile. So silence
//! counts only when nothing is in flight, or when nothing at all was answered for longer than one execution may take.
//!
//! ```text
//! healthy --half of the failures--> unhealthy --all of them--> hung
//!    ^------------- an answer -----------'
//! ```

use std::time::Duration;

/// What a check saw.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Seen {
    /// It is well.
    Well,
    /// It answered, or refused to talk, and is not well.
    Ill,
    /// It did not answer in time.
    Silent,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    Healthy,
    /// Requests are refused; an answer makes it healthy again.
    Unhealthy,
    /// It is to be killed.
    Hung,
}

#[derive(Debug)]
pub(crate) struct Health {
    allowed: u32,
    patience: Duration,
    failures: u32,
    /// Executions in a row that took longer than one may take.
    overdue: u32,
    last_answer: Duration,
}

impl Health {
    /// `allowed` failures in a row; one execution may take `patience`.
    pub(crate) const fn new(allowed: u32, patience: Duration, now: Duration) -> Self {
        Self { allowed, patience, failures: 0, overdue: 0, last_answer: now }
    }

    /// A check was made while `in_flight` requests were at the server.
    pub(crate) fn checked(&mut self, seen: Seen, in_flight: usize, now: Duration) -> State {
        match seen {
            Seen::Well => {
                self.failures = 0;
                self.last_answer = now;
            }
            Seen::Silent if in_flight > 0 && now.saturating_sub(self.last_answer) <= self.patience => {}
            Seen::Ill | Seen::Silent => self.failures = self.failures.saturating_add(1),
        }
        self.state()
    }

    /// A request was answered, well or not.
    pub(crate) fn answered(&mut self, now: Duration) -> State {
        (self.failures, self.overdue, self.last_answer) = (0, 0, now);
        self.state()
    }

    /// An execution took longer than one may take.
    pub(crate) fn overdue(&mut self) -> State {
        self.overdue = self.overdue.saturating_add(1);
        self.state()
    }

    fn state(&self) -> State {
        if self.failures >= self.allowed || self.overdue >= self.allowed {
            State::Hung
        } else if self.failures > 0 && self.failures >= self.allowed.div_ceil(2) {
            State::Unhealthy
        } else {
            State::Healthy
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn failures_in_a_row() {
        let mut health = Health::new(4, at(30), at(0));
        let states: Vec<State> = (1..=4).map(|s| health.checked(Seen::Ill, 0, at(s))).collect();
        assert_eq!(states, [State::Healthy, State::Unhealthy, State::Unhealthy, State::Hung]);
        let mut health = Health::new(4, at(30), at(0));
        for s in 0..20 {
            let seen = if s % 3 == 2 { Seen::Well } else { Seen::Ill };
            assert_ne!(health.checked(seen, 0, at(s)), State::Hung);
        }
    }

    #[test]
    fn busy_is_not_ill_but_silent_for_too_long_is() {
        let mut health = Health::new(2, at(30), at(0));
        for s in 0..=30 {
            assert_eq!(health.checked(Seen::Silent, 1, at(s)), State::Healthy);
        }
        assert_eq!(health.checked(Seen::Silent, 1, at(31)), State::Unhealthy);
        assert_eq!(health.answered(at(32)), State::Healthy, "a late answer is one");
        assert_eq!(health.checked(Seen::Silent, 0, at(33)), State::Unhealthy, "silent with nothing to do");
        assert_eq!(health.checked(Seen::Silent, 0, at(34)), State::Hung);
    }

    #[test]
    fn executions_that_never_end_are_a_hang_although_checks_pass() {
        let mut health = Health::new(3, at(30), at(0));
        for s in 1..3 {
            assert_eq!(health.overdue(), State::Healthy);
            assert_eq!(health.checked(Seen::Well, 1, at(s)), State::Healthy);
        }
        assert_eq!(health.overdue(), State::Hung);
    }

    proptest! {
        #[test]
        fn a_server_that_answers_every_check_is_never_hung(seen in proptest::collection::vec(0u8..3, 0..50), allowed in 2u32..5) {
            let mut health = Health::new(allowed, at(1), at(0));
            for (s, kind) in seen.into_iter().enumerate() {
                let now = at(s as u64);
                let state = if kind == 0 { health.answered(now) } else { health.checked(Seen::Well, usize::from(kind), now) };
                prop_assert_eq!(state, State::Healthy);
            }
        }
    }
}
