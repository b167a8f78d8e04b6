//! What do limits cost a request? Prints nanoseconds and allocations for each request that is let in and settled, with one tenant and with
//! many, without and with a limit for each user; the bytes of a tenant and of a user; and the time to apply a snapshot.
//!
//! `cargo run --release -p plinth-gateway --example limits -- 100000 1000000` (tenants, users)
#![allow(clippy::print_stdout, clippy::expect_used, clippy::cast_precision_loss, reason = "a program that measures and prints")]

use std::collections::BTreeMap;
use std::net::IpAddr;

use futures_util::FutureExt;
use plinth_gateway::{Caller, Cost, LimitOptions, Limits};
use plinth_identity::UserKey;
use plinth_runtime::World;
use plinth_store::resources::TenantRecord;
use plinth_store::resources::gateway::{CostSpec, Counted, LimitScope, LimitSpec, PlanRecord};
use plinth_telemetry::LimitMetrics;
use plinth_types::{Label, TenantName};
use tikv_jemalloc_ctl::thread;

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

const REQUESTS: u64 = 2_000_000;

/// Bytes that this thread, which is the only one, holds.
fn heap() -> u64 {
    thread::allocatedp::read().expect("statistics").get() - thread::deallocatedp::read().expect("statistics").get()
}

fn plan(limits: Vec<(&str, LimitScope)>) -> PlanRecord {
    // So high that nothing is refused: what is measured is the way of a request that is let in.
    let limit = |(name, scope): (&str, LimitScope)| LimitSpec {
        name: name.parse().expect("a name"),
        scope,
        counts: Counted::Requests,
        operation: None,
        rate: "1000000/s".to_owned(),
        burst: Some(100_000_000),
    };
    PlanRecord { limits: limits.into_iter().map(limit).collect(), concurrency: Some(1_000_000), ..PlanRecord::default() }
}

struct Bed {
    world: World,
    limits: Limits,
    names: Vec<TenantName>,
}

impl Bed {
    fn new(tenants: usize, users: usize, plan: PlanRecord) -> Self {
        let world = World::real();
        let names: Vec<TenantName> = (0..tenants).map(|n| format!("tenant-{n}").parse().expect("a name")).collect();
        let label: Label = "p".parse().expect("a name");
        let plans = BTreeMap::from([(label.clone(), plan)]);
        let record = TenantRecord { description: String::new(), created_at: world.clock.now(), plan: Some(label), suspended: false };
        let before = heap();
        let limits = Limits::new(&world, LimitMetrics::default(), LimitOptions { users, bans: None, ..LimitOptions::default() }, None);
        let apply = || limits.apply(&plans, names.iter().zip(0..).map(|(name, index)| (name, index, &record)), None);
        let begun = world.clock.monotonic();
        apply();
        let (first, made) = (world.clock.monotonic() - begun, heap());
        let begun = world.clock.monotonic();
        apply();
        let next = world.clock.monotonic() - begun;
        println!(
            "{tenants} tenants: {:.0} bytes each; a snapshot in {first:?}, the next in {next:?}",
            (made - before) as f64 / tenants as f64
        );
        Self { world, limits, names }
    }

    /// Nanoseconds and allocated bytes of a request, over so many tenants and users in random order.
    fn measure(&self, users: u64) -> (f64, f64) {
        let address = IpAddr::from([203, 0, 113, 5]);
        let cost = Cost { spec: CostSpec::default(), body: 0 };
        let mut random = 0x9E37_79B9_7F4A_7C15u64;
        let mut one = || {
            random = random.wrapping_mul(0xD129_0FA3_5C61_7D35).wrapping_add(1);
            let high = random >> 16;
            let index = (high % self.names.len() as u64) as u32;
            let user = UserKey(1 + high.wrapping_mul(0x9E37_79B9) % users);
            let caller = Caller { tenant: &self.names[index as usize], tenant_index: index, user, address };
            let now = self.world.clock.monotonic();
            let entry = self.limits.enter(caller, "infer", cost, now).now_or_never().expect("nobody waits").expect("nobody is refused");
            drop(entry);
        };
        (0..2 * REQUESTS).for_each(|_| one());
        let allocated = thread::allocatedp::read().expect("statistics");
        let (bytes, begun) = (allocated.get(), self.world.clock.monotonic());
        (0..REQUESTS).for_each(|_| one());
        let took = self.world.clock.monotonic() - begun;
        (took.as_nanos() as f64 / REQUESTS as f64, (allocated.get() - bytes) as f64 / REQUESTS as f64)
    }
}

fn main() {
    let mut arguments = std::env::args().skip(1).filter_map(|text| text.parse::<usize>().ok());
    let (tenants, users) = (arguments.next().unwrap_or(100_000), arguments.next().unwrap_or(1_000_000));
    for (what, limits) in [
        ("tenant's rate and concurrency", vec![("all", LimitScope::Tenant)]),
        ("and a rate of each user", vec![("all", LimitScope::Tenant), ("each", LimitScope::User)]),
    ] {
        for (tenants, users) in [(1, 1), (tenants, users)] {
            let bed = Bed::new(tenants, users, plan(limits.clone()));
            let (nanos, bytes) = bed.measure(users as u64);
            println!("  {what}; {tenants} tenants, {users} users: {nanos:.0} ns, {bytes:.2} bytes allocated");
        }
    }
    let bed = Bed::new(1, users, plan(vec![("each", LimitScope::User)]));
    let (before, _) = (bed.limits.users_memory(), bed.measure(users as u64));
    println!("{users} users: {:.1} bytes each", (bed.limits.users_memory() - before) as f64 / users as f64);
}
