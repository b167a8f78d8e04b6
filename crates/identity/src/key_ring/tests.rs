//! The ring over its life: what passes and what not, what it costs, and that following changes is the same as building.

use super::*;
use crate::ApiKey;
use plinth_runtime::{Random, SeededRandom};
use proptest::prelude::*;

fn at(millis: u64) -> Timestamp {
    Timestamp::from_millis(millis).unwrap()
}

fn tenant_record(suspended: bool) -> Arc<TenantRecord> {
    Arc::new(TenantRecord { description: String::new(), created_at: at(0), plan: None, suspended })
}

fn name(text: &str) -> TenantName {
    text.parse().unwrap()
}

#[test]
fn only_the_right_secret_within_its_time_passes() {
    let random = SeededRandom::new(3);
    let (key, other) = (ApiKey::generate(&random).unwrap(), ApiKey::generate(&random).unwrap());
    let record = KeyRecord { models: vec!["digits".parse().unwrap()], ..key.record(Role::Developer, "", at(0), Some(at(100))) };
    let ring = KeyRing::new([(key.id().clone(), name("acme"), record)]);

    let principal = ring.authenticate(&key.reveal(), at(99)).unwrap();
    assert_eq!((&principal.tenant, principal.role, principal.tenant_index), (&name("acme"), Role::Developer, 1));
    assert_eq!(principal.actor(), format!("key:{}", key.id()));
    assert!(principal.may_use(&"digits".parse().unwrap()) && !principal.may_use(&"other".parse().unwrap()));

    let wrong_secret = format!("plinth_{}_{}", key.id(), other.reveal().rsplit('_').next().unwrap());
    let cases = [
        (other.reveal(), 1, Refused::UnknownId),
        (wrong_secret, 1, Refused::WrongSecret),
        (key.reveal(), 100, Refused::Expired),
        ("nonsense".into(), 1, Refused::Malformed),
        (format!("plinth_{}_{}", key.id(), "0".repeat(64)), 1, Refused::WrongSecret),
        (format!("plinth_{}_{}", "0".repeat(16), "0".repeat(64)), 1, Refused::UnknownId),
    ];
    let mut texts = Vec::new();
    for (token, now, refused) in cases {
        assert_eq!(ring.check(&token, at(now)).unwrap_err(), refused);
        texts.push(ring.authenticate(&token, at(now)).unwrap_err().to_string());
    }
    assert!(texts.windows(2).all(|w| w[0] == w[1]), "{texts:?}");
}

#[test]
fn a_tenant_that_is_suspended_or_gone_is_refused_and_keeps_its_index() {
    let key = ApiKey::generate(&SeededRandom::new(3)).unwrap();
    let keys: Arc<KeyRecords> =
        Arc::new([(name("acme"), Arc::new([(key.id().clone(), Arc::new(key.record(Role::Admin, "", at(0), None)))].into()))].into());
    let with = |ring: &KeyRing, tenants: &[(&str, bool)]| {
        ring.follow(&Arc::new(tenants.iter().map(|(n, suspended)| (name(n), tenant_record(*suspended))).collect()), &keys)
    };
    let ring = with(&KeyRing::default(), &[("acme", false)]);
    assert_eq!(ring.check(&key.reveal(), at(1)).unwrap().tenant_index, 1);
    let ring = with(&ring, &[("aaaa", false), ("acme", true)]);
    assert_eq!(ring.check(&key.reveal(), at(1)).unwrap_err(), Refused::Suspended);
    assert_eq!(ring.authenticate(&key.reveal(), at(1)).unwrap_err().reason(), Reason::TenantSuspended);
    let ring = with(&ring, &[("aaaa", false)]);
    assert_eq!(ring.check(&key.reveal(), at(1)).unwrap_err(), Refused::UnknownId);
    let ring = with(&ring, &[("acme", false)]);
    assert_eq!((ring.check(&key.reveal(), at(1)).unwrap().tenant_index, ring.tenants()), (1, 3));
    let ring = with(&ring, &[("default", true)]);
    assert!(ring.tenant("aaaa").is_none() && ring.tenant("default").is_some_and(|(index, home)| index == 0 && !home.suspended));
}

