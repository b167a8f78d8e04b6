//! The two steps of a request that know of tenants and keys, alone and in this process: what does each cost with one and with many?
//!
//! Both sides run the same loop in turn, each over tenants and keys in random order; the least of the rounds counts, because
//! whatever else runs on the machine can only add.

use std::collections::BTreeMap;
use std::hint::black_box;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use futures_util::FutureExt;
use plinth_gateway::{Caller, Cost, LimitOptions, Limits};
use plinth_identity::{ApiKey, KeyRecords, KeyRing, TenantRecords, UserKey};
use plinth_runtime::{SeededRandom, World};
use plinth_store::resources::gateway::{CostSpec, PlanRecord};
use plinth_store::resources::{Role, TenantRecord};
use plinth_telemetry::LimitMetrics;
use plinth_types::{Label, TenantName};

const CALLS: u64 = 400_000;
const ROUNDS: usize = 5;
/// Calls that are prepared together.
const BATCH: usize = 100;

/// Nanoseconds of one call, with one tenant and key and with many.
pub struct Pair {
    pub one: f64,
    pub many: f64,
}

/// Who makes a request.
struct Asker {
    key: String,
    tenant: TenantName,
    index: u32,
    user: u64,
}

struct Bed {
    world: World,
    limits: Limits,
    ring: KeyRing,
    names: Vec<TenantName>,
    shown: Vec<String>,
}

/// Checking a key, and entering and leaving the limits.
pub fn measure(plan: &PlanRecord, tenants: usize, keys: usize) -> Result<(Pair, Pair)> {
    let beds = [Bed::new(plan, 1, 1)?, Bed::new(plan, tenants, keys)?];
    let least = |one: &dyn Fn(&Bed, &Asker) -> Result<()>| -> Result<Pair> {
        let mut least = [f64::MAX; 2];
        for round in 0..=ROUNDS {
            for (bed, least) in beds.iter().zip(&mut least) {
                let took = bed.time(one)?;
                // The first is for warming up.
                *least = if round == 0 { *least } else { least.min(took) };
            }
        }
        Ok(Pair { one: least[0], many: least[1] })
    };
    let key = least(&|bed, asker| bed.check(asker))?;
    let limits = least(&|bed, asker| bed.enter(asker))?;
    Ok((key, limits))
}

impl Bed {
    fn new(plan: &PlanRecord, tenants: usize, keys: usize) -> Result<Self> {
        let (world, random) = (World::real(), SeededRandom::new(1));
        let names: Vec<TenantName> = (0..tenants).map(|n| Ok(format!("tenant-{n:06}").parse()?)).collect::<Result<_>>()?;
        let label: Label = "bench".parse()?;
        let record =
            TenantRecord { description: String::new(), created_at: world.clock.now(), plan: Some(label.clone()), suspended: false };
        let tenants: TenantRecords = names.iter().map(|name| (name.clone(), Arc::new(record.clone()))).collect();
        let (mut by_tenant, mut shown) = (BTreeMap::<TenantName, BTreeMap<_, _>>::new(), Vec::with_capacity(keys));
        for name in names.iter().cycle().take(keys) {
            let key = ApiKey::generate(&random)?;
            let record = Arc::new(key.record(Role::Developer, "", world.clock.now(), None));
            by_tenant.entry(name.clone()).or_default().insert(key.id().clone(), record);
            shown.push(key.reveal());
        }
        let records: KeyRecords = by_tenant.into_iter().map(|(tenant, keys)| (tenant, Arc::new(keys))).collect();
        let ring = KeyRing::default().follow(&Arc::new(tenants), &Arc::new(records));
        let options = LimitOptions { bans: None, ..LimitOptions::default() };
        let limits = Limits::new(&world, LimitMetrics::default(), options, None);
        let known = names.iter().filter_map(|name| Some((name, ring.tenant(name.as_str())?.0, &record)));
        limits.apply(&BTreeMap::from([(label, plan.clone())]), known, None);
        Ok(Self { world, limits, ring, names, shown })
    }

    /// Nanoseconds of a call. What a request brings with it (its key, the name that was found for it) lies in a cache when the call begins.
    fn time(&self, one: &dyn Fn(&Self, &Asker) -> Result<()>) -> Result<f64> {
        let (mut took, mut number) = (Duration::ZERO, 0x2545_F491_4F6C_DD1D_u64);
        let mut askers = Vec::with_capacity(BATCH);
        for _ in 0..CALLS / BATCH as u64 {
            askers.clear();
            for _ in 0..BATCH {
                number = number.wrapping_mul(0xD129_0FA3_5C61_7D35).wrapping_add(1);
                askers.push(self.asker(number >> 16));
            }
            let start = Instant::now();
            for asker in &askers {
                one(self, asker)?;
            }
            took += start.elapsed();
        }
        Ok(took.as_nanos() as f64 / CALLS as f64)
    }

    fn asker(&self, number: u64) -> Asker {
        // As the keys are dealt out: key and tenant belong together.
        let key = number % self.shown.len() as u64;
        let tenant = key % self.names.len() as u64;
        // The default tenant is the first.
        Asker {
            key: self.shown[key as usize].clone(),
            tenant: self.names[tenant as usize].clone(),
            index: 1 + tenant as u32,
            user: 1 + key,
        }
    }

    fn check(&self, asker: &Asker) -> Result<()> {
        black_box(self.ring.check(&asker.key, self.world.clock.now())).ok().context("a key was refused").map(drop)
    }

    fn enter(&self, asker: &Asker) -> Result<()> {
        let address = IpAddr::from([203, 0, 113, 5]);
        let caller = Caller { tenant: &asker.tenant, tenant_index: asker.index, user: UserKey(asker.user), address };
        let cost = Cost { spec: CostSpec::default(), body: 0 };
        let entered = self.limits.enter(caller, "infer", cost, self.world.clock.monotonic()).now_or_never();
        entered.context("a request waited for nothing")?.ok().context("a request was refused").map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_and_tenant_passes() {
        let bed = Bed::new(&PlanRecord::default(), 7, 20).unwrap();
        for number in 0..40 {
            let asker = bed.asker(number);
            bed.check(&asker).unwrap();
            bed.enter(&asker).unwrap();
            assert_eq!(bed.ring.tenant(asker.tenant.as_str()).unwrap().0, asker.index);
        }
    }
}
