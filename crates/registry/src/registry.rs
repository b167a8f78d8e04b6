//! The registry service: what may be done with models, versions, aliases and deployments.
//!
//! Invariants: every change is one commit with an audit entry; a version that is visible is whole, its files are in
//! the object store, and it never changes but for its words, its state and its signature; an alias points to an
//! existing version; numbers rise. Every change reads, decides, and commits only if what it read still stands; a lost
//! race is tried again a bounded number of times. Methods belong to one tenant each; that the caller may act for it is
//! for the edge to check.
//!
//! Cancel safety: reads are; a dropped change may or may not have been committed.

mod after;
mod aliases;
mod apply;
mod blobs;
mod chain;
mod deployments;
mod filters;
mod garbage;
mod history;
mod keys;
mod lookup;
mod models;
mod numbers;
mod push;
pub(crate) mod references;
mod resource;
mod undo;
mod versions;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use plinth_runtime::World;
use plinth_store::metadata::Revision;
use plinth_store::resources::{ModelRecord, VersionRecord};
use plinth_store::{Metadata, Objects};
use plinth_types::{AliasName, Error, Label, ModelName, Reason, Result, TenantName, Timestamp, VersionNumber};
use tokio::sync::{Semaphore, watch};

use crate::ledger::{Attempts, Draft, Ledger, Stored, model_key, version_key};

pub use aliases::{MoveAlias, RollBack};
pub use apply::{Applied, AppliedResource, ApplyOutcome, ResourceSpec};
pub use chain::AuditReport;
pub use filters::{Filter, NewFilter, PushedFilter};
pub use garbage::{CollectGarbage, Garbage};
pub use history::AuditPage;
pub use lookup::StoredResource;
pub use push::{NewVersion, PushOutcome, Pushed};
pub use resource::ResourceKind;

/// Who does something, for whom, and why: what the audit keeps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Actor {
    /// Whose things are changed.
    pub tenant: TenantName,
    /// Who: a key id, or `system`.
    pub id: String,
    /// A word of explanation; may be empty.
    pub comment: String,
    /// Whether it is an administrator of the whole, that is of the default tenant. That it is one is for the edge to know.
    pub platform: bool,
}

impl Actor {
    /// Somebody who acts for a tenant.
    pub fn new(tenant: TenantName, id: impl Into<String>) -> Self {
        Self { tenant, id: id.into(), comment: String::new(), platform: false }
    }

    /// The node itself, on what belongs to no tenant in particular.
    #[must_use]
    pub fn system() -> Self {
        Self::new(TenantName::default_tenant(), "system").platform(true)
    }

    /// The same, as an administrator of the whole or not.
    #[must_use]
    pub const fn platform(mut self, platform: bool) -> Self {
        self.platform = platform;
        self
    }

    /// Whether it may change what concerns all tenants. Who acts for another tenant may not meanwhile: the change would stand in
    /// that tenant's audit, where its own administrators could undo it.
    fn may_change_all(&self) -> bool {
        self.platform && self.tenant == TenantName::default_tenant()
    }

    /// The same with a word of explanation.
    #[must_use]
    pub fn comment(mut self, comment: impl Into<String>) -> Self {
        self.comment = comment.into();
        self
    }
}

/// Which part of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PageQuery {
    /// Where the page before ended ([`Page::next`]); the first page when `None`.
    pub after: Option<String>,
    /// At most so many items; what is allowed at most when more.
    pub limit: u32,
}

impl Default for PageQuery {
    fn default() -> Self {
        Self { after: None, limit: 100 }
    }
}

impl PageQuery {
    /// The limit within what one page may hold.
    fn bounded(&self, most: u32) -> u32 {
        self.limit.clamp(1, most)
    }
}

/// One page of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page<T> {
    /// The items.
    pub items: Vec<T>,
    /// Where the next page begins; `None` on the last.
    pub next: Option<String>,
}

/// A model as it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Model {
    /// Its name.
    pub name: ModelName,
    /// What it says.
    pub record: ModelRecord,
    /// The commit that last changed it.
    pub revision: Revision,
    /// The moment of that commit.
    pub updated_at: Timestamp,
}

