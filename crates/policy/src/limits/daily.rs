//! A hard cap of units for each day in UTC.
//!
//! Day and count are one atomic number: the low 16 bits of the day above, the units below. Invariants: the count of a day only grows
//! by what was taken and shrinks by what was given back of that day; it begins anew only when the day moves forward, so a clock that
//! is set back opens nothing. The wall clock is handed in. A cap that all nodes share is leased: [`lease`](super::lease).

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::{Taken, Verdict};

const DAY_MS: u64 = 86_400_000;
const UNIT_BITS: u32 = 48;
/// The largest cap: 2^48 − 1, about 281 million million.
pub const MOST_UNITS_A_DAY: u64 = (1 << UNIT_BITS) - 1;

/// The units of one client on one day.
#[derive(Debug)]
pub struct DailyCap {
    cap: AtomicU64,
    state: AtomicU64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct State {
    day: u16,
    used: u64,
}

impl State {
    const fn unpack(word: u64) -> Self {
        Self { day: (word >> UNIT_BITS) as u16, used: word & MOST_UNITS_A_DAY }
    }

    fn pack(self) -> u64 {
        (u64::from(self.day) << UNIT_BITS) | self.used.min(MOST_UNITS_A_DAY)
    }

    /// The state on `today`.
    fn on(self, today: u16) -> Self {
        match today.wrapping_sub(self.day).cast_signed() {
            // Tomorrow was seen already (clocks of threads differ around midnight, or the clock was set back): it counts there.
            0 | -1 => self,
            1.. => Self { day: today, used: 0 },
            // The clock had been far ahead. Nothing is forgiven, but the next day is a new one again.
            _ => Self { day: today, used: self.used },
        }
    }
}

const fn day(unix_ms: u64) -> u16 {
    (unix_ms / DAY_MS) as u16
}

impl DailyCap {
    /// So many units a day, at most [`MOST_UNITS_A_DAY`].
    #[must_use]
    pub fn new(cap: u64) -> Self {
        Self { cap: AtomicU64::new(cap.min(MOST_UNITS_A_DAY)), state: AtomicU64::new(0) }
    }

    /// Sets another cap. What was used stays used.
    pub fn set_cap(&self, cap: u64) {
        self.cap.store(cap.min(MOST_UNITS_A_DAY), Ordering::Relaxed);
    }

    /// Takes `cost` units of today, or nothing. `reset` in the answer is the time to midnight in UTC.
    pub fn take(&self, cost: u64, unix_ms: u64) -> Taken {
        let (cap, today) = (self.cap.load(Ordering::Relaxed), day(unix_ms));
        let mut word = self.state.load(Ordering::Relaxed);
        loop {
            let state = State::unpack(word).on(today);
            let remaining = cap.saturating_sub(state.used);
            if state.used.saturating_add(cost) > cap {
                // What was learned of the day is kept, also by who is refused; if somebody was faster, it is theirs.
                if state.pack() != word {
                    let _ = self.state.compare_exchange(word, state.pack(), Ordering::Relaxed, Ordering::Relaxed);
                }
                let verdict = if cost > cap { Verdict::Never } else { Verdict::Later };
                return answer(verdict, remaining, unix_ms);
            }
            let after = State { used: state.used + cost, ..state }.pack();
            match self.state.compare_exchange_weak(word, after, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return answer(Verdict::Allowed, remaining - cost, unix_ms),
                Err(other) => word = other,
            }
        }
    }

    /// Corrects a claim of `taken_at`: what was not used comes back on that day only; what was used beyond counts today.
    pub fn settle(&self, reserved: u64, actual: u64, taken_at: u64, unix_ms: u64) {
        let (then, today) = (day(taken_at), day(unix_ms));
        let moved = |word: u64| {
            let state = State::unpack(word).on(today);
            let used = if actual > reserved {
                state.used.saturating_add(actual - reserved)
            } else if state.day == then {
                state.used.saturating_sub(reserved - actual)
            } else {
                state.used
            };
            State { used, ..state }.pack()
        };
        let mut word = self.state.load(Ordering::Relaxed);
        while let Err(other) = self.state.compare_exchange_weak(word, moved(word), Ordering::Relaxed, Ordering::Relaxed) {
            word = other;
        }
    }

    /// The units used today.
    #[must_use]
    pub fn used(&self, unix_ms: u64) -> u64 {
        State::unpack(self.state.load(Ordering::Relaxed)).on(day(unix_ms)).used
    }

