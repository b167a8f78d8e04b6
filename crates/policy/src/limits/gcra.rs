//! The generic cell rate algorithm with costs: one number for each limited thing.
//!
//! The number is the theoretical arrival time (TAT): until then all that was admitted is paid for by the rate. With emission interval
//! T and tolerance τ = T × burst, cost c is admitted if `max(now, TAT) + c·T − now ≤ τ`, and TAT moves there. What was estimated too
//! high is moved back when the truth is known. The rule is that of ITU-T I.371 with the cost as a factor.
//!
//! Invariants: over any span of time w the admitted cost, less what was given back in it, is at most `burst + w / T`; a unit given back
//! that time had already paid for changes nothing. One compare-and-swap, no lock, no allocation; a clock that differs a little
//! between threads does no harm.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::{Rate, nanos};

/// Beyond a full burst, a cost that turned out higher than reserved is remembered for a day of the rate at most. So a nonsensical
/// figure does not shut a tenant out for ever.
const LONGEST_DEBT: u64 = 86_400_000_000_000;

/// What became of a claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Taken.
    Allowed,
    /// Not now; after [`Taken::retry_after`].
    Later,
    /// The cost is above the burst (or the day's cap): it can never be taken.
    Never,
    /// Nothing speaks against it, but the node holds no tokens: ask the central counter, then take again ([`Leased`](super::Leased)).
    Ask,
}

/// The answer to a claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Taken {
    /// Whether it was taken.
    pub verdict: Verdict,
    /// Units that could still be taken at this moment.
    pub remaining: u64,
    /// When it is worth to ask again for the same cost; zero when it was taken, and also when it never can be.
    pub retry_after: Duration,
    /// After how long the limit is back at its full burst, if nothing more is taken.
    pub reset: Duration,
}

impl Taken {
    /// Whether it was taken.
    #[must_use]
    pub const fn allowed(&self) -> bool {
        matches!(self.verdict, Verdict::Allowed)
    }
}

/// The state of one limit of one client.
#[derive(Debug, Default)]
pub struct Cell {
    /// Nanoseconds. Independent of all other memory, so every access is relaxed.
    tat: AtomicU64,
}

impl Cell {
    /// A cell from which nothing was taken yet.
    #[must_use]
    pub const fn new() -> Self {
        Self { tat: AtomicU64::new(0) }
    }

    /// Takes `cost` units, or nothing.
    pub fn take(&self, rate: &Rate, cost: u64, now: Duration) -> Taken {
        let now = nanos(now);
        let mut tat = self.tat.load(Ordering::Relaxed);
        if cost > rate.burst() {
            return standing(rate, Verdict::Never, tat, now, 0);
        }
        let charge = cost * rate.interval(); // at most the tolerance
        loop {
            let after = tat.max(now).saturating_add(charge);
            let excess = (after - now).saturating_sub(rate.tolerance());
            if excess > 0 {
                return standing(rate, Verdict::Later, tat, now, excess);
            }
            match self.tat.compare_exchange_weak(tat, after, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return standing(rate, Verdict::Allowed, after, now, 0),
                Err(other) => tat = other,
            }
        }
    }

    /// How the cell stands, without taking anything; as [`take`](Self::take) of nothing would answer.
    #[must_use]
    pub fn look(&self, rate: &Rate, now: Duration) -> Taken {
        let (tat, now) = (self.tat.load(Ordering::Relaxed), nanos(now));
        let excess = tat.saturating_sub(now).saturating_sub(rate.tolerance());
        standing(rate, if excess > 0 { Verdict::Later } else { Verdict::Allowed }, tat, now, excess)
    }

