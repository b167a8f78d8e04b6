//! Versions: list, show, edit, sign, retire, restore, delete.
//!
//! Invariant: what an alias or a deployment names is active and there; each change here guards the model's and the
//! deployment's record, as moving an alias guards the version's.

use plinth_store::resources::{DeploymentRecord, ModelRecord, VersionRecord, VersionState};
use plinth_types::{AliasName, Error, ModelName, Reason, Result, TenantName, VersionNumber};

use super::{Actor, Draft, Edit, Page, PageQuery, Registry, Stored, Version, edit_words};
use crate::ledger::{Label, as_read, deployment_key, model_key, version_key};
use crate::signing;
use crate::words::check_comment;

/// The most numbers that one page of versions looks at, present or deleted.
const MAX_PROBES: u32 = 1_000;

impl Registry {
    /// Versions, newest first. A page may be short where many numbers were deleted; only `next` says whether there are more.
    ///
    /// # Errors
    /// `ModelNotFound`, `InvalidName` when the page does not begin at a number, `StoreUnavailable`.
    pub async fn versions(&self, tenant: &TenantName, model: &ModelName, page: &PageQuery) -> Result<Page<Version>> {
        let found = self.find_model(tenant, model).await?;
        let mut number = match &page.after {
            Some(after) => {
                let after: VersionNumber =
                    after.parse().map_err(|e| Error::new(Reason::InvalidName, format!("after: {e}")).field("after"))?;
                before(after)
            }
            None => found.value.last_version,
        };
        let (limit, mut probes, mut items) = (page.bounded(100) as usize, 0, Vec::new());
        while let Some(n) = number {
            if items.len() == limit || probes == MAX_PROBES {
                break;
            }
            if let Some(stored) = self.ledger.get::<VersionRecord>(&version_key(tenant, model, n)).await? {
                items.push(view(model, n, stored, &found.value));
            }
            probes += 1;
            number = before(n);
        }
        // The page after begins below the last number that was looked at.
        let next = number.and_then(|n| n.next().ok()).map(|n| n.to_string());
        Ok(Page { items, next })
    }

    /// One version.
    ///
    /// # Errors
    /// `ModelNotFound`, `VersionNotFound`, `StoreUnavailable`.
    pub async fn version(&self, tenant: &TenantName, model: &ModelName, number: VersionNumber) -> Result<Version> {
        let found = self.find_model(tenant, model).await?;
        let stored = self.find_version(tenant, model, number).await?;
        Ok(view(model, number, stored, &found.value))
    }

    /// Changes a version's words and tags.
    ///
    /// # Errors
    /// `VersionNotFound`, `MalformedRequest` when a word is too long, `EditConflict`.
    pub async fn edit_version(&self, actor: &Actor, model: &ModelName, number: VersionNumber, edit: &Edit) -> Result<Version> {
        self.change_version(actor, model, number, "version.edit", |_, record| edit_words(edit, &mut record.description, &mut record.tags))
            .await
    }

    /// Attaches a signature, or replaces the one that is there. Who signed is not asked here: that is for the nodes that load it.
    ///
    /// # Errors
    /// `VersionNotFound`, `SignatureInvalid`, `ContentAltered`, `EditConflict`.
    pub async fn attach_signature(&self, actor: &Actor, model: &ModelName, number: VersionNumber, bundle: &str) -> Result<Version> {
        self.change_version(actor, model, number, "version.sign", |_, record| {
            let seen = signing::inspect(bundle, &record.files)?;
            signing::cover_everything(&seen.unlisted)?;
            if let Some(binding) = seen.binding {
                binding.must_name(&actor.tenant, model, number)?;
            }
            record.signature = Some(bundle.to_owned());
            Ok(())
        })
        .await
    }

    /// Takes a version out of use; it is kept and can be restored.
    ///
    /// # Errors
    /// `VersionNotFound`, `VersionInUse` while an alias or a deployment names it, `EditConflict`.
    pub async fn retire_version(&self, actor: &Actor, model: &ModelName, number: VersionNumber) -> Result<Version> {
        self.change_version(actor, model, number, "version.retire", |users, record| {
            users.must_be_none(model, number)?;
            record.state = VersionState::Retired;
            Ok(())
        })
        .await
    }

    /// Brings a retired version back.
    ///
    /// # Errors
    /// `VersionNotFound`, `EditConflict`.
    pub async fn restore_version(&self, actor: &Actor, model: &ModelName, number: VersionNumber) -> Result<Version> {
        self.change_version(actor, model, number, "version.restore", |_, record| {
            record.state = VersionState::Active;
            Ok(())
        })
        .await
    }

