//! The face of serving: wishes in, inferences answered, a table to look at.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use async_trait::async_trait;
use plinth_engine::{BackendKind, Provider, RunnerError};
use plinth_runtime::{OnEnd, TaskGroup, World};
use plinth_telemetry::{Catalogue, Outcome};
use plinth_types::{ByteSize, Error, ModelName, Parameters, Reason, Result, TenantName, Tensor, TraceContext, VersionNumber};
use tokio::sync::watch;

use crate::batch::{Poison, Work, poison_digest, tenant_id};
use crate::cache::{Ask, CachePlan, CacheUse, ResponseCache};
use crate::executor::{Executor, Scene};
use crate::instance::Failure;
use crate::loader::Loader;
use crate::memory::demand::{Parking, Wanted};
use crate::model_config::SequenceSettings;
use crate::pipeline::Steps;
use crate::reconciler::Reconciler;
use crate::sequence::{AllSequences, SequenceControl, Sequences, Turn};
use crate::statistics::BatchTimes;
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
    /// Threads of one execution; when `None`, the processors are shared out between a version's instances.
    pub threads: Option<u16>,
    /// How many processors this node may use.
    pub processors: u16,
    /// What executes ONNX models whose configuration does not say.
    pub provider: Provider,
    /// The address space for tensors that a runner shares with the node.
    pub shared_memory: ByteSize,
    /// What foreign servers may be; `None` when there may be none.
    pub process: Option<ProcessOptions>,
    /// The most memory of one runner.
    pub memory: Option<ByteSize>,
    /// The most requests in one runner's queue.
    pub max_queue_requests: usize,
    /// The most bytes in one runner's queue.
    pub max_queue_bytes: ByteSize,
    /// The most memory of all loaded versions together, as measured; no limit when `None`.
    pub memory_budget: Option<ByteSize>,
    /// How long cached answers are kept when their deployment does not say.
    pub cache_ttl: Duration,
    /// How long one load may take, warm-up included.
    pub load_timeout: Duration,
    /// How long one execution may take before its runner counts as hung.
    pub execution_timeout: Duration,
}

/// What foreign servers may be.
#[derive(Debug, Clone)]
pub struct ProcessOptions {
    /// The programs that may be started, by absolute paths.
    pub commands: Vec<PathBuf>,
    /// An existing directory in which each server gets one of its own to write to.
    pub scratch: PathBuf,
    /// What servers must not read.
    pub hidden: Vec<PathBuf>,
}

/// The table that requests read, with a bell for those who wait for a change.
pub(crate) struct Published {
    table: ArcSwap<Table>,
    bell: watch::Sender<u64>,
    parking: Arc<Parking>,
}

impl Published {
    pub fn new(parking: Parking) -> Self {
        Self { table: ArcSwap::default(), bell: watch::Sender::new(0), parking: Arc::new(parking) }
    }

    pub const fn table(&self) -> &ArcSwap<Table> {
        &self.table
    }

    pub const fn bell(&self) -> &watch::Sender<u64> {
        &self.bell
    }

    /// Those who wait for a version to be loaded.
    pub const fn parking(&self) -> &Arc<Parking> {
        &self.parking
    }

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
    /// Where it stands in its trace, when it is recorded: goes along to the runner.
    pub trace: Option<TraceContext>,
}

/// An answer, and the version that gave it.
pub struct InferAnswer {
    /// What answered.
    pub instance: Arc<Instance>,
    /// The outputs, in the order in which they were wished.
    pub outputs: Vec<Tensor>,
    /// How the response cache took part.
    pub cache: crate::CacheUse,
}

/// Serves models.
pub struct Serving {
    published: Arc<Published>,
    wishes: watch::Sender<Option<Arc<Vec<ModelWish>>>>,
    world: World,
    poison: Poison,
    cache: ResponseCache,
}

/// How often a request moves on to what took the place of what it found. A move is an operator's act or a crash, so two
/// within one request are rare and six do not happen.
const MOVES: usize = 6;

impl Serving {
    /// Starts to serve; nothing is loaded until wishes come. Everything runs in `tasks` and ends with it.
    #[must_use]
    pub fn start(
        options: ServingOptions,
        source: Arc<dyn VersionSource>,
        cache: ResponseCache,
        metrics: Arc<Catalogue>,
        world: &World,
        tasks: &TaskGroup,
    ) -> Arc<Self> {
        let parking = Parking::new(options.max_queue_requests, metrics.requests_parked.clone());
        let published = Arc::new(Published::new(parking));
        let wishes = watch::Sender::new(None);
        let loader = Loader {
            options,
            source,
            world: world.clone(),
            tasks: tasks.clone(),
            sequences: AllSequences::default(),
            published: published.clone(),
        };
        let reconciler = Reconciler::new(Arc::new(loader), metrics, wishes.subscribe(), published.clone());
        tasks.spawn("reconcile models", OnEnd::CancelGroup, reconciler.run());
        Arc::new(Self { published, wishes, world: world.clone(), poison: Poison::new(), cache })
    }

