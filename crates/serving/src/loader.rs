//! One attempt to load a version: fetch, configure, start the runner, warm it up.
//!
//! Invariant: nothing is parsed before the source has accepted the version, and the configuration
//! file is hashed before it is parsed. An attempt that is dropped leaves no runner behind.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use plinth_engine::{BackendKind, FileSpec, ProcessServer, ProcessSpec, Runner, RunnerError, RunnerSpec};
use plinth_runtime::{TaskGroup, World};
use plinth_store::resources::DeploymentRecord;
use plinth_telemetry::ModelMetrics;
use plinth_types::cache_key::CacheScope;
use plinth_types::{Digest, Error, ModelName, Parameters, Reason, Result, Tensor, VersionNumber};

use crate::batch::{self, Dispatcher, DispatcherParts, Work};
use crate::cache::{self, CachePlan};
use crate::executor::{Executor, Scene};
use crate::model_config::ModelConfig;
use crate::pipeline::{Pipeline, PipelineLimits, StepView, Steps};
use crate::sequence::AllSequences;
use crate::serving::{Published, ServingOptions};
use crate::source::{LocalVersion, VersionRef, VersionSource};
use crate::statistics::Statistics;
use crate::{InferRequest, Instance};

/// How long one warm-up execution may take.
const WARM_UP_DEADLINE: Duration = Duration::from_secs(60);

/// What every attempt needs.
pub(crate) struct Loader {
    pub options: ServingOptions,
    pub source: Arc<dyn VersionSource>,
    pub world: World,
    pub tasks: TaskGroup,
    pub sequences: AllSequences,
    /// What is served now; pipelines look for their steps in it.
    pub published: Arc<Published>,
}

impl Loader {
    /// Loads a version. The whole attempt ends within the load time-out, or fails.
    pub async fn load(&self, version: &VersionRef, deployment: &DeploymentRecord, metrics: ModelMetrics) -> Result<Instance> {
        let timeout = self.options.load_timeout;
        match tokio::time::timeout(timeout, self.attempt(version, deployment, metrics)).await {
            Ok(result) => result,
            Err(_) => Err(Error::new(
                Reason::ModelLoadFailed,
                format!("failed to load '{}': it took longer than {} s; engine.load_timeout allows more", version.model, timeout.as_secs()),
            )),
        }
    }

    async fn attempt(&self, version: &VersionRef, deployment: &DeploymentRecord, metrics: ModelMetrics) -> Result<Instance> {
        let local = self.source.fetch(version).await?;
        let wished = read_config(version, deployment, &local).await?;
        let labels = crate::Labels::read(&wished, &local).await.map_err(|e| labels_error(version, e))?;
        let statistics = Arc::new(Statistics::default());
        let (executor, config, lanes) = if wished.pipeline_graph()?.is_some() {
            let (executor, config) = self.pipeline(version, wished)?;
            (executor, config, 1)
        } else if local.files.iter().any(|f| f.path.as_str() == ProcessServer::MODEL_FILE) {
            let server = self.process(version, deployment, local).await?;
            let config = wished.complete(&version.model, server.metadata()).map_err(|e| invalid(version, &e))?;
            let lanes = server.concurrency();
            (Executor::Process(server), config, lanes)
        } else {
            self.runner(version, deployment, local, wished, &statistics).await?
        };
        let sequences = config.sequence_settings().map(|s| self.sequences.of(version, s, lanes, &self.world.clock));
        let (inputs, outputs) = (config.metadata_inputs(), config.metadata_outputs());
        let cache = self.cache_plan(version, deployment, &config, &executor);
        let instance = Instance {
            tenant: version.tenant.clone(),
            model: version.model.clone(),
            version: version.number,
            content: version.record.content,
            config,
            labels,
            sequences,
            cache,
            executor,
            inputs,
            outputs,
            metrics,
            statistics,
        };
        self.warm_up(&instance).await?;
        if let Some(pid) = instance.pid() {
            instance.metrics.memory.watch(pid);
        }
        Ok(instance)
    }

    /// Whether answers are cached. Those of a pipeline are not: its steps change under it, and cache for themselves. Nor are
    /// those of sequences.
    fn cache_plan(
        &self,
        version: &VersionRef,
        deployment: &DeploymentRecord,
        config: &ModelConfig,
        executor: &Executor,
    ) -> Option<CachePlan> {
        if matches!(executor, Executor::Pipeline(_)) || config.sequence_settings().is_some() {
            return None;
        }
        let ttl = cache::lifetime(deployment.cache, config.response_cache(), self.options.cache_ttl)?;
        let replaced = deployment.config_override.as_ref().map(|json| Digest::of(json.as_bytes()));
        let contents: Vec<_> = std::iter::once(version.record.content).chain(replaced).collect();
        Some(CachePlan { scope: CacheScope::new(&version.tenant, &version.model, &contents), ttl })
    }

