//! What a commit does inside its transaction.
//!
//! Invariant: every expectation is checked before the first write, against what stood there when the head was locked; so
//! the order of the changes in a commit means nothing. The transaction around it is `ledger`'s.

use std::collections::BTreeSet;

use serde_json::Value;

use super::chain;
use super::rows::{self, revision_param, time_param};
use super::session::{Param, Session, failed};
use super::statements::{ADD_AUDIT, DELETE, Dialect, GET, MOVE_HEAD, PUT};
use super::{AuditChange, Change, Commit, Expect, MetadataError, Record, RecordKey, Revision};

pub(super) const OPERATION: &str = "commit";

/// How deeply a value may nest. The audit wraps it three times more, and the parser that reads it back stops at 128.
const MAX_DEPTH: u32 = 100;

/// Why a commit cannot be stored by any adapter. The services check what users send; this is the last line.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unstorable {
    #[error("a name in the commit is empty")]
    EmptyName,
    #[error("a text in the commit holds a NUL character, which PostgreSQL cannot store")]
    Nul,
    #[error("a value in the commit nests deeper than {MAX_DEPTH}")]
    TooDeep,
}

impl From<Unstorable> for MetadataError {
    fn from(why: Unstorable) -> Self {
        Self::Unavailable { operation: OPERATION, source: Box::new(why) }
    }
}

/// Refuses what no adapter can store, so that all refuse the same.
pub(super) fn check(commit: &Commit) -> Result<(), MetadataError> {
    let mut seen = BTreeSet::new();
    for change in &commit.changes {
        if change.key.name.is_empty() {
            return Err(Unstorable::EmptyName.into());
        }
        if !seen.insert(&change.key) {
            return Err(MetadataError::Conflict(change.key.clone()));
        }
        if change.value.as_ref().is_some_and(|value| deeper_than(value, MAX_DEPTH)) {
            return Err(Unstorable::TooDeep.into());
        }
    }
    let note = &commit.note;
    let names = commit.changes.iter().map(|change| &change.key).chain(commit.guards.iter().map(|(key, _)| key)).map(|key| &key.name);
    if names.chain([&note.actor, &note.action, &note.subject, &note.comment]).any(|text| text.contains('\0')) {
        return Err(Unstorable::Nul.into());
    }
    Ok(())
}

fn deeper_than(value: &Value, levels: u32) -> bool {
    let Some(below) = levels.checked_sub(1) else { return true };
    match value {
        Value::Array(items) => items.iter().any(|item| deeper_than(item, below)),
        Value::Object(fields) => fields.values().any(|field| deeper_than(field, below)),
        _ => false,
    }
}

/// Applies a checked commit inside an open transaction.
pub(super) async fn apply(session: &mut dyn Session, dialect: &Dialect, commit: &Commit) -> Result<Revision, MetadataError> {
    let head = rows::head(session.fetch(dialect.lock_head, &[]).await.map_err(failed(OPERATION))?)?;
    if commit.if_head.is_some_and(|expected| expected != head) {
        return Err(MetadataError::HeadMoved(head));
    }
    let next = Revision(head.0.saturating_add(1));

    for (key, expect) in &commit.guards {
        let found = get(session, key, OPERATION).await?;
        require(key, *expect, found.as_ref())?;
    }
    let mut before = Vec::with_capacity(commit.changes.len());
    for Change { key, expect, .. } in &commit.changes {
        let found = get(session, key, OPERATION).await?;
        require(key, *expect, found.as_ref())?;
        before.push(found.map(|record| record.value));
    }

    let mut audited = Vec::with_capacity(commit.changes.len());
    for (change, before) in commit.changes.iter().zip(before) {
        write(session, change, next, commit).await?;
        if before.is_some() || change.value.is_some() {
            audited.push(AuditChange { key: change.key.clone(), before, after: change.value.clone() });
        }
    }
    add_audit(session, commit, (head, next), audited).await?;
    session.fetch(MOVE_HEAD, &[Param::Int(revision_param(next)?)]).await.map_err(failed(OPERATION))?;
    Ok(next)
}

/// A record, if there is one.
pub(super) async fn get(session: &mut dyn Session, key: &RecordKey, operation: &'static str) -> Result<Option<Record>, MetadataError> {
    let rows = session.fetch(GET, &key_params(key)).await.map_err(failed(operation))?;
    rows.into_iter().next().map(rows::record).transpose()
}

fn key_params(key: &RecordKey) -> [Param<'_>; 3] {
    [Param::Text(key.kind.as_str()), Param::Text(key.tenant.as_str()), Param::Text(&key.name)]
}

fn require(key: &RecordKey, expect: Expect, found: Option<&Record>) -> Result<(), MetadataError> {
    let holds = match expect {
        Expect::Any => true,
        Expect::Absent => found.is_none(),
        Expect::At(revision) => found.is_some_and(|record| record.revision == revision),
    };
    if holds { Ok(()) } else { Err(MetadataError::Conflict(key.clone())) }
}

async fn write(session: &mut dyn Session, change: &Change, next: Revision, commit: &Commit) -> Result<(), MetadataError> {
    let [kind, tenant, name] = key_params(&change.key);
    let Some(value) = &change.value else {
        return session.fetch(DELETE, &[kind, tenant, name]).await.map(|_| ()).map_err(failed(OPERATION));
    };
    let text = value.to_string();
    let (revision, at) = (Param::Int(revision_param(next)?), Param::Int(time_param(commit.note.at)));
    session.fetch(PUT, &[kind, tenant, name, revision, at, Param::Text(&text)]).await.map(|_| ()).map_err(failed(OPERATION))
}

async fn add_audit(
    session: &mut dyn Session,
    commit: &Commit,
    (head, next): (Revision, Revision),
    audited: Vec<AuditChange>,
) -> Result<(), MetadataError> {
    let note = &commit.note;
    let changes =
        rows::changes_text(audited).map_err(|error| MetadataError::Unavailable { operation: OPERATION, source: Box::new(error) })?;
    let numbers = [revision_param(next)?, time_param(note.at)];
    let texts = [note.tenant.as_str(), &note.actor, &note.action, &note.subject, &note.comment, &changes];
    let link = chain::next(session, head, numbers, texts).await?.hex();
    let params: Vec<_> = numbers.into_iter().map(Param::Int).chain(texts.into_iter().chain([link.as_str()]).map(Param::Text)).collect();
    session.fetch(ADD_AUDIT, &params).await.map(|_| ()).map_err(failed(OPERATION))
}
