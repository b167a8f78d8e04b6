//! Pushing: out of uploaded blobs, a version, in one commit.
//!
//! Invariants: the commit happens only when every blob was seen after the plan of garbage collection was read, and
//! that plan has not changed since; so a version never names a blob that is being deleted. Numbers follow one another.
//!
//! Pushing what an active version already consists of gives that version, so that a push whose answer was lost can be
//! repeated. It makes a new version all the same when the caller demands another number (`expect_number`, or a signature
//! made for another number); it is refused with `AlreadyExists` when it carries a signature that the existing version
//! could carry but does not: attaching that is a decision of its own.

use std::collections::BTreeMap;

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use plinth_runtime::CrashPoint;
use plinth_store::metadata::{Kind, ListQuery};
use plinth_store::resources::{
    CollectionRecord, DeploymentRecord, FileEntry, ModelRecord, Tags, VersionRecord, VersionState, content_digest,
};
use plinth_types::{AliasName, Digest, Error, ModelName, Reason, Result, TenantName, VersionNumber};
use serde_json::Value;

use super::{Actor, Draft, Registry, Stored, Version, models, versions};
use crate::ledger::{Label, as_read, collection_key, deployment_key, from_objects, late, model_key, version_key};
use crate::signing::{self, Inspected};
use crate::words::{check_comment, check_description, check_tags};
use crate::{content, ledger};

/// The most aliases that one push moves.
const MAX_ALIASES: usize = 16;

/// Makes a version out of uploaded blobs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NewVersion {
    /// Its files; their bytes were uploaded before.
    pub files: Vec<FileEntry>,
    /// A Sigstore bundle as JSON text over exactly these files.
    pub signature: Option<String>,
    /// The number that it must get, because its signature names it; any when `None`.
    pub expect_number: Option<VersionNumber>,
    /// A word for people.
    pub description: String,
    /// Properties that users set.
    pub tags: Tags,
    /// Aliases to move to it in the same commit.
    pub aliases: Vec<AliasName>,
}

/// What a push did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PushOutcome {
    /// It made the version.
    Created,
    /// An active version has exactly these files; only aliases may have moved.
    Existing,
}

/// A version after a push.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pushed {
    /// What the push did.
    pub outcome: PushOutcome,
    /// The version.
    pub version: Version,
}

/// A push whose own parts hold together.
struct Checked {
    new: NewVersion,
    content: Digest,
    claim: Option<Inspected>,
}

impl Registry {
    /// Makes a version; makes the model when it is the first. Idempotent by content, see the module.
    ///
    /// # Errors
    /// `InvalidResource`, `MalformedRequest`, `BlobNotFound` naming the digest, `SignatureInvalid`, `ContentAltered`,
    /// `AlreadyExists`, `EditConflict` when the number is taken or a blob is just being deleted, `StoreUnavailable`.
    pub async fn create_version(&self, actor: &Actor, model: &ModelName, new: NewVersion) -> Result<Pushed> {
        check_comment(&actor.comment)?;
        let checked = check(new)?;
        let mut attempts = self.attempts();
        loop {
            attempts.next().await?;
            let found = self.ledger.get::<ModelRecord>(&model_key(&actor.tenant, model)).await?;
            if let Some(found) = &found
                && let Some(pushed) = self.existing(actor, model, found, &checked).await?
            {
                match pushed {
                    Existing::Is(version) => return Ok(Pushed { outcome: PushOutcome::Existing, version: *version }),
                    Existing::LostRace => continue,
                }
            }
            if let Some(version) = self.try_create(actor, model, found, &checked).await? {
                return Ok(Pushed { outcome: PushOutcome::Created, version });
            }
        }
    }

