//! The central counter's rule, for rates and for daily caps, in whole numbers below 2^53.
//!
//! A script in the store and the simulation of this crate follow the same text. All times are microseconds **on the store's clock**, so
//! the clocks of nodes are never compared; a Lua number holds every value exactly.
//!
//! A rate with interval `num / den` µs and tolerance `tau` µs; the state is `tat` and `seen`, both 0 when there is none:
//!
//! ```text
//! if lost_for > 0 and seen > 0 then                         -- the nodes lived on their own
//!     local quiet = math.min(lost_for, math.max(now - seen, 0))
//!     tat = math.max(tat, now - quiet) + quiet               -- that time has not refilled anything here
//! end
//! unused = math.min(unused, burst); want = math.min(want, burst)
//! tat = math.max(tat - math.floor(unused * num / den), now)
//! local room  = math.max(tau - (tat - now), 0)
//! local grant = math.min(want, math.floor(room * den / num))
//! tat  = tat + math.ceil(grant * num / den)
//! seen = now
//! local left  = math.floor(math.max(tau - (tat - now), 0) * den / num)
//! local next  = math.max(1, math.floor(want / 4))            -- worth another question
//! local retry = grant < want and math.max(tat + math.ceil(next * num / den) - tau - now, 0) or 0
//! -- keep both for (tat - now) + 1 s
//! ```
//!
//! A cap for each day; the state is `day` and `used`:
//!
//! ```text
//! local today = math.floor(now / 86400000000)
//! if today > day then day = today; used = 0 end
//! if window == day then used = math.max(used - unused, 0) end
//! used = used + spent
//! local grant = math.min(want, math.max(cap - used, 0))
//! used = used + grant
//! ```
//!
//! Invariants: a rate grants, less what is brought back, at most `burst + w × den / num` in any time w in which it keeps its memory; a
//! cap at most `cap` a day. Which nodes there are is not known here and need not be.

use std::time::Duration;

use super::super::{MOST_UNITS_A_DAY, Rate};
use super::{LeaseAnswer, LeaseRequest};

/// Above this a double no longer holds every whole number.
const EXACT: u64 = 1 << 53;
const DAY_MICROS: u64 = 86_400_000_000;

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(EXACT).min(EXACT)
}

/// The parameters of a central rate; what a script gets as its arguments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CentralRate {
    /// Microseconds between two units, numerator.
    pub num: u64,
    /// The denominator.
    pub den: u64,
    /// Microseconds in which the burst is earned.
    pub tau: u64,
    /// Units that may be granted at once.
    pub burst: u64,
    /// How long leases last.
    pub life: Duration,
}

/// What the store remembers of a rate, in microseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RateState {
    /// The theoretical arrival time.
    pub tat: u64,
    /// When it was last asked.
    pub seen: u64,
}

const fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

impl CentralRate {
    /// The rule for a rate. Where a fraction is too long for exact arithmetic its interval is rounded up, by less than a millionth where
    /// the interval is more than a second, and far less where it is short.
    #[must_use]
    pub fn new(rate: &Rate, life: Duration) -> Self {
        let period = micros(rate.period());
        let divisor = gcd(period, rate.units()).max(1);
        let (mut num, mut den) = (period / divisor, rate.units() / divisor);
        let most = (EXACT / 4 / rate.burst()).max(1);
        if num > most {
            // The largest denominator with which burst × num stays exact; one where even that is too long.
            let wide = u128::from(most) * u128::from(den) / u128::from(num);
            let fits = u64::try_from(wide).unwrap_or(1).max(1);
            num = u64::try_from((u128::from(num) * u128::from(fits)).div_ceil(u128::from(den))).unwrap_or(num);
            den = fits;
        }
        let (num, den) = (num.max(1), den.max(1));
        Self { num, den, tau: ceil(rate.burst(), num, den), burst: rate.burst(), life }
    }

