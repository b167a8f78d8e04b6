//! Undoing a commit: the records that it touched get back what they said before.
//!
//! Invariant: only what still stands as that commit left it is put back, and what results keeps every rule that a
//! direct change must keep: aliases point to active versions, deployments to what exists, blobs are there, numbers do
//! not fall. Undoing is itself a commit and can be undone.

use std::collections::BTreeSet;

use plinth_store::metadata::{AuditEntry, Kind, RecordKey, Revision};
use plinth_store::resources::{DeploymentRecord, ModelRecord, VersionRecord, VersionState};
use plinth_types::{Error, ModelName, Reason, Result, TenantName, VersionNumber};
use serde_json::Value;

use super::after::{After, Overlay, decode};
use super::resource::{Resource, ResourceKind};
use super::{Actor, Draft, Registry, draft_size_ok, models};
use crate::ledger::{Label, as_read, deployment_key, model_key, version_key};
use crate::problems::Problems;
use crate::words::check_comment;

impl Registry {
    /// Undoes a commit of the actor's tenant; gives the entry of the commit that did it.
    ///
    /// # Errors
    /// `RecordNotFound`, `InvalidResource` for a commit that cannot be undone, `EditConflict` naming what has changed since
    /// or what stands in the way, `StoreUnavailable`.
    pub async fn undo(&self, actor: &Actor, revision: Revision) -> Result<AuditEntry> {
        check_comment(&actor.comment)?;
        let entry = self.full_entry(&actor.tenant, revision).await?;
        if entry.changes.is_empty() || entry.changes.iter().any(|c| c.key.kind == Kind::Collection) {
            let text = format!("change {revision} ({}) cannot be undone", entry.note.action);
            return Err(Error::new(Reason::InvalidResource, text));
        }
        let kinds = || entry.changes.iter().filter_map(|c| ResourceKind::of_record(c.key.kind));
        if kinds().any(ResourceKind::concerns_all) && !actor.may_change_all() {
            let text = format!("change {revision} concerns all tenants: only an administrator of the default tenant undoes it");
            return Err(Error::new(Reason::NotPermitted, text));
        }
        draft_size_ok(entry.changes.len())?;
        let mut attempts = self.attempts();
        loop {
            attempts.next().await?;
            let draft = self.draft_undo(&entry).await?;
            let comment = if actor.comment.is_empty() { format!("undoes change {revision}") } else { actor.comment.clone() };
            let label = Label { comment, ..Label::new(actor, "undo", entry.note.subject.clone()) };
            if let Some(done) = self.ledger.commit(actor, self.now(), label, draft).await? {
                return self.audit_entry(&actor.tenant, done).await;
            }
        }
    }

    async fn draft_undo(&self, entry: &AuditEntry) -> Result<Draft> {
        let (mut draft, mut overlay) = (Draft::default(), Overlay::new());
        // What remains of former models is never taken back.
        for change in entry.changes.iter().filter(|change| change.key.kind != Kind::FormerModel) {
            let current = self.ledger.get::<Value>(&change.key).await?;
            if current.as_ref().map(|c| &c.value) != change.after.as_ref() {
                let text =
                    format!("the {} '{}' has changed since: undo the later changes first", change.key.kind.as_str(), change.key.name);
                return Err(Error::new(Reason::EditConflict, text));
            }
            let target = self.before_but_numbers(change, &mut draft).await?;
            draft.set(change.key.clone(), as_read(current.as_ref()), target.clone());
            overlay.insert(change.key.clone(), target);
        }
        let mut state = After { registry: self, overlay: &overlay, draft: &mut draft };
        let touched: BTreeSet<(TenantName, ModelName)> = entry.changes.iter().filter_map(|c| model_of(&c.key)).collect();
        for (tenant, model) in touched {
            state.check_model(&tenant, &model).await?;
        }
        state.check_gateway().await?;
        let restored = overlay.iter().filter(|(key, _)| key.kind == Kind::Version).filter_map(|(_, value)| value.as_ref());
        for value in restored {
            let version: VersionRecord = decode(value.clone())?;
            self.guard_blobs(&version.files, &mut draft).await?;
        }
        Ok(draft)
    }
}