    /// A runner with its lanes behind a dispatcher.
    async fn runner(
        &self,
        version: &VersionRef,
        deployment: &DeploymentRecord,
        local: LocalVersion,
        wished: ModelConfig,
        statistics: &Arc<Statistics>,
    ) -> Result<(Executor, ModelConfig, usize)> {
        let backend = self.backend(version, &local.files)?;
        let spec = self.runner_spec(version, deployment, &wished, local, backend);
        let runner = Runner::start(spec, &self.world, &self.tasks).await.map_err(|e| load_error(version, e))?;
        let config = wished.complete(&version.model, runner.metadata()).map_err(|e| invalid(version, &e))?;
        let bounds = batch::Bounds { requests: self.options.max_queue_requests, bytes: self.options.max_queue_bytes };
        let parts = DispatcherParts {
            settings: batch::settings(&config, bounds),
            batched: config.max_batch_size() > 0,
            merge: batch::merges(&config),
            lanes: runner.take_lanes(),
            statistics: statistics.clone(),
        };
        let lanes = parts.lanes.len();
        let dispatcher = Dispatcher::start(parts, &self.world, &self.tasks);
        Ok((Executor::Runner { runner, dispatcher }, config, lanes))
    }

    /// A foreign server, which the operator must have allowed.
    async fn process(&self, version: &VersionRef, deployment: &DeploymentRecord, local: LocalVersion) -> Result<ProcessServer> {
        let options = &self.options;
        let Some(process) = &options.process else {
            return Err(refuse(version, "the backend 'process' is not among engine.backends of this node"));
        };
        let spec = ProcessSpec {
            supervisor: options.program.clone(),
            program_allow: process.commands.clone(),
            label: version.to_string(),
            name: version.model.to_string(),
            directory: local.directory,
            files: local.files,
            scratch: process.scratch.clone(),
            hidden: process.hidden.clone(),
            memory: deployment.memory.or(options.memory),
            max_queue_requests: options.max_queue_requests,
            max_queue_bytes: options.max_queue_bytes,
            load_timeout: options.load_timeout,
            execution_timeout: options.execution_timeout,
        };
        ProcessServer::start(spec, &self.world, &self.tasks).await.map_err(|e| load_error(version, e))
    }

    /// A pipeline; the models of its steps are looked for among what this node serves to the same tenant.
    fn pipeline(&self, version: &VersionRef, wished: ModelConfig) -> Result<(Executor, ModelConfig)> {
        let table = self.published.table().load();
        let look = |model: &ModelName, number: Option<VersionNumber>| {
            table.resolve(&version.tenant, model, number).ok().map(|instance| StepView::of(&instance.config))
        };
        let config = wished.complete_pipeline(&version.model, &look).map_err(|e| {
            // Steps that are not there yet may come.
            let reason = if e.class().retriable() { e.reason() } else { Reason::ModelLoadFailed };
            Error::new(reason, invalid(version, &e).public_text())
        })?;
        let queue = PipelineLimits { max_requests: self.options.max_queue_requests, max_bytes: self.options.max_queue_bytes.0 };
        let pipeline = Pipeline::new(version.model.clone(), &config, queue, self.world.clock.clone())?;
        Ok((Executor::Pipeline(Box::new(pipeline)), config))
    }

    /// Executes the configured samples one after another; the first runs of a model are slow. Pipelines are as warm as the
    /// models of their steps.
    async fn warm_up(&self, instance: &Instance) -> Result<()> {
        if matches!(instance.executor, Executor::Pipeline(_)) {
            return Ok(());
        }
        for inputs in instance.config.warmup_inputs()? {
            let request = InferRequest {
                tenant: instance.tenant.clone(),
                model: instance.model.clone(),
                version: Some(instance.version),
                inputs,
                outputs: Vec::new(),
                deadline: WARM_UP_DEADLINE,
                queue_timeout: None,
                priority: 0,
                sequence: None,
                parameters: Parameters::new(),
                trace: None,
            };
            let work = Work {
                inputs: request.inputs.clone(),
                outputs: Vec::new(),
                tenant: 0,
                level: 0,
                queue_timeout: None,
                deadline: self.world.clock.monotonic().saturating_add(WARM_UP_DEADLINE),
                suspect: false,
                trace: None,
            };
            let scene = Scene { request: &request, left: WARM_UP_DEADLINE, steps: &NoSteps, depth: 0 };
            if let Err(failure) = instance.executor.execute(work, scene).await {
                let error = instance.error(failure);
                let text = format!("failed to load '{}': the warm-up failed: {error}", instance.model);
                return Err(Error::new(Reason::ModelLoadFailed, text));
            }
        }
        Ok(())
    }

