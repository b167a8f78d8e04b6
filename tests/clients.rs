//! Unmodified public clients against the real binary.

use std::process::Command;

use crate::support::models;
use crate::support::{Node, NodeOptions, repository};

/// The Python of the project's own environment.
fn python() -> Command {
    let python = repository().join(".plinth/venv/bin/python");
    assert!(python.exists(), "the Python environment is missing; run `make setup`");
    Command::new(python)
}

fn run(mut command: Command, what: &str) {
    let output = command.output().expect("Python starts");
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{what} failed\n{out}\n{err}");
}

/// A node that serves the models of the client tests, and takes regions of shared memory.
async fn with_models() -> Node {
    let node = Node::start(NodeOptions::default().set("shared_memory.enabled", "true")).await;
    let directory = tempfile::tempdir().unwrap();
    let mut make = python();
    make.arg(repository().join("tests/clients/make_identity_models.py")).arg(directory.path());
    run(make, "making the models");
    for entry in std::fs::read_dir(directory.path()).unwrap().flatten() {
        let name = entry.file_name().into_string().unwrap();
        models::deploy(&node, &name, &entry.path()).await;
    }
    node
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
