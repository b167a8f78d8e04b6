//! The face of serving: wishes in, inferences answered, a table to look at.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use plinth_engine::BackendKind;
use plinth_runtime::{OnEnd, TaskGroup, World};
use plinth_telemetry::{Catalogue, ModelMetrics, Outcome};
use plinth_types::{ByteSize, Error, ModelName, Parameters, Reason, Result, TenantName, Tensor, VersionNumber};
use tokio::sync::watch;

use crate::instance::Failure;
use crate::loader::Loader;
use crate::reconciler::Reconciler;
use crate::sequence::SequenceControl;
use crate::{Instance, ModelStatistics, ModelWish, Table, VersionSource};

/// How a node loads and runs models. Values from the configuration.
#[derive(Debug, Clone)]
pub struct ServingOptions {
    /// The binary that runners execute.
    pub program: PathBuf,
    /// ONNX Runtime's shared library.
    pub onnxruntime: Option<PathBuf>,
    /// The backends that may run.
    pub backends: Vec<BackendKind>,
    /// Threads of one runner.
    pub threads: u16,
    /// The most memory of one runner.
    pub memory: Option<ByteSize>,
    /// The most requests in one runner's queue.
    pub max_queue_requests: usize,
    /// The most bytes in one runner's queue.
    pub max_queue_bytes: ByteSize,
    /// How long one load may take, warm-up included.
    pub load_timeout: Duration,
    /// How long one execution may take before its runner counts as hung.
    pub execution_timeout: Duration,
}

/// The table that requests read, with a bell for those who wait for a change.
pub(crate) struct Published {
    table: ArcSwap<Table>,
    bell: watch::Sender<u64>,
}

impl Published {
    pub fn publish(&self, table: Table) {
        self.table.store(Arc::new(table));
        self.bell.send_modify(|n| *n += 1);
    }
}

/// One inference.
#[derive(Debug)]
pub struct InferRequest {
    /// Who asks.
    pub tenant: TenantName,
    /// The model.
    pub model: ModelName,
    /// The version; the default one when `None`.
    pub version: Option<VersionNumber>,
    /// The inputs.
    pub inputs: Vec<Tensor>,
    /// The wished outputs; all when empty.
    pub outputs: Vec<String>,
    /// How long the caller waits, from now.
    pub deadline: Duration,
    /// How long the request may wait before it begins, in place of the model's own time-out; `None` for that.
    pub queue_timeout: Option<Duration>,
    /// 0 for the model's default level, 1 for the highest.
    pub priority: u64,
    /// The sequence that it belongs to.
    pub sequence: Option<SequenceControl>,
    /// The parameters that no protocol knows; they reach models that read them, and count in the cache's key.
    pub parameters: Parameters,
}

/// An answer, and the version that gave it.
pub struct InferAnswer {
    /// What answered.
    pub instance: Arc<Instance>,
    /// The outputs, in the order in which they were wished.
    pub outputs: Vec<Tensor>,
}

/// Serves models.
pub struct Serving {
    published: Arc<Published>,
    wishes: watch::Sender<Option<Arc<Vec<ModelWish>>>>,
    world: World,
}

/// How often a request moves on to the version that took the place of the one it found. A move is an operator's act,
/// so two within one request are rare and four do not happen.
const MOVES: usize = 4;

impl Serving {
    /// Starts to serve; nothing is loaded until wishes come. Everything runs in `tasks` and ends with it.
    #[must_use]
    pub fn start(
        options: ServingOptions,
        source: Arc<dyn VersionSource>,
        metrics: Arc<Catalogue>,
        world: &World,
        tasks: &TaskGroup,
    ) -> Arc<Self> {
        let published = Arc::new(Published { table: ArcSwap::default(), bell: watch::Sender::new(0) });
        let wishes = watch::Sender::new(None);
        let loader = Loader { options, source, world: world.clone(), tasks: tasks.clone() };
        let reconciler = Reconciler::new(Arc::new(loader), metrics, wishes.subscribe(), published.clone());
        tasks.spawn("reconcile models", OnEnd::CancelGroup, reconciler.run());
        Arc::new(Self { published, wishes, world: world.clone() })
    }

    /// Says what is wished from now on: all of it, each time.
    pub fn wish(&self, wishes: Vec<ModelWish>) {
        self.wishes.send_replace(Some(Arc::new(wishes)));
    }

    /// What is served now.
    #[must_use]
    pub fn table(&self) -> Arc<Table> {
        self.published.table.load_full()
    }

