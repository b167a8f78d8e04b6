//! A tenant with ten times the load does not slow the others by more than a stated bound.

use super::*;
use crate::batching::simulation::{Law, Learned, Outcome, Run, Traffic};

const MS: f64 = 1e6;
const LAW: Law = Law::Linear { fixed: 1.0 * MS, each: 0.25 * MS };

fn run(load: f64, tenants: &[f64], max_items: usize) -> Outcome {
    let run = Run {
        law: LAW,
        traffic: Traffic::Poisson,
        lanes: 1,
        max_rows: 16,
        load,
        patience: 100.0 * MS,
        requests: 20_000,
        tenants: tenants.to_vec(),
        seed: 7,
    };
    run.simulate(&mut Learned::new(Settings { max_items, ..settings(16) }))
}

fn p99(latencies: &[u64]) -> f64 {
    latencies[latencies.len() * 99 / 100] as f64
}

#[test]
fn ten_times_the_load_costs_the_others_two_full_batches_at_most() {
    let alone = run(0.12, &[1.0], 100_000);
    // Both together want 132 % of what there is, one of them 120 %.
    let together = run(1.32, &[10.0, 1.0], 100_000);
    let bound = p99(&alone.tenants[0]) + 2.0 * LAW.mean(16);
    let small = p99(&together.tenants[1]);
    assert!(small <= bound, "p99 of the small tenant: {:.1} ms, bound {:.1} ms", small / MS, bound / MS);
    assert!(p99(&together.tenants[0]) >= 99.0 * MS, "it is the large one that is late");
}

#[test]
fn a_flood_leaves_room_in_the_queue() {
    let together = run(3.0, &[40.0, 1.0], 200);
    assert!(p99(&together.tenants[1]) < 30.0 * MS, "refused requests count with their whole 100 ms: {}", p99(&together.tenants[1]));
}

#[test]
fn shares_are_by_cost_and_not_by_count() {
    let mut batcher = Batcher::new(Settings { max_items: 10_000, ..settings(8) });
    for _ in 0..400 {
        push(&mut batcher, Item { tenant: 1, rows: 4, ..ITEM });
    }
    let small: Vec<Key> = (0..1_600).map(|_| push(&mut batcher, Item { tenant: 2, rows: 1, ..ITEM })).collect();
    let (mut of_small, mut of_large) = (0, 0);
    for _ in 0..100 {
        for key in batch(&mut batcher, ms(1)) {
            if small.contains(&key) { of_small += 1 } else { of_large += 4 }
        }
    }
    assert!((i32::abs(of_small - of_large)) <= 8, "{of_small} rows against {of_large}");
}

#[test]
fn idleness_saves_nothing_up() {
    let mut batcher = Batcher::new(Settings { max_items: 10_000, ..settings(4) });
    for _ in 0..400 {
        push(&mut batcher, Item { tenant: 1, ..ITEM });
    }
    for _ in 0..50 {
        batch(&mut batcher, ms(1));
    }
    let late: Vec<Key> = (0..40).map(|_| push(&mut batcher, Item { tenant: 2, ..ITEM })).collect();
    let mut share = 0;
    for _ in 0..10 {
        share += batch(&mut batcher, ms(1)).iter().filter(|key| late.contains(key)).count();
    }
    assert!((16..=24).contains(&share), "{share} of 40 went to the newcomer");
}
