//! Hedging: when, and how much.

use proptest::prelude::*;

use super::*;

const fn s(n: u64) -> Duration {
    Duration::from_secs(n)
}

/// A hundred answers of 1 to 100 ms in the first period.
fn seen() -> Hedge {
    let hedge = Hedge::new(Settings::default());
    (1..=100).for_each(|n| hedge.observe(s(n % 30), Duration::from_millis(n)));
    hedge
}

#[test]
fn late_is_later_than_the_last_periods_p95() {
    let hedge = seen();
    assert_eq!(hedge.delay(s(29), true, State::Closed), None, "not yet a whole period");
    let late = hedge.delay(s(30), true, State::Closed).unwrap().as_secs_f64();
    assert!((0.095..0.108).contains(&late), "{late}");
    assert!(hedge.delay(s(59), true, State::Closed).is_some());
    assert_eq!(hedge.delay(s(60), true, State::Closed), None, "a period without samples");
}

#[test]
fn only_what_may_happen_twice_and_only_from_the_well() {
    let hedge = seen();
    assert_eq!(hedge.delay(s(30), false, State::Closed), None);
    for state in [State::Degraded, State::Open, State::HalfOpen] {
        assert_eq!(hedge.delay(s(30), true, state), None);
    }
}

#[test]
fn ninety_nine_samples_are_not_enough() {
    let hedge = Hedge::new(Settings::default());
    (0..99).for_each(|_| hedge.observe(s(1), s(1)));
    assert_eq!(hedge.delay(s(30), true, State::Closed), None);
    (0..100).for_each(|_| hedge.observe(s(31), Duration::from_micros(20)));
    assert_eq!(hedge.delay(s(61), true, State::Closed), Some(Duration::from_millis(1)), "but never that early");
}

#[test]
fn after_a_long_silence_it_starts_anew() {
    let hedge = seen();
    assert_eq!(hedge.delay(s(90), true, State::Closed), None, "the first period is long over");
    assert_eq!(hedge.delay(s(120), true, State::Closed), None);
}

proptest! {
    #[test]
    fn a_fiftieth_and_no_floor(gaps in proptest::collection::vec(0u64..400, 1..2_000)) {
        let hedge = Hedge::new(Settings::default());
        let (mut now, mut hedges) = (0, 0);
        for (n, gap) in gaps.iter().enumerate() {
            now += gap;
            hedge.requested(Duration::from_millis(now));
            hedges += usize::from(hedge.withdraw(Duration::from_millis(now)));
            prop_assert!(hedges * 50 <= n + 1, "{hedges} of {n}");
        }
    }
}
