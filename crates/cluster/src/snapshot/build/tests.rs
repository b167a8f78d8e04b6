//! Following commits leads to the same snapshot as reading all records, and shares what did not change.

use std::collections::BTreeMap;

use plinth_store::metadata::{AuditChange, AuditNote};
use plinth_types::Timestamp;
use proptest::prelude::*;
use serde_json::json;

use super::*;

fn key(kind: Kind, tenant: &str, name: &str) -> RecordKey {
    let home = matches!(kind, Kind::Tenant | Kind::Plan | Kind::Issuer | Kind::Addresses);
    RecordKey::new(kind, if home { TenantName::default_tenant() } else { tenant.parse().unwrap() }, name)
}

const TIME: &str = "2026-01-31T12:00:00.000Z";

fn value(kind: Kind, n: u32) -> Value {
    let digest = Digest::of(b"x");
    match kind {
        Kind::Tenant => json!({ "description": n.to_string(), "created_at": TIME }),
        Kind::Key => json!({ "secret_hash": digest, "role": "viewer", "description": n.to_string(), "created_at": TIME }),
        Kind::Model => json!({ "description": n.to_string(), "created_by": "a", "created_at": TIME }),
        Kind::Version => {
            json!({ "content": digest, "files": [], "state": "active", "description": n.to_string(), "created_by": "a", "created_at": TIME })
        }
        Kind::Deployment => json!({ "generation": n }),
        Kind::Plan => json!({ "weight": n }),
        Kind::Upstream => json!({ "description": n.to_string(), "endpoints": [] }),
        Kind::Route => json!({ "priority": n, "targets": [] }),
        Kind::Issuer => json!({ "description": n.to_string(), "issuer": "i", "audiences": [] }),
        Kind::Filter => json!({
            "versions": { "1": { "module": digest, "size": n, "created_by": "a", "created_at": TIME } }, "last_version": 1,
            "created_by": "a", "created_at": TIME
        }),
        Kind::Addresses => json!({ "deny": [n.to_string()] }),
        Kind::Collection => json!({ "deleting": [] }),
        Kind::FormerModel => json!({ "last_version": 1 + n }),
    }
}

fn any_change() -> impl Strategy<Value = (RecordKey, Option<Value>)> {
    let kind = prop::sample::select(Kind::ALL.to_vec());
    (kind, prop::sample::select(vec!["default", "acme"]), 0..3u32, prop::option::weighted(0.7, 0..9u32)).prop_map(
        |(kind, tenant, name, n)| {
            let name = match kind {
                Kind::Addresses => "addresses".to_owned(),
                Kind::Version => format!("m{name}/{:020}", n.unwrap_or(0) % 3 + 1),
                _ => format!("m{name}"),
            };
            (key(kind, tenant, &name), n.map(|n| value(kind, n)))
        },
    )
}

/// A ledger that keeps what the registry keeps: no parts without their model.
fn put(records: &mut BTreeMap<RecordKey, Value>, changes: Vec<(RecordKey, Option<Value>)>) -> Vec<AuditChange> {
    let mut wanted: BTreeMap<RecordKey, Option<Value>> = changes.into_iter().collect();
    let model_of = |key: &RecordKey| match key.kind {
        Kind::Version | Kind::Deployment => {
            Some(RecordKey { kind: Kind::Model, name: key.name.split('/').next().unwrap().to_owned(), ..key.clone() })
        }
        _ => None,
    };
    let there = |wanted: &BTreeMap<RecordKey, Option<Value>>, model: &RecordKey| {
        wanted.get(model).map_or_else(|| records.contains_key(model), Option::is_some)
    };
    let orphans: Vec<_> = records.keys().filter(|key| model_of(key).is_some_and(|model| !there(&wanted, &model))).cloned().collect();
    wanted.extend(orphans.into_iter().map(|key| (key, None)));
    let homeless: Vec<_> = wanted.keys().filter(|key| model_of(key).is_some_and(|model| !there(&wanted, &model))).cloned().collect();
    homeless.into_iter().for_each(|key| drop(wanted.insert(key, None)));
    let changes = wanted.into_iter().map(|(key, after)| {
        let before = match &after {
            Some(value) => records.insert(key.clone(), value.clone()),
            None => records.remove(&key),
        };
        AuditChange { key, before, after }
    });
    changes.collect()
}

fn entry(revision: u64, changes: Vec<AuditChange>) -> AuditEntry {
    let note = AuditNote {
        at: Timestamp::from_millis(revision).unwrap(),
        tenant: TenantName::default_tenant(),
        actor: "a".into(),
        action: "x".into(),
        subject: "y".into(),
        comment: String::new(),
    };
    AuditEntry { revision: Revision(revision), note, changes }
}