    /// Answers a node. Pure but for `state`.
    pub fn lease(&self, state: &mut RateState, ask: &LeaseRequest, now: u64) -> LeaseAnswer {
        let Self { num, den, tau, burst, life } = *self;
        let lost_for = micros(ask.lost_for);
        let mut tat = state.tat;
        if lost_for > 0 && state.seen > 0 {
            let quiet = lost_for.min(now.saturating_sub(state.seen));
            tat = tat.max(now - quiet) + quiet;
        }
        let (unused, want) = (ask.unused.min(burst), ask.want.min(burst));
        tat = tat.saturating_sub(unused * num / den).max(now);
        let granted = want.min(tau.saturating_sub(tat - now) * den / num);
        tat += ceil(granted, num, den);
        *state = RateState { tat, seen: now };
        let left = tau.saturating_sub(tat - now) * den / num;
        let wait = (tat + ceil((want / 4).max(1), num, den)).saturating_sub(tau + now);
        let retry_after = if granted < want { Duration::from_micros(wait) } else { Duration::ZERO };
        LeaseAnswer { granted, left, retry_after, lasts: life, window: 0 }
    }
}

fn ceil(units: u64, num: u64, den: u64) -> u64 {
    (units * num).div_ceil(den)
}

/// A cap for each day in UTC that all nodes share.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CentralCap {
    /// Units a day.
    pub cap: u64,
    /// How long leases last, unless the day ends before.
    pub life: Duration,
}

/// What the store remembers of a cap.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CapState {
    /// Days since 1970.
    pub day: u64,
    /// Units leased or reported on that day.
    pub used: u64,
}

