//! The ledger: a port for records with revisions, and the audit of every change.
//!
//! The model is that of a small transactional key-value store. A [`Record`] is found by its
//! [`RecordKey`]; a [`Commit`] changes any number of records at once and writes one audit entry with
//! what stood there before and after. Invariants, the same for every adapter:
//!
//! - Commits are serialised. Each gets the next [`Revision`], without gaps, and all of its changes
//!   carry it. A commit whose expectations do not hold changes nothing.
//! - `Ok` from [`Metadata::commit`] means committed and synced.
//! - [`Metadata::read_all`] shows one moment: everything up to its revision and nothing after it.
//! - A record and its audit entry are written by one transaction; an audit entry is never changed, and each carries a digest
//!   over itself and the one before it ([`AuditLink`]).

mod chain;
mod commit;
mod ledger;
mod migrate;
pub mod options;
mod postgres;
mod rows;
mod session;
mod sqlite;
mod statements;
#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use plinth_runtime::World;
use plinth_types::{TenantName, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use chain::AuditLink;
pub use options::{MetadataOptions, MetadataUrl, ParseMetadataUrlError, PostgresUrl, SchemaName};

/// Opens the ledger: connects, brings the database to this release's schema, and refuses one that it must not touch.
///
/// # Errors
/// [`MetadataError::TooNew`] for a database of a newer release, [`MetadataError::Damaged`] when the database's schema
/// was not made by any release, [`MetadataError::Full`] and [`MetadataError::Unavailable`] as usual. Cancel safe: a
/// migration step happens whole or not at all, and the next call goes on.
pub async fn open(options: &MetadataOptions, world: &World) -> Result<Arc<dyn Metadata>, MetadataError> {
    let ledger = match &options.url {
        MetadataUrl::Sqlite(path) => sqlite::open(path, options, world).await?,
        MetadataUrl::Postgres(url) => postgres::open(url, options, world).await?,
    };
    Ok(Arc::new(ledger))
}

/// Counts commits. 0 is the empty ledger; the first commit makes 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Revision(pub u64);

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// What a record is about. Closed: a new kind comes with a new release.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A tenant.
    Tenant,
    /// An API key: its hash, never the key.
    Key,
    /// A model with its aliases. Name: the model's.
    Model,
    /// A version of a model. Name: `model/number`.
    Version,
    /// The wish that a model be served. Name: the model's.
    Deployment,
    /// What garbage collection is about to delete. One record, name `plan`.
    Collection,
    /// What remains of a model that was deleted. Name: the model's.
    FormerModel,
    /// What a tenant's requests may cost.
    Plan,
    /// A service outside to which requests are forwarded.
    Upstream,
    /// How requests find what answers them.
    Route,
    /// Who issues tokens that are accepted.
    Issuer,
    /// A module that requests and answers pass.
    Filter,
    /// Which addresses are let in. One record, name `addresses`.
    Addresses,
}

impl Kind {
    /// All kinds.
    pub const ALL: [Self; 13] = [
        Self::Tenant,
        Self::Key,
        Self::Model,
        Self::Version,
        Self::Deployment,
        Self::Collection,
        Self::FormerModel,
        Self::Plan,
        Self::Upstream,
        Self::Route,
        Self::Issuer,
        Self::Filter,
        Self::Addresses,
    ];

    /// The kind as it stands in the database.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Tenant => "tenant",
            Self::Key => "key",
            Self::Model => "model",
            Self::Version => "version",
            Self::Deployment => "deployment",
            Self::Collection => "collection",
            Self::FormerModel => "former_model",
            Self::Plan => "plan",
            Self::Upstream => "upstream",
            Self::Route => "route",
            Self::Issuer => "issuer",
            Self::Filter => "filter",
            Self::Addresses => "addresses",
        }
    }
}

/// Where a record is found. Tenants themselves and node-wide records belong to the default tenant.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct RecordKey {
    /// What it is about.
    pub kind: Kind,
    /// Whose it is.
    pub tenant: TenantName,
    /// Its name within kind and tenant.
    pub name: String,
}

impl RecordKey {
    /// A key from its parts.
    pub fn new(kind: Kind, tenant: TenantName, name: impl Into<String>) -> Self {
        Self { kind, tenant, name: name.into() }
    }
}

/// A record as it stands.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// Where it is found.
    pub key: RecordKey,
    /// The commit that last changed it.
    pub revision: Revision,
    /// The moment of that commit.
    pub updated_at: Timestamp,
    /// What it says.
    pub value: Value,
}

/// What must be true of a record for a commit to happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expect {
    /// There is no such record.
    Absent,
    /// The record is there and was last changed by this commit.
    At(Revision),
    /// Anything.
    Any,
}

/// One change within a commit.
#[derive(Debug, Clone, PartialEq)]
pub struct Change {
    /// Which record.
    pub key: RecordKey,
    /// What must be true of it before.
    pub expect: Expect,
    /// What it shall say; `None` deletes it (deleting what is absent changes nothing).
    pub value: Option<Value>,
}