    async fn try_create(
        &self,
        actor: &Actor,
        model: &ModelName,
        found: Option<Stored<ModelRecord>>,
        checked: &Checked,
    ) -> Result<Option<Version>> {
        let (now, expect, mut draft) = (self.now(), as_read(found.as_ref()), Draft::default());
        let mut record = match found {
            Some(found) => found.value,
            None => ModelRecord {
                description: String::new(),
                tags: Tags::new(),
                aliases: BTreeMap::new(),
                last_version: self.former_number(&actor.tenant, model, &mut draft).await?,
                created_by: actor.id.clone(),
                created_at: now,
            },
        };
        let number = checked.number_after(&actor.tenant, model, record.last_version)?;
        self.guard_blobs(&checked.new.files, &mut draft).await?;
        record.last_version = Some(number);
        self.point_aliases(actor, model, number, &checked.new.aliases, &mut record, &mut draft).await?;
        let version = checked.record(actor, now);
        draft.put(model_key(&actor.tenant, model), expect, &record)?;
        draft.put(version_key(&actor.tenant, model, number), plinth_store::metadata::Expect::Absent, &version)?;

        self.world.crash.reach(CrashPoint::PushBeforeCommit);
        let label = Label::new(actor, "version.push", format!("{model}/{number}"));
        let revision = self.ledger.commit(actor, now, label, draft).await?;
        self.world.crash.reach(CrashPoint::PushAfterCommit);
        Ok(revision.map(|revision| versions::view(model, number, Stored { revision, updated_at: now, value: version }, &record)))
    }

    /// The active version that has these files, with the aliases moved to it.
    async fn existing(&self, actor: &Actor, model: &ModelName, found: &Stored<ModelRecord>, checked: &Checked) -> Result<Option<Existing>> {
        let Some((number, stored)) = self.find_content(&actor.tenant, model, checked).await? else { return Ok(None) };
        let mut record = found.value.clone();
        let mut draft = Draft::default();
        self.point_aliases(actor, model, number, &checked.new.aliases, &mut record, &mut draft).await?;
        if record == found.value {
            return Ok(Some(Existing::Is(Box::new(versions::view(model, number, stored, &record)))));
        }
        draft.put(model_key(&actor.tenant, model), as_read(Some(found)), &record)?;
        draft.guard(version_key(&actor.tenant, model, number), as_read(Some(&stored)));
        let moved = self.commit_model(actor, "model.promote", model, record, draft).await?;
        Ok(Some(match moved {
            Some(moved) => Existing::Is(Box::new(versions::view(model, number, stored, &moved.record))),
            None => Existing::LostRace,
        }))
    }

    /// The newest active version with the same content that this push could mean.
    async fn find_content(
        &self,
        tenant: &TenantName,
        model: &ModelName,
        checked: &Checked,
    ) -> Result<Option<(VersionNumber, Stored<VersionRecord>)>> {
        let wanted = Value::String(checked.content.to_string());
        let mut query =
            ListQuery { kind: Kind::Version, tenant: Some(tenant.clone()), prefix: format!("{model}/"), after: None, limit: 64 };
        let mut best: Option<(VersionNumber, Stored<Value>)> = None;
        loop {
            let page = self.ledger.list::<Value>(&query).await?;
            let last = page.len() < query.limit as usize;
            query.after = page.last().map(|(key, _)| key.name.clone());
            for (key, stored) in page {
                let number: VersionNumber = models::parse_name(key.name.rsplit('/').next().unwrap_or_default())?;
                let active = stored.value.get("state") == Some(&Value::String("active".into()));
                let newer = best.as_ref().is_none_or(|(n, _)| number > *n);
                if newer && active && stored.value.get("content") == Some(&wanted) && checked.could_mean(number) {
                    best = Some((number, stored));
                }
            }
            if last {
                break;
            }
        }
        let Some((number, stored)) = best else { return Ok(None) };
        let value: VersionRecord = serde_json::from_value(stored.value).map_err(|e| Error::internal("decoding a version").source(e))?;
        if checked.new.signature.is_some() && checked.new.signature != value.signature {
            let has = if value.signature.is_some() { "another signature" } else { "no signature" };
            let text = format!("version {number} of '{model}' has these files and {has}: attach the signature to it");
            return Err(Error::new(Reason::AlreadyExists, text).field("signature"));
        }
        Ok(Some((number, Stored { revision: stored.revision, updated_at: stored.updated_at, value })))
    }

    /// Makes sure that every blob is there, has its size, and stays: reads the plan of garbage collection first, and lets
    /// the commit happen only if it still stands.
    pub(super) async fn guard_blobs(&self, files: &[FileEntry], draft: &mut Draft) -> Result<()> {
        let plan = self.ledger.get::<CollectionRecord>(&collection_key()).await?;
        draft.guard(collection_key(), as_read(plan.as_ref()));
        let sizes: BTreeMap<Digest, u64> = files.iter().map(|file| (file.digest, file.size)).collect();
        let deleting = plan.map(|plan| plan.value.deleting).unwrap_or_default();
        if let Some(digest) = deleting.iter().find(|digest| sizes.contains_key(digest)) {
            return Err(super::blobs::being_collected(digest));
        }
        let checks = stream::iter(sizes).map(|(digest, size)| self.must_have(digest, size));
        checks.buffer_unordered(16).try_collect::<()>().await
    }

