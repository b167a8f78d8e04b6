//! What is served, as an immutable table behind an atomic swap: the only thing that a request reads.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use plinth_types::{Error, ModelName, Reason, Result, TenantName, VersionNumber};

use crate::Instance;
use crate::memory::{MemoryReport, VersionMemory};

/// Where a version stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Being fetched, loaded or warmed.
    Loading,
    /// Answers.
    Ready,
    /// Its runner died and comes back in a moment.
    Restarting,
    /// Could not be loaded.
    Failed,
    /// Crashed too often.
    Quarantined,
    /// Not loaded; is loaded when a request comes for it.
    Unloaded,
    /// Its memory was taken, and it finishes what it has begun; is loaded again when a request comes for it.
    Unloading,
}

impl State {
    /// The state as a word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Loading => "loading",
            Self::Ready => "ready",
            Self::Restarting => "restarting",
            Self::Failed => "failed",
            Self::Quarantined => "quarantined",
            Self::Unloaded => "unloaded",
            Self::Unloading => "unloading",
        }
    }
}

/// A version in the table.
#[derive(Clone)]
pub struct VersionRow {
    /// Where it stands.
    pub state: State,
    /// What answers, when it is ready.
    pub instance: Option<Arc<Instance>>,
    /// Why it is not ready: reason and public text.
    pub refusal: Option<(Reason, String)>,
    /// How often its runner was started again after a crash.
    pub restarts: u64,
    /// The deployment's count of requests to load that this state has taken in.
    pub generation: u64,
    /// Whether a load is under way, be it beside an instance that answers.
    pub loading: bool,
    /// Its memory.
    pub memory: VersionMemory,
}

/// A model in the table.
#[derive(Clone, Default)]
pub struct ModelRow {
    /// Which version answers requests that name none.
    pub default: Option<VersionNumber>,
    /// Its versions that are loaded, loading or failed.
    pub versions: BTreeMap<VersionNumber, VersionRow>,
}

/// Everything that is served.
#[derive(Clone, Default)]
pub struct Table {
    /// The models, by tenant and name.
    pub models: HashMap<TenantName, HashMap<ModelName, Arc<ModelRow>>>,
    /// Whether every wish has been carried out or has failed at least once since the start.
    pub settled: bool,
    /// The memory of all.
    pub memory: MemoryReport,
}

impl Table {
    /// Whether the node can serve something: it has looked at every wish, and unless nothing is wished, something answers.
    #[must_use]
    pub fn can_serve(&self) -> bool {
        let mut versions = self.models.values().flat_map(HashMap::values).flat_map(|row| row.versions.values()).peekable();
        self.settled && (versions.peek().is_none() || versions.any(VersionRow::answers))
    }

    /// The row of a model.
    #[must_use]
    pub fn row(&self, tenant: &TenantName, model: &ModelName) -> Option<&Arc<ModelRow>> {
        self.models.get(tenant)?.get(model)
    }

    /// Whether what would answer is being loaded or started again at this moment.
    #[must_use]
    pub fn is_coming(&self, tenant: &TenantName, model: &ModelName, version: Option<VersionNumber>) -> bool {
        let Some(row) = self.row(tenant, model) else { return false };
        let coming = |v: &VersionRow| v.loading || v.state == State::Restarting || v.memory.gate.is_some();
        match version.or(row.default) {
            Some(number) => row.versions.get(&number).is_some_and(coming),
            None => row.versions.values().any(coming),
        }
    }

    /// What answers for `version`, or for the default version when none is named.
    ///
    /// # Errors
    /// [`Reason::ModelNotFound`], [`Reason::VersionNotFound`], [`Reason::ModelNotReady`], [`Reason::ModelQuarantined`].
    pub fn resolve(&self, tenant: &TenantName, model: &ModelName, version: Option<VersionNumber>) -> Result<&Arc<Instance>> {
        let Some(row) = self.row(tenant, model) else {
            return Err(Error::new(Reason::ModelNotFound, format!("Request for unknown model: '{model}' is not found")));
        };
        let Some(number) = version.or(row.default) else {
            return Err(row.nothing_ready(model));
        };
        let Some(version_row) = row.versions.get(&number) else {
            let text = format!("Request for unknown model: '{model}' version {number} is not found");
            return Err(Error::new(Reason::VersionNotFound, text));
        };
        version_row.instance.as_ref().ok_or_else(|| version_row.not_ready(model, number))
    }
}

