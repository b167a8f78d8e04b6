//! The walls, tried from inside.

use plinth_engine::RunnerError;
use plinth_engine::testing::{ModelDirectory, floats, onnx_model, tensor};
use plinth_types::{ByteSize, DataType};

use crate::support::{SOON, ask, reports, spec, start, try_start, villain};

#[tokio::test]
async fn nothing_gets_out() {
    let runner = villain("").await;
    let report = runner.sandbox();
    assert!(report.applied.iter().any(|wall| wall == "seccomp"), "{report:?}");
    let attempts = [
        "open_socket",
        "open_file /etc/passwd",
        "open_file /proc/self/status",
        "write_file /tmp/plinth-was-here",
        "list /",
        "fork",
        "exec",
        "signal_node",
        "new_code",
    ];
    let outcomes = reports(&runner, &attempts).await;
    for (attempt, outcome) in attempts.iter().zip(outcomes) {
        assert!(outcome.starts_with("refused: "), "{attempt}: {outcome}");
    }
    assert!(!std::path::Path::new("/tmp/plinth-was-here").exists());
}

#[tokio::test]
async fn nobody_is_root_inside() {
    let (one, two) = tokio::join!(villain(""), villain(""));
    let user = async |runner| reports(runner, &["user"]).await[0].clone();
    let (one, two) = (user(&one).await, user(&two).await);
    assert_ne!(one, "0");
    if rustix_is_root() {
        assert_ne!(one, two, "two runners share no user");
    }
}

fn rustix_is_root() -> bool {
    std::fs::read_to_string("/proc/self/status").unwrap().lines().any(|l| l.starts_with("Uid:\t0\t"))
}

#[tokio::test]
async fn every_wall_is_reported_once_one_way_or_the_other() {
    let runner = villain("").await;
    let report = runner.sandbox();
    for wall in ["network namespace", "mount namespace", "empty file system", "unprivileged user", "landlock", "file limits", "seccomp"] {
        let applied = report.applied.iter().filter(|w| *w == wall).count();
        let missing: Vec<_> = report.missing.iter().filter(|w| w.starts_with(&format!("{wall}: "))).collect();
        assert_eq!(applied + missing.len(), 1, "{wall}: {report:?}");
        assert!(missing.iter().all(|text| text.len() > wall.len() + 2), "with the reason: {missing:?}");
    }
}

#[tokio::test]
async fn memory_is_limited() {
    let model = ModelDirectory::villain("");
    let mut limited = spec(&model);
    limited.memory = Some(ByteSize::mib(64));
    let runner = start(limited).await;
    assert_eq!(reports(&runner, &["leak 16MiB"]).await, ["done"]);
    assert_eq!(reports(&runner, &["leak 512MiB"]).await, ["refused: no memory"]);
    assert!(ask(&runner, &[]).await.is_ok(), "and lives on");

    let greedy = ModelDirectory::villain("load_allocate = '1GiB'");
    let mut limited = spec(&greedy);
    limited.memory = Some(ByteSize::mib(64));
    assert!(matches!(try_start(limited).await, Err(RunnerError::Load(_))));
    let mut tiny = spec(&ModelDirectory::villain("# some text"));
    tiny.memory = Some(ByteSize(3));
    assert!(matches!(try_start(tiny).await, Err(RunnerError::Load(text)) if text.contains("memory limit")));
}

#[tokio::test]
async fn an_onnx_model_lives_within_its_memory() {
    let model = ModelDirectory::onnx(&onnx_model::offset(1.0));
    let mut limited = spec(&model);
    limited.memory = Some(ByteSize::mib(64));
    let runner = start(limited).await;
    assert!(runner.infer(vec![floats("x", &[1.0; 1000])], vec![], SOON).await.is_ok());
    // Too large to arrive, and large enough to arrive but not to be computed with.
    for bytes in [300u64 << 20, 80 << 20] {
        let zeros = vec![0; usize::try_from(bytes).unwrap()];
        let huge = runner.infer(vec![tensor("x", DataType::Fp32, &[bytes / 4], zeros)], vec![], SOON).await;
        assert!(matches!(huge, Err(RunnerError::Execution(_))), "{bytes}: {huge:?}");
    }
    assert!(runner.infer(vec![floats("x", &[1.0; 1000])], vec![], SOON).await.is_ok(), "and lives on");
}

#[tokio::test]
async fn processor_time_is_limited() {
    let model = ModelDirectory::villain("");
    let mut limited = spec(&model);
    limited.cpu_seconds = Some(1);
    let runner = start(limited).await;
    let spun = ask(&runner, &["spin 9s"]).await;
    assert!(matches!(spun, Err(RunnerError::Crashed)), "{spun:?}");
    assert!(matches!(runner.ended().await, plinth_engine::RunnerExit::Signal(24 | 9)));
}