    /// Puts back what a store remembers of today, after a restart. It never lowers the count.
    pub fn restore(&self, used: u64, unix_ms: u64) {
        let today = day(unix_ms);
        let mut word = self.state.load(Ordering::Relaxed);
        loop {
            let state = State::unpack(word).on(today);
            let after = State { used: state.used.max(used), ..state }.pack();
            match self.state.compare_exchange_weak(word, after, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return,
                Err(other) => word = other,
            }
        }
    }
}

fn answer(verdict: Verdict, remaining: u64, unix_ms: u64) -> Taken {
    let reset = Duration::from_millis(DAY_MS - unix_ms % DAY_MS);
    let retry_after = if verdict == Verdict::Later { reset } else { Duration::ZERO };
    Taken { verdict, remaining, retry_after, reset }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOON: u64 = 20_000 * DAY_MS + DAY_MS / 2;

    #[test]
    fn a_day_ends_at_midnight_in_utc() {
        let cap = DailyCap::new(100);
        let taken = cap.take(90, NOON);
        assert_eq!((taken.remaining, taken.reset), (10, Duration::from_secs(12 * 3600)));
        let refused = cap.take(11, NOON);
        assert_eq!((refused.verdict, refused.remaining, refused.retry_after), (Verdict::Later, 10, Duration::from_secs(12 * 3600)));
        assert_eq!(cap.take(101, NOON).verdict, Verdict::Never);
        assert!(cap.take(100, NOON + DAY_MS / 2).allowed(), "the first millisecond of the next day");
    }

    #[test]
    fn yesterdays_refund_is_no_gift_today() {
        let cap = DailyCap::new(100);
        cap.take(80, NOON);
        cap.settle(80, 50, NOON, NOON);
        assert_eq!(cap.used(NOON), 50);
        let tomorrow = NOON + DAY_MS;
        cap.take(100, tomorrow);
        cap.settle(50, 0, NOON, tomorrow);
        assert_eq!(cap.used(tomorrow), 100);
        cap.settle(50, 60, NOON, tomorrow);
        assert_eq!(cap.used(tomorrow), 110, "what was used beyond is counted when it is known");
        assert_eq!(cap.take(1, tomorrow).remaining, 0);
    }

    #[test]
    fn a_clock_that_goes_back_opens_nothing() {
        let cap = DailyCap::new(100);
        cap.take(100, NOON);
        assert!(!cap.take(1, NOON - DAY_MS).allowed());
        assert!(!cap.take(1, NOON).allowed());
        cap.take(0, NOON + 400 * DAY_MS);
        cap.take(100, NOON + 400 * DAY_MS);
        assert!(!cap.take(1, NOON).allowed(), "a year ahead and back again: still used up");
        assert!(cap.take(1, NOON + DAY_MS).allowed(), "but not until that year comes");
    }

    #[test]
    fn a_restart_does_not_forget() {
        let cap = DailyCap::new(100);
        cap.take(10, NOON);
        cap.restore(70, NOON);
        cap.restore(5, NOON);
        assert_eq!(cap.used(NOON), 70);
        cap.restore(u64::MAX, NOON);
        assert!(!cap.take(1, NOON).allowed());
        cap.settle(0, u64::MAX, NOON, NOON);
        assert_eq!((cap.used(NOON), cap.used(NOON + DAY_MS)), (MOST_UNITS_A_DAY, 0));
    }

    proptest! {
        #[test]
        fn agrees_with_a_table(cap in 0u64..200, acts in proptest::collection::vec((0u64..DAY_MS, 0u64..60, 0u64..80, any::<bool>()), 0..100)) {
            let (daily, mut used, mut now, mut last) = (DailyCap::new(cap), std::collections::BTreeMap::<u64, u64>::new(), NOON, None);
            for (wait, cost, actual, settles) in acts {
                now += wait / 8;
                let today = used.entry(now / DAY_MS).or_default();
                if let (true, Some((reserved, at))) = (settles, last.take()) {
                    daily.settle(reserved, actual, at, now);
                    if actual > reserved {
                        *today += actual - reserved;
                    } else if at / DAY_MS == now / DAY_MS {
                        *today -= reserved - actual;
                    }
                } else {
                    let taken = daily.take(cost, now);
                    prop_assert_eq!(taken.allowed(), *today + cost <= cap);
                    if taken.allowed() {
                        *today += cost;
                        last = Some((cost, now));
                    }
                    prop_assert_eq!(taken.remaining, cap.saturating_sub(*today));
                }
                prop_assert_eq!(daily.used(now), *today);
            }
        }
    }
}
