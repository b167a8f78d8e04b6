//! The model repository extension, whichever protocol asks: what there is, load, unload.
//!
//! Loading and unloading are wishes in the registry, so they outlive the node; the answer waits until this node has carried
//! the wish out, or says why it could not.

use std::time::Duration;

use plinth_cluster::Snapshot;
use plinth_identity::Principal;
use plinth_registry::Actor;
use plinth_serving::{ModelConfig, State, Table, VersionRow};
use plinth_store::resources::{DeploymentRecord, Desired};
use plinth_types::{AliasName, Error, ModelName, Reason, Result, TenantName, VersionNumber};

use super::metadata::{IndexEntry, IndexState};
use crate::Services;

/// What there is that the caller may use; what answers alone when `ready`.
pub(super) fn index(services: &Services, who: &Principal, ready: bool) -> Vec<IndexEntry> {
    let mut entries = entries(&services.snapshot.view().snapshot, &services.serving.table(), &who.tenant, |model| who.may_use(model));
    if ready {
        entries.retain(|entry| entry.state == IndexState::Ready);
    }
    entries
}

/// Every model of the tenant: its versions that this node has, or one line without a version when it has none.
fn entries(snapshot: &Snapshot, table: &Table, tenant: &TenantName, may_use: impl Fn(&ModelName) -> bool) -> Vec<IndexEntry> {
    let models = snapshot.models.get(tenant).into_iter().flat_map(|models| models.iter());
    models
        .filter(|(name, _)| may_use(name))
        .flat_map(|(name, _)| {
            let rows = table.row(tenant, name).into_iter().flat_map(|row| &row.versions);
            let mut entries: Vec<_> = rows.map(|(number, row)| entry(name, *number, row)).collect();
            if entries.is_empty() {
                let state = IndexState::Unavailable;
                entries.push(IndexEntry { name: name.to_string(), version: None, state, reason: "unloaded".to_owned() });
            }
            entries
        })
        .collect()
}

fn entry(name: &ModelName, number: VersionNumber, row: &VersionRow) -> IndexEntry {
    let state = match row.state {
        State::Ready => IndexState::Ready,
        State::Loading | State::Restarting => IndexState::Loading,
        State::Failed | State::Quarantined | State::Unloaded => IndexState::Unavailable,
        State::Unloading => IndexState::Unloading,
    };
    let reason = row.refusal.as_ref().map(|(_, text)| text.clone()).unwrap_or_default();
    IndexEntry { name: name.to_string(), version: Some(number.to_string()), state, reason }
}

/// Loads a model, with another configuration than the version's own when `config` gives one, and waits until it answers.
pub(super) async fn load(services: &Services, principal: &Principal, model: &ModelName, config: Result<Option<&str>>) -> Result<()> {
    let failed = |e: Error| again("failed to load", model, &e);
    let tenant = &principal.tenant;
    let config = config.map_err(failed)?;
    let version = wished_version(services, tenant, model).await.map_err(failed)?;
    if let Some(config) = config {
        check_config(services, tenant, model, version, config).map_err(failed)?;
    }
    let record =
        services.registry.set_desired(&actor(principal), model, Desired::Loaded, config.map(str::to_owned)).await.map_err(failed)?;
    services.show_newest().await;
    let outcome = services.serving.wait_until(services.settings.load_timeout, |table| loaded(table, tenant, model, version, &record));
    match outcome.await {
        Some(Ok(())) => Ok(()),
        Some(Err(error)) => Err(failed(error)),
        None => Err(failed(Error::new(Reason::ModelNotReady, "it is still being loaded; ask for its readiness"))),
    }
}

fn actor(principal: &Principal) -> Actor {
    Actor::new(principal.tenant.clone(), principal.actor()).comment("")
}

/// The refusal of files that come with a load.
pub(super) fn no_files(name: &str) -> Error {
    let text = "files cannot be sent with a load; push them as a version of the model";
    Error::new(Reason::NotImplemented, text).field(format!("parameters.{}", name.chars().take(64).collect::<String>()))
}

/// The refusal of a configuration that is no text.
pub(super) fn no_text() -> Error {
    Error::new(Reason::MalformedRequest, "the model configuration must be JSON in a string").field("parameters.config")
}

/// The refusal of a named repository: there is one; Triton too answers so.
pub(super) fn named() -> Error {
    Error::new(Reason::NotImplemented, "named repositories are not implemented; leave the repository out").field("repository")
}

/// The version that a load would serve.
async fn wished_version(services: &Services, tenant: &TenantName, model: &ModelName) -> Result<VersionNumber> {
    let known = services.registry.model(tenant, model).await?;
    let deployment = services.registry.deployment(tenant, model).await?;
    let alias = deployment.map_or_else(AliasName::champion, |d| d.alias);
    known.record.aliases.get(&alias).map(|target| target.version).ok_or_else(|| {
        let text = format!("no version has the alias '{alias}'; promote one with `plinth model promote`");
        Error::new(Reason::VersionNotFound, text)
    })
}

