//! Typed reading and writing of the ledger, with deadlines and with errors that may be shown.
//!
//! Invariant: every call has a deadline, and a lost race is told apart from a failure: the service tries again after
//! the first ([`Attempts`]) and never after the second, because the commit may have happened.

use std::sync::Arc;
use std::time::Duration;

use plinth_runtime::World;
use plinth_store::metadata::{AuditEntry, AuditLink, AuditNote, AuditQuery, Change, Commit, Expect, Kind, ListQuery, RecordKey, Revision};
use plinth_store::{Metadata, MetadataError, ObjectsError};
use plinth_types::{Error, ModelName, Reason, Result, TenantName, Timestamp, VersionNumber};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::sync::watch;

use crate::registry::Actor;

/// How long one call to a store may take. The adapters have deadlines of their own, no longer than this.
pub(crate) const DEADLINE: Duration = Duration::from_secs(30);

/// A record with its place in time.
#[derive(Debug, Clone)]
pub(crate) struct Stored<T> {
    pub revision: Revision,
    pub updated_at: Timestamp,
    pub value: T,
}

/// What must still be true of a record that was read.
pub(crate) fn as_read<T>(stored: Option<&Stored<T>>) -> Expect {
    stored.map_or(Expect::Absent, |s| Expect::At(s.revision))
}

pub(crate) fn model_key(tenant: &TenantName, model: &ModelName) -> RecordKey {
    RecordKey::new(Kind::Model, tenant.clone(), model.as_str())
}

pub(crate) fn version_key(tenant: &TenantName, model: &ModelName, number: VersionNumber) -> RecordKey {
    RecordKey::new(Kind::Version, tenant.clone(), format!("{model}/{number}"))
}

pub(crate) fn deployment_key(tenant: &TenantName, model: &ModelName) -> RecordKey {
    RecordKey::new(Kind::Deployment, tenant.clone(), model.as_str())
}

pub(crate) fn former_model_key(tenant: &TenantName, model: &ModelName) -> RecordKey {
    RecordKey::new(Kind::FormerModel, tenant.clone(), model.as_str())
}

/// Where the newest number of a filter is kept when the filter is gone. No name of a model holds a slash.
pub(crate) fn former_filter_key(tenant: &TenantName, filter: &str) -> RecordKey {
    RecordKey::new(Kind::FormerModel, tenant.clone(), format!("filter/{filter}"))
}

pub(crate) fn collection_key() -> RecordKey {
    RecordKey::new(Kind::Collection, TenantName::default_tenant(), "plan")
}

/// A commit being put together.
#[derive(Default)]
pub(crate) struct Draft {
    changes: Vec<Change>,
    guards: Vec<(RecordKey, Expect)>,
    if_head: Option<Revision>,
}

impl Draft {
    pub fn put<T: Serialize>(&mut self, key: RecordKey, expect: Expect, value: &T) -> Result<()> {
        let value = serde_json::to_value(value).map_err(|e| Error::internal("encoding a record").source(e))?;
        self.set(key, expect, Some(value));
        Ok(())
    }

    pub fn delete(&mut self, key: RecordKey, expect: Expect) {
        self.set(key, expect, None);
    }

    pub fn set(&mut self, key: RecordKey, expect: Expect, value: Option<Value>) {
        self.changes.push(Change { key, expect, value });
    }

    /// Demands that a record which decided this commit still is as it was read.
    pub fn guard(&mut self, key: RecordKey, expect: Expect) {
        let known = self.changes.iter().any(|c| c.key == key) || self.guards.iter().any(|(k, _)| *k == key);
        if !known {
            self.guards.push((key, expect));
        }
    }

    /// Demands that nothing at all was committed after `head`.
    pub const fn only_if_head(&mut self, head: Revision) {
        self.if_head = Some(head);
    }

    pub const fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }
}

/// What a commit is called in the audit.
pub(crate) struct Label<'a> {
    pub tenant: &'a TenantName,
    pub action: &'static str,
    pub subject: String,
    pub comment: String,
}

impl<'a> Label<'a> {
    pub fn new(actor: &'a Actor, action: &'static str, subject: impl Into<String>) -> Self {
        Self { tenant: &actor.tenant, action, subject: subject.into(), comment: actor.comment.clone() }
    }
}

/// Counts tries after lost races, with a short random pause before the later ones.
pub(crate) struct Attempts<'a> {
    world: &'a World,
    made: u32,
}

impl<'a> Attempts<'a> {
    const MOST: u32 = 8;

    pub const fn new(world: &'a World) -> Self {
        Self { world, made: 0 }
    }

    /// Waits its turn for the next try.
    ///
    /// # Errors
    /// `EditConflict` when all tries were lost.
    pub async fn next(&mut self) -> Result<()> {
        if self.made == Self::MOST {
            let text = "others are changing the same thing all the time: try again in a moment";
            return Err(Error::new(Reason::EditConflict, text).retry_after(Duration::from_secs(1)));
        }
        if self.made > 0 {
            let most = 4u64 << self.made.min(6);
            tokio::time::sleep(Duration::from_millis(self.world.random.next_u64() % most)).await;
        }
        self.made += 1;
        Ok(())
    }
}

/// The ledger as the service uses it.
pub(crate) struct Ledger {
    metadata: Arc<dyn Metadata>,
    head: watch::Sender<Revision>,
}

impl Ledger {
    pub fn new(metadata: Arc<dyn Metadata>) -> Self {
        Self { metadata, head: watch::Sender::new(Revision::default()) }
    }

    /// The newest commit that went through here; a doorbell, not a ledger.
    pub fn watch(&self) -> watch::Receiver<Revision> {
        self.head.subscribe()
    }

