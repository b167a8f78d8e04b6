//! Unmodified public clients against the real binary.

use std::process::Command;

use crate::support::models;
use crate::support::{Node, NodeOptions, onnxruntime, repository};

/// The Python of the project's own environment.
fn python() -> Command {
    let python = repository().join(".plinth/venv/bin/python");
    assert!(python.exists(), "the Python environment is missing; run `make setup`");
    let mut command = Command::new(python);
    command.arg("-B");
    command
}

fn run(mut command: Command, what: &str) {
    let output = command.output().expect("Python starts");
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{what} failed\n{out}\n{err}");
}

/// A node that serves the models of the client tests, and takes regions of shared memory.
async fn with_models() -> Node {
    let node = Node::start(NodeOptions::default().set("shared_memory.enabled", "true")).await;
    deploy_all(&node, "make_identity_models.py").await;
    node
}

/// Deploys what a script makes, each directory under its name.
async fn deploy_all(node: &Node, script: &str) {
    let directory = tempfile::tempdir().unwrap();
    let mut make = python();
    make.arg(repository().join("tests/clients").join(script)).arg(directory.path());
    run(make, "making the models");
    for entry in std::fs::read_dir(directory.path()).unwrap().flatten() {
        let name = entry.file_name().into_string().unwrap();
        models::deploy(node, &name, &entry.path()).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tritonclient_http_works_unmodified() {
    let node = with_models().await;
    let mut test = python();
    test.arg(repository().join("tests/clients/test_tritonclient_http.py"));
    test.args(["--url", &node.http]).args(["--key", node.key().unwrap()]);
    run(test, "tritonclient");
}

#[tokio::test(flavor = "multi_thread")]
async fn tritonclient_grpc_works_unmodified() {
    let node = with_models().await;
    let mut test = python();
    test.arg(repository().join("tests/clients/test_tritonclient_grpc.py"));
    test.args(["--url", &node.grpc]).args(["--key", node.key().unwrap()]);
    run(test, "tritonclient");
}

/// The example programs of Triton's public client, said again; the node is what they expect of a server.
#[tokio::test(flavor = "multi_thread")]
async fn every_example_of_tritons_client_works() {
    let options = NodeOptions::dev().set("shared_memory.enabled", "true").set("http.server_name", r#""triton""#);
    let node = Node::start(options).await;
    deploy_all(&node, "make_models.py").await;
    let mut test = python();
    test.arg(repository().join("tests/clients/test_examples.py"));
    test.args(["--http", &node.http]).args(["--grpc", &node.grpc]);
    run(test, "the examples");
}

/// Runs where `scripts/perf-analyzer.sh` was run; it is a large program of somebody else's, so nothing fetches it unasked.
#[test]
fn perf_analyzer_runs_to_its_end() {
    if !repository().join(".plinth/rivals/perf_analyzer/stamp").exists() {
        eprintln!("perf_analyzer is not there: run scripts/perf-analyzer.sh to test with it");
        return;
    }
    let mut test = python();
    test.arg(repository().join("tests/clients/run_perf_analyzer.py"));
    test.args(["--plinth", env!("CARGO_BIN_EXE_plinth")]).arg("--onnxruntime").arg(onnxruntime());
    run(test, "perf_analyzer");
}
