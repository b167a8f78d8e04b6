//! The estimate by table and by bounds; and whether choosing by it balances.

use proptest::prelude::*;

use super::*;
use crate::balance::{hash, p2c};

const fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

fn load(first: Duration) -> Arc<Load> {
    Arc::new(Load::new(ms(0), Load::TAU, first))
}

fn answer(load: &Arc<Load>, now: Duration, latency: Duration) {
    let mut request = load.begin(now.saturating_sub(latency));
    request.answered(now);
}

fn near(found: Duration, wanted: Duration) {
    let off = found.as_secs_f64() / wanted.as_secs_f64();
    assert!((0.99..1.01).contains(&off), "{found:?} instead of {wanted:?}");
}

#[test]
fn a_peak_counts_at_once_and_fades_with_time() {
    let load = load(ms(10));
    answer(&load, ms(1_000), ms(500));
    near(load.latency(ms(1_000)), ms(500));
    // Ten seconds of 10 ms: 500 × e⁻¹ + 10 × (1 − e⁻¹).
    (1..=1_000).for_each(|n| answer(&load, ms(1_000 + n * 10), ms(10)));
    near(load.latency(ms(11_000)), Duration::from_micros(190_261));
    // Idle, it fades to nothing.
    near(load.latency(ms(21_000)), Duration::from_secs_f64(0.190_261 * (-1.0_f64).exp()));
}

#[test]
fn penalties_can_be_forgotten() {
    let load = load(ms(10));
    let mut failed = load.begin(ms(1_000));
    failed.failed(ms(1_000), ms(60_000));
    drop(failed);
    near(load.latency(ms(1_000)), ms(60_000));
    load.believe(ms(2_000), ms(7));
    near(load.latency(ms(2_000)), ms(7));
    near(load.latency(ms(12_000)), ms(7).mul_f64((-1.0_f64).exp()));
}

#[test]
fn in_flight_until_the_last_byte_or_the_drop() {
    let load = load(ms(10));
    let mut streaming = load.begin(ms(0));
    streaming.answered(ms(5));
    let dropped = load.begin(ms(5));
    assert_eq!(load.in_flight(), 2);
    assert_eq!(load.cost(ms(5), 1.0).map(|cost| cost / load.cost(ms(5), 3.0).unwrap()), Some(3.0));
    drop(dropped);
    assert_eq!(load.in_flight(), 1);
    drop(streaming);
    assert_eq!(load.in_flight(), 0);
    assert_eq!(load.cost(ms(5), 0.0), None);
}

#[test]
fn failing_fast_is_not_fast() {
    let load = load(ms(10));
    load.begin(ms(100)).failed(ms(101), ms(400));
    near(load.latency(ms(101)), ms(400));
}

#[test]
fn silence_while_somebody_waits_is_latency() {
    let load = load(ms(10));
    answer(&load, ms(1_000), ms(10));
    let _hangs = load.begin(ms(60_000));
    near(load.latency(ms(63_000)), ms(3_000));
    // A stream that has begun is not waited for.
    let streams = self::load(ms(10));
    let mut stream = streams.begin(ms(0));
    stream.answered(ms(10));
    assert!(streams.latency(ms(3_000)) <= ms(10));
}

#[test]
fn a_client_that_gave_up_late_has_waited_that_long() {
    let load = load(ms(10));
    load.begin(ms(0)).cancelled(ms(2_000));
    near(load.latency(ms(2_000)), ms(2_000));
    load.begin(ms(2_000)).cancelled(ms(2_001));
    near(load.latency(ms(2_001)), ms(2_000));
    assert_eq!(load.in_flight(), 0);
}

proptest! {
    #[test]
    fn between_the_least_and_the_most(samples in proptest::collection::vec((0u64..2_000, 1u64..5_000), 1..200)) {
        let load = load(ms(samples[0].1));
        let mut now = ms(10_000);
        let (mut least, mut most) = (ms(samples[0].1), ms(samples[0].1));
        for (gap, latency) in samples {
            now += ms(gap);
            (least, most) = (least.min(ms(latency)), most.max(ms(latency)));
            answer(&load, now, ms(latency));
            let found = load.latency(now);
            prop_assert!(found + ms(1) >= least && found <= most + ms(1), "{found:?}");
            prop_assert!(found + ms(1) >= ms(latency), "never below the last");
        }
        prop_assert_eq!(load.in_flight(), 0);
    }
}

/// Requests at a fixed pace to endpoints with these latencies and weights; how many each got.
fn balance(endpoints: &[(u64, f64)], per_second: u64, seconds: u64) -> Vec<u64> {
    let loads: Vec<_> = endpoints.iter().map(|_| load(ms(20))).collect();
    let mut counts = vec![0; endpoints.len()];
    let mut ends = std::collections::BinaryHeap::new();
    let mut flying: Vec<Option<InFlight>> = Vec::new();
    for n in 0..per_second * seconds {
        let now = Duration::from_nanos(n * 1_000_000_000 / per_second);
        while let Some(std::cmp::Reverse((end, which))) = ends.peek().copied()
            && end <= now
        {
            ends.pop();
            let request: &mut Option<InFlight> = &mut flying[which];
            request.take().unwrap().answered(end);
        }
        let chosen =
            p2c::pick(loads.len(), (hash::mix(n, 1), hash::mix(n, 2)), |place| loads[place].cost(now, endpoints[place].1)).unwrap();
        counts[chosen] += 1;
        ends.push(std::cmp::Reverse((now + ms(endpoints[chosen].0), flying.len())));
        flying.push(Some(loads[chosen].begin(now)));
    }
    counts
}

#[test]
fn equals_share_alike() {
    let counts = balance(&[(20, 1.0); 4], 2_000, 20);
    assert!(counts.iter().all(|count| (8_000..12_000).contains(count)), "{counts:?}");
}

#[test]
fn a_slow_one_gets_less_but_not_nothing() {
    let counts = balance(&[(20, 1.0), (20, 1.0), (20, 1.0), (200, 1.0)], 2_000, 20);
    assert!(counts[3] > 0 && counts[3] * 5 < counts[0], "{counts:?}");
}

#[test]
fn weights_are_kept_under_load() {
    let counts = balance(&[(50, 1.0), (50, 0.25)], 4_000, 20);
    let ratio = counts[0] as f64 / counts[1] as f64;
    assert!((3.0..5.0).contains(&ratio), "{counts:?}");
}