impl After<'_> {
    async fn check_model(&mut self, tenant: &TenantName, model: &ModelName) -> Result<()> {
        let record = self.get::<ModelRecord>(model_key(tenant, model)).await?;
        let deployment = self.get::<DeploymentRecord>(deployment_key(tenant, model)).await?;
        let Some(record) = record else {
            if deployment.is_some() {
                return Err(in_the_way(format!("the model '{model}' would be gone and still be deployed")));
            }
            return self.check_no_versions(tenant, model).await;
        };
        for (alias, target) in &record.aliases {
            self.must_be_active(tenant, model, target.version, &format!("'{alias}' of '{model}'")).await?;
        }
        for number in deployment.iter().flat_map(|d| &d.versions) {
            self.must_be_active(tenant, model, *number, &format!("the deployment of '{model}'")).await?;
        }
        Ok(())
    }

    /// What comes back names only what is there, and nothing names what goes.
    async fn check_gateway(&mut self) -> Result<()> {
        for (key, value) in self.overlay {
            let Some(kind) = ResourceKind::of_record(key.kind) else { continue };
            match value {
                // `check_model` has looked at these.
                Some(_) if matches!(kind, ResourceKind::Model | ResourceKind::Deployment) => {}
                Some(value) if kind == ResourceKind::Filter => self.check_filter(key, &decode(value.clone())?).await?,
                Some(value) => {
                    let mut problems = Problems::default();
                    self.check_names(key, &Resource::read(kind, value.clone())?, &mut problems).await?;
                    problems.into_result().map_err(|e| in_the_way(format!("the {kind} '{}' could not come back, for {e}", key.name)))?;
                }
                None => self.check_unused(key).await?,
            }
        }
        Ok(())
    }

    async fn must_be_active(&mut self, tenant: &TenantName, model: &ModelName, number: VersionNumber, who: &str) -> Result<()> {
        match self.get::<VersionRecord>(version_key(tenant, model, number)).await? {
            Some(version) if version.state == VersionState::Active => Ok(()),
            Some(_) => Err(in_the_way(format!("{who} would name version {number}, which is retired"))),
            None => Err(in_the_way(format!("{who} would name version {number}, which is not there"))),
        }
    }

    /// A model that goes may leave no version behind. New ones cannot appear meanwhile: they would change its record.
    async fn check_no_versions(&mut self, tenant: &TenantName, model: &ModelName) -> Result<()> {
        let listed = self.registry.version_keys(tenant, model).await?.into_iter().map(|(key, _)| key);
        let restored = self.overlay.iter().filter(|(key, value)| key.kind == Kind::Version && value.is_some()).map(|(key, _)| key.clone());
        let of_this = |key: &RecordKey| model_of(key) == Some((tenant.clone(), model.clone()));
        let left = listed.chain(restored).find(|key| of_this(key) && !matches!(self.overlay.get(key), Some(None)));
        match left {
            Some(key) => Err(in_the_way(format!("the model '{model}' would be gone and its version '{}' be left", key.name))),
            None => Ok(()),
        }
    }
}

/// The model that a record belongs to.
fn model_of(key: &RecordKey) -> Option<(TenantName, ModelName)> {
    let name = match key.kind {
        Kind::Model | Kind::Deployment => key.name.as_str(),
        Kind::Version => key.name.rsplit_once('/')?.0,
        _ => return None,
    };
    models::parse_name(name).ok().map(|model| (key.tenant.clone(), model))
}

fn in_the_way(what: String) -> Error {
    Error::new(Reason::EditConflict, format!("{what}: undo or change that first"))
}