    pub async fn get<T: DeserializeOwned>(&self, key: &RecordKey) -> Result<Option<Stored<T>>> {
        let Some(record) = timed("reading a record", self.metadata.get(key)).await? else { return Ok(None) };
        Ok(Some(Stored { revision: record.revision, updated_at: record.updated_at, value: decode(key, record.value)? }))
    }

    pub async fn list<T: DeserializeOwned>(&self, query: &ListQuery) -> Result<Vec<(RecordKey, Stored<T>)>> {
        let records = timed("listing records", self.metadata.list(query)).await?;
        let typed = records.into_iter().map(|record| {
            let value = decode(&record.key, record.value)?;
            Ok((record.key, Stored { revision: record.revision, updated_at: record.updated_at, value }))
        });
        typed.collect()
    }

    pub async fn head(&self) -> Result<Revision> {
        timed("reading the head", self.metadata.head()).await
    }

    pub async fn read_all(&self) -> Result<(Revision, Vec<plinth_store::metadata::Record>)> {
        timed("reading the ledger", self.metadata.read_all()).await
    }

    pub async fn audit(&self, query: &AuditQuery) -> Result<Vec<AuditEntry>> {
        timed("reading the audit", self.metadata.audit(query)).await
    }

    pub async fn audit_entry(&self, revision: Revision) -> Result<Option<AuditEntry>> {
        timed("reading the audit", self.metadata.audit_entry(revision)).await
    }

    pub async fn audit_chain(&self, first: Revision, limit: u32) -> Result<Vec<AuditLink>> {
        timed("reading the audit", self.metadata.audit_chain(first, limit)).await
    }

    /// Commits; `None` when another commit came first and nothing was changed. Not cancel safe: a dropped call may have
    /// committed.
    pub async fn commit(&self, actor: &Actor, at: Timestamp, label: Label<'_>, draft: Draft) -> Result<Option<Revision>> {
        let note = AuditNote {
            at,
            tenant: label.tenant.clone(),
            actor: actor.id.clone(),
            action: label.action.to_owned(),
            subject: label.subject,
            comment: label.comment,
        };
        let (action, subject) = (note.action.clone(), note.subject.clone());
        let commit = Commit { changes: draft.changes, guards: draft.guards, if_head: draft.if_head, note };
        let committed = tokio::time::timeout(DEADLINE, self.metadata.commit(commit)).await.map_err(|_| late("committing"))?;
        match committed {
            Ok(revision) => {
                tracing::info!(revision = revision.0, tenant = %label.tenant, actor = actor.id, action, subject, "registry changed");
                self.head.send_if_modified(|head| {
                    let newer = revision > *head;
                    *head = revision.max(*head);
                    newer
                });
                Ok(Some(revision))
            }
            Err(MetadataError::Conflict(_) | MetadataError::HeadMoved(_)) => Ok(None),
            Err(error) => Err(from_metadata(error)),
        }
    }
}

fn decode<T: DeserializeOwned>(key: &RecordKey, value: Value) -> Result<T> {
    serde_json::from_value(value).map_err(|e| from_metadata(MetadataError::Damaged(format!("{} '{}': {e}", key.kind.as_str(), key.name))))
}

async fn timed<T>(operation: &'static str, call: impl Future<Output = std::result::Result<T, MetadataError>>) -> Result<T> {
    tokio::time::timeout(DEADLINE, call).await.map_err(|_| late(operation))?.map_err(from_metadata)
}

/// The error of a store that did not answer in time.
pub(crate) fn late(operation: &'static str) -> Error {
    unavailable().diagnostic(format!("{operation}: no answer within {} s", DEADLINE.as_secs()))
}

fn unavailable() -> Error {
    let text = "a store of the node cannot be reached; what is loaded is still served: try again in a few seconds";
    Error::new(Reason::StoreUnavailable, text).retry_after(Duration::from_secs(2))
}

fn full() -> Error {
    Error::new(Reason::StorageFull, "the node's storage is full: collect garbage or add space, then try again")
        .retry_after(Duration::from_secs(5))
}

/// From the ledger's error to the one that may be shown.
pub(crate) fn from_metadata(error: MetadataError) -> Error {
    match error {
        MetadataError::Unavailable { .. } => unavailable().source(error),
        MetadataError::Full => full(),
        MetadataError::TooNew { .. } => Error::new(Reason::StoreTooNew, error.to_string()),
        MetadataError::Damaged(_) => Error::internal("reading the ledger").source(error),
        // Only commits end so, and they are handled where they are tried.
        MetadataError::Conflict(_) | MetadataError::HeadMoved(_) => {
            Error::new(Reason::EditConflict, "somebody else changed it first: read it again, then repeat the change").source(error)
        }
    }
}

/// From the object store's error to the one that may be shown.
pub(crate) fn from_objects(error: ObjectsError) -> Error {
    match &error {
        ObjectsError::NotFound(digest) => Error::new(Reason::BlobNotFound, format!("there is no blob {digest}: upload it first")),
        ObjectsError::DigestMismatch { expected, actual } => {
            Error::new(Reason::DigestMismatch, format!("the bytes have digest {actual}, announced was {expected}: upload them again"))
        }
        ObjectsError::LengthMismatch { expected, received } => {
            Error::new(Reason::UploadIncomplete, format!("{received} bytes arrived, announced were {expected}: upload them again"))
        }
        ObjectsError::Body(_) => Error::new(Reason::UploadIncomplete, "the upload ended early: upload it again").source(error),
        ObjectsError::Full => full(),
        ObjectsError::Unavailable { .. } => unavailable().source(error),
    }
}