impl CentralCap {
    /// Answers a node. `now` is microseconds since 1970 in UTC, on the store's clock.
    pub fn lease(&self, state: &mut CapState, ask: &LeaseRequest, now: u64) -> LeaseAnswer {
        let today = now / DAY_MICROS;
        if today > state.day {
            *state = CapState { day: today, used: 0 };
        }
        if ask.window == state.day {
            state.used = state.used.saturating_sub(ask.unused);
        }
        state.used = (state.used + ask.spent.min(MOST_UNITS_A_DAY)).min(MOST_UNITS_A_DAY);
        let granted = ask.want.min(self.cap.saturating_sub(state.used));
        state.used += granted;
        let to_midnight = Duration::from_micros(((state.day + 1) * DAY_MICROS).saturating_sub(now));
        let retry_after = if granted < ask.want { to_midnight } else { Duration::ZERO };
        LeaseAnswer {
            granted,
            left: self.cap.saturating_sub(state.used),
            retry_after,
            lasts: self.life.min(to_midnight),
            window: state.day,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ask(want: u64, unused: u64) -> LeaseRequest {
        LeaseRequest { want, unused, window: 0, lost_for: Duration::ZERO, spent: 0, sent: Duration::ZERO }
    }

    const LIFE: Duration = Duration::from_secs(5);
    const NOW: u64 = 1_700_000_000_000_000;

    #[test]
    fn grants_a_burst_then_what_is_earned() {
        let central = CentralRate::new(&Rate::parse("10/s", Some(20)).unwrap(), LIFE);
        assert_eq!((central.num, central.den, central.tau), (100_000, 1, 2_000_000));
        let mut state = RateState::default();
        let answer = central.lease(&mut state, &ask(16, 0), NOW);
        assert_eq!((answer.granted, answer.left, answer.retry_after), (16, 4, Duration::ZERO));
        let answer = central.lease(&mut state, &ask(16, 0), NOW);
        assert_eq!((answer.granted, answer.left, answer.retry_after), (4, 0, Duration::from_millis(400)));
        assert_eq!(central.lease(&mut state, &ask(16, 0), NOW + 400_000).granted, 4);
        assert_eq!(central.lease(&mut state, &ask(16, 10), NOW + 400_000).granted, 10, "what comes back can be granted");
        assert_eq!(central.lease(&mut state, &ask(99, u64::MAX), NOW + 400_000).granted, 20, "never more than a burst");
    }

    #[test]
    fn time_without_the_store_refills_nothing() {
        let central = CentralRate::new(&Rate::parse("10/s", Some(20)).unwrap(), LIFE);
        let mut state = RateState::default();
        assert_eq!(central.lease(&mut state, &ask(15, 0), NOW).granted, 15);
        let later = NOW + 60_000_000;
        let back = LeaseRequest { lost_for: Duration::from_secs(60), ..ask(20, 0) };
        assert_eq!(central.lease(&mut state, &back, later).granted, 5, "as it stood a minute ago");
        assert_eq!(central.lease(&mut state, &back, later).granted, 0, "the second node finds no silence");
        let mut rested = RateState { tat: NOW, seen: NOW };
        let short = LeaseRequest { lost_for: Duration::from_secs(1), ..ask(20, 0) };
        assert_eq!(central.lease(&mut rested, &short, later).granted, 20, "a second of a minute's rest costs nothing");
    }

    #[test]
    fn a_cap_is_hard() {
        let central = CentralCap { cap: 100, life: LIFE };
        let (mut state, noon) = (CapState::default(), 20_000 * DAY_MICROS + DAY_MICROS / 2);
        let answer = central.lease(&mut state, &ask(80, 0), noon);
        assert_eq!((answer.granted, answer.left, answer.window, answer.lasts), (80, 20, 20_000, LIFE));
        let answer = central.lease(&mut state, &ask(80, 0), noon);
        assert_eq!((answer.granted, answer.retry_after), (20, Duration::from_secs(12 * 3600)));
        let back = LeaseRequest { window: 20_000, ..ask(0, 30) };
        assert_eq!(central.lease(&mut state, &back, noon).left, 30);
        let spent = LeaseRequest { spent: 1000, ..ask(10, 0) };
        assert_eq!(central.lease(&mut state, &spent, noon).granted, 0, "what was admitted without the store counts");
        let last = central.lease(&mut state, &LeaseRequest { window: 20_000, ..ask(10, 50) }, noon + DAY_MICROS / 2);
        assert_eq!((last.granted, last.left, last.window), (10, 90, 20_001), "yesterday's rest is no gift");
        let late = central.lease(&mut state, &ask(1, 0), noon + DAY_MICROS - 1_000_000 + DAY_MICROS / 2);
        assert_eq!(late.lasts, Duration::from_secs(1), "a lease ends with its day");
    }

    proptest! {
        #[test]
        fn every_rate_is_exact_and_close(units in 1u64..10_000_000, period in 1u64..2_000_000, burst in 1u64..10_000_000) {
            let Ok(rate) = Rate::parse(&format!("{units}/{period}s"), Some(burst)) else { return Ok(()) };
            let central = CentralRate::new(&rate, LIFE);
            let (exact, ours) = (period as f64 * 1e6 / units as f64, central.num as f64 / central.den as f64);
            prop_assert!(u128::from(central.num) * u128::from(units) >= u128::from(period) * 1_000_000 * u128::from(central.den), "never faster");
            prop_assert!(ours <= exact * 1.000_002, "{} for {}", ours, exact);
            let largest = u128::from(burst) * u128::from(central.num);
            prop_assert!(largest < u128::from(EXACT) && u128::from(central.tau) * u128::from(central.den) < u128::from(EXACT), "{:?}", central);
        }

        #[test]
        fn no_span_has_more_than_its_share(units in 1u64..1000, burst in 1u64..100, asks in proptest::collection::vec((0u64..300_000, 0u64..60, 0u64..20, 0u64..3), 1..150)) {
            let rate = Rate::parse(&format!("{units}/s"), Some(burst)).unwrap();
            let central = CentralRate::new(&rate, LIFE);
            let (mut state, mut now, mut sum, mut least, mut out) = (RateState::default(), NOW, 0f64, 0f64, 0u64);
            for (wait, want, unused, lost) in asks {
                now += wait;
                let earned = (now - NOW) as f64 * central.den as f64 / central.num as f64;
                let unused = unused.min(out);
                least = least.min(sum - earned);
                let lost_for = Duration::from_millis(lost.saturating_sub(1) * 50);
                let answer = central.lease(&mut state, &LeaseRequest { lost_for, ..ask(want, unused) }, now);
                out = out - unused + answer.granted;
                sum += answer.granted as f64 - unused as f64;
                prop_assert!(sum - earned - least <= burst as f64 + 1e-6);
                prop_assert!(answer.granted <= want && answer.left <= burst);
                prop_assert_eq!(answer.granted < want.min(burst), answer.retry_after > Duration::ZERO);
            }
        }
    }
}
