//! What the cost model must get right: lines, steps, outliers, drift, and honesty about what it has not seen.

use super::*;
use crate::batching::simulation::Seeded;
use proptest::prelude::*;

fn learn(cost: &mut Cost, times: usize, seed: u64, law: impl Fn(u32) -> f64) {
    let mut random = Seeded::new(seed);
    for _ in 0..times {
        let rows = 1 + (random.any() % 32) as u32;
        cost.observe(rows, law(rows) as u64, 32);
    }
}

fn close(cost: &Cost, rows: u32, truth: f64, by: f64) {
    let mean = cost.mean(rows).expect("something was seen");
    assert!((mean - truth).abs() <= by * truth, "{rows} rows: {mean} instead of {truth}");
}

#[test]
fn knows_nothing_at_first() {
    let mut cost = Cost::default();
    assert_eq!((cost.mean(4), cost.line(), cost.at_best(4)), (None, None, 0.0));
    cost.observe(1, 1_000, 32);
    assert!(cost.mean(1).is_some_and(|mean| (mean - 1_000.0).abs() < 1.0));
    assert_eq!(cost.at_best(1), 0.0, "one execution justifies no refusal");
}

#[test]
fn a_line() {
    let mut cost = Cost::default();
    learn(&mut cost, 300, 1, |rows| 1e6 + 2e5 * f64::from(rows));
    for rows in 1..=32 {
        close(&cost, rows, 1e6 + 2e5 * f64::from(rows), 0.02);
    }
    close(&cost, 64, 1e6 + 2e5 * 64.0, 0.05);
}

#[test]
fn steps_and_cliffs() {
    let stepped = |rows: u32| 5e5 + 4e5 * f64::from(rows.div_ceil(8) * 8);
    let cliff = |rows: u32| if rows > 16 { 9e6 } else { 1e6 };
    for law in [&stepped as &dyn Fn(u32) -> f64, &cliff] {
        let mut cost = Cost::default();
        learn(&mut cost, 2_000, 2, law);
        for rows in 1..=32 {
            close(&cost, rows, law(rows), 0.15);
        }
    }
}

#[test]
fn one_outlier_changes_little() {
    let mut cost = Cost::default();
    learn(&mut cost, 300, 3, |rows| 1e6 + 1e5 * f64::from(rows));
    cost.observe(8, 500_000_000, 32);
    close(&cost, 8, 1.8e6, 0.05);
    close(&cost, 20, 3e6, 0.05);
}

#[test]
fn drift_is_followed() {
    let mut cost = Cost::default();
    learn(&mut cost, 1_000, 4, |rows| 1e6 + 1e5 * f64::from(rows));
    learn(&mut cost, 400, 5, |rows| 3e6 + 3e5 * f64::from(rows));
    for rows in [1, 8, 16, 32] {
        close(&cost, rows, 3e6 + 3e5 * f64::from(rows), 0.2);
    }
}

#[test]
fn a_size_that_is_never_run_again_follows_the_others() {
    let mut cost = Cost::default();
    learn(&mut cost, 500, 6, |rows| 1e6 + 1e5 * f64::from(rows));
    for n in 0..3_000u32 {
        let rows = 1 + n % 8;
        cost.observe(rows, (2e6 + 2e5 * f64::from(rows)) as u64, 32);
    }
    let mean = cost.mean(30).expect("seen");
    assert!(mean > 5.5e6, "still at {mean}, though everything has become twice as dear");
}

#[test]
fn noise_widens_what_is_likely() {
    let (mut quiet, mut noisy) = (Cost::default(), Cost::default());
    learn(&mut quiet, 500, 7, |_| 1e6);
    let mut random = Seeded::new(8);
    for _ in 0..500 {
        noisy.observe(4, (5e5 + 1e6 * random.share()) as u64, 32);
    }
    assert!(quiet.likely(4) < Some(1.05e6) && noisy.likely(4) > Some(1.2e6));
    assert!(quiet.at_best(4) > 0.95e6 && noisy.at_best(4) < 0.6e6);
}

proptest! {
    #[test]
    fn estimates_are_always_usable(seen in proptest::collection::vec((1u32..5_000, 0u64..u64::MAX / 2), 1..200), rows in 1u32..10_000) {
        let mut cost = Cost::default();
        for (rows, took) in seen {
            cost.observe(rows, took, 4_096);
        }
        let mean = cost.mean(rows).expect("something was seen");
        prop_assert!(mean.is_finite() && mean >= 1.0);
        prop_assert!(cost.at_best(rows) <= mean && cost.likely(rows).is_some_and(|likely| likely.is_finite() && likely >= mean));
        let (fixed, slope) = cost.line().expect("something was seen");
        prop_assert!(fixed >= 0.0 && slope >= 0.0 && cost.best_rate().is_finite());
    }
}
