//! What handlers work with: the services, as `node` put them together.

use std::ops::Deref;
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use async_trait::async_trait;
use plinth_cluster::Keeper;
use plinth_identity::refusals::RefusalsReport;
use plinth_net::{BodyLimits, UploadLimits};
use plinth_registry::{FilterFacts, Registry, Version};
use plinth_runtime::{CancellationToken, World};
use plinth_serving::{Regions, Serving};
use plinth_store::metadata::Revision;
use plinth_store::resources::gateway::FilterVersion;
use plinth_telemetry::LogControl;
use plinth_types::{Error, Reason, Result, TenantName};
use tokio::sync::watch;

use crate::oip::trace::Traces;

/// Judges a stored version as a load would, without loading it.
#[async_trait]
pub trait Verifier: Send + Sync {
    /// Hashes the stored files and checks the signature; the signer's fingerprint, when one is known.
    ///
    /// # Errors
    /// The reason for which this node would refuse the version.
    async fn verify(&self, tenant: &TenantName, version: &Version) -> Result<Option<String>>;
}

/// Runs filters.
#[async_trait]
pub trait FilterHost: Send + Sync {
    /// Judges, compiles and tries a version whose module is in the object store, as a load would.
    ///
    /// # Errors
    /// The reason for which this node would not run it: `invalid_filter`, or one of signatures.
    async fn check(&self, facts: FilterFacts<'_>, version: &FilterVersion) -> Result<()>;

    /// What this node makes of a version now.
    fn state(&self, facts: FilterFacts<'_>) -> FilterState;
}

/// What a node makes of a version of a filter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FilterState {
    /// `ready`, `loading`, `failed`, `held` or `idle`.
    pub word: &'static str,
    /// Why it failed or is held back.
    pub reason: Option<String>,
}

/// Looks at the stores for `status`. Ends within a second.
#[async_trait]
pub trait Probe: Send + Sync {
    /// What the ledger is, or why it cannot be reached.
    async fn metadata(&self) -> String;
    /// What the object store is.
    fn objects(&self) -> String;
    /// Reads the whole log of refusals; takes as long as that takes.
    ///
    /// # Errors
    /// When it cannot be read.
    async fn refusals(&self) -> std::io::Result<RefusalsReport>;
}

/// Values from the configuration that handlers need.
#[derive(Debug, Clone)]
pub struct Settings {
    /// What `/v2` says the server is called.
    pub server_name: String,
    /// Limits of bodies that are read whole.
    pub body: BodyLimits,
    /// Limits of uploads.
    pub upload: UploadLimits,
    /// What holds for gRPC alone.
    pub grpc: GrpcSettings,
    /// How long a request may take that names no deadline.
    pub request_timeout: Duration,
    /// How long a load through the repository extension is waited for.
    pub load_timeout: Duration,
    /// The age below which garbage collection spares a blob.
    pub gc_grace: Duration,
    /// Whether authentication is off.
    pub open: bool,
    /// Whether only signed versions are served.
    pub require_signature: bool,
}

/// Values for the gRPC listener.
#[derive(Debug, Clone)]
pub struct GrpcSettings {
    /// Limits of one message; the memory is that of all bodies.
    pub message: BodyLimits,
    /// Whether clients may ask which services and messages there are.
    pub reflection: bool,
}

/// The parts of [`Services`].
pub struct Parts {
    /// Models and versions.
    pub registry: Arc<Registry>,
    /// What is loaded.
    pub serving: Arc<Serving>,
    /// What the node serves from.
    pub snapshot: Arc<Keeper>,
    /// The revision that serving and keys have taken in.
    pub applied: watch::Receiver<u64>,
    /// Judges versions.
    pub verifier: Arc<dyn Verifier>,
    /// Runs filters.
    pub filters: Arc<dyn FilterHost>,
    /// Looks at the stores.
    pub probe: Arc<dyn Probe>,
    /// Shared memory that clients have registered.
    pub regions: Regions,
    /// Which requests leave a record.
    pub traces: Traces,
    /// What is logged.
    pub logs: LogControl,
    /// Time and randomness.
    pub world: World,
    /// Work that outlives the request; `None` on a node that keeps none.
    pub jobs: Option<plinth_jobs::JobService>,
    /// Small writes; empty until their store is open.
    pub events: Arc<OnceLock<Arc<dyn plinth_events::Events>>>,
    /// What is counted.
    pub metrics: Arc<plinth_telemetry::Catalogue>,
    /// Values from the configuration.
    pub settings: Settings,
    /// When the node started (monotonic).
    pub started: Duration,
    /// Cancelled when the node is asked to end: it is not ready from then on, and serves on.
    pub stopping: CancellationToken,
    /// Cancelled when requests in flight are to be finished and no others begun: calls that would go on without end, end.
    pub draining: CancellationToken,
}

/// The services. Cheap to clone.
#[derive(Clone)]
pub struct Services(Arc<Parts>);

/// The services, without keeping them alive: for what the services themselves hold.
#[derive(Clone)]
pub struct WeakServices(Weak<Parts>);

impl WeakServices {
    /// The services, while they are there.
    #[must_use]
    pub fn upgrade(&self) -> Option<Services> {
        self.0.upgrade().map(Services)
    }
}

/// How long an answer waits until this node shows the change that it reports.
const SHOW_DEADLINE: Duration = Duration::from_secs(5);

impl Services {
    /// Takes the parts.
    #[must_use]
    pub fn new(parts: Parts) -> Self {
        Self(Arc::new(parts))
    }

    /// The services, without keeping them alive.
    #[must_use]
    pub fn downgrade(&self) -> WeakServices {
        WeakServices(Arc::downgrade(&self.0))
    }

    /// Waits until this node shows a committed change; whether it does in time. The change stands in any case.
    pub async fn show(&self, revision: Revision) -> bool {
        self.snapshot.poke();
        let mut applied = self.applied.clone();
        let shown = applied.wait_for(|r| *r >= revision.0);
        tokio::time::timeout(SHOW_DEADLINE, shown).await.is_ok_and(|shown| shown.is_ok())
    }

    /// Waits until this node shows everything that this process has committed; whether it does in time.
    pub async fn show_newest(&self) -> bool {
        let newest = *self.registry.changes().borrow();
        self.show(newest).await
    }

    /// Refuses changes to a ledger that this node does not follow: they would be written where nobody reads them.
    ///
    /// # Errors
    /// [`Reason::LedgerDiverged`].
    pub fn must_be_writable(&self) -> Result<()> {
        if !self.snapshot.view().diverged {
            return Ok(());
        }
        let text = "the registry's database is not the one that this node has served from: a restored backup, or another one. \
                    To accept it, stop the node, delete snapshot.json in its data directory, and start it; else put the right one back";
        Err(Error::new(Reason::LedgerDiverged, text))
    }

    /// Whether the node can serve what it should: everything wished has been loaded or has failed once, and it does not end.
    #[must_use]
    pub fn ready(&self) -> bool {
        !self.stopping.is_cancelled() && self.serving.table().can_serve()
    }
}

impl Deref for Services {
    type Target = Parts;
    fn deref(&self) -> &Parts {
        &self.0
    }
}
