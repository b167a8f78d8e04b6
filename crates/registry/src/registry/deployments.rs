//! Deployments: the wish that a model be served.
//!
//! Invariant: a deployment belongs to a model that exists, and the versions that it keeps loaded exist and are active.
//! Its alias may still be missing: then there is nothing to serve yet.

use plinth_store::metadata::Expect;
use plinth_store::resources::{DeploymentRecord, Desired, VersionState};
use plinth_types::{Error, ModelName, Reason, Result, TenantName, VersionNumber};

use super::{Actor, Draft, Registry, version_retired};
use crate::ledger::{Label, as_read, deployment_key, model_key, version_key};
use crate::words::check_comment;

/// The most executions of one version at the same time.
const MAX_INSTANCES: u16 = 256;
const MAX_CONFIG_BYTES: usize = 1 << 20;
const MAX_VERSIONS: usize = 32;

impl Registry {
    /// How a model shall be served; `None` when nobody said.
    ///
    /// # Errors
    /// `ModelNotFound`, `StoreUnavailable`.
    pub async fn deployment(&self, tenant: &TenantName, model: &ModelName) -> Result<Option<DeploymentRecord>> {
        self.find_model(tenant, model).await?;
        Ok(self.ledger.get(&deployment_key(tenant, model)).await?.map(|stored| stored.value))
    }

    /// Says how a model shall be served; `None` takes the wish back. The generation never falls.
    ///
    /// # Errors
    /// `ModelNotFound`, `VersionNotFound`, `VersionRetired`, `InvalidResource`, `EditConflict`.
    pub async fn set_deployment(&self, actor: &Actor, model: &ModelName, record: Option<DeploymentRecord>) -> Result<()> {
        if let Some(record) = &record {
            check(record)?;
        }
        self.change_deployment(actor, model, "deployment.set", |current| {
            let generation = current.map_or(0, |c| c.generation);
            record.clone().map(|record| DeploymentRecord { generation: record.generation.max(generation), ..record })
        })
        .await
        .map(drop)
    }

    /// Loads or unloads a model, as the model-repository extension of the Open Inference Protocol does. Loading counts the
    /// generation up, so that nodes start fresh, and `config_override` replaces the one that stands, also by nothing.
    ///
    /// # Errors
    /// `ModelNotFound`, `InvalidResource` for a malformed configuration, `EditConflict`.
    pub async fn set_desired(
        &self,
        actor: &Actor,
        model: &ModelName,
        desired: Desired,
        config_override: Option<String>,
    ) -> Result<DeploymentRecord> {
        check(&DeploymentRecord { config_override: config_override.clone(), ..DeploymentRecord::default() })?;
        let action = if desired == Desired::Loaded { "model.load" } else { "model.unload" };
        let changed = self.change_deployment(actor, model, action, |current| {
            let mut record = current.cloned().unwrap_or_default();
            record.desired = desired;
            if desired == Desired::Loaded {
                record.config_override.clone_from(&config_override);
                record.generation = record.generation.saturating_add(1);
            }
            Some(record)
        });
        changed.await?.ok_or_else(|| Error::internal("a deployment vanished while it was set"))
    }

    async fn change_deployment(
        &self,
        actor: &Actor,
        model: &ModelName,
        action: &'static str,
        change: impl Fn(Option<&DeploymentRecord>) -> Option<DeploymentRecord> + Send + Sync,
    ) -> Result<Option<DeploymentRecord>> {
        check_comment(&actor.comment)?;
        let key = deployment_key(&actor.tenant, model);
        let mut attempts = self.attempts();
        loop {
            attempts.next().await?;
            let found = self.find_model(&actor.tenant, model).await?;
            let current = self.ledger.get::<DeploymentRecord>(&key).await?;
            let wanted = change(current.as_ref().map(|c| &c.value));
            if wanted.as_ref() == current.as_ref().map(|c| &c.value) {
                return Ok(wanted);
            }
            let mut draft = Draft::default();
            match &wanted {
                Some(record) => {
                    draft.put(key.clone(), as_read(current.as_ref()), record)?;
                    self.guard_versions(&actor.tenant, model, &record.versions, &mut draft).await?;
                }
                None => draft.delete(key.clone(), as_read(current.as_ref())),
            }
            draft.guard(model_key(&actor.tenant, model), as_read(Some(&found)));
            if self.ledger.commit(actor, self.now(), Label::new(actor, action, model.as_str()), draft).await?.is_some() {
                return Ok(wanted);
            }
        }
    }

    /// Lets a commit happen only while these versions are there and active.
    pub(super) async fn guard_versions(
        &self,
        tenant: &TenantName,
        model: &ModelName,
        versions: &[VersionNumber],
        draft: &mut Draft,
    ) -> Result<()> {
        for number in versions {
            let version = self.find_version(tenant, model, *number).await.map_err(|e| e.field("versions"))?;
            if version.value.state != VersionState::Active {
                return Err(version_retired(model, *number).field("versions"));
            }
            draft.guard(version_key(tenant, model, *number), Expect::At(version.revision));
        }
        Ok(())
    }
}

/// What can be said of a deployment without looking at the ledger.
pub(super) fn check(record: &DeploymentRecord) -> Result<()> {
    let refuse = |field: &str, text: String| Err(Error::new(Reason::InvalidResource, text).field(field));
    if record.versions.len() > MAX_VERSIONS {
        return refuse("versions", format!("a deployment keeps at most {MAX_VERSIONS} versions loaded beside its alias"));
    }
    let mut versions = record.versions.clone();
    versions.sort_unstable();
    versions.dedup();
    if versions.len() != record.versions.len() {
        return refuse("versions", "a version is listed twice".into());
    }
    if record.threads == Some(0) {
        return refuse("threads", "a runner needs at least 1 thread".into());
    }
    if !record.instances.is_none_or(|n| (1..=MAX_INSTANCES).contains(&n)) {
        return refuse("instances", format!("from 1 to {MAX_INSTANCES} executions at the same time"));
    }
    if record.idle_seconds == Some(0) {
        return refuse("idle_seconds", "a version that is unloaded at once never answers; at least 1".into());
    }
    if record.cache.is_some_and(|cache| cache.ttl_seconds == Some(0)) {
        return refuse("cache.ttl_seconds", "an answer is kept for at least 1 second; say enabled: false for not at all".into());
    }
    if record.memory.is_some_and(|memory| memory.0 == 0) {
        return refuse("memory", "a runner needs some memory".into());
    }
    if let Some(config) = &record.config_override {
        if config.len() > MAX_CONFIG_BYTES {
            return refuse("config_override", format!("a model configuration has at most {MAX_CONFIG_BYTES} bytes"));
        }
        if !serde_json::from_str::<serde_json::Value>(config).is_ok_and(|config| config.is_object()) {
            return refuse("config_override", "a model configuration is a JSON object".into());
        }
    }
    Ok(())
}
