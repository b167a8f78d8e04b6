//! What the tests of runners share: the program, a world, a group of tasks.

use std::time::Duration;

use plinth_engine::testing::{ModelDirectory, commands, floats};
use plinth_engine::{Runner, RunnerError, RunnerSpec};
use plinth_runtime::{TaskGroup, World};
use plinth_types::Tensor;

pub const SOON: Duration = Duration::from_secs(10);

pub fn program() -> &'static str {
    // What runners print, beside the failure that it explains.
    let _ = tracing_subscriber::fmt().with_test_writer().with_max_level(tracing_subscriber::filter::LevelFilter::DEBUG).try_init();
    env!("CARGO_BIN_EXE_engine-test-runner")
}

pub fn spec(model: &ModelDirectory) -> RunnerSpec {
    model.spec(program())
}

pub async fn try_start(spec: RunnerSpec) -> Result<Runner, RunnerError> {
    Runner::start(spec, &World::real(), &TaskGroup::new("test")).await
}

pub async fn start(spec: RunnerSpec) -> Runner {
    try_start(spec).await.unwrap()
}

pub async fn villain(toml: &str) -> Runner {
    let model = ModelDirectory::villain(toml);
    start(spec(&model)).await
}

/// Runs commands on a villain with a small input.
pub async fn ask(runner: &Runner, deeds: &[&str]) -> Result<Vec<Tensor>, RunnerError> {
    runner.infer(vec![floats("x", &[1.0, 2.0]), commands(deeds)], vec![], SOON).await
}

/// The villain's reports on its commands.
pub async fn reports(runner: &Runner, deeds: &[&str]) -> Vec<String> {
    let outputs = ask(runner, deeds).await.unwrap();
    let report = outputs.iter().find(|t| t.name() == "report").unwrap();
    report.byte_elements().map(|e| String::from_utf8(e.to_vec()).unwrap()).collect()
}

/// Whether the process is there, zombies included.
pub fn alive(pid: u32) -> bool {
    std::path::Path::new(&format!("/proc/{pid}")).exists()
}

/// Waits for something that another process does.
pub async fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let waiting = async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(SOON, waiting).await.unwrap_or_else(|_| panic!("waited in vain until {what}"));
}
