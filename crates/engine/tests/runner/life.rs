//! Start, ask, stop.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use plinth_engine::testing::{ModelDirectory, commands, floats, onnx_model};
use plinth_engine::{Runner, RunnerError, RunnerExit};
use plinth_runtime::{OnEnd, TaskGroup, World};

use crate::support::{SOON, alive, ask, eventually, program, spec, start, try_start, villain};

#[tokio::test]
async fn a_model_answers_and_its_process_goes() {
    let model = ModelDirectory::onnx(&onnx_model::arithmetic());
    let runner = start(spec(&model)).await;
    assert_eq!(runner.metadata().platform, "onnxruntime_onnx");
    assert!(runner.metadata().engine.starts_with("onnxruntime 1."), "{}", runner.metadata().engine);
    let inputs = vec![floats("b", &[10.0, 20.0]), floats("a", &[1.0, 2.0])];
    let both = runner.infer(inputs.clone(), vec![], SOON).await.unwrap();
    assert_eq!(both, vec![floats("sum", &[11.0, 22.0]), floats("product", &[10.0, 40.0])]);
    let one = runner.infer(inputs.clone(), vec!["product".into()], SOON).await.unwrap();
    assert_eq!(one, vec![floats("product", &[10.0, 40.0])]);
    assert_eq!(runner.in_flight(), 0);

    assert!(alive(runner.pid()));
    runner.stop(SOON).await;
    assert_eq!(runner.ended().await, RunnerExit::Stopped);
    assert!(!alive(runner.pid()), "stop returns when the process is gone and reaped");
    assert!(matches!(runner.infer(inputs, vec![], SOON).await, Err(RunnerError::Stopping)));
    runner.stop(SOON).await;
}

#[tokio::test]
async fn stop_lets_requests_finish_and_takes_no_more() {
    let runner = villain("").await;
    let (answer, ()) = tokio::join!(ask(&runner, &["delay 100ms"]), async {
        eventually("the request is in flight", || runner.in_flight() == 1).await;
        let late = async {
            tokio::time::sleep(Duration::from_millis(20)).await;
            assert!(matches!(ask(&runner, &[]).await, Err(RunnerError::Stopping)));
        };
        tokio::join!(runner.stop(SOON), late);
    });
    assert_eq!(answer.unwrap()[0], floats("x", &[1.0, 2.0]));
}

#[tokio::test]
async fn stop_is_not_more_patient_than_its_grace() {
    let runner = villain("").await;
    let (answer, ()) = tokio::join!(ask(&runner, &["hang"]), async {
        eventually("the request is in flight", || runner.in_flight() == 1).await;
        runner.stop(Duration::from_millis(20)).await;
    });
    assert!(matches!(answer, Err(RunnerError::Stopping)));
    assert_eq!(runner.ended().await, RunnerExit::Stopped);
}

#[tokio::test]
async fn dropping_a_runner_kills_its_process() {
    let runner = villain("").await;
    let pid = runner.pid();
    drop(runner);
    eventually("the process is gone", || !alive(pid)).await;
}

#[tokio::test]
async fn cancelling_the_group_kills_the_process() {
    let (group, model) = (TaskGroup::new("test"), ModelDirectory::villain(""));
    let runner = Runner::start(spec(&model), &World::real(), &group).await.unwrap();
    assert!(group.close(SOON).await.is_empty());
    assert_eq!(runner.ended().await, RunnerExit::Stopped);
    assert!(!alive(runner.pid()));
}

#[tokio::test]
async fn a_dropped_start_leaves_no_process() {
    let model = ModelDirectory::villain("load_hang = true");
    let children = || {
        let me = std::process::id();
        std::fs::read_to_string(format!("/proc/{me}/task/{me}/children")).unwrap_or_default()
    };
    let dropped = tokio::time::timeout(Duration::from_millis(200), try_start(spec(&model))).await;
    assert!(dropped.is_err());
    // The parent is the launcher's thread, so look at every thread's children.
    let all = || {
        let tasks = std::fs::read_dir("/proc/self/task").unwrap();
        tasks.flatten().map(|t| std::fs::read_to_string(t.path().join("children")).unwrap_or_default()).collect::<String>()
    };
    eventually("no child is left", || all().trim().is_empty() && children().trim().is_empty()).await;
}

