//! How servers end, and that nothing of them is left.

use std::time::Duration;

use plinth_engine::process::Machine;
use plinth_engine::{RunnerError, RunnerExit};
use plinth_runtime::{TaskGroup, World};

use super::support::{SOON, Version, alive, ask, eventually, says};

/// Starts a grandchild that has left the server's session, and gives its number.
async fn grandchild(version: &Version, server: &plinth_engine::ProcessServer) -> u32 {
    let facts: serde_json::Value = serde_json::from_str(&says(server, "facts", "").await).unwrap();
    let tmp = facts["env"]["TMPDIR"].as_str().unwrap().to_owned();
    let note = format!("{tmp}/note");
    ask(server, "spawn", &note).await.unwrap();
    eventually("the grandchild has begun", || std::fs::read_to_string(&note).is_ok_and(|text| !text.is_empty())).await;
    // Its own number counts in another namespace: it is found by what it is.
    let needle = "time.sleep(3600)";
    let mine = version.root.path().to_str().unwrap();
    let found = std::fs::read_dir("/proc").unwrap().flatten().find_map(|entry| {
        let line = String::from_utf8_lossy(&std::fs::read(entry.path().join("cmdline")).ok()?).into_owned();
        (line.contains(needle) && line.contains(mine)).then(|| entry.file_name().to_str()?.parse().ok())?
    });
    found.unwrap()
}

#[tokio::test]
async fn a_crash_is_known_and_takes_its_requests_along() {
    let version = Version::python("plain", "");
    let server = version.start().await;
    let (first, second) = tokio::join!(ask(&server, "sleep", "30"), ask(&server, "crash", ""));
    assert!(matches!((&first, &second), (Err(RunnerError::Crashed), Err(RunnerError::Crashed))), "{first:?} {second:?}");
    assert_eq!(server.ended().await, RunnerExit::Signal(9));
    assert!(matches!(ask(&server, "nothing", "").await, Err(RunnerError::Crashed)));
    let version = Version::python("plain", "");
    let server = version.start().await;
    assert!(matches!(ask(&server, "exit", "").await, Err(RunnerError::Crashed)));
    assert_eq!(server.ended().await, RunnerExit::Status(7));
    drop(server);
    eventually("its directory is gone", || version.is_clean()).await;
}

#[tokio::test]
async fn a_stop_drains_and_is_polite() {
    // The server would be waited for much longer than this test does if its signal did not reach it.
    let version = Version::python("plain", "stop_grace = \"60s\"");
    let server = version.start().await;
    let stopping = async {
        eventually("it is in flight", || server.in_flight() == 1).await;
        tokio::time::timeout(Duration::from_secs(10), server.stop(SOON)).await.expect("it ends by its signal");
    };
    let (answer, ()) = tokio::join!(ask(&server, "sleep", "0.3"), stopping);
    assert!(answer.is_ok(), "what was in flight is answered: {answer:?}");
    assert!(matches!(ask(&server, "nothing", "").await, Err(RunnerError::Stopping)));
    assert_eq!(server.ended().await, RunnerExit::Stopped);
    assert!(!alive(server.pid()));
}

#[tokio::test]
async fn a_server_that_does_not_listen_to_its_signal_is_killed() {
    let version = Version::python("stubborn", "stop_grace = \"200ms\"");
    let server = version.start().await;
    let (pid, orphan) = (server.pid(), grandchild(&version, &server).await);
    assert!(alive(orphan));
    tokio::time::timeout(Duration::from_secs(5), server.stop(Duration::ZERO)).await.expect("it is not waited for longer");
    assert!(!alive(pid) && !alive(orphan));
}

fn parent(pid: u32) -> u32 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    status.lines().find_map(|line| line.strip_prefix("PPid:")).unwrap().trim().parse().unwrap()
}

async fn nothing_survives(how: &str, namespaces: bool) {
    let version = Version::python("stubborn", "");
    let tasks = TaskGroup::new("test");
    let machine = Machine { ports: vec![], namespaces };
    let server = plinth_engine::ProcessServer::start_on(version.spec(), &World::real(), &tasks, machine).await.unwrap();
    let in_namespace = server.sandbox().applied.iter().any(|wall| wall == "process namespace");
    assert!(namespaces || !in_namespace);
    let (pid, orphan) = (server.pid(), grandchild(&version, &server).await);
    assert!(alive(pid) && alive(orphan));
    match how {
        "crash" => assert!(matches!(ask(&server, "crash", "").await, Err(RunnerError::Crashed))),
        "drop" => drop(server),
        "supervisor" if in_namespace => {
            let outer = i32::try_from(parent(parent(pid))).unwrap();
            rustix::process::kill_process(rustix::process::Pid::from_raw(outer).unwrap(), rustix::process::Signal::KILL).unwrap();
            tokio::time::timeout(SOON, server.ended()).await.unwrap();
        }
        _ => assert!(tasks.close(SOON).await.is_empty(), "nothing had to be aborted"),
    }
    eventually(how, || !alive(pid) && !alive(orphan)).await;
    eventually("its directory is gone", || version.is_clean()).await;
}

#[tokio::test]
async fn nothing_survives_a_crash_a_drop_the_nodes_end_or_the_supervisors() {
    for how in ["crash", "drop", "cancel", "supervisor"] {
        nothing_survives(how, true).await;
    }
}

#[tokio::test]
async fn nor_where_there_are_no_namespaces() {
    for how in ["crash", "drop", "cancel"] {
        nothing_survives(how, false).await;
    }
}

#[tokio::test]
async fn many_starts_leave_nothing_open() {
    let version = Version::python("plain", "");
    let tasks = TaskGroup::new("test");
    let open = || std::fs::read_dir("/proc/self/fd").unwrap().count();
    let mut before = 0;
    for i in 0..6 {
        let server = plinth_engine::ProcessServer::start(version.spec(), &World::real(), &tasks).await.unwrap();
        ask(&server, "print", "").await.unwrap();
        server.stop(SOON).await;
        drop(server);
        if i == 1 {
            eventually("the first tasks are over", || tasks.is_empty()).await;
            before = open();
        }
    }
    eventually("all tasks are over", || tasks.is_empty()).await;
    eventually("as many files are open as before", || open() <= before).await;
}