    fn backend(&self, version: &VersionRef, files: &[FileSpec]) -> Result<BackendKind> {
        let has = |kind: BackendKind| files.iter().any(|f| f.path.as_str() == kind.model_file());
        let Some(kind) = [BackendKind::Onnx, BackendKind::Step, BackendKind::Villain].into_iter().find(|k| has(*k)) else {
            return Err(refuse(
                version,
                "no backend knows its files; an ONNX model is a file 'model.onnx' at the top of the version, a built-in step 'step.toml', a foreign server 'process.toml', and a pipeline a 'config.pbtxt' with ensemble_scheduling",
            ));
        };
        if !self.options.backends.contains(&kind) {
            return Err(refuse(version, &format!("the backend '{}' is not among engine.backends of this node", kind.as_str())));
        }
        Ok(kind)
    }

    fn runner_spec(
        &self,
        version: &VersionRef,
        deployment: &DeploymentRecord,
        wished: &ModelConfig,
        local: LocalVersion,
        backend: BackendKind,
    ) -> RunnerSpec {
        let options = &self.options;
        let instances = deployment.instances.unwrap_or_else(|| u16::try_from(wished.instance_count()).unwrap_or(u16::MAX)).max(1);
        // The processors are shared out between the executions that run at the same time.
        let threads = deployment.threads.or(options.threads).unwrap_or_else(|| (options.processors / instances).max(1));
        RunnerSpec {
            program: options.program.clone(),
            label: version.to_string(),
            backend,
            directory: local.directory,
            files: local.files,
            onnxruntime: options.onnxruntime.clone(),
            threads: threads.max(1),
            instances,
            provider: wished.provider(options.provider),
            shared_memory: options.shared_memory,
            memory: deployment.memory.or(options.memory),
            cpu_seconds: None,
            load_timeout: options.load_timeout,
            execution_timeout: options.execution_timeout,
        }
    }
}

/// A warm-up has no steps to call.
struct NoSteps;

#[async_trait]
impl Steps for NoSteps {
    async fn infer(&self, _: InferRequest, _: u8) -> Result<Vec<Tensor>> {
        Err(Error::internal("a warm-up reached a pipeline"))
    }
}

/// The configuration that was wished: the deployment's, else the version's own file, else an empty one.
async fn read_config(version: &VersionRef, deployment: &DeploymentRecord, local: &LocalVersion) -> Result<ModelConfig> {
    if let Some(json) = &deployment.config_override {
        return ModelConfig::parse_json(json.as_bytes()).map_err(|e| invalid(version, &e));
    }
    let Some(file) = local.files.iter().find(|f| f.path.as_str() == ModelConfig::FILE) else {
        return Ok(ModelConfig::default());
    };
    if file.size > ModelConfig::MAX_BYTES {
        return Err(refuse(version, "its config.pbtxt is too large"));
    }
    let path: PathBuf = file.path.under(&local.directory);
    let bytes = tokio::fs::read(path).await.map_err(|e| Error::internal("reading config.pbtxt").source(e))?;
    if Digest::of(&bytes) != file.digest {
        return Err(Error::new(Reason::ContentAltered, format!("failed to load '{}': config.pbtxt was altered on disk", version.model)));
    }
    ModelConfig::parse_pbtxt(&bytes).map_err(|e| invalid(version, &e))
}

fn refuse(version: &VersionRef, why: &str) -> Error {
    Error::new(Reason::ModelLoadFailed, format!("failed to load '{}' version {}: {why}", version.model, version.number))
}

fn invalid(version: &VersionRef, error: &Error) -> Error {
    refuse(version, error.public_text())
}

fn labels_error(version: &VersionRef, error: Error) -> Error {
    if error.reason() == Reason::Internal { error } else { Error::new(error.reason(), refuse(version, error.public_text()).to_string()) }
}

fn load_error(version: &VersionRef, error: RunnerError) -> Error {
    match error {
        RunnerError::Altered(path) => {
            let text = format!("failed to load '{}' version {}: the file '{path}' was altered on disk", version.model, version.number);
            Error::new(Reason::ContentAltered, text)
        }
        RunnerError::Start(diagnostic) => {
            Error::new(Reason::OverCapacity, format!("failed to load '{}': no runner could be started", version.model))
                .diagnostic(diagnostic)
                .retry_after(Duration::from_secs(1))
        }
        RunnerError::Crashed => {
            Error::new(Reason::RunnerCrashed, format!("failed to load '{}': the runner died while it loaded the model", version.model))
        }
        other => refuse(version, &other.to_string()),
    }
}
