//! Between rows of the database and the port's types.
//!
//! Invariant: what cannot be understood is [`MetadataError::Damaged`], never skipped and never guessed.

use plinth_types::{TenantName, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::session::Row;
use super::{AuditChange, AuditEntry, AuditNote, Kind, MetadataError, Record, RecordKey, Revision};

/// A revision as the database counts it.
pub(super) fn revision_param(revision: Revision) -> Result<i64, MetadataError> {
    i64::try_from(revision.0).map_err(|_| MetadataError::Damaged(format!("revision {revision} is beyond what a ledger can reach")))
}

/// A moment as the database keeps it: milliseconds since 1970.
pub(super) fn time_param(at: Timestamp) -> i64 {
    i64::try_from(at.millis()).unwrap_or(i64::MAX)
}

fn kind(text: &str) -> Result<Kind, MetadataError> {
    let found = Kind::ALL.into_iter().find(|kind| kind.as_str() == text);
    found.ok_or_else(|| MetadataError::Damaged(format!("unknown kind of record '{text}'")))
}

fn tenant(text: &str) -> Result<TenantName, MetadataError> {
    text.parse().map_err(|_| MetadataError::Damaged(format!("'{text}' is not the name of a tenant")))
}

fn time(millis: u64) -> Result<Timestamp, MetadataError> {
    Timestamp::from_millis(millis).map_err(|_| MetadataError::Damaged(format!("{millis} is not a time")))
}

/// The one row of `SELECT revision FROM head`.
pub(super) fn head(rows: Vec<Row>) -> Result<Revision, MetadataError> {
    let mut row = rows.into_iter().next().ok_or_else(|| MetadataError::Damaged("the ledger has no head".to_owned()))?;
    row.count().map(Revision)
}

/// A row of `records`.
pub(super) fn record(mut row: Row) -> Result<Record, MetadataError> {
    let key = RecordKey { kind: kind(&row.text()?)?, tenant: tenant(&row.text()?)?, name: row.text()? };
    let (revision, updated_at, text) = (Revision(row.count()?), time(row.count()?)?, row.text()?);
    let value = serde_json::from_str(&text)
        .map_err(|error| MetadataError::Damaged(format!("record {} '{}' is not JSON: {error}", key.kind.as_str(), key.name)))?;
    Ok(Record { key, revision, updated_at, value })
}

/// A row of `audit`.
pub(super) fn audit_entry(mut row: Row) -> Result<AuditEntry, MetadataError> {
    let revision = Revision(row.count()?);
    let note = AuditNote {
        at: time(row.count()?)?,
        tenant: tenant(&row.text()?)?,
        actor: row.text()?,
        action: row.text()?,
        subject: row.text()?,
        comment: row.text()?,
    };
    let stored: Vec<StoredChange> = serde_json::from_str(&row.text()?)
        .map_err(|error| MetadataError::Damaged(format!("the changes of audit entry {revision} are not readable: {error}")))?;
    Ok(AuditEntry { revision, note, changes: stored.into_iter().map(Into::into).collect() })
}

/// A change as it lies in `audit.changes`. "Nothing was there" and "null was there" differ: the field is left out or null.
#[derive(Serialize, Deserialize)]
struct StoredChange {
    kind: Kind,
    tenant: TenantName,
    name: String,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    before: Option<Value>,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    after: Option<Value>,
}

fn present<'de, D: serde::Deserializer<'de>>(d: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(d).map(Some)
}

impl From<StoredChange> for AuditChange {
    fn from(stored: StoredChange) -> Self {
        let key = RecordKey { kind: stored.kind, tenant: stored.tenant, name: stored.name };
        Self { key, before: stored.before, after: stored.after }
    }
}

/// The text of `audit.changes`.
pub(super) fn changes_text(changes: Vec<AuditChange>) -> Result<String, serde_json::Error> {
    let stored = changes.into_iter().map(|AuditChange { key, before, after }| StoredChange {
        kind: key.kind,
        tenant: key.tenant,
        name: key.name,
        before,
        after,
    });
    serde_json::to_string(&stored.collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_and_null_stay_apart_in_the_audit() {
        let key = RecordKey::new(Kind::Model, TenantName::default_tenant(), "m");
        let change = AuditChange { key, before: None, after: Some(Value::Null) };
        let text = changes_text(vec![change.clone()]).unwrap();
        let stored: Vec<StoredChange> = serde_json::from_str(&text).unwrap();
        assert_eq!(AuditChange::from(stored.into_iter().next().unwrap()), change);
    }
}
