//! Every misdeed of the villain: the request gets its error, the node does not notice anything else.

use std::time::Duration;

use plinth_engine::testing::{ModelDirectory, floats, onnx_model};
use plinth_engine::{RunnerError, RunnerExit};

use crate::support::{ask, eventually, reports, spec, start, try_start, villain};

/// For a death, "within ms" with room for a loaded machine.
const AT_ONCE: Duration = Duration::from_secs(2);

#[tokio::test]
async fn errors_leave_the_runner_alive() {
    let runner = villain("").await;
    assert!(matches!(ask(&runner, &["fail broken"]).await, Err(RunnerError::Execution(t)) if t == "broken"));
    assert!(matches!(ask(&runner, &["refuse ugly"]).await, Err(RunnerError::Input(t)) if t == "ugly"));
    assert!(matches!(ask(&runner, &["unheard of"]).await, Err(RunnerError::Input(_))));
    for (deed, says) in [
        ("wrong_shape", "output 'x': the shape does not fit"),
        ("wrong_type", "output 'x': the data type does not fit"),
        ("wrong_name", "the output 'x?' stands where 'x' should be"),
        ("missing_output", "stands where 'x' should be"),
        ("extra_output", "3 outputs instead of 2"),
    ] {
        let error = ask(&runner, &[deed]).await.unwrap_err();
        assert!(matches!(&error, RunnerError::BrokeProtocol(text) if text.contains(says)), "{deed}: {error:?}");
    }
    let nan = ask(&runner, &["nan"]).await.unwrap();
    assert_eq!(nan[0].data().as_ref(), [f32::NAN.to_le_bytes(), f32::NAN.to_le_bytes()].concat());
    assert_eq!(reports(&runner, &["delay 1ms", "spin 1ms", "leak 1MiB"]).await, ["done"; 3]);
}

#[tokio::test]
async fn bad_requests_never_reach_the_model() {
    let runner = villain("crash_after = 0").await;
    let x = || floats("x", &[1.0]);
    for (inputs, outputs) in [
        (vec![], vec![]),
        (vec![x(), x()], vec![]),
        (vec![x(), floats("y", &[1.0])], vec![]),
        (vec![x()], vec!["nope".to_owned()]),
        (vec![x()], vec!["x".to_owned(), "x".to_owned()]),
    ] {
        assert!(matches!(runner.infer(inputs, outputs, AT_ONCE).await, Err(RunnerError::Input(_))));
    }
    assert!(matches!(runner.infer(vec![x()], vec![], AT_ONCE).await, Err(RunnerError::Crashed)));
}

#[tokio::test]
async fn deaths_are_told_as_they_were() {
    for (deed, exit) in [
        ("crash", RunnerExit::Signal(11)),
        ("abort", RunnerExit::Signal(6)),
        ("exit 3", RunnerExit::Status(3)),
        ("exit 0", RunnerExit::Status(0)),
        ("panic", RunnerExit::Status(101)),
        ("garbage", RunnerExit::BrokeProtocol),
    ] {
        let runner = villain("").await;
        let queued = ask(&runner, &["delay 1ms"]);
        let deeds = [deed, "hang"];
        let (answer, second) = tokio::join!(ask(&runner, &deeds), queued);
        assert!(matches!(answer, Err(RunnerError::Crashed)), "{deed}: {answer:?}");
        assert!(matches!(second, Err(RunnerError::Crashed)), "{deed}: {second:?}");
        assert_eq!(runner.ended().await, exit, "{deed}");
        assert!(matches!(ask(&runner, &[]).await, Err(RunnerError::Crashed)), "a dead runner takes nothing");
        runner.stop(AT_ONCE).await;
    }
}

#[tokio::test]
async fn a_closed_channel_is_a_death() {
    let runner = villain("").await;
    assert!(matches!(ask(&runner, &["close_channel"]).await, Err(RunnerError::Crashed)));
    runner.ended().await;
}

#[tokio::test]
async fn what_was_answered_before_the_death_counts() {
    let runner = villain("crash_after = 1").await;
    let (first, second) = tokio::join!(ask(&runner, &[]), ask(&runner, &[]));
    assert!(first.is_ok(), "{first:?}");
    assert!(matches!(second, Err(RunnerError::Crashed)), "{second:?}");
    assert_eq!(runner.ended().await, RunnerExit::Signal(6));
}

#[tokio::test]
async fn killed_from_outside() {
    let runner = villain("").await;
    let (answer, ()) = tokio::join!(ask(&runner, &["hang"]), async {
        eventually("the request is in flight", || runner.in_flight() == 1).await;
        let killed = std::process::Command::new("kill").args(["-9", &runner.pid().to_string()]).status().unwrap();
        assert!(killed.success());
        let exit = tokio::time::timeout(AT_ONCE, runner.ended()).await.expect("a death is noticed at once");
        assert_eq!(exit, RunnerExit::Signal(9));
    });
    assert!(matches!(answer, Err(RunnerError::Crashed)));
}