    /// Corrects a claim: `reserved` was taken, `actual` was used. More than was reserved is owed, and waits for by who comes next.
    pub fn settle(&self, rate: &Rate, reserved: u64, actual: u64, now: Duration) {
        if reserved == actual {
            return;
        }
        let now = nanos(now);
        let back = reserved.saturating_sub(actual).saturating_mul(rate.interval());
        let more = actual.saturating_sub(reserved).saturating_mul(rate.interval());
        let latest = now.saturating_add(rate.tolerance()).saturating_add(LONGEST_DEBT);
        let moved = |tat: u64| if more > 0 { tat.max(now).saturating_add(more).min(latest).max(tat) } else { tat.saturating_sub(back) };
        let mut tat = self.tat.load(Ordering::Relaxed);
        while let Err(other) = self.tat.compare_exchange_weak(tat, moved(tat), Ordering::Relaxed, Ordering::Relaxed) {
            tat = other;
        }
    }
}

fn standing(rate: &Rate, verdict: Verdict, tat: u64, now: u64, excess: u64) -> Taken {
    let debt = tat.saturating_sub(now);
    Taken {
        verdict,
        remaining: rate.tolerance().saturating_sub(debt) / rate.interval(),
        retry_after: Duration::from_nanos(excess),
        reset: Duration::from_nanos(debt),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn rate(text: &str, burst: u64) -> Rate {
        Rate::parse(text, Some(burst)).unwrap()
    }

    const fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn a_burst_then_the_rate() {
        let (cell, rate) = (Cell::new(), rate("10/s", 3));
        let remaining: Vec<u64> = (0..3).map(|_| cell.take(&rate, 1, ms(0)).remaining).collect();
        assert_eq!(remaining, [2, 1, 0]);
        let refused = cell.take(&rate, 1, ms(0));
        assert_eq!(refused, Taken { verdict: Verdict::Later, remaining: 0, retry_after: ms(100), reset: ms(300) });
        assert_eq!(cell.take(&rate, 2, ms(50)).retry_after, ms(150), "two units need two intervals");
        assert!(!cell.take(&rate, 1, ms(99)).allowed());
        assert!(cell.take(&rate, 1, ms(100)).allowed());
        assert_eq!(cell.look(&rate, ms(10_000)).remaining, 3, "rest saves a burst and no more");
    }

    #[test]
    fn above_the_burst_is_never() {
        let (cell, rate) = (Cell::new(), rate("10/s", 3));
        assert_eq!(cell.take(&rate, 4, ms(0)).verdict, Verdict::Never);
        assert_eq!(cell.take(&rate, u64::MAX, ms(0)).verdict, Verdict::Never);
        assert!(cell.take(&rate, 3, ms(0)).allowed(), "nothing was taken for it");
    }

    #[test]
    fn what_was_not_used_comes_back() {
        let (cell, rate) = (Cell::new(), rate("1/s", 100));
        assert!(cell.take(&rate, 100, ms(0)).allowed());
        cell.settle(&rate, 100, 30, ms(0));
        assert_eq!(cell.look(&rate, ms(0)).remaining, 70);
        cell.settle(&rate, u64::MAX, 0, ms(0));
        assert_eq!(cell.look(&rate, ms(0)).remaining, 100, "more than all is all");
    }

    #[test]
    fn what_was_used_beyond_is_owed() {
        let (cell, rate) = (Cell::new(), rate("1/s", 10));
        assert!(cell.take(&rate, 10, ms(0)).allowed());
        cell.settle(&rate, 10, 25, ms(0));
        assert_eq!(cell.take(&rate, 0, ms(0)).verdict, Verdict::Later, "who owes does not even pass for nothing");
        assert_eq!(cell.take(&rate, 1, ms(0)).retry_after, Duration::from_secs(16));
        cell.settle(&rate, 0, u64::MAX, ms(0));
        assert!(cell.look(&rate, ms(0)).reset <= Duration::from_secs(86_400 + 10), "forgiven after a day");
        cell.settle(&rate, 0, u64::MAX, Duration::MAX);
        assert!(!cell.take(&rate, 1, Duration::from_secs(1)).allowed());
    }

    #[test]
    fn threads_share_exactly_one_burst() {
        let (cell, rate) = (Cell::new(), rate("10/s", 1000));
        let taken: u64 = std::thread::scope(|scope| {
            let one = || (0..1000).filter(|_| cell.take(&rate, 1, ms(7)).allowed()).count() as u64;
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(one)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert_eq!(taken, 1000);
    }

    #[derive(Debug, Clone)]
    enum Act {
        Take(u64),
        Settle(usize, u64),
    }

    fn acts() -> impl Strategy<Value = Vec<(u64, Act)>> {
        let act = prop_oneof![3 => (0u64..60).prop_map(Act::Take), 1 => (any::<prop::sample::Index>(), 0u64..60).prop_map(|(at, n)| Act::Settle(at.index(1000), n))];
        proptest::collection::vec((0u64..400_000_000, act), 1..200)
    }

    proptest! {
        /// The cell against a bucket that is counted in exact fractions.
        #[test]
        fn agrees_with_a_bucket(units in 1u64..2000, burst in 1u64..50, acts in acts()) {
            let rate = Rate::parse(&format!("{units}/s"), Some(burst)).unwrap();
            let (cell, full) = (Cell::new(), i128::from(rate.tolerance()));
            let (mut now, mut level) = (0u64, full);
            for (wait, act) in acts {
                now += wait;
                level = full.min(level + i128::from(wait));
                if let Act::Take(cost) = act {
                    let taken = cell.take(&rate, cost, Duration::from_nanos(now));
                    let charge = i128::from(cost) * i128::from(rate.interval());
                    prop_assert_eq!(taken.allowed(), cost <= burst && charge <= level);
                    if taken.allowed() {
                        level -= charge;
                    } else if taken.verdict == Verdict::Later {
                        prop_assert_eq!(i128::try_from(taken.retry_after.as_nanos()).unwrap(), charge - level);
                    }
                    prop_assert_eq!(i128::from(taken.remaining), level / i128::from(rate.interval()));
                }
            }
        }

        /// In every span of time: admitted − returned ≤ burst + time / interval, and what is owed counts from when it is known.
        #[test]
        fn no_span_has_more_than_its_share(units in 1u64..2000, burst in 1u64..50, acts in acts()) {
            let rate = Rate::parse(&format!("{units}/s"), Some(burst)).unwrap();
            let cell = Cell::new();
            let (mut now, mut sum, mut reserved) = (0u64, 0i128, Vec::new());
            // The largest of (sum before − time before / interval) is kept as the least of its opposite, in nanoseconds.
            let mut least = 0i128;
            for (wait, act) in acts {
                now += wait;
                least = least.min(sum - i128::from(now));
                match act {
                    Act::Take(cost) if cell.take(&rate, cost, Duration::from_nanos(now)).allowed() => {
                        reserved.push(cost);
                        sum += i128::from(cost * rate.interval());
                        prop_assert!(sum - i128::from(now) - least <= i128::from(rate.tolerance()));
                    }
                    Act::Settle(at, less) if !reserved.is_empty() => {
                        let at = at % reserved.len();
                        let was = reserved.swap_remove(at);
                        let actual = was.saturating_sub(less);
                        cell.settle(&rate, was, actual, Duration::from_nanos(now));
                        sum -= i128::from((was - actual) * rate.interval());
                    }
                    _ => {}
                }
            }
        }

        #[test]
        fn no_number_breaks_it(cost in any::<u64>(), reserved in any::<u64>(), actual in any::<u64>(), now in any::<u64>(), then in any::<u64>()) {
            let (cell, rate) = (Cell::new(), Rate::parse("10000000/s", Some(u64::MAX / 1000)).or_else(|_| Rate::parse("3/day", Some(300))).unwrap());
            cell.take(&rate, cost, Duration::from_nanos(now));
            cell.settle(&rate, reserved, actual, Duration::from_nanos(then));
            cell.take(&rate, cost, Duration::from_nanos(then));
            let _ = cell.look(&rate, Duration::MAX);
        }
    }
}
