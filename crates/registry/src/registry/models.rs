//! Models: list, show, edit, delete.

use plinth_store::metadata::{Kind, ListQuery};
use plinth_store::resources::{DeploymentRecord, Desired, ModelRecord};
use plinth_types::{Error, ModelName, Reason, Result, TenantName};
use serde::de::IgnoredAny;

use super::after::After;
use super::{Actor, Draft, Edit, Model, Page, PageQuery, Registry, Stored, draft_size_ok, edit_words};
use crate::ledger::{Label, as_read, deployment_key, model_key};
use crate::words::check_comment;

impl Registry {
    /// Models by name.
    ///
    /// # Errors
    /// `StoreUnavailable`.
    pub async fn models(&self, tenant: &TenantName, page: &PageQuery) -> Result<Page<Model>> {
        let limit = page.bounded(200);
        let query = ListQuery {
            kind: Kind::Model,
            tenant: Some(tenant.clone()),
            prefix: String::new(),
            after: page.after.clone(),
            limit: limit + 1,
        };
        let mut found = self.ledger.list::<ModelRecord>(&query).await?;
        let more = found.len() > limit as usize;
        found.truncate(limit as usize);
        let items = found.into_iter().map(|(key, stored)| Ok(view(parse_name(&key.name)?, stored))).collect::<Result<Vec<_>>>()?;
        let next = if more { items.last().map(|m| m.name.to_string()) } else { None };
        Ok(Page { items, next })
    }

    /// One model.
    ///
    /// # Errors
    /// `ModelNotFound`, `StoreUnavailable`.
    pub async fn model(&self, tenant: &TenantName, model: &ModelName) -> Result<Model> {
        Ok(view(model.clone(), self.find_model(tenant, model).await?))
    }

    /// Changes a model's words and tags.
    ///
    /// # Errors
    /// `ModelNotFound`, `MalformedRequest` when a word is too long, `EditConflict`.
    pub async fn edit_model(&self, actor: &Actor, model: &ModelName, edit: &Edit) -> Result<Model> {
        check_comment(&actor.comment)?;
        let mut attempts = self.attempts();
        loop {
            attempts.next().await?;
            let mut found = self.find_model(&actor.tenant, model).await?;
            let before = found.value.clone();
            edit_words(edit, &mut found.value.description, &mut found.value.tags)?;
            if found.value == before {
                return Ok(view(model.clone(), found));
            }
            let mut draft = Draft::default();
            draft.put(model_key(&actor.tenant, model), as_read(Some(&found)), &found.value)?;
            if let Some(changed) = self.commit_model(actor, "model.edit", model, found.value, draft).await? {
                return Ok(changed);
            }
        }
    }

    /// Deletes a model with all its versions and its deployment. Blobs stay until garbage collection, and its numbers
    /// are not used again when a model of this name is made anew.
    ///
    /// # Errors
    /// `ModelNotFound`, `VersionInUse` while an alias points to a version or the model is deployed, `ResourceInUse` while a
    /// route names it, `EditConflict`.
    pub async fn delete_model(&self, actor: &Actor, model: &ModelName) -> Result<()> {
        check_comment(&actor.comment)?;
        let mut attempts = self.attempts();
        loop {
            attempts.next().await?;
            let found = self.find_model(&actor.tenant, model).await?;
            let deployment = self.ledger.get::<DeploymentRecord>(&deployment_key(&actor.tenant, model)).await?;
            if let Some((alias, target)) = found.value.aliases.first_key_value() {
                let text =
                    format!("'{alias}' of '{model}' points to version {}: unload the model and delete its aliases first", target.version);
                return Err(Error::new(Reason::VersionInUse, text));
            }
            let served = deployment.as_ref().is_some_and(|d| d.value.desired == Desired::Loaded || !d.value.versions.is_empty());
            if served {
                return Err(Error::new(Reason::VersionInUse, format!("'{model}' is deployed: unload it first")));
            }
            let mut draft = Draft::default();
            draft.delete(model_key(&actor.tenant, model), as_read(Some(&found)));
            self.retain_number(&actor.tenant, model, found.value.last_version, &mut draft).await?;
            if deployment.is_some() {
                draft.delete(deployment_key(&actor.tenant, model), as_read(deployment.as_ref()));
            } else {
                draft.guard(deployment_key(&actor.tenant, model), as_read(deployment.as_ref()));
            }
            let key = model_key(&actor.tenant, model);
            let overlay = [(key.clone(), None)].into();
            After { registry: self, overlay: &overlay, draft: &mut draft }.check_unused(&key).await?;
            let versions = self.version_keys(&actor.tenant, model).await?;
            draft_size_ok(versions.len())?;
            for (key, stored) in versions {
                draft.delete(key, as_read(Some(&stored)));
            }
            let label = Label::new(actor, "model.delete", model.as_str());
            if self.ledger.commit(actor, self.now(), label, draft).await?.is_some() {
                return Ok(());
            }
        }
    }

    /// Every version record of a model, without its content.
    pub(super) async fn version_keys(
        &self,
        tenant: &TenantName,
        model: &ModelName,
    ) -> Result<Vec<(plinth_store::metadata::RecordKey, Stored<IgnoredAny>)>> {
        let mut query =
            ListQuery { kind: Kind::Version, tenant: Some(tenant.clone()), prefix: format!("{model}/"), after: None, limit: 100 };
        let mut keys = Vec::new();
        loop {
            let page = self.ledger.list::<IgnoredAny>(&query).await?;
            let last = page.len() < query.limit as usize;
            query.after = page.last().map(|(key, _)| key.name.clone());
            keys.extend(page);
            if last {
                return Ok(keys);
            }
        }
    }

    /// Commits a draft that changes a model's record; `None` when the race was lost.
    pub(super) async fn commit_model(
        &self,
        actor: &Actor,
        action: &'static str,
        model: &ModelName,
        record: ModelRecord,
        draft: Draft,
    ) -> Result<Option<Model>> {
        let now = self.now();
        let revision = self.ledger.commit(actor, now, Label::new(actor, action, model.as_str()), draft).await?;
        Ok(revision.map(|revision| Model { name: model.clone(), record, revision, updated_at: now }))
    }
}

pub(super) fn view(name: ModelName, stored: Stored<ModelRecord>) -> Model {
    Model { name, record: stored.value, revision: stored.revision, updated_at: stored.updated_at }
}

/// The name of a record that this registry wrote.
pub(super) fn parse_name<T: std::str::FromStr>(text: &str) -> Result<T> {
    text.parse().map_err(|_| Error::internal(format!("a record has the impossible name '{}'", text.escape_debug())))
}