    /// Finds what answers for a model.
    ///
    /// # Errors
    /// As [`Table::resolve`].
    pub fn resolve(&self, tenant: &TenantName, model: &ModelName, version: Option<VersionNumber>) -> Result<Arc<Instance>> {
        self.published.table.load().resolve(tenant, model, version).cloned()
    }

    /// What the ready versions have done since they were loaded, sorted by name and number: all of the tenant's, those of
    /// one model, or one version.
    ///
    /// # Errors
    /// [`Reason::ModelNotFound`], [`Reason::VersionNotFound`] and [`Reason::ModelNotReady`] for what is named.
    pub fn statistics(
        &self,
        tenant: &TenantName,
        model: Option<&ModelName>,
        version: Option<VersionNumber>,
    ) -> Result<Vec<ModelStatistics>> {
        let table = self.table();
        if let Some(model) = model {
            table.resolve(tenant, model, version)?;
        }
        let rows = table.models.get(tenant).into_iter().flatten().filter(|(name, _)| model.is_none_or(|m| m == *name));
        let instances = rows.flat_map(|(_, row)| row.versions.iter().filter(|(n, _)| version.is_none_or(|v| v == **n)));
        let mut all: Vec<_> = instances.filter_map(|(_, v)| Some(v.instance.as_ref()?.statistics())).collect();
        all.sort_by(|a, b| (&a.model, a.version).cmp(&(&b.model, b.version)));
        Ok(all)
    }

    /// Waits until `judge` finds what it looks for in the table, or the deadline passes. Cancel safe.
    pub async fn wait_until<T>(&self, deadline: Duration, mut judge: impl FnMut(&Table) -> Option<T>) -> Option<T> {
        let mut bell = self.published.bell.subscribe();
        let search = async {
            loop {
                bell.mark_unchanged();
                if let Some(found) = judge(&self.table()) {
                    return Some(found);
                }
                bell.changed().await.ok()?;
            }
        };
        tokio::time::timeout(deadline, search).await.ok().flatten()
    }

    /// Executes a model once. Cancel safe: a dropped call is dropped before it costs, if it has not begun.
    ///
    /// # Errors
    /// Those of [`Table::resolve`] and [`Instance::check`]; `QueueFull`, `DeadlineExceeded`, `RunnerCrashed`,
    /// `RunnerBrokeProtocol`, `ModelExecutionFailed`.
    pub async fn infer(&self, request: InferRequest) -> Result<InferAnswer> {
        let start = self.world.clock.monotonic();
        for _ in 0..MOVES {
            let instance = self.resolve(&request.tenant, &request.model, request.version)?;
            let spent = self.world.clock.monotonic().saturating_sub(start);
            let left = request.deadline.saturating_sub(spent);
            let checked = instance.check(&request.inputs, &request.outputs);
            let mut record = Record { metrics: &instance.metrics, world: &self.world, start, outcome: Some(Outcome::Cancelled) };
            let _pending = instance.metrics.pending.hold();
            let result = match checked {
                // Cloning a tensor shares its bytes.
                Ok(()) => instance.execute(request.inputs.clone(), request.outputs.clone(), left).await,
                Err(error) => Err(Failure::Answer(error)),
            };
            match result {
                Ok(outputs) => {
                    record.outcome = Some(Outcome::Ok);
                    drop(record);
                    return Ok(InferAnswer { instance, outputs });
                }
                Err(Failure::Answer(error)) => {
                    record.outcome = Some(Outcome::of(error.class()));
                    if error.reason() == Reason::QueueFull {
                        instance.metrics.queue_full.inc();
                    }
                    return Err(error);
                }
                Err(Failure::Replaced) => {
                    // The next round counts it.
                    record.outcome = None;
                    tokio::task::yield_now().await;
                }
            }
        }
        let text = format!("model '{}' is changing versions; try again in a moment", request.model);
        Err(Error::new(Reason::ModelNotReady, text).retry_after(Duration::from_secs(1)))
    }
}

/// Counts a request when it ends, also when its caller goes away first.
struct Record<'a> {
    metrics: &'a ModelMetrics,
    world: &'a World,
    start: Duration,
    outcome: Option<Outcome>,
}

impl Drop for Record<'_> {
    fn drop(&mut self) {
        if let Some(outcome) = self.outcome {
            self.metrics.record(outcome, self.world.clock.monotonic().saturating_sub(self.start));
        }
    }
}
