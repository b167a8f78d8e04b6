//! Servers that hang, fall ill and recover, or take too much.

use std::time::Duration;

use plinth_engine::{RunnerError, RunnerExit};
use plinth_types::ByteSize;

use super::support::{SOON, Version, alive, ask, ask_within, eventually};

const FAST: &str = "health = { interval = \"50ms\", timeout = \"100ms\", failures = 4 }";

#[tokio::test]
async fn a_server_that_answers_no_check_is_hung() {
    let version = Version::python("plain", FAST);
    let server = version.start().await;
    let pid = server.pid();
    ask(&server, "deaf", "").await.unwrap();
    let exit = tokio::time::timeout(SOON, server.ended()).await.unwrap();
    assert_eq!(exit, RunnerExit::Hung);
    assert!(!alive(pid) && !server.healthy());
    let outcome = ask(&server, "nothing", "").await;
    assert!(matches!(outcome, Err(RunnerError::Unhealthy | RunnerError::Crashed)), "{outcome:?}");
}

#[tokio::test]
async fn an_ill_server_is_not_asked_and_may_recover() {
    let version = Version::python("plain", "health = { interval = \"50ms\", failures = 100 }");
    let server = version.start().await;
    ask(&server, "ill", "yes").await.unwrap();
    eventually("it is unhealthy", || !server.healthy()).await;
    assert!(matches!(ask(&server, "nothing", "").await, Err(RunnerError::Unhealthy)));
    // From beside, because nobody asks it any more.
    let port = super::start::port_of(&server).await;
    let code = "import json, sys, urllib.request as r\nbody = {'inputs': [{'data': [1.0]}], 'outputs': [], 'parameters': {'deed': 'ill', 'value': ''}}\nr.urlopen('http://127.0.0.1:' + sys.argv[1] + '/v2/models/m/infer', json.dumps(body).encode())";
    let healed = std::process::Command::new(super::support::python()).args(["-c", code, &port.to_string()]).output().unwrap();
    assert!(healed.status.success(), "{healed:?}");
    eventually("it is healthy", || server.healthy()).await;
    assert!(ask(&server, "nothing", "").await.is_ok());
}

#[tokio::test]
async fn executions_that_never_end_are_a_hang() {
    let version = Version::python("plain", "health = { interval = \"50ms\", failures = 2 }");
    let mut spec = version.spec();
    spec.execution_timeout = Duration::from_millis(200);
    let server = super::support::start(spec).await.unwrap();
    assert!(matches!(ask(&server, "sleep", "100").await, Err(RunnerError::Deadline("running"))));
    assert!(ask(&server, "nothing", "").await.is_ok(), "one alone is none");
    for _ in 0..2 {
        assert!(matches!(ask(&server, "sleep", "100").await, Err(RunnerError::Deadline("running") | RunnerError::Crashed)));
    }
    assert_eq!(tokio::time::timeout(SOON, server.ended()).await.unwrap(), RunnerExit::Hung);
}

#[tokio::test]
async fn a_callers_short_deadline_is_no_fault_of_the_server() {
    let version = Version::python("plain", FAST);
    let server = version.start().await;
    for _ in 0..8 {
        let outcome = ask_within(&server, "sleep", "0.2", Duration::from_millis(30)).await;
        assert!(matches!(outcome, Err(RunnerError::Deadline(_))), "{outcome:?}");
    }
    assert!(server.healthy());
}

#[tokio::test]
async fn memory_is_limited_for_one_process_and_for_all() {
    // 300 MiB at once: the kernel refuses them to the process.
    let version = Version::python("plain", "memory = \"200MiB\"");
    let server = version.start().await;
    let outcome = ask(&server, "eat", "300").await;
    assert!(matches!(outcome, Err(RunnerError::Execution(_) | RunnerError::Crashed)), "{outcome:?}");
    drop(server);
    // Each of its processes is below the limit, all together are not.
    let version = Version::python("plain", "");
    let mut spec = version.spec();
    spec.memory = Some(ByteSize::mib(200));
    let server = super::support::start(spec).await.unwrap();
    ask(&server, "feed", "100").await.unwrap();
    let _ = ask(&server, "feed", "100").await;
    assert_eq!(tokio::time::timeout(SOON, server.ended()).await.unwrap(), RunnerExit::Signal(9));
}
