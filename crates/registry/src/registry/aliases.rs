//! Aliases: move, delete, roll back.
//!
//! Invariants: an alias points to an active version; `previous` is where `champion` pointed before it last moved, and
//! is kept by the registry alone. Who gets a champion gets a deployment.

use plinth_runtime::CrashPoint;
use plinth_store::resources::{AliasTarget, DeploymentRecord, Desired, ModelRecord, VersionState};
use plinth_types::{AliasName, Error, ModelName, Reason, Result, TenantName, VersionNumber};

use super::{Actor, Draft, Model, Registry, Stored, models, version_retired};
use crate::ledger::{as_read, deployment_key, model_key, version_key};
use crate::signing::RollbackPermission;
use crate::words::check_comment;

/// Moves an alias.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MoveAlias {
    /// Where to.
    pub version: VersionNumber,
    /// Where it must point now; any place when `None`.
    pub expect: Option<VersionNumber>,
    /// A signed permission to go back ([`RollbackPermission::sign`]); needed by nodes that require signatures.
    pub permission: Option<String>,
}

/// Moves `champion` back to where `previous` points.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RollBack {
    /// A signed permission to go back; needed by nodes that require signatures.
    pub permission: Option<String>,
}

impl Registry {
    /// Points an alias at a version. Doing it twice changes nothing the second time.
    ///
    /// # Errors
    /// `ModelNotFound`, `VersionNotFound`, `VersionRetired`, `InvalidName` for `previous`, `SignatureInvalid` when the
    /// permission is for something else, `EditConflict` when the alias is not where it was expected.
    pub async fn move_alias(&self, actor: &Actor, model: &ModelName, alias: &AliasName, to: &MoveAlias) -> Result<Model> {
        must_be_movable(alias, "alias")?;
        check_comment(&actor.comment)?;
        let mut attempts = self.attempts();
        loop {
            attempts.next().await?;
            let found = self.find_model(&actor.tenant, model).await?;
            let now_at = found.value.aliases.get(alias).map(|target| target.version);
            if to.expect.is_some() && to.expect != now_at {
                let place = now_at.map_or_else(|| "to nothing".to_owned(), |n| format!("to version {n}"));
                let text = format!("'{alias}' of '{model}' points {place}: look again, then decide");
                return Err(Error::new(Reason::EditConflict, text).field("expect"));
            }
            let aim = Aim { alias, version: to.version, permission: to.permission.clone() };
            if let Some(moved) = self.try_aim(actor, model, found, aim).await? {
                return Ok(moved);
            }
        }
    }

    /// Lets `champion` and `previous` change places.
    ///
    /// # Errors
    /// `ModelNotFound`, `NothingToRollBack`, `VersionRetired`, `SignatureInvalid` when the permission is for something else,
    /// `EditConflict`.
    pub async fn roll_back(&self, actor: &Actor, model: &ModelName, request: &RollBack) -> Result<Model> {
        check_comment(&actor.comment)?;
        let champion = AliasName::champion();
        let mut attempts = self.attempts();
        loop {
            attempts.next().await?;
            let found = self.find_model(&actor.tenant, model).await?;
            let previous = found.value.aliases.get(&AliasName::previous()).map(|target| target.version);
            let current = found.value.aliases.get(&champion).map(|target| target.version);
            let version = match (current, previous) {
                (Some(current), Some(previous)) if current != previous => previous,
                _ => {
                    let text = format!("'{model}' has no earlier champion to go back to: move the alias to a version by its number");
                    return Err(Error::new(Reason::NothingToRollBack, text));
                }
            };
            let aim = Aim { alias: &champion, version, permission: request.permission.clone() };
            if let Some(moved) = self.try_aim(actor, model, found, aim).await? {
                return Ok(moved);
            }
        }
    }

