//! Starting: what is refused, what is awaited, and ports that somebody else has.

use std::net::TcpListener;
use std::time::Duration;

use plinth_engine::process::Machine;
use plinth_engine::{ProcessServer, ProcessSpec, RunnerError};
use plinth_runtime::{TaskGroup, World};

use super::support::{Version, alive, ask, eventually, manifest, python, start};

fn refused(outcome: Result<ProcessServer, RunnerError>) -> String {
    match outcome {
        Err(RunnerError::Load(text)) => text,
        other => panic!("{other:?}"),
    }
}

async fn start_on(spec: ProcessSpec, ports: Vec<u16>) -> Result<ProcessServer, RunnerError> {
    ProcessServer::start_on(spec, &World::real(), &TaskGroup::new("test"), Machine { ports, namespaces: true }).await
}

#[tokio::test]
async fn a_server_that_is_ready_late_is_awaited() {
    let version = Version::python("late", "");
    let server = version.start().await;
    assert!(ask(&server, "nothing", "").await.is_ok());
    assert!(server.healthy() && alive(server.pid()));
}

#[tokio::test]
async fn one_that_is_never_ready_is_not() {
    let version = Version::python("never", "start_timeout = \"400ms\"");
    assert!(matches!(start(version.spec()).await, Err(RunnerError::Deadline("loading"))));
    eventually("its directory is gone", || version.is_clean()).await;
    let redirected = Version::python("redirect_health", "start_timeout = \"400ms\"\nenvironment = { ELSEWHERE = \"http://127.0.0.1:1/\" }");
    assert!(matches!(start(redirected.spec()).await, Err(RunnerError::Deadline("loading"))), "a redirect is no health");
}

#[tokio::test]
async fn one_that_dies_at_once_is_known_at_once() {
    let version = Version::python("dies", "");
    assert!(matches!(start(version.spec()).await, Err(RunnerError::Crashed)));
}

#[tokio::test]
async fn programs_are_the_operators() {
    let version = Version::python("plain", "");
    let mut none = version.spec();
    none.program_allow = vec![];
    assert!(refused(start(none).await).contains("engine.process_commands"));
    let mut other = version.spec();
    other.program_allow = vec!["/bin/true".into()];
    assert!(refused(start(other).await).contains("engine.process_commands"));
    let own = Version::new(&[("process.toml", b"command = [\"./server\"]\nprotocol = \"oip-http\""), ("server", b"#!/bin/sh\n")]);
    let mut own_spec = own.spec();
    own_spec.program_allow = vec![own.root.path().join("elsewhere/server")];
    assert!(refused(start(own_spec).await).contains("engine.process_commands"));
    // A path that leads to an allowed program is fine, and the operator's path is executed.
    let text = manifest("oip-http", "plain", "").replacen("\"python\"", &format!("{:?}", std::fs::canonicalize(python()).unwrap()), 1);
    let by_path = Version::new(&[("process.toml", text.as_bytes()), ("server.py", super::support::SCRIPT)]);
    assert!(ask(&by_path.start().await, "nothing", "").await.is_ok());
}

#[tokio::test]
async fn a_program_that_cannot_be_executed_is_the_nodes_fault() {
    let version = Version::python("plain", "");
    let not_executable = version.root.path().join("secret/python");
    std::fs::write(&not_executable, "no program").unwrap();
    let mut spec = version.spec();
    spec.program_allow = vec![not_executable];
    assert!(matches!(start(spec).await, Err(RunnerError::Start(_))));
    let mut spec = version.spec();
    spec.supervisor = "/bin/true".into();
    assert!(matches!(start(spec).await, Err(RunnerError::Start(_))));
}