#[tokio::test]
async fn deadlines_say_where_the_request_was() {
    let runner = villain("").await;
    let short = Duration::from_millis(50);
    let request = |deeds: &[&str]| runner.infer(vec![floats("x", &[1.0]), commands(deeds)], vec![], short);
    let (first, second) = tokio::join!(request(&["delay 150ms"]), request(&["fail it was executed"]));
    assert!(matches!(first, Err(RunnerError::Deadline("running"))), "{first:?}");
    assert!(matches!(second, Err(RunnerError::Deadline("queued"))), "{second:?}");
    assert!(ask(&runner, &[]).await.is_ok());
}

#[tokio::test]
async fn a_cancelled_request_is_never_executed() {
    let model = ModelDirectory::villain("crash_after = 2");
    let runner = start(spec(&model)).await;
    let (first, ()) = tokio::join!(ask(&runner, &["delay 100ms"]), async {
        eventually("the first is in flight", || runner.in_flight() == 1).await;
        for _ in 0..20 {
            // Begun and given up: each of these would be an execution, and the third execution kills.
            let _ = tokio::time::timeout(Duration::from_millis(1), ask(&runner, &[])).await;
        }
    });
    assert!(first.is_ok());
    eventually("all are gone", || runner.in_flight() == 0).await;
    assert!(ask(&runner, &[]).await.is_ok());
    assert!(matches!(ask(&runner, &[]).await, Err(RunnerError::Crashed)));
}

#[tokio::test]
async fn loading_has_a_deadline() {
    let model = ModelDirectory::villain("load_hang = true");
    let mut spec = spec(&model);
    spec.load_timeout = Duration::from_millis(200);
    assert!(matches!(try_start(spec).await, Err(RunnerError::Deadline(_))));
}

#[tokio::test]
async fn a_program_that_is_none_is_the_nodes_fault() {
    let model = ModelDirectory::villain("");
    let mut missing = spec(&model);
    missing.program = "/nowhere/plinth".into();
    assert!(matches!(try_start(missing).await, Err(RunnerError::Start(_))));
    let mut other = spec(&model);
    other.program = "/bin/true".into();
    assert!(matches!(try_start(other).await, Err(RunnerError::Crashed)));
    let mut library = ModelDirectory::onnx(b"x").spec(program());
    library.onnxruntime = Some("/nowhere/libonnxruntime.so".into());
    assert!(matches!(try_start(library).await, Err(RunnerError::Start(_))));
}

#[tokio::test]
async fn by_hand_the_command_says_that_it_is_not_for_hands() {
    let output = std::process::Command::new(program()).arg("runner").stdin(std::process::Stdio::null()).output().unwrap();
    assert_eq!(output.status.code(), Some(64));
    assert!(String::from_utf8_lossy(&output.stderr).contains("for the node"));
}

#[tokio::test]
async fn many_callers_at_once_get_their_own_answers() {
    let model = ModelDirectory::onnx(&onnx_model::offset(0.5));
    let runner = Arc::new(start(spec(&model)).await);
    let (group, right) = (TaskGroup::new("callers"), Arc::new(AtomicUsize::new(0)));
    for i in 0..1000u16 {
        let (runner, right) = (runner.clone(), right.clone());
        group.spawn("caller", OnEnd::Ignore, async move {
            let sent = vec![f32::from(i); 1 + usize::from(i % 700)];
            let expected: Vec<f32> = sent.iter().map(|v| v + 0.5).collect();
            let got = runner.infer(vec![floats("x", &sent)], vec![], SOON).await;
            assert_eq!(got.unwrap(), vec![floats("y", &expected)]);
            right.fetch_add(1, Ordering::Relaxed);
        });
    }
    assert!(group.wait(SOON).await.is_empty());
    assert_eq!(right.load(Ordering::Relaxed), 1000);
}

#[tokio::test]
async fn fifty_loads_leave_nothing_open() {
    let models = [ModelDirectory::villain(""), ModelDirectory::onnx(&onnx_model::offset(1.0))];
    let open = || std::fs::read_dir("/proc/self/fd").unwrap().count();
    let group = TaskGroup::new("test");
    let mut before = 0;
    for i in 0..50 {
        let runner = Runner::start(spec(&models[i % 2]), &World::real(), &group).await.unwrap();
        runner.infer(vec![floats("x", &[1.0])], vec![], SOON).await.unwrap();
        if i % 3 == 0 {
            drop(runner)
        } else {
            runner.stop(SOON).await
        }
        if i == 3 {
            eventually("the first tasks are over", || group.is_empty()).await;
            before = open();
        }
    }
    eventually("all tasks are over", || group.is_empty()).await;
    eventually("as many files are open as before", || open() <= before).await;
}
