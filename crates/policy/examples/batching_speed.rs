//! What does a decision cost? `cargo run --release -p plinth-policy --example batching_speed`
//!
//! **Question.** How long do `push`, `next_into`, `expired_into` and `finished` take for each item, together? **Unit.** Nanoseconds for
//! each item, the best of forty rounds on one thread. **How.** Batches of one, of eight and of 32 items, one tenant or many, with
//! and without ragged groups, in a queue that is refilled before each batch, at a steady pace of simulated time.
#![allow(clippy::print_stdout, reason = "the figures are what this program is for")]
#![allow(clippy::disallowed_methods, reason = "it measures real time, and nothing below floor 2 has a clock")]

use std::time::{Duration, Instant};

use plinth_policy::batching::{Batcher, Done, Item, Settings, Situation, Turn};

fn main() {
    println!("| batch | waiting besides | tenants | groups | ns for each item |");
    println!("|---|---|---|---|---|");
    for (batch, backlog, tenants, groups) in
        [(1, 0, 1, 1), (8, 0, 1, 1), (32, 0, 1, 1), (1, 0, 50, 1), (32, 0, 50, 1), (32, 500, 1, 1), (32, 500, 50, 1), (32, 500, 50, 4)]
    {
        let best = (0..40).map(|_| round(batch, backlog, tenants, groups)).fold(f64::INFINITY, f64::min);
        println!("| {batch} | {backlog} | {tenants} | {groups} | {best:.0} |");
    }
}

fn round(batch: u64, backlog: u64, tenants: u64, groups: u64) -> f64 {
    const ITEMS: u64 = 40_000;
    let mut batcher = Batcher::new(Settings { max_rows: 32, max_items: 10_000, max_bytes: 1 << 40, ..Settings::default() });
    let (mut keys, mut gone) = (Vec::new(), Vec::new());
    let (mut now, mut pushed, mut served) = (Duration::from_secs(1), 0u64, 0usize);
    let mut push = |batcher: &mut Batcher, now: Duration| {
        pushed += 1;
        let deadline = now + Duration::from_secs(60);
        let (tenant, group) = (pushed % tenants, pushed % groups);
        let item = Item { rows: 1, bytes: 256, deadline, timeout: None, level: 0, tenant, group };
        batcher.push(item, now).is_ok()
    };
    for _ in 0..backlog {
        push(&mut batcher, now);
    }
    let begun = Instant::now();
    while (served as u64) < ITEMS {
        for _ in 0..batch {
            push(&mut batcher, now);
        }
        now += Duration::from_micros(10);
        batcher.expired_into(now, &mut gone);
        let situation = Situation { idle_lanes: 1, lanes: 1, busy: &[] };
        if let Turn::Run { rows, group } = batcher.next_into(now, situation, &mut keys) {
            let took = Duration::from_nanos(4_000 + 100 * u64::from(rows));
            now += took;
            served += keys.len();
            batcher.finished(Done { group, items: keys.len(), rows, took }, now);
        } else {
            now += Duration::from_micros(10);
        }
    }
    begun.elapsed().as_nanos() as f64 / served.max(1) as f64
}