    /// Deletes a version; its number is not used again. Blobs stay until garbage collection.
    ///
    /// # Errors
    /// `VersionNotFound`, `VersionInUse` while an alias (also `previous`) or a deployment names it, `EditConflict`.
    pub async fn delete_version(&self, actor: &Actor, model: &ModelName, number: VersionNumber) -> Result<()> {
        check_comment(&actor.comment)?;
        let mut attempts = self.attempts();
        loop {
            attempts.next().await?;
            let (users, stored) = self.version_with_users(&actor.tenant, model, number).await?;
            users.must_be_none(model, number)?;
            let mut draft = Draft::default();
            draft.delete(version_key(&actor.tenant, model, number), as_read(Some(&stored)));
            users.guard(&mut draft, &actor.tenant, model);
            let label = Label::new(actor, "version.delete", format!("{model}/{number}"));
            if self.ledger.commit(actor, self.now(), label, draft).await?.is_some() {
                return Ok(());
            }
        }
    }

    /// Changes a version's record by `change`, which may run more than once.
    async fn change_version(
        &self,
        actor: &Actor,
        model: &ModelName,
        number: VersionNumber,
        action: &'static str,
        change: impl Fn(&Users, &mut VersionRecord) -> Result<()> + Send + Sync,
    ) -> Result<Version> {
        check_comment(&actor.comment)?;
        let mut attempts = self.attempts();
        loop {
            attempts.next().await?;
            let (users, mut stored) = self.version_with_users(&actor.tenant, model, number).await?;
            let before = stored.value.clone();
            change(&users, &mut stored.value)?;
            if stored.value == before {
                return Ok(view(model, number, stored, &users.model.value));
            }
            let mut draft = Draft::default();
            draft.put(version_key(&actor.tenant, model, number), as_read(Some(&stored)), &stored.value)?;
            users.guard(&mut draft, &actor.tenant, model);
            let now = self.now();
            let label = Label::new(actor, action, format!("{model}/{number}"));
            if let Some(revision) = self.ledger.commit(actor, now, label, draft).await? {
                let stored = Stored { revision, updated_at: now, value: stored.value };
                return Ok(view(model, number, stored, &users.model.value));
            }
        }
    }

    async fn version_with_users(
        &self,
        tenant: &TenantName,
        model: &ModelName,
        number: VersionNumber,
    ) -> Result<(Users, Stored<VersionRecord>)> {
        let found = self.find_model(tenant, model).await?;
        let stored = self.find_version(tenant, model, number).await?;
        let deployment = self.ledger.get(&deployment_key(tenant, model)).await?;
        Ok((Users { model: found, deployment }, stored))
    }
}

/// What may name a version.
struct Users {
    model: Stored<ModelRecord>,
    deployment: Option<Stored<DeploymentRecord>>,
}

impl Users {
    fn must_be_none(&self, model: &ModelName, number: VersionNumber) -> Result<()> {
        let aliases = aliases_of(&self.model.value, number);
        if let Some(alias) = aliases.first() {
            let text = format!("'{alias}' of '{model}' points to version {number}: move or delete the alias first");
            return Err(Error::new(Reason::VersionInUse, text));
        }
        if self.deployment.as_ref().is_some_and(|d| d.value.versions.contains(&number)) {
            let text = format!("the deployment of '{model}' keeps version {number} loaded: take it out of there first");
            return Err(Error::new(Reason::VersionInUse, text));
        }
        Ok(())
    }

    fn guard(&self, draft: &mut Draft, tenant: &TenantName, model: &ModelName) {
        draft.guard(model_key(tenant, model), as_read(Some(&self.model)));
        draft.guard(deployment_key(tenant, model), as_read(self.deployment.as_ref()));
    }
}

pub(super) fn aliases_of(model: &ModelRecord, number: VersionNumber) -> Vec<AliasName> {
    model.aliases.iter().filter(|(_, target)| target.version == number).map(|(alias, _)| alias.clone()).collect()
}

pub(super) fn view(model: &ModelName, number: VersionNumber, stored: Stored<VersionRecord>, record: &ModelRecord) -> Version {
    Version {
        model: model.clone(),
        number,
        aliases: aliases_of(record, number),
        record: stored.value,
        revision: stored.revision,
        updated_at: stored.updated_at,
    }
}

fn before(number: VersionNumber) -> Option<VersionNumber> {
    VersionNumber::try_from(number.get() - 1).ok()
}