#[test]
fn only_the_platform_acts_for_others_and_then_only_for_them() {
    let ring = KeyRing::new([]);
    let ring = ring.follow(&Arc::new([(name("acme"), tenant_record(false))].into()), &Arc::default());
    let acting = ring.acting_for(Principal::anybody(), "acme").unwrap();
    assert_eq!((acting.actor().as_str(), acting.tenant_index, acting.is_platform()), ("anybody for acme", 1, false));
    assert_eq!(ring.acting_for(Principal::anybody(), "nobody").unwrap_err().reason(), Reason::RecordNotFound);
    for principal in [Principal { role: Role::Operator, ..Principal::anybody() }, acting.clone()] {
        let texts = ["default", "nobody", "../x"].map(|other| match ring.acting_for(principal.clone(), other) {
            Ok(same) => format!("{}", same == principal),
            Err(error) => error.to_string(),
        });
        assert_eq!(texts[1], texts[2], "existence is not told");
    }
    assert_eq!(ring.acting_for(acting.clone(), "acme").unwrap(), acting);
}

#[test]
fn a_key_takes_at_most_128_bytes() {
    let (random, keys, tenants) = (SeededRandom::new(5), 20_000, 2_000);
    let records = (0..keys).map(|n| {
        let id = format!("{:016x}", random.next_u64()).parse().unwrap();
        let record = KeyRecord { models: vec!["a".parse().unwrap()], ..key_record([7; 32]) };
        (id, name(&format!("tenant-{}", n % tenants)), record)
    });
    let ring = KeyRing::new(records);
    assert_eq!((ring.len(), ring.tenants(), ring.is_empty()), (keys, tenants + 1, false));
    assert!(ring.memory() / keys <= 128, "{}", ring.memory() / keys);
    assert_eq!(size_of::<Slot>(), 48);
}

fn key_record(hash: [u8; 32]) -> KeyRecord {
    KeyRecord {
        secret_hash: Digest::from_bytes(hash),
        role: Role::Developer,
        description: String::new(),
        created_at: at(0),
        expires_at: None,
        models: Vec::new(),
        replaced_by: None,
    }
}

/// A change of the ledger: whose key, which, and what it is then.
fn step() -> impl Strategy<Value = (u8, u8, Option<u8>)> {
    (0..4_u8, 0..40_u8, prop::option::of(0..3_u8))
}

proptest! {
    /// Following a history step by step leads to what building from its end leads to.
    #[test]
    fn following_is_the_same_as_building(history in prop::collection::vec(prop::collection::vec(step(), 0..12), 1..12)) {
        let (mut ring, mut keys) = (KeyRing::default(), KeyRecords::new());
        let tenants: Arc<TenantRecords> = Arc::new((0..4).map(|n| (name(&format!("t{n}")), tenant_record(false))).collect());
        let secret = "0".repeat(64);
        let good = *Digest::of(secret.as_bytes()).as_bytes();
        for commit in history {
            for (tenant, id, value) in commit {
                // Each tenant has ids of its own, spread over all parts.
                let number = u64::from(id).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ u64::from(tenant);
                let id: KeyId = format!("{number:016x}").parse().unwrap();
                let mine = Arc::make_mut(keys.entry(name(&format!("t{tenant}"))).or_default());
                match value {
                    Some(value) => drop(mine.insert(id, Arc::new(key_record(if value == 0 { good } else { [value; 32] })))),
                    None => drop(mine.remove(&id)),
                }
            }
            keys.retain(|_, keys| !keys.is_empty());
            let records = Arc::new(keys.clone());
            ring = ring.follow(&tenants, &records);
            let built = KeyRing::default().follow(&tenants, &records);
            prop_assert_eq!(ring.len(), built.len());
            for tenant in 0..4_u64 {
                for id in 0..40_u64 {
                    let token = format!("plinth_{:016x}_{secret}", id.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ tenant);
                    let strip = |r: Result<Principal, Refused>| r.map(|p| (p.tenant, p.user, p.role));
                    prop_assert_eq!(strip(ring.check(&token, at(1))), strip(built.check(&token, at(1))));
                }
            }
        }
    }
}