#[tokio::test]
async fn a_hang_ends_with_the_execution_timeout() {
    let model = ModelDirectory::villain("");
    let mut spec = spec(&model);
    spec.execution_timeout = Duration::from_millis(300);
    let runner = start(spec).await;
    // Idle for longer than the limit, then several within it, one after another: nobody hangs.
    tokio::time::sleep(Duration::from_millis(400)).await;
    let patient = tokio::join!(ask(&runner, &["delay 150ms"]), ask(&runner, &["delay 150ms"]), ask(&runner, &["delay 150ms"]));
    assert!(patient.0.is_ok() && patient.1.is_ok() && patient.2.is_ok());
    let (answer, queued) = tokio::join!(ask(&runner, &["hang"]), ask(&runner, &[]));
    assert!(matches!(answer, Err(RunnerError::Crashed)));
    assert!(matches!(queued, Err(RunnerError::Crashed)));
    assert_eq!(runner.ended().await, RunnerExit::Hung);
}

#[tokio::test]
async fn a_caller_that_left_does_not_hide_a_hang() {
    let model = ModelDirectory::villain("");
    let mut spec = spec(&model);
    spec.execution_timeout = Duration::from_millis(200);
    let runner = start(spec).await;
    let left = tokio::time::timeout(Duration::from_millis(50), ask(&runner, &["hang"])).await;
    assert!(left.is_err());
    assert_eq!(tokio::time::timeout(AT_ONCE, runner.ended()).await.unwrap(), RunnerExit::Hung);
}

#[tokio::test]
async fn a_flood_on_stderr_fills_nothing() {
    let resident = || {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap()
    };
    let runner = villain("").await;
    assert!(ask(&runner, &["flood_stderr 1MiB"]).await.is_ok());
    let before = resident();
    assert!(ask(&runner, &["flood_stderr 24MiB"]).await.is_ok());
    assert!(resident() < before + (8 << 10), "the node grew from {before} to {} KiB", resident());
}

#[tokio::test]
async fn failures_to_load() {
    for (toml, says) in [
        ("load_fail = 'no mood'", "no mood"),
        ("load_fial = 'x'", "unknown field `load_fial`"),
        ("load_delay = 'soon'", "want a duration"),
        ("[[inputs]]\nname = ''\ndatatype = 'FP32'\nshape = []", "a tensor name has"),
    ] {
        let error = try_start(spec(&ModelDirectory::villain(toml))).await.unwrap_err();
        assert!(matches!(&error, RunnerError::Load(text) if text.contains(says)), "{toml}: {error:?}");
    }
    let error = try_start(spec(&ModelDirectory::villain("load_crash = true"))).await.unwrap_err();
    assert!(matches!(error, RunnerError::Crashed), "{error:?}");
    let empty = ModelDirectory::new(plinth_engine::BackendKind::Villain, &[("other.txt", b"")]);
    let error = try_start(spec(&empty)).await.unwrap_err();
    assert!(matches!(&error, RunnerError::Load(text) if text.contains("no file 'villain.toml'")), "{error:?}");
}

#[tokio::test]
async fn altered_files_are_never_parsed() {
    // If anybody parsed the altered file, it would say so by crashing.
    let honest = ModelDirectory::villain("load_fail = 'not altered'");
    let place = honest.path().join("villain.toml");
    let same_length = "load_crash = true        ";
    assert_eq!(same_length.len(), "load_fail = 'not altered'".len());
    for altered in [same_length, "", "load_crash = true"] {
        std::fs::write(&place, altered).unwrap();
        let error = try_start(spec(&honest)).await.unwrap_err();
        assert!(matches!(&error, RunnerError::Altered(path) if path.as_str() == "villain.toml"), "{error:?}");
    }
    std::fs::remove_file(&place).unwrap();
    assert!(matches!(try_start(spec(&honest)).await, Err(RunnerError::Altered(_))), "gone");
    std::fs::create_dir(&place).unwrap();
    assert!(matches!(try_start(spec(&honest)).await, Err(RunnerError::Altered(_))), "a directory");

    let model = ModelDirectory::onnx(&onnx_model::offset(1.0));
    let place = model.path().join("model.onnx");
    let mut bytes = std::fs::read(&place).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(&place, bytes).unwrap();
    assert!(matches!(try_start(spec(&model)).await, Err(RunnerError::Altered(_))));
}
