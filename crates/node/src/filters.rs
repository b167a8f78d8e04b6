//! Modules of filters on the local disk: judged, fetched by digest, compiled behind requests.
//!
//! Implements the gateway's `FilterSource` over the registry. Layout: one file for each module under `filters/`, named by its digest, so
//! that a node runs its filters also when the object store is away. Invariants: the signature is judged before a byte is
//! fetched; the bytes that are compiled are those that were hashed, in memory; compiled code is never written to the disk.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::StreamExt;
use plinth_cluster::Snapshot;
use plinth_filters::{Filter, Host, HostOptions, Invalid, Limits, MAX_MODULE};
use plinth_gateway::FilterSource;
use plinth_registry::{FilterFacts, Registry, TrustPolicy};
use plinth_runtime::World;
use plinth_store::resources::gateway::FilterVersion;
use plinth_types::{ByteSize, Digest, Error, Reason, Result};

use crate::background::Background;

/// For one call, unless the version says.
const TIME: Duration = Duration::from_millis(20);
const MEMORY: ByteSize = ByteSize::mib(16);
const BODY: ByteSize = ByteSize::mib(1);
/// Of the compiler's threads: behind requests, but not behind everything, because a route may wait for a filter.
const NICE: i32 = 10;
/// How long a remote store may be silent while a module is read.
const READ_DEADLINE: Duration = Duration::from_secs(30);

/// What no filter gets more of.
#[derive(Debug, Clone, Copy)]
pub struct Ceilings {
    pub time: Duration,
    pub memory: ByteSize,
    pub body: ByteSize,
}

/// The node's view of modules.
pub struct FilterFiles {
    registry: Arc<Registry>,
    policy: TrustPolicy,
    directory: PathBuf,
    ceilings: Ceilings,
    background: Background,
    /// Started with the first module: a node without filters pays nothing for them.
    host: Arc<Mutex<Option<Host>>>,
}

impl FilterFiles {
    /// Modules kept under `directory`. Blocking.
    ///
    /// # Errors
    /// When the directory cannot be made, or a thread cannot be started.
    pub fn open(
        registry: Arc<Registry>,
        policy: TrustPolicy,
        directory: PathBuf,
        ceilings: Ceilings,
        world: World,
    ) -> std::io::Result<Self> {
        std::fs::create_dir_all(&directory)?;
        Ok(Self { registry, policy, directory, ceilings, background: Background::start_at(NICE, world)?, host: Arc::default() })
    }

    fn limits(&self, version: &FilterVersion) -> Limits {
        let settings = &version.settings;
        Limits {
            time: settings.timeout_ms.map_or(TIME, |ms| Duration::from_millis(ms.into())).min(self.ceilings.time),
            memory: settings.memory.unwrap_or(MEMORY).min(self.ceilings.memory),
            body: settings.max_body.unwrap_or(BODY).min(self.ceilings.body),
        }
    }

    /// The module's bytes, which have its digest.
    async fn module(&self, version: &FilterVersion) -> Result<Vec<u8>> {
        let (path, digest) = (self.directory.join(version.module.hex()), version.module);
        let at = path.clone();
        if let Some(kept) = blocking(move || Ok(read(&at, &digest))).await? {
            return Ok(kept);
        }
        let bytes = self.fetch(version).await?;
        if Digest::of(&bytes) != digest || bytes.len() as u64 != version.size {
            if let Err(error) = self.registry.drop_if_damaged(&digest).await {
                tracing::warn!(%digest, %error, "a damaged module cannot be looked at again");
            }
            return Err(Error::new(Reason::ContentAltered, "the stored module was altered; restore it from a backup, or push it again"));
        }
        let kept = bytes.clone();
        // A full disk is no reason not to run it now.
        if let Err(error) = blocking(move || write(&path, &kept)).await {
            tracing::warn!(%digest, %error, cause = error.log_text(), "a filter's module cannot be kept on the disk");
        }
        Ok(bytes)
    }

    async fn fetch(&self, version: &FilterVersion) -> Result<Vec<u8>> {
        let mut reader = self.registry.open_blob(&version.module).await?;
        let mut bytes = Vec::new();
        let away = |why: &'static str| Error::new(Reason::StoreUnavailable, "the filter's module cannot be fetched now").diagnostic(why);
        while let Some(piece) = tokio::time::timeout(READ_DEADLINE, reader.stream.next()).await.map_err(|_| away("the store is silent"))? {
            bytes.extend_from_slice(&piece.map_err(|error| away("the store failed").source(error))?);
            if bytes.len() > MAX_MODULE {
                break;
            }
        }
        Ok(bytes)
    }

    /// Forgets modules that no filter has. Blocking.
    pub fn prune(&self, snapshot: &Snapshot) {
        let versions = snapshot.filters.values().flat_map(|of| of.values()).flat_map(|filter| filter.versions.values());
        let keep: BTreeSet<String> = versions.map(|version| version.module.hex()).collect();
        let Ok(entries) = std::fs::read_dir(&self.directory) else { return };
        for entry in entries.flatten() {
            if !keep.contains(&*entry.file_name().to_string_lossy()) {
                let _ = std::fs::remove_file(entry.path());
            }
        }
    }
}

#[async_trait]
impl FilterSource for FilterFiles {
    async fn load(&self, facts: FilterFacts<'_>, version: &FilterVersion) -> Result<Filter> {
        self.policy.judge_filter(facts, version)?;
        let (module, limits) = (self.module(version).await?, self.limits(version));
        let (slot, options) = (self.host.clone(), HostOptions { memory: self.ceilings.memory, ..HostOptions::default() });
        self.background
            .run(move |_| {
                let host = host(&slot, options).map_err(refused)?;
                host.compile(&module, limits).map_err(refused)
            })
            .await
    }
}

fn host(slot: &Mutex<Option<Host>>, options: HostOptions) -> std::result::Result<Host, Invalid> {
    let mut slot = slot.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(host) = &*slot {
        return Ok(host.clone());
    }
    let host = Host::start(options)?;
    *slot = Some(host.clone());
    Ok(host)
}

fn refused(why: Invalid) -> Error {
    let reason = if matches!(why, Invalid::Host(_)) { Reason::FilterUnavailable } else { Reason::InvalidFilter };
    Error::new(reason, why.to_string()).field("module")
}

/// A kept module, when it still has its digest.
fn read(path: &Path, digest: &Digest) -> Option<Vec<u8>> {
    let small = path.metadata().is_ok_and(|about| about.len() <= MAX_MODULE as u64);
    let bytes = if small { std::fs::read(path).ok() } else { None };
    bytes.filter(|bytes| Digest::of(bytes) == *digest)
}

/// Writes beside and renames: a module is there whole or not at all, and what is not whole has not its digest.
fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    let beside = path.with_extension("new");
    let done = std::fs::write(&beside, bytes).and_then(|()| std::fs::rename(&beside, path));
    done.map_err(|error| Error::new(Reason::StoreUnavailable, "the node's disk cannot be written").source(error))
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(|e| Error::internal("a blocking step").source(e))?
}
