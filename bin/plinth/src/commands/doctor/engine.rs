//! The check that matters most: can a model run here? A runner is started with the smallest model there is, asked once,
//! and ended. So the library, the process, the channel and the walls around it are all tried for real.

use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use plinth_config::{Backend, Config};
use plinth_engine::{BackendKind, FileSpec, Runner, RunnerError, RunnerSpec};
use plinth_node::find_onnxruntime;
use plinth_runtime::{TaskGroup, World};
use plinth_types::{ByteSize, DataType, Digest, Shape, Tensor};

use super::{Finding, trial_model};

/// Loading a library from a slow disk for the first time takes a while.
const LOADING: Duration = Duration::from_secs(20);

const FETCH: &str =
    "`make setup` fetches it, or `pip install onnxruntime` and set engine.onnxruntime to that package's capi/libonnxruntime.so.*";

/// Runs the trial model, when this node may run ONNX models at all.
pub async fn trial(config: &Config) -> Vec<Finding> {
    if !config.engine.backends.contains(&Backend::Onnx) {
        return Vec::new();
    }
    let library = match find_onnxruntime(config.engine.onnxruntime.as_deref(), &config.node.data_dir) {
        Ok(library) => library,
        Err(missing) => {
            let looked: Vec<_> = missing.looked.iter().map(|path| path.display().to_string()).collect();
            let unknown = Finding::warning("sandbox", "can be tried only with ONNX Runtime", "get ONNX Runtime first");
            return vec![Finding::bad("onnx_runtime", format!("was not found; looked for {}", looked.join(", ")), FETCH), unknown];
        }
    };
    let shown = library.display().to_string();
    match run(library).await {
        Ok((engine, report)) => {
            let found = Finding::good("onnx_runtime", format!("{engine} from '{shown}' ran a model"));
            vec![found, sandbox(&report.applied, &report.missing)]
        }
        Err(what) => vec![Finding::bad("onnx_runtime", format!("'{shown}': {what}"), FETCH)],
    }
}

fn sandbox(applied: &[String], missing: &[String]) -> Finding {
    let applied = applied.join(", ");
    if missing.is_empty() {
        return Finding::good("sandbox", format!("runners are fenced in by {applied}"));
    }
    let text = format!("runners are fenced in by {applied}; missing: {}", missing.join("; "));
    Finding::warning("sandbox", text, "needs Linux 5.13 or newer with landlock, and user namespaces; containers often take them away")
}

async fn run(library: PathBuf) -> Result<(String, plinth_engine::SandboxReport), String> {
    let directory = tempfile::tempdir().map_err(|e| format!("no directory for the trial can be made: {e}"))?;
    let model = trial_model::identity();
    std::fs::write(directory.path().join("model.onnx"), &model).map_err(|e| format!("the trial cannot be written: {e}"))?;
    let path = "model.onnx".parse().map_err(|e: plinth_types::path::ParsePathError| e.to_string())?;
    let spec = RunnerSpec {
        program: std::env::current_exe().map_err(|e| format!("this program cannot find itself: {e}"))?,
        label: "doctor/trial/1".into(),
        backend: BackendKind::Onnx,
        directory: directory.path().to_owned(),
        files: vec![FileSpec { path, size: model.len() as u64, digest: Digest::of(&model) }],
        onnxruntime: Some(library),
        threads: 1,
        instances: 1,
        provider: plinth_engine::Provider::Cpu,
        shared_memory: ByteSize::mib(4),
        memory: Some(ByteSize::mib(1024)),
        cpu_seconds: None,
        load_timeout: LOADING,
        execution_timeout: LOADING,
    };
    let tasks = TaskGroup::new("doctor");
    let result = ask(spec, &tasks).await;
    tasks.close(Duration::from_secs(5)).await;
    result.map_err(|error| match error {
        RunnerError::Start(why) => format!("no runner could be started: {why}"),
        other => other.to_string(),
    })
}

async fn ask(spec: RunnerSpec, tasks: &TaskGroup) -> Result<(String, plinth_engine::SandboxReport), RunnerError> {
    let runner = Runner::start(spec, &World::real(), tasks).await?;
    let input = Shape::new(vec![1]).and_then(|shape| Tensor::new("x", DataType::Fp32, shape, Bytes::from_static(&[0, 0, 0x28, 0x42])));
    let input = input.map_err(|e| RunnerError::Input(e.to_string()))?;
    let outputs = runner.infer(vec![input.clone()], Vec::new(), LOADING).await?;
    let end = (runner.metadata().engine.clone(), runner.sandbox().clone());
    runner.stop(Duration::from_secs(1)).await;
    match outputs.as_slice() {
        [output] if output.data() == input.data() => Ok(end),
        _ => Err(RunnerError::BrokeProtocol("the trial came back changed".into())),
    }
}