/// A set of changes that happen together or not at all.
#[derive(Debug, Clone, PartialEq)]
pub struct Commit {
    /// The changes; no key twice.
    pub changes: Vec<Change>,
    /// Records that are read and not changed, with what must be true of them.
    pub guards: Vec<(RecordKey, Expect)>,
    /// When given, nothing at all may have been committed after this revision.
    pub if_head: Option<Revision>,
    /// Who does what, for the audit.
    pub note: AuditNote,
}

/// The part of an audit entry that the caller gives.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditNote {
    /// The moment, from the caller's clock.
    pub at: Timestamp,
    /// Whose things are changed.
    pub tenant: TenantName,
    /// Who: a key id, or `system`.
    pub actor: String,
    /// What: a verb such as `model.promote`.
    pub action: String,
    /// On what: such as `digits/2`.
    pub subject: String,
    /// A word of explanation; may be empty.
    pub comment: String,
}

/// One commit as the audit keeps it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AuditEntry {
    /// The commit.
    pub revision: Revision,
    /// Who, what, when.
    pub note: AuditNote,
    /// Each change with what stood there before and after.
    pub changes: Vec<AuditChange>,
}

/// One change as the audit keeps it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AuditChange {
    /// Which record.
    pub key: RecordKey,
    /// What it said before; `None` when there was none.
    pub before: Option<Value>,
    /// What it said after; `None` when it was deleted.
    pub after: Option<Value>,
}

/// Which records to list. Sorted by name, in byte order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListQuery {
    /// Of this kind.
    pub kind: Kind,
    /// Of this tenant; of all when `None` (then sorted by tenant first).
    pub tenant: Option<TenantName>,
    /// Whose names begin with this.
    pub prefix: String,
    /// Whose names come after this one; for the next page of one tenant.
    pub after: Option<String>,
    /// At most so many.
    pub limit: u32,
}

/// Which audit entries to list. Newest first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditQuery {
    /// Of this tenant; of all when `None`.
    pub tenant: Option<TenantName>,
    /// On exactly this subject, or on anything below it (`digits` also finds `digits/2`).
    pub subject: Option<String>,
    /// Older than this commit; for the next page.
    pub before: Option<Revision>,
    /// At most so many.
    pub limit: u32,
}

/// Why the ledger could not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum MetadataError {
    /// An expectation did not hold; nothing was changed.
    #[error("record {} '{}' is not as expected", .0.kind.as_str(), .0.name)]
    Conflict(RecordKey),
    /// `if_head` did not hold; nothing was changed. Carries the head.
    #[error("the ledger has moved on to revision {0}")]
    HeadMoved(Revision),
    /// The database was written by a newer release.
    #[error("the database has schema {found}, this release knows up to {known}; run the newer release, or restore a backup")]
    TooNew {
        /// The schema in the database.
        found: u32,
        /// The newest schema that this release knows.
        known: u32,
    },
    /// No space is left; nothing was changed.
    #[error("the database's disk is full")]
    Full,
    /// The database cannot be reached or failed. After this a commit may or may not have happened.
    #[error("{operation}: the database failed")]
    Unavailable {
        /// What was being done.
        operation: &'static str,
        /// The driver's error.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A record that this release cannot read.
    #[error("a record in the database is damaged: {0}")]
    Damaged(String),
}

/// The port. See the module for what every adapter keeps.
#[async_trait]
pub trait Metadata: Send + Sync {
    /// The record, if there is one.
    async fn get(&self, key: &RecordKey) -> Result<Option<Record>, MetadataError>;

    /// Records by kind, tenant and name.
    async fn list(&self, query: &ListQuery) -> Result<Vec<Record>, MetadataError>;

    /// The newest revision.
    async fn head(&self) -> Result<Revision, MetadataError>;

    /// Every record at one moment. Sorted by kind, tenant, name.
    async fn read_all(&self) -> Result<(Revision, Vec<Record>), MetadataError>;

    /// As [`Metadata::read_all`], page by page and in no order that callers may count on: for ledgers that are larger than what one
    /// wants to hold twice. Each page has the time that any operation has. When it fails, pages may have been given before.
    async fn read_pages(&self, page: &mut (dyn FnMut(Vec<Record>) + Send)) -> Result<Revision, MetadataError> {
        let (head, records) = self.read_all().await?;
        page(records);
        Ok(head)
    }

    /// Applies a commit. Not idempotent: after [`MetadataError::Unavailable`] read before trying again.
    async fn commit(&self, commit: Commit) -> Result<Revision, MetadataError>;

    /// Audit entries, newest first.
    async fn audit(&self, query: &AuditQuery) -> Result<Vec<AuditEntry>, MetadataError>;

    /// One audit entry.
    async fn audit_entry(&self, revision: Revision) -> Result<Option<AuditEntry>, MetadataError>;

    /// Entries from `first` on, oldest first, as the chain of the audit sees them: at most `limit`. None from an adapter that
    /// keeps no chain.
    async fn audit_chain(&self, _first: Revision, _limit: u32) -> Result<Vec<AuditLink>, MetadataError> {
        Ok(Vec::new())
    }

    /// What this adapter is, for people: `sqlite 3.51.3`, `postgresql 15.8`.
    async fn describe(&self) -> Result<String, MetadataError>;

    /// Closes connections; the adapter is not used after.
    async fn close(&self);
}