    async fn must_have(&self, digest: Digest, size: u64) -> Result<()> {
        let info = tokio::time::timeout(ledger::DEADLINE, self.objects.info(&digest)).await;
        match info.map_err(|_| late("looking for a blob"))?.map_err(from_objects)? {
            None => {
                Err(Error::new(Reason::BlobNotFound, format!("the blob {digest} was not uploaded: upload it, then push again"))
                    .field("files"))
            }
            Some(info) if info.size != size => {
                let text = format!("the blob {digest} has {} bytes, announced were {size}", info.size);
                Err(Error::new(Reason::InvalidResource, text).field("files"))
            }
            Some(_) => Ok(()),
        }
    }

    /// Points aliases of a new or existing version at it, with what follows from that.
    async fn point_aliases(
        &self,
        actor: &Actor,
        model: &ModelName,
        number: VersionNumber,
        aliases: &[AliasName],
        record: &mut ModelRecord,
        draft: &mut Draft,
    ) -> Result<()> {
        for alias in aliases {
            super::aliases::point(record, alias, number, None);
        }
        if aliases.contains(&AliasName::champion()) {
            self.deploy_by_default(&actor.tenant, model, draft).await?;
        }
        Ok(())
    }

    /// Makes a model that gets a champion served, unless somebody has already said how.
    pub(super) async fn deploy_by_default(&self, tenant: &TenantName, model: &ModelName, draft: &mut Draft) -> Result<()> {
        let key = deployment_key(tenant, model);
        if self.ledger.get::<DeploymentRecord>(&key).await?.is_none() {
            draft.put(key, plinth_store::metadata::Expect::Absent, &DeploymentRecord::default())?;
        }
        Ok(())
    }
}

enum Existing {
    Is(Box<Version>),
    LostRace,
}

/// What can be said of a push without looking at the ledger.
fn check(new: NewVersion) -> Result<Checked> {
    check_description(&new.description)?;
    check_tags(&new.tags)?;
    if new.aliases.len() > MAX_ALIASES {
        return Err(Error::new(Reason::MalformedRequest, format!("one push moves at most {MAX_ALIASES} aliases")).field("aliases"));
    }
    for alias in &new.aliases {
        super::aliases::must_be_movable(alias, "aliases")?;
    }
    let files = content::arrange(new.files)?;
    let claim = match &new.signature {
        Some(bundle) => {
            let seen = signing::inspect(bundle, &files)?;
            signing::cover_everything(&seen.unlisted)?;
            Some(seen)
        }
        None => None,
    };
    Ok(Checked { content: content_digest(&files), claim, new: NewVersion { files, ..new } })
}

impl Checked {
    /// The number that this version gets.
    fn number_after(&self, tenant: &TenantName, model: &ModelName, last: Option<VersionNumber>) -> Result<VersionNumber> {
        let next = last.map_or(Ok(VersionNumber::FIRST), VersionNumber::next);
        let next = next.map_err(|e| Error::new(Reason::InvalidResource, format!("'{model}' has used up its numbers: {e}")))?;
        if let Some(expected) = self.new.expect_number
            && expected != next
        {
            let text = format!("the next version of '{model}' is {next}, not {expected}: sign for {next} and push again");
            return Err(Error::new(Reason::EditConflict, text).field("expect_number"));
        }
        if let Some(binding) = self.claim.as_ref().and_then(|claim| claim.binding.as_ref()) {
            binding.must_name(tenant, model, next)?;
        }
        Ok(next)
    }

    /// Whether a version of this number, with the same content, is what this push asks for.
    fn could_mean(&self, number: VersionNumber) -> bool {
        let bound = self.claim.as_ref().and_then(|claim| claim.binding.as_ref()).map(|binding| binding.version);
        self.new.expect_number.is_none_or(|n| n == number) && bound.is_none_or(|n| n == number)
    }

    fn record(&self, actor: &Actor, now: plinth_types::Timestamp) -> VersionRecord {
        VersionRecord {
            content: self.content,
            files: self.new.files.clone(),
            signature: self.new.signature.clone(),
            state: VersionState::Active,
            description: self.new.description.clone(),
            tags: self.new.tags.clone(),
            created_by: actor.id.clone(),
            created_at: now,
        }
    }
}