    /// Says what is wished from now on: all of it, each time.
    pub fn wish(&self, wishes: Vec<ModelWish>) {
        self.wishes.send_replace(Some(Arc::new(wishes)));
    }

    pub(crate) fn published(&self) -> &Published {
        &self.published
    }

    pub(crate) fn now(&self) -> Duration {
        self.world.clock.monotonic()
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
    /// Those of [`Table::resolve`] and [`Instance::check`]; `QueueFull`, `DeadlineExceeded`, `InputRefused`,
    /// `RunnerCrashed`, `RunnerBrokeProtocol`, `ModelExecutionFailed`.
    pub async fn infer(&self, request: InferRequest) -> Result<InferAnswer> {
        self.infer_at(request, 0).await
    }

    /// As [`Self::infer`]; `depth` counts the pipelines that the request has entered.
    async fn infer_at(&self, request: InferRequest, depth: u8) -> Result<InferAnswer> {
        let start = self.world.clock.monotonic();
        let deadline = start.saturating_add(request.deadline);
        let mut last: Option<Arc<Instance>> = None;
        let mut suspect = false;
        let mut turn: Option<Turn> = None;
        for _ in 0..MOVES {
            let instance = self.find(&request, last.as_ref(), deadline).await?;
            instance.check(&request.inputs, &request.outputs).map_err(|error| self.refused(&instance, start, error))?;
            if self.poison.refuses(&instance.content, &request.inputs, start) {
                let text =
                    format!("model '{}' died twice of exactly this input; it is refused for a while. Send another one", request.model);
                return Err(self.refused(&instance, start, Error::new(Reason::InputRefused, text)));
            }
            if let Some(other) = last.as_ref().filter(|last| suspect && last.content != instance.content) {
                // What may have killed one version is not tried on the next: the fallback must not go the same way.
                return Err(self.refused(other, start, other.error(Failure::Runner(RunnerError::Crashed))));
            }
            if let (Some(sequences), None) = (&instance.sequences, &turn) {
                let begun = begin(sequences, &request, deadline).await;
                turn = Some(begun.map_err(|error| self.refused(&instance, start, error))?);
            }
            let mut record = Record { instance: &instance, world: &self.world, start, rows: 0, outcome: Some(Outcome::Cancelled) };
            let _pending = instance.metrics.pending.hold();
            let rows = Work::rows_of(&request.inputs, instance.config.max_batch_size() > 0);
            record.rows = rows.unwrap_or(1);
            // Cloning a tensor shares its bytes.
            let (inputs, outputs) = match &turn {
                None => (request.inputs.clone(), request.outputs.clone()),
                Some(turn) => (turn.inputs(&request.inputs, rows.map(u64::from))?, turn.outputs(&request.outputs)),
            };
            let run = Run { instance: &instance, request: &request, inputs, outputs, rows: record.rows, deadline, suspect, depth };
            let (result, cache) = match &instance.cache {
                Some(plan) if turn.is_none() && request.sequence.is_none() => Box::pin(self.cached(plan, run)).await,
                _ => (self.run(run).await, CacheUse::Off),
            };
            match result {
                Ok(outputs) => {
                    let outputs = match turn.take() {
                        None => outputs,
                        Some(turn) => turn.keep(outputs, &request.outputs)?,
                    };
                    record.outcome = Some(Outcome::Ok);
                    drop(record);
                    return Ok(InferAnswer { instance, outputs, cache });
                }
                // The next round counts it.
                Err(Failure::Replaced) => record.outcome = None,
                Err(Failure::Suspect) if !suspect => {
                    suspect = true;
                    record.outcome = None;
                }
                Err(failure) => {
                    if matches!(failure, Failure::Suspect) {
                        let now = self.world.clock.monotonic();
                        self.poison.add(poison_digest(&instance.content, &request.inputs), now);
                        tracing::error!(tenant = %request.tenant, model = %request.model, version = instance.version.get(), "an input has killed the runner on its own; it is refused for a while");
                    }
                    let error = instance.error(failure);
                    record.outcome = Some(Outcome::of(error.class()));
                    if error.reason() == Reason::QueueFull {
                        instance.metrics.queue_full.inc();
                    }
                    return Err(error);
                }
            }
            drop(record);
            last = Some(instance.clone());
        }
        let text = format!("model '{}' is changing versions; try again in a moment", request.model);
        Err(Error::new(Reason::ModelNotReady, text).retry_after(Duration::from_secs(1)))
    }

    /// Executes on one instance.
    async fn run(&self, run: Run<'_>) -> Result<Vec<Tensor>, Failure> {
        let Run { instance, request, inputs, outputs, rows, deadline, suspect, depth } = run;
        let work = Work {
            inputs,
            outputs,
            tenant: tenant_id(&request.tenant),
            level: u32::try_from(request.priority).unwrap_or(u32::MAX),
            queue_timeout: request.queue_timeout,
            deadline,
            suspect,
            trace: request.trace,
        };
        if let Executor::Runner { dispatcher, .. } = &instance.executor {
            return dispatcher.execute(work).await;
        }
        let begun = self.now();
        let scene = Scene { request, left: deadline.saturating_sub(begun), steps: self, depth };
        // Steps of pipelines come back here; and only these pay for the box.
        let result = Box::pin(instance.executor.execute(work, scene)).await;
        if result.is_ok() {
            let infer = self.now().saturating_sub(begun);
            instance.statistics.executed(1, rows, BatchTimes { infer, ..BatchTimes::default() });
        }
        result
    }

    /// Looks into the response cache first.
    async fn cached(&self, plan: &CachePlan, run: Run<'_>) -> (Result<Vec<Tensor>, Failure>, CacheUse) {
        let (instance, request) = (run.instance, run.request);
        let key = self.cache.key(&plan.scope, &request.inputs, &request.outputs, &request.parameters).await;
        let deadline = run.deadline.saturating_sub(self.now());
        let ask = Ask { key, ttl: plan.ttl, deadline, wished: &request.outputs };
        let compute = |_left| async move {
            // What the model says of the question, it says to all who asked the same.
            self.run(run).await.map_err(|failure| match failure {
                Failure::Runner(error @ (RunnerError::Execution(_) | RunnerError::Input(_))) => {
                    Failure::Answer(instance.error(Failure::Runner(error)))
                }
                other => other,
            })
        };
        match self.cache.through(ask, compute).await {
            Ok(cached) if cached.hit => {
                instance.statistics.cache_hit(cached.lookup);
                instance.metrics.cache_hits.inc();
                (Ok(cached.outputs), CacheUse::Hit)
            }
            Ok(cached) => {
                instance.statistics.cache_miss(cached.lookup);
                instance.metrics.cache_misses.inc();
                (Ok(cached.outputs), CacheUse::Miss)
            }
            Err(failure) => (Err(failure), CacheUse::Miss),
        }
    }

    /// What answers, other than `last`, which has sent the request away: its successor is there already, or is being
    /// started. What is loaded on demand is loaded for it.
    async fn find(&self, request: &InferRequest, last: Option<&Arc<Instance>>, deadline: Duration) -> Result<Arc<Instance>> {
        let wanted = Wanted { tenant: &request.tenant, model: &request.model, version: request.version, not: last };
        self.published.find(wanted, self.now(), deadline).await
    }

    fn refused(&self, instance: &Instance, start: Duration, error: Error) -> Error {
        let took = self.world.clock.monotonic().saturating_sub(start);
        instance.metrics.record(Outcome::of(error.class()), took);
        instance.statistics.failed(took, self.world.clock.now());
        error
    }
}

#[async_trait]
impl Steps for Serving {
    async fn infer(&self, request: InferRequest, depth: u8) -> Result<Vec<Tensor>> {
        Ok(self.infer_at(request, depth).await?.outputs)
    }
}

impl InferRequest {
    /// The same request but for its inputs.
    pub(crate) fn without_inputs(&self) -> Self {
        Self {
            tenant: self.tenant.clone(),
            model: self.model.clone(),
            version: self.version,
            inputs: Vec::new(),
            outputs: self.outputs.clone(),
            deadline: self.deadline,
            queue_timeout: self.queue_timeout,
            priority: self.priority,
            sequence: self.sequence.clone(),
            parameters: self.parameters.clone(),
            trace: self.trace,
        }
    }
}

/// One try to execute a request.
struct Run<'a> {
    instance: &'a Instance,
    request: &'a InferRequest,
    inputs: Vec<Tensor>,
    outputs: Vec<String>,
    rows: u32,
    deadline: Duration,
    suspect: bool,
    depth: u8,
}

/// Waits for the request's turn in its sequence.
async fn begin(sequences: &Arc<Sequences>, request: &InferRequest, deadline: Duration) -> Result<Turn> {
    let model = request.model.as_str();
    let control = request.sequence.clone().ok_or_else(|| SequenceSettings::missing(model))?;
    sequences.turn(model, &request.tenant, control, deadline).await
}

/// Counts a request when it ends, also when its caller goes away first.
struct Record<'a> {
    instance: &'a Instance,
    world: &'a World,
    start: Duration,
    rows: u32,
    outcome: Option<Outcome>,
}

impl Drop for Record<'_> {
    fn drop(&mut self) {
        let Some(outcome) = self.outcome else { return };
        let took = self.world.clock.monotonic().saturating_sub(self.start);
        self.instance.metrics.record(outcome, took);
        match outcome {
            Outcome::Ok => self.instance.statistics.succeeded(self.rows, took, self.world.clock.now()),
            _ => self.instance.statistics.failed(took, self.world.clock.now()),
        }
    }
}