/// Refuses a configuration before it stands in the registry, where it would hinder the next start. What the graph says of
/// it is known only while the same version is loaded.
fn check_config(services: &Services, tenant: &TenantName, model: &ModelName, version: VersionNumber, config: &str) -> Result<()> {
    let config = ModelConfig::parse_json(config.as_bytes())?;
    match services.serving.resolve(tenant, model, Some(version)) {
        Ok(instance) => config.complete(model, instance.metadata())?.warmup_inputs().map(drop),
        Err(_) => Ok(()),
    }
}

/// How the load ended, once it has.
fn loaded(table: &Table, tenant: &TenantName, model: &ModelName, version: VersionNumber, record: &DeploymentRecord) -> Option<Result<()>> {
    let row = table.row(tenant, model)?.versions.get(&version)?;
    if row.generation < record.generation || row.loading {
        return None;
    }
    match (&row.refusal, row.state) {
        (None, State::Ready) => Some(Ok(())),
        (Some((reason, text)), State::Ready | State::Failed | State::Quarantined) => Some(Err(Error::new(*reason, text.clone()))),
        _ => None,
    }
}

/// The error with what was being done before its text, once.
fn again(doing: &str, model: &ModelName, error: &Error) -> Error {
    let text = error.public_text();
    let text = if text.starts_with(doing) { text.to_owned() } else { format!("{doing} '{model}': {text}") };
    let told = Error::new(error.reason(), text).diagnostic(error.log_text());
    let told = if let Some(field) = error.field_name() { told.field(field) } else { told };
    if let Some(delay) = error.retry_delay() { told.retry_after(delay) } else { told }
}

/// How long an unload waits until nothing answers any more.
const UNLOAD_DEADLINE: Duration = Duration::from_secs(30);

/// Unloads a model, and waits until nothing of it answers.
pub(super) async fn unload(services: &Services, principal: &Principal, model: &ModelName) -> Result<()> {
    let failed = |e: Error| again("failed to unload", model, &e);
    services.registry.set_desired(&actor(principal), model, Desired::Unloaded, None).await.map_err(failed)?;
    services.show_newest().await;
    let tenant = &principal.tenant;
    let gone = |table: &Table| table.row(tenant, model).is_none_or(|row| row.versions.is_empty()).then_some(());
    match services.serving.wait_until(UNLOAD_DEADLINE, gone).await {
        Some(()) => Ok(()),
        None => Err(failed(Error::new(Reason::ModelNotReady, "it is still being unloaded; ask for its readiness"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_load_ends_when_this_request_was_taken_in() {
        let (tenant, model): (TenantName, ModelName) = ("t".parse().unwrap(), "m".parse().unwrap());
        let version = VersionNumber::FIRST;
        let record = DeploymentRecord { generation: 2, ..DeploymentRecord::default() };
        let ask = |row: VersionRow| {
            let mut table = Table::default();
            let row = plinth_serving::ModelRow { default: None, versions: [(version, row)].into() };
            table.models.entry(tenant.clone()).or_default().insert(model.clone(), row.into());
            loaded(&table, &tenant, &model, version, &record).map(|r| r.map_err(|e| e.reason()))
        };
        let row = |state, generation, loading, refusal: Option<Reason>| VersionRow {
            state,
            instance: None,
            refusal: refusal.map(|r| (r, "why".to_owned())),
            restarts: 0,
            generation,
            loading,
            memory: plinth_serving::VersionMemory::default(),
        };
        assert_eq!(ask(row(State::Ready, 1, false, None)), None, "the state before the request");
        assert_eq!(ask(row(State::Ready, 2, true, None)), None, "the old one answers while the new one loads");
        assert_eq!(ask(row(State::Loading, 2, true, None)), None);
        assert_eq!(ask(row(State::Restarting, 2, false, Some(Reason::RunnerCrashed))), None);
        assert_eq!(ask(row(State::Ready, 2, false, None)), Some(Ok(())));
        let failed = Some(Reason::ModelLoadFailed);
        assert_eq!(ask(row(State::Ready, 2, false, failed)), Some(Err(Reason::ModelLoadFailed)), "the old one goes on");
        assert_eq!(ask(row(State::Failed, 2, false, failed)), Some(Err(Reason::ModelLoadFailed)));
        assert_eq!(loaded(&Table::default(), &tenant, &model, version, &record).map(|r| r.is_ok()), None);
    }

    #[test]
    fn an_error_says_once_what_was_being_done() {
        let model: ModelName = "m".parse().unwrap();
        let plain = again("failed to load", &model, &Error::new(Reason::ModelNotFound, "no such model").field("model"));
        assert_eq!((plain.public_text(), plain.field_name()), ("failed to load 'm': no such model", Some("model")));
        assert_eq!(again("failed to load", &model, &plain).public_text(), plain.public_text());
    }
}
