//! Garbage collection of blobs that no version of a model or filter names, in two phases.
//!
//! 1. Read the whole ledger at revision R, compute what nothing names, and commit that list as the plan, only if nothing
//!    was committed after R. From here on the listed blobs count as absent.
//! 2. Delete them.
//! 3. Commit an empty plan. The record itself stays: a push guards its revision, and a record that vanished and came
//!    back would look untouched.
//!
//! Invariant: between 1 and 3 no commit can name a listed blob, because every commit that names blobs guards the plan
//! that it read before it looked for them. A crash leaves the plan; the next run finishes it. Between two processes over
//! the same stores, the one that takes over must be sure that the other has ended: see [`Registry::takeover_after`].

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::StreamExt as _;
use plinth_store::metadata::{Expect, Kind, Revision};
use plinth_store::resources::gateway::FilterRecord;
use plinth_store::resources::{CollectionRecord, VersionRecord};
use plinth_types::{Digest, Error, Reason, Result, TenantName};

use super::{Actor, Draft, Registry};
use crate::ledger::{DEADLINE, Label, as_read, collection_key, from_objects, late};
use crate::words::check_comment;

/// The most blobs in one plan; more are deleted in rounds.
const MAX_PLAN: usize = 10_000;

/// After how many deletions the plan is looked at again.
const LOOK_EVERY: usize = 64;

/// Asks for garbage collection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CollectGarbage {
    /// Only say what would be deleted.
    pub dry_run: bool,
    /// Spare blobs that were stored more recently: their push may be under way.
    pub older_than: Duration,
}

/// What garbage collection did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Garbage {
    /// Deleted, or to be deleted.
    pub digests: Vec<Digest>,
    /// Their lengths together, in bytes.
    pub bytes: u64,
    /// How many blobs are kept.
    pub kept: u64,
}

impl Registry {
    /// Deletes blobs that no version of any tenant names, and finishes what an earlier run left.
    ///
    /// # Errors
    /// `EditConflict` while another collection runs or others commit all the time, `StoreUnavailable`.
    pub async fn collect_garbage(&self, actor: &Actor, request: CollectGarbage) -> Result<Garbage> {
        check_comment(&actor.comment)?;
        let _permit = self.collecting.try_acquire().map_err(|_| running())?;
        if !request.dry_run {
            self.finish_leftovers(actor).await?;
        }
        let (mut old, all) = self.old_blobs(request.older_than).await?;
        let mut garbage = Garbage::default();
        loop {
            let Some((plan, revision)) = self.plan(actor, &mut old, request.dry_run).await? else { break };
            for digest in &plan {
                garbage.bytes = garbage.bytes.saturating_add(old.remove(digest).unwrap_or(0));
            }
            if let Some(revision) = revision {
                self.delete_planned(actor, &plan, revision).await?;
            }
            garbage.digests.extend(plan);
        }
        garbage.kept = all.saturating_sub(garbage.digests.len() as u64);
        Ok(garbage)
    }

    /// Blobs past the grace with their sizes, and the number of all.
    async fn old_blobs(&self, older_than: Duration) -> Result<(BTreeMap<Digest, u64>, u64)> {
        let (now, mut old, mut all) = (self.now(), BTreeMap::new(), 0u64);
        let mut list = self.objects.list();
        while let Some(info) = tokio::time::timeout(DEADLINE, list.next()).await.map_err(|_| late("listing blobs"))? {
            let info = info.map_err(from_objects)?;
            all += 1;
            if now.since(info.stored_at) >= older_than {
                old.insert(info.digest, info.size);
            }
        }
        Ok((old, all))
    }

    /// Phase 1: the next plan out of `old`, from which it strikes what is named; committed unless it is only asked for.
    async fn plan(&self, actor: &Actor, old: &mut BTreeMap<Digest, u64>, dry_run: bool) -> Result<Option<(Vec<Digest>, Option<Revision>)>> {
        let mut attempts = self.attempts();
        loop {
            attempts.next().await?;
            let (head, records) = self.ledger.read_all().await?;
            let mut expect = Expect::Absent;
            for record in records {
                match record.key.kind {
                    Kind::Version => {
                        let version: VersionRecord = serde_json::from_value(record.value)
                            .map_err(|e| Error::internal(format!("version '{}' cannot be read: {e}", record.key.name)))?;
                        for file in version.files {
                            old.remove(&file.digest);
                        }
                    }
                    Kind::Filter => {
                        let filter: FilterRecord = serde_json::from_value(record.value)
                            .map_err(|e| Error::internal(format!("filter '{}' cannot be read: {e}", record.key.name)))?;
                        for version in filter.versions.values() {
                            old.remove(&version.module);
                        }
                    }
                    Kind::Collection => expect = Expect::At(record.revision),
                    _ => {}
                }
            }
            let deleting: Vec<_> = old.keys().copied().take(if dry_run { usize::MAX } else { MAX_PLAN }).collect();
            if deleting.is_empty() {
                return Ok(None);
            }
            if dry_run {
                return Ok(Some((deleting, None)));
            }
            let mut draft = Draft::default();
            draft.put(collection_key(), expect, &CollectionRecord { deleting: deleting.clone() })?;
            draft.only_if_head(head);
            if let Some(revision) = self.commit_plan(actor, "garbage.plan", draft).await? {
                return Ok(Some((deleting, Some(revision))));
            }
        }
    }

    /// Phases 2 and 3.
    async fn delete_planned(&self, actor: &Actor, plan: &[Digest], revision: Revision) -> Result<()> {
        for part in plan.chunks(LOOK_EVERY) {
            let stands = self.ledger.get::<CollectionRecord>(&collection_key()).await?.is_some_and(|plan| plan.revision == revision);
            if !stands {
                return Err(running().diagnostic("another process has taken over the plan"));
            }
            for digest in part {
                tokio::time::timeout(DEADLINE, self.objects.delete(digest))
                    .await
                    .map_err(|_| late("deleting a blob"))?
                    .map_err(from_objects)?;
            }
        }
        let mut draft = Draft::default();
        draft.put(collection_key(), Expect::At(revision), &CollectionRecord::default())?;
        self.commit_plan(actor, "garbage.done", draft).await.map(drop)
    }

    /// Finishes the plan of a run that was cut off.
    async fn finish_leftovers(&self, actor: &Actor) -> Result<()> {
        let Some(found) = self.ledger.get::<CollectionRecord>(&collection_key()).await? else { return Ok(()) };
        if found.value.deleting.is_empty() {
            return Ok(());
        }
        if self.now().since(found.updated_at) < self.takeover_after {
            return Err(running());
        }
        let mut draft = Draft::default();
        // A commit of our own first: whoever made this plan sees that it lost it.
        draft.put(collection_key(), as_read(Some(&found)), &found.value)?;
        match self.commit_plan(actor, "garbage.resume", draft).await? {
            Some(revision) => self.delete_planned(actor, &found.value.deleting, revision).await,
            None => Err(running()),
        }
    }

    async fn commit_plan(&self, actor: &Actor, action: &'static str, draft: Draft) -> Result<Option<Revision>> {
        let tenant = TenantName::default_tenant();
        let label = Label { tenant: &tenant, action, subject: "garbage".into(), comment: actor.comment.clone() };
        self.ledger.commit(actor, self.now(), label, draft).await
    }
}

fn running() -> Error {
    Error::new(Reason::EditConflict, "another garbage collection is running: try again when it has ended")
        .retry_after(Duration::from_secs(5))
}