    /// Deletes an alias; with `champion` goes `previous`.
    ///
    /// # Errors
    /// `ModelNotFound`, `AliasNotFound`, `VersionInUse` while the model is served by it, `EditConflict`.
    pub async fn delete_alias(&self, actor: &Actor, model: &ModelName, alias: &AliasName) -> Result<Model> {
        check_comment(&actor.comment)?;
        let mut attempts = self.attempts();
        loop {
            attempts.next().await?;
            let mut found = self.find_model(&actor.tenant, model).await?;
            let deployment = self.ledger.get::<DeploymentRecord>(&deployment_key(&actor.tenant, model)).await?;
            if found.value.aliases.remove(alias).is_none() {
                return Err(Error::new(Reason::AliasNotFound, format!("'{model}' has no alias '{alias}'")));
            }
            if deployment.as_ref().is_some_and(|d| d.value.desired == Desired::Loaded && d.value.alias == *alias) {
                return Err(Error::new(Reason::VersionInUse, format!("'{model}' is served by its alias '{alias}': unload it first")));
            }
            if *alias == AliasName::champion() {
                found.value.aliases.remove(&AliasName::previous());
            }
            let mut draft = Draft::default();
            draft.put(model_key(&actor.tenant, model), as_read(Some(&found)), &found.value)?;
            draft.guard(deployment_key(&actor.tenant, model), as_read(deployment.as_ref()));
            if let Some(changed) = self.commit_model(actor, "alias.delete", model, found.value, draft).await? {
                return Ok(changed);
            }
        }
    }

    /// One try to point an alias; `None` when the race was lost.
    async fn try_aim(&self, actor: &Actor, model: &ModelName, found: Stored<ModelRecord>, aim: Aim<'_>) -> Result<Option<Model>> {
        let version = self.find_version(&actor.tenant, model, aim.version).await?;
        if version.value.state != VersionState::Active {
            return Err(version_retired(model, aim.version));
        }
        if let Some(permission) = &aim.permission {
            let said = RollbackPermission::inspect(permission)?;
            must_permit(&said, &actor.tenant, model, &aim, &version.value.content)?;
        }
        let action = match found.value.aliases.get(aim.alias) {
            Some(target) if aim.version < target.version => "model.rollback",
            _ => "model.promote",
        };
        let mut record = found.value.clone();
        point(&mut record, aim.alias, aim.version, aim.permission);
        if record == found.value {
            return Ok(Some(models::view(model.clone(), found)));
        }
        let mut draft = Draft::default();
        draft.put(model_key(&actor.tenant, model), as_read(Some(&found)), &record)?;
        draft.guard(version_key(&actor.tenant, model, aim.version), as_read(Some(&version)));
        if *aim.alias == AliasName::champion() {
            self.deploy_by_default(&actor.tenant, model, &mut draft).await?;
        }
        self.world.crash.reach(CrashPoint::PromoteBeforeCommit);
        let moved = self.commit_model(actor, action, model, record, draft).await?;
        self.world.crash.reach(CrashPoint::PromoteAfterCommit);
        Ok(moved)
    }
}

/// Where an alias shall point.
struct Aim<'a> {
    alias: &'a AliasName,
    version: VersionNumber,
    permission: Option<String>,
}

/// Points an alias at a version in the model's record; `champion` leaves `previous` behind.
pub(super) fn point(record: &mut ModelRecord, alias: &AliasName, version: VersionNumber, permission: Option<String>) {
    let old = record.aliases.get(alias);
    // A repeated move without a permission does not take away the one that stands.
    if old.is_some_and(|old| old.version == version && permission.is_none()) {
        return;
    }
    let old = record.aliases.insert(alias.clone(), AliasTarget { version, permission });
    if let Some(old) = old
        && old.version != version
        && *alias == AliasName::champion()
    {
        record.aliases.insert(AliasName::previous(), AliasTarget { version: old.version, permission: None });
    }
}

/// Refuses the alias that the registry keeps itself.
pub(super) fn must_be_movable(alias: &AliasName, field: &str) -> Result<()> {
    if *alias == AliasName::previous() {
        let text = "'previous' is kept by the registry: move 'champion', or roll back";
        return Err(Error::new(Reason::InvalidName, text).field(field));
    }
    Ok(())
}

fn must_permit(
    said: &RollbackPermission,
    tenant: &TenantName,
    model: &ModelName,
    aim: &Aim<'_>,
    content: &plinth_types::Digest,
) -> Result<()> {
    let same = said.tenant == *tenant && said.model == *model && said.alias == *aim.alias && said.version == aim.version;
    if same && said.content == *content {
        return Ok(());
    }
    let text = format!(
        "the permission lets '{}' of '{}/{}' go to version {}, not '{}' of '{tenant}/{model}' to version {}: sign another",
        said.alias, said.tenant, said.model, said.version, aim.alias, aim.version
    );
    Err(Error::new(Reason::SignatureInvalid, text).field("permission"))
}