#[tokio::test]
async fn altered_files_are_never_read() {
    for (name, bytes) in [("server.py", &b"print()"[..]), ("process.toml", b"x"), ("sitecustomize.py", b"import os")] {
        let version = Version::python("plain", "");
        std::fs::write(version.root.path().join("version").join(name), bytes).unwrap();
        match start(version.spec()).await {
            Err(RunnerError::Altered(path)) => assert_eq!(path.as_str(), name),
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn what_the_file_gets_wrong_is_said() {
    for (more, says) in
        [("colour = 1", "unknown field"), ("environment = { A = \"{prot}\" }", "{prot}"), ("health = { failures = 0 }", "health")]
    {
        let version = Version::python("plain", more);
        let text = refused(start(version.spec()).await);
        assert!(text.contains(says), "{text}");
    }
    let nothing = Version::new(&[("model.onnx", b"x")]);
    assert!(refused(start(nothing.spec()).await).contains("process.toml"));
}

#[tokio::test]
async fn what_the_server_says_of_its_model_must_make_sense() {
    let tensors =
        "inputs = [{ name = \"x\", datatype = \"FP32\", shape = [-1] }]\noutputs = [{ name = \"y\", datatype = \"FP32\", shape = [-1] }]";
    assert!(refused(start(Version::python("wrong_metadata", "").spec()).await).contains("describe"));
    assert!(refused(start(Version::python("endless_metadata", "").spec()).await).contains("longer than"));
    assert!(refused(start(Version::python("no_metadata", "").spec()).await).contains("process.toml can"));
    let server = Version::python("no_metadata", tensors);
    let server = server.start().await;
    assert_eq!(server.metadata().outputs.len(), 1);
    assert_eq!(ask(&server, "nothing", "").await.unwrap().len(), 1);
    let other = Version::python("plain", &tensors.replace("\"y\"", "\"z\""));
    assert!(refused(start(other.spec()).await).contains("'z'"));
}

#[tokio::test]
async fn a_port_that_was_taken_meanwhile_is_given_up() {
    let stranger = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = stranger.local_addr().unwrap().port();
    let version = Version::python("plain", "");
    let server = start_on(version.spec(), vec![taken, taken]).await.unwrap();
    assert!(ask(&server, "nothing", "").await.is_ok());
    let all = start_on(version.spec(), vec![taken; 5]).await;
    assert!(matches!(all, Err(RunnerError::Start(_))));
    let fixed = Version::python("plain", &format!("port = {taken}"));
    assert!(refused(start(fixed.spec()).await).contains("in use"));
}

#[tokio::test]
async fn a_stranger_on_the_port_is_never_asked_for_an_answer() {
    // It passes the checks as well as the server would, and the server waits for the port instead of giving up.
    let other = Version::python("plain", "");
    let holder = other.start().await;
    let port = port_of(&holder).await;
    let version = Version::python("patient", "");
    let server = start_on(version.spec(), vec![port]).await.unwrap();
    assert_ne!(port_of(&server).await, port);
    assert!(ask(&server, "nothing", "").await.is_ok());
}

/// The port is the script's first argument.
pub async fn port_of(server: &ProcessServer) -> u16 {
    let line = std::fs::read(format!("/proc/{}/cmdline", server.pid())).unwrap();
    let text = String::from_utf8(line).unwrap();
    text.split('\0').nth(2).unwrap().parse().unwrap()
}

#[tokio::test]
async fn a_server_that_is_open_to_the_network_is_refused() {
    assert!(refused(start(Version::python("exposed", "").spec()).await).contains("every address"));
}

#[tokio::test]
async fn a_dropped_start_leaves_nothing_behind() {
    let version = Version::python("never", "");
    let dropped = tokio::time::timeout(Duration::from_millis(300), start(version.spec())).await;
    assert!(dropped.is_err());
    let needle = version.root.path().to_str().unwrap().to_owned();
    eventually("no process has the version on its command line", || {
        let lines = std::fs::read_dir("/proc").unwrap().flatten().map(|e| std::fs::read(e.path().join("cmdline")).unwrap_or_default());
        !lines.into_iter().any(|line| String::from_utf8_lossy(&line).contains(&needle))
    })
    .await;
    eventually("its directory is gone", || version.is_clean()).await;
}
