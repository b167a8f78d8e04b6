//! Both adapters against the conformance suite, and each against the faults of its own world.

use std::sync::Arc;

use plinth_runtime::World;
use plinth_types::{TenantName, Timestamp};
use serde_json::json;

use super::*;

mod kill;
mod model;
mod postgres;
mod sqlite;

fn key(name: &str) -> RecordKey {
    RecordKey::new(Kind::Model, TenantName::default_tenant(), name)
}

/// A commit that sets one record.
fn set(name: &str, value: impl Into<Value>) -> Commit {
    Commit {
        changes: vec![Change { key: key(name), expect: Expect::Any, value: Some(value.into()) }],
        guards: Vec::new(),
        if_head: None,
        note: AuditNote {
            at: Timestamp::from_millis(1).unwrap(),
            tenant: TenantName::default_tenant(),
            actor: "test".into(),
            action: "test.set".into(),
            subject: name.into(),
            comment: String::new(),
        },
    }
}

fn everything() -> AuditQuery {
    AuditQuery { tenant: None, subject: None, before: None, limit: 100_000 }
}

/// What holds of every ledger, whatever happened to it: revisions without gaps, each with its audit entry, and records
/// that say what the audit says of them.
async fn check_ledger(ledger: &dyn Metadata) -> Revision {
    let (head, records) = ledger.read_all().await.unwrap();
    let audit = ledger.audit(&everything()).await.unwrap();
    let revisions: Vec<_> = audit.iter().rev().map(|entry| entry.revision.0).collect();
    assert_eq!(revisions, (1..=head.0).collect::<Vec<_>>(), "head {head} and the audit differ");
    let mut told = std::collections::BTreeMap::new();
    for entry in audit.iter().rev() {
        for change in &entry.changes {
            assert_eq!(told.get(&change.key).map(|(_, value)| value), change.before.as_ref(), "the audit contradicts itself");
            match &change.after {
                Some(value) => told.insert(change.key.clone(), (entry.revision, value.clone())),
                None => told.remove(&change.key),
            };
        }
    }
    let stored: std::collections::BTreeMap<_, _> = records.into_iter().map(|r| (r.key, (r.revision, r.value))).collect();
    assert_eq!(stored, told, "records and audit differ");
    head
}

/// That a ledger that was just opened works.
async fn check_works(ledger: &dyn Metadata) {
    let before = check_ledger(ledger).await;
    let revision = ledger.commit(set("check", json!({ "after": before.0 }))).await.unwrap();
    assert_eq!(revision, Revision(before.0 + 1));
    assert_eq!(ledger.get(&key("check")).await.unwrap().unwrap().value, json!({ "after": before.0 }));
    assert_eq!(check_ledger(ledger).await, revision);
}

async fn open_url(url: MetadataUrl) -> Arc<dyn Metadata> {
    open(&MetadataOptions::new(url), &World::real()).await.unwrap()
}