/// A version as it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version {
    /// Its model.
    pub model: ModelName,
    /// Its number.
    pub number: VersionNumber,
    /// What it says.
    pub record: VersionRecord,
    /// The aliases that point to it.
    pub aliases: Vec<AliasName>,
    /// The commit that last changed it.
    pub revision: Revision,
    /// The moment of that commit.
    pub updated_at: Timestamp,
}

impl Version {
    /// The length of its files together, in bytes.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.record.files.iter().fold(0, |sum: u64, file| sum.saturating_add(file.size))
    }
}

/// Changes words and tags; what is `None` stays.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Edit {
    /// The new description.
    pub description: Option<String>,
    /// Tags to set; `None` removes one.
    pub tags: BTreeMap<Label, Option<String>>,
}

/// The service. Cheap to share behind an `Arc`.
pub struct Registry {
    ledger: Ledger,
    objects: Arc<dyn Objects>,
    world: World,
    /// One collection at a time in this process.
    collecting: Semaphore,
    takeover_after: Duration,
    own_addresses: Vec<std::net::SocketAddr>,
}

impl Registry {
    /// A registry over a ledger and an object store.
    pub fn new(metadata: Arc<dyn Metadata>, objects: Arc<dyn Objects>, world: World) -> Self {
        Self {
            ledger: Ledger::new(metadata),
            objects,
            world,
            collecting: Semaphore::new(1),
            takeover_after: Duration::ZERO,
            own_addresses: Vec::new(),
        }
    }

    /// How old a garbage collection that was left unfinished must be before this process finishes it. Zero, the default,
    /// is right when no other process uses the stores; with a shared database use more than a node may stand still, such
    /// as 10 minutes.
    #[must_use]
    pub const fn takeover_after(mut self, age: Duration) -> Self {
        self.takeover_after = age;
        self
    }

    /// Where this node listens: an upstream must not lead back there.
    #[must_use]
    pub fn own_addresses(mut self, addresses: Vec<std::net::SocketAddr>) -> Self {
        self.own_addresses = addresses;
        self
    }

    /// Shows the newest revision committed by this process: a doorbell for whoever keeps a snapshot.
    pub fn changes(&self) -> watch::Receiver<Revision> {
        self.ledger.watch()
    }

    fn now(&self) -> Timestamp {
        self.world.clock.now()
    }

    fn attempts(&self) -> Attempts<'_> {
        Attempts::new(&self.world)
    }

    async fn find_model(&self, tenant: &TenantName, model: &ModelName) -> Result<Stored<ModelRecord>> {
        self.ledger.get(&model_key(tenant, model)).await?.ok_or_else(|| model_not_found(model))
    }

    async fn find_version(&self, tenant: &TenantName, model: &ModelName, number: VersionNumber) -> Result<Stored<VersionRecord>> {
        self.ledger.get(&version_key(tenant, model, number)).await?.ok_or_else(|| version_not_found(model, number))
    }
}

fn model_not_found(model: &ModelName) -> Error {
    Error::new(Reason::ModelNotFound, format!("there is no model '{model}': list the models, or push a version to make it"))
}

fn version_not_found(model: &ModelName, number: VersionNumber) -> Error {
    Error::new(Reason::VersionNotFound, format!("there is no version {number} of '{model}': list its versions"))
}

fn version_retired(model: &ModelName, number: VersionNumber) -> Error {
    Error::new(Reason::VersionRetired, format!("version {number} of '{model}' is retired: restore it first"))
}

/// Puts an edit into words and tags that stand.
fn edit_words(edit: &Edit, description: &mut String, tags: &mut plinth_store::resources::Tags) -> Result<()> {
    if let Some(text) = &edit.description {
        text.clone_into(description);
    }
    for (label, value) in &edit.tags {
        match value {
            Some(value) => drop(tags.insert(label.clone(), value.clone())),
            None => drop(tags.remove(label)),
        }
    }
    crate::words::check_description(description)?;
    crate::words::check_tags(tags)
}

/// Keeps a draft from growing past what one commit may hold.
fn draft_size_ok(changes: usize) -> Result<()> {
    const MOST: usize = 2_000;
    if changes > MOST {
        return Err(Error::new(Reason::InvalidResource, format!("one commit changes at most {MOST} records: do it in smaller parts")));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
