//! What does a ring of keys cost? Prints the time to make one, the time to follow a change, the bytes for each key, and
//! the time of a lookup that succeeds and of one that does not, in nanoseconds.
//!
//! `cargo run --release -p plinth-identity --example key_ring -- 1000000 100000` (keys, tenants)
#![allow(clippy::print_stdout, clippy::expect_used, reason = "a program that measures and prints")]

use std::collections::BTreeMap;
use std::hint::black_box;
use std::sync::Arc;

use plinth_identity::{ApiKey, KeyRecords, KeyRing, TenantRecords};
use plinth_runtime::{Clock, SeededRandom, SystemClock};
use plinth_store::resources::{Role, TenantRecord};
use plinth_types::TenantName;

/// More keys than caches of the processor hold.
const SAMPLE: usize = 100_000;

fn main() {
    let mut arguments = std::env::args().skip(1).filter_map(|text| text.parse::<usize>().ok());
    let (keys, tenants) = (arguments.next().unwrap_or(1_000_000), arguments.next().unwrap_or(100_000));
    let (random, clock) = (SeededRandom::new(1), SystemClock);
    let now = clock.now();
    let names: Vec<TenantName> = (0..tenants).map(|n| format!("tenant-{n}").parse().expect("a name")).collect();
    let record = |_: &TenantName| Arc::new(TenantRecord { description: String::new(), created_at: now, plan: None, suspended: false });
    let tenant_records: Arc<TenantRecords> = Arc::new(names.iter().map(|name| (name.clone(), record(name))).collect());
    let (mut by_tenant, mut sample) = (BTreeMap::<TenantName, BTreeMap<_, _>>::new(), Vec::new());
    for n in 0..keys {
        let key = ApiKey::generate(&random).expect("a key");
        let made = Arc::new(key.record(Role::Developer, "", now, None));
        by_tenant.entry(names[n % tenants].clone()).or_default().insert(key.id().clone(), made);
        if n % keys.div_ceil(SAMPLE) == 0 {
            sample.push(key.reveal());
        }
    }
    let records: KeyRecords = by_tenant.into_iter().map(|(tenant, keys)| (tenant, Arc::new(keys))).collect();
    let records = Arc::new(records);

    let begun = clock.monotonic();
    let ring = KeyRing::default().follow(&tenant_records, &records);
    println!("{} keys of {} tenants in {:?}, {:.1} bytes a key", ring.len(), tenants, clock.monotonic() - begun, {
        #[allow(clippy::cast_precision_loss, reason = "for people")]
        let bytes = ring.memory() as f64 / ring.len() as f64;
        bytes
    });

    let mut changed = KeyRecords::clone(&records);
    let (tenant, mine) = changed.iter().next().map(|(tenant, keys)| (tenant.clone(), keys.clone())).expect("a tenant");
    changed.insert(tenant, Arc::new(mine.iter().skip(1).map(|(id, key)| (id.clone(), key.clone())).collect()));
    let changed = Arc::new(changed);
    let begun = clock.monotonic();
    let next = ring.follow(&tenant_records, &changed);
    println!("one key less ({}) in {:?}", next.len(), clock.monotonic() - begun);

    let wrong: Vec<_> = sample.iter().map(|key| key.replace(['1', '2', '3'], "4")).collect();
    for (what, tokens, passes) in [("good", &sample, true), ("unknown", &wrong, false)] {
        let rounds = 2_000_000 / tokens.len() as u128;
        let begun = clock.monotonic();
        for _ in 0..rounds {
            for token in tokens {
                assert_eq!(black_box(ring.check(black_box(token), now)).is_ok(), passes);
            }
        }
        println!("{what}: {} ns", (clock.monotonic() - begun).as_nanos() / (rounds * tokens.len() as u128));
    }
}