fn whole(revision: u64, records: &BTreeMap<RecordKey, Value>, mark: Option<Digest>) -> Snapshot {
    let records = records.iter().map(|(key, value)| Record {
        key: key.clone(),
        revision: Revision(1),
        updated_at: Timestamp::from_millis(1).unwrap(),
        value: value.clone(),
    });
    Snapshot { mark, ..Snapshot::from_records(Revision(revision), records.collect()).unwrap() }
}

proptest! {
    #[test]
    fn following_is_the_same_as_reading_everything(history in prop::collection::vec(prop::collection::vec(any_change(), 0..6), 1..12)) {
        let (mut records, mut followed) = (BTreeMap::new(), Snapshot::default());
        for (at, changes) in history.into_iter().enumerate() {
            let revision = at as u64 + 1;
            let entry = entry(revision, put(&mut records, changes));
            let before = followed.clone();
            let picture = serde_json::to_string(&before).unwrap();
            followed.follow(&entry).unwrap();
            prop_assert_eq!(&followed, &whole(revision, &records, followed.mark));
            prop_assert_eq!(serde_json::to_string(&before).unwrap(), picture, "a snapshot that was shown never changes");
        }
    }

    #[test]
    fn a_snapshot_survives_its_file(changes in prop::collection::vec(any_change(), 0..20)) {
        let mut records = BTreeMap::new();
        put(&mut records, changes);
        let snapshot = whole(1, &records, None);
        let text = serde_json::to_string(&snapshot).unwrap();
        prop_assert_eq!(serde_json::from_str::<Snapshot>(&text).unwrap(), snapshot);
    }
}

#[test]
fn what_did_not_change_is_shared() {
    let mut records = BTreeMap::new();
    let all = [(Kind::Tenant, "a"), (Kind::Key, "k1"), (Kind::Key, "k2"), (Kind::Route, "r")];
    let first = put(&mut records, all.map(|(kind, name)| (key(kind, "acme", name), Some(value(kind, 1)))).into());
    let other = put(&mut records, vec![(key(Kind::Key, "other", "k3"), Some(value(Kind::Key, 1)))]);
    let mut snapshot = Snapshot::default();
    snapshot.follow(&entry(1, first)).unwrap();
    snapshot.follow(&entry(2, other)).unwrap();
    let before = snapshot.clone();
    snapshot.follow(&entry(3, put(&mut records, vec![(key(Kind::Key, "acme", "k1"), None)]))).unwrap();
    let (acme, other): (TenantName, TenantName) = ("acme".parse().unwrap(), "other".parse().unwrap());
    assert!(Arc::ptr_eq(&before.tenants, &snapshot.tenants) && Arc::ptr_eq(&before.routes, &snapshot.routes));
    assert!(Arc::ptr_eq(&before.keys[&other], &snapshot.keys[&other]), "another tenant's keys");
    let k2 = "k2".parse().unwrap();
    assert!(Arc::ptr_eq(&before.keys[&acme][&k2], &snapshot.keys[&acme][&k2]), "another key of the same tenant");
    assert_eq!((before.keys[&acme].len(), snapshot.keys[&acme].len()), (2, 1));
}

#[test]
fn what_does_not_follow_is_refused() {
    let mut snapshot = Snapshot::default();
    assert!(snapshot.follow(&entry(2, Vec::new())).is_err());
    let bad = AuditChange { key: key(Kind::Plan, "", "p"), before: None, after: Some(json!({ "wieght": 1 })) };
    assert!(snapshot.follow(&entry(1, vec![bad])).is_err());
    let orphan = AuditChange { key: key(Kind::Deployment, "default", "m"), before: None, after: Some(json!({})) };
    assert!(Snapshot::default().follow(&entry(1, vec![orphan])).is_err());
}

#[test]
fn plans_are_built_in_until_they_are_written() {
    let mut snapshot = Snapshot::default();
    let (free, gold) = ("free".parse().unwrap(), "gold".parse().unwrap());
    assert_eq!(snapshot.plan(&free).unwrap().limits[0].rate, "10/s");
    assert!(snapshot.plan(&gold).is_none());
    let own = AuditChange { key: key(Kind::Plan, "", "free"), before: None, after: Some(json!({ "weight": 3 })) };
    snapshot.follow(&entry(1, vec![own])).unwrap();
    assert_eq!((snapshot.plan(&free).unwrap().weight, snapshot.plan(&free).unwrap().limits.len()), (3, 0));
}
