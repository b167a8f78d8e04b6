//! One attempt to load a version: fetch, configure, start the runner, warm it up.
//!
//! Invariant: nothing is parsed before the source has accepted the version, and the configuration
//! file is hashed before it is parsed. An attempt that is dropped leaves no runner behind.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use plinth_engine::{BackendKind, FileSpec, Runner, RunnerError, RunnerSpec};
use plinth_runtime::{TaskGroup, World};
use plinth_store::resources::DeploymentRecord;
use plinth_telemetry::ModelMetrics;
use plinth_types::{Digest, Error, Reason, Result};

use crate::Instance;
use crate::model_config::ModelConfig;
use crate::serving::ServingOptions;
use crate::source::{LocalVersion, VersionRef, VersionSource};

/// How long one warm-up execution may take.
const WARM_UP_DEADLINE: Duration = Duration::from_secs(60);

/// What every attempt needs.
pub(crate) struct Loader {
    pub options: ServingOptions,
    pub source: Arc<dyn VersionSource>,
    pub world: World,
    pub tasks: TaskGroup,
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
        let backend = self.backend(version, &local.files)?;
        let spec = self.runner_spec(version, deployment, local, backend);
        let runner = Runner::start(spec, &self.world, &self.tasks).await.map_err(|e| load_error(version, e))?;
        let config = wished.complete(&version.model, runner.metadata()).map_err(|e| invalid(version, &e))?;
        let (inputs, outputs) = (config.metadata_inputs(), config.metadata_outputs());
        let instance = Instance {
            tenant: version.tenant.clone(),
            model: version.model.clone(),
            version: version.number,
            content: version.record.content,
            config,
            labels,
            runner,
            inputs,
            outputs,
            metrics,
            statistics: crate::statistics::Statistics::default(),
        };
        warm_up(&instance).await?;
        instance.metrics.memory.watch(instance.runner.pid());
        Ok(instance)
    }

    fn backend(&self, version: &VersionRef, files: &[FileSpec]) -> Result<BackendKind> {
        let has = |kind: BackendKind| files.iter().any(|f| f.path.as_str() == kind.model_file());
        let Some(kind) = [BackendKind::Onnx, BackendKind::Villain].into_iter().find(|k| has(*k)) else {
            return Err(refuse(version, "no backend knows its files; an ONNX model is a file 'model.onnx' at the top of the version"));
        };
        if !self.options.backends.contains(&kind) {
            return Err(refuse(version, &format!("the backend '{}' is not among engine.backends of this node", kind.as_str())));
        }
        Ok(kind)
    }

    fn runner_spec(&self, version: &VersionRef, deployment: &DeploymentRecord, local: LocalVersion, backend: BackendKind) -> RunnerSpec {
        let options = &self.options;
        RunnerSpec {
            program: options.program.clone(),
            label: version.to_string(),
            backend,
            directory: local.directory,
            files: local.files,
            onnxruntime: options.onnxruntime.clone(),
            threads: deployment.threads.unwrap_or(options.threads).max(1),
            memory: deployment.memory.or(options.memory),
            cpu_seconds: None,
            max_queue_requests: options.max_queue_requests,
            max_queue_bytes: options.max_queue_bytes,
            load_timeout: options.load_timeout,
            execution_timeout: options.execution_timeout,
        }
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

async fn warm_up(instance: &Instance) -> Result<()> {
    for inputs in instance.config.warmup_inputs()? {
        let answer = instance.runner.infer(inputs, Vec::new(), WARM_UP_DEADLINE).await;
        answer.map_err(|e| Error::new(Reason::ModelLoadFailed, format!("failed to load '{}': the warm-up failed: {e}", instance.model)))?;
    }
    Ok(())
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