impl ModelRow {
    fn nothing_ready(&self, model: &ModelName) -> Error {
        // The newest version's trouble is the one to tell.
        match self.versions.iter().next_back() {
            Some((number, row)) => row.not_ready(model, *number),
            None => not_ready(format!("Request for unknown model: '{model}' has no available versions")),
        }
    }
}

impl VersionRow {
    /// Whether a request for it is answered: at once, or once it is loaded for it.
    #[must_use]
    pub fn answers(&self) -> bool {
        self.instance.is_some() || matches!(self.state, State::Unloaded | State::Unloading)
    }

    pub(crate) fn not_ready(&self, model: &ModelName, number: VersionNumber) -> Error {
        let text = format!("Request for unknown model: '{model}' version {number} is not at ready state");
        match (self.state, &self.refusal) {
            (State::Quarantined, _) => {
                let text = format!("{text}: it crashed too often and is held back; push a better version or load it again by hand");
                Error::new(Reason::ModelQuarantined, text)
            }
            (_, Some((_, why))) => not_ready(format!("{text}: {why}")),
            (state, None) => not_ready(format!("{text} ({})", state.as_str())),
        }
    }
}

fn not_ready(text: String) -> Error {
    Error::new(Reason::ModelNotReady, text).retry_after(std::time::Duration::from_secs(1))
}

/// One version of the table, for people and for the repository index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VersionReport {
    /// Whose it is.
    pub tenant: TenantName,
    /// Its model.
    pub model: ModelName,
    /// Its number.
    pub version: VersionNumber,
    /// Where it stands.
    pub state: State,
    /// Whether it answers requests that name no version.
    pub default: bool,
    /// Why it is not ready.
    pub refusal: Option<(Reason, String)>,
    /// The memory that it takes, as measured, in bytes; 0 while it is not loaded.
    pub memory: u64,
    /// Whether it stays when memory is short.
    pub pinned: bool,
    /// The process id of its runner.
    pub pid: Option<u32>,
    /// What executes it.
    pub engine: Option<String>,
    /// How often its runner was started again after a crash.
    pub restarts: u64,
    /// Which walls stand around its runner.
    pub sandbox: plinth_engine::SandboxReport,
}

impl Table {
    /// Every version, sorted by tenant, model and number.
    #[must_use]
    pub fn report(&self) -> Vec<VersionReport> {
        let mut report: Vec<_> = self
            .models
            .iter()
            .flat_map(|(tenant, models)| models.iter().map(move |(model, row)| (tenant, model, row)))
            .flat_map(|(tenant, model, row)| {
                row.versions.iter().map(move |(number, version)| describe((tenant, model, *number), row, version))
            })
            .collect();
        report.sort_by(|a, b| (&a.tenant, &a.model, a.version).cmp(&(&b.tenant, &b.model, b.version)));
        report
    }
}

fn describe((tenant, model, number): (&TenantName, &ModelName, VersionNumber), row: &ModelRow, version: &VersionRow) -> VersionReport {
    let instance = version.instance.as_ref();
    VersionReport {
        tenant: tenant.clone(),
        model: model.clone(),
        version: number,
        state: version.state,
        default: row.default == Some(number),
        refusal: version.refusal.clone(),
        memory: version.memory.bytes,
        pinned: version.memory.pinned,
        pid: instance.and_then(|i| i.pid()),
        engine: instance.map(|i| i.engine().to_owned()),
        restarts: version.restarts,
        sandbox: instance.map(|i| i.sandbox()).unwrap_or_default(),
    }
}
