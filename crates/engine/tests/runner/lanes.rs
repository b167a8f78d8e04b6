//! Several instances over one copy of the weights, and the memory that node and runner share.

use std::sync::Arc;
use std::time::Duration;

use plinth_engine::testing::{ModelDirectory, commands, floats, onnx_model, tensor};
use plinth_engine::{Batch, Lane, Part, Provider, Runner, RunnerError, RunnerExit, RunnerSpec};
use plinth_runtime::{OnEnd, TaskGroup};
use plinth_types::{ByteSize, DataType, Dim, Tensor};

use crate::support::{SOON, eventually, spec, start, try_start};

fn with_instances(model: &ModelDirectory, instances: u16) -> RunnerSpec {
    RunnerSpec { instances, ..spec(model) }
}

fn one(id: u64, inputs: Vec<Tensor>, outputs: &[&str]) -> Batch {
    let outputs = outputs.iter().map(|name| (*name).to_owned()).collect();
    Batch { id, parts: vec![Part { inputs, outputs, trace: None }], batched: false, deadline: SOON }
}

fn deed(id: u64, deed: &str) -> Batch {
    one(id, vec![floats("x", &[1.0]), commands(&[deed])], &["x"])
}

#[tokio::test]
async fn instances_execute_at_the_same_time() {
    let runner = start(with_instances(&ModelDirectory::villain(""), 2)).await;
    let mut lanes = runner.take_lanes();
    assert_eq!(lanes.len(), 2);
    let mut second = lanes.pop().unwrap();
    let mut first = lanes.pop().unwrap();
    first.sender.send(deed(1, "delay 400ms")).unwrap();
    second.sender.send(deed(2, "delay 1ms")).unwrap();
    tokio::select! {
        biased;
        _ = first.receiver.receive() => panic!("the slow one was first"),
        done = second.receiver.receive() => assert_eq!(done.unwrap().id, 2),
    }
    assert_eq!(runner.in_flight(), 1);
    assert_eq!(first.receiver.receive().await.unwrap().id, 1);
}

#[tokio::test]
async fn a_hang_on_one_lane_is_the_end_of_all() {
    let model = ModelDirectory::villain("");
    let runner = start(RunnerSpec { execution_timeout: Duration::from_millis(300), ..with_instances(&model, 2) }).await;
    let mut lanes = runner.take_lanes();
    lanes[1].sender.send(deed(1, "hang")).unwrap();
    let Lane { sender, receiver } = &mut lanes[0];
    let busy = async {
        loop {
            if sender.send(deed(2, "delay 20ms")).is_err() || receiver.receive().await.is_none() {
                break;
            }
        }
    };
    tokio::time::timeout(SOON, busy).await.unwrap();
    assert!(lanes[1].receiver.receive().await.is_none());
    assert_eq!(runner.ended().await, RunnerExit::Hung);
}

#[tokio::test(flavor = "multi_thread")]
async fn four_instances_agree() {
    let model = ModelDirectory::onnx(&onnx_model::offset(0.5));
    let runner = start(RunnerSpec { threads: 2, ..with_instances(&model, 4) }).await;
    let group = TaskGroup::new("callers");
    let right = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    for (l, mut lane) in runner.take_lanes().into_iter().enumerate() {
        let right = right.clone();
        group.spawn("caller", OnEnd::Ignore, async move {
            for i in 0..200usize {
                // Some by the packet, some by the region.
                let sent = vec![(l * 1000 + i) as f32; 1 + i * 97];
                let expected: Vec<f32> = sent.iter().map(|v| v + 0.5).collect();
                lane.sender.send(one(i as u64, vec![floats("x", &sent)], &["y"])).unwrap();
                let done = lane.receiver.receive().await.unwrap();
                assert_eq!((done.id, done.outcome.unwrap()), (i as u64, vec![vec![floats("y", &expected)]]));
                right.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            }
        });
    }
    assert!(group.wait(SOON).await.is_empty());
    assert_eq!(right.load(std::sync::atomic::Ordering::Relaxed), 800);
}

/// Requests in quick succession and after silence: the runner waits with open eyes for some and asleep for others.
#[tokio::test(flavor = "multi_thread")]
async fn a_runner_answers_however_it_waits() {
    let runner = start(with_instances(&ModelDirectory::villain(""), 1)).await;
    let mut lane = runner.take_lanes().remove(0);
    for id in 0..200 {
        if id % 4 == 3 {
            tokio::time::sleep(Duration::from_micros(id * 10)).await;
        }
        lane.sender.send(deed(id, if id % 10 < 5 { "delay 0ms" } else { "delay 1ms" })).unwrap();
        let done = tokio::time::timeout(SOON, lane.receiver.receive()).await.unwrap().unwrap();
        assert!(done.id == id && done.outcome.is_ok(), "{done:?}");
    }
}

/// A model that echoes bytes, and large inputs for it.
async fn echo(region: ByteSize) -> Runner {
    let model = ModelDirectory::onnx(&onnx_model::identity(DataType::Uint8, &[Dim::Any]));
    start(RunnerSpec { shared_memory: region, ..spec(&model) }).await
}

fn bytes(name: &str, size: usize) -> Tensor {
    let data: Vec<u8> = (0..size).map(|i| (i * 31 % 251) as u8).collect();
    tensor(name, DataType::Uint8, &[size as u64], data)
}

#[tokio::test]
async fn every_size_comes_through_whatever_the_region_holds() {
    for region in [ByteSize(0), ByteSize::mib(1), ByteSize::mib(64)] {
        let runner = echo(region).await;
        let mut held = Vec::new();
        // Around every threshold; the second time the size of the output is known.
        for size in [0, 1, 16 << 10, (16 << 10) + 1, 64 << 10, (64 << 10) + 1, 300_000, 2 << 20, 5_000_001] {
            for _ in 0..2 {
                let got = runner.infer(vec![bytes("x", size)], vec![], SOON).await.unwrap();
                assert_eq!(got, vec![bytes("y", size)], "{size} with {region}");
                held.extend(got);
            }
        }
        drop(runner);
        assert!(held.iter().all(|tensor| *tensor == bytes("y", tensor.data().len())), "answers outlive their runner");
    }
}

#[tokio::test]
async fn memory_comes_back_after_large_batches() {
    let runner = echo(ByteSize::mib(128)).await;
    for _ in 0..3 {
        drop(runner.infer(vec![bytes("x", 24 << 20)], vec![], SOON).await.unwrap());
    }
    assert!(runner.shared_memory() >= ByteSize::mib(24), "{}", runner.shared_memory());
    eventually("the memory is back", || runner.shared_memory() <= ByteSize::mib(4)).await;
    assert!(runner.infer(vec![bytes("x", 24 << 20)], vec![], SOON).await.is_ok());
}

#[tokio::test]
async fn scribbling_over_the_region_changes_numbers_and_nothing_else() {
    let toml = "[[inputs]]\nname = 'x'\ndatatype = 'UINT8'\nshape = [-1]\n[[inputs]]\nname = 't'\ndatatype = 'BYTES'\nshape = [-1]\n";
    let runner = start(spec(&ModelDirectory::villain(toml))).await;
    let mut lane = runner.take_lanes().remove(0);
    let texts: Vec<u8> = [4u32.to_le_bytes(), *b"abcd"].concat().repeat(20_000);
    let inputs = |deeds: &[&str]| vec![bytes("x", 200_000), tensor("t", DataType::Bytes, &[20_000], texts.clone()), commands(deeds)];
    for round in 0..50 {
        let deeds: &[&str] = if round < 3 { &["scribble"] } else { &[] };
        if lane.sender.send(one(round, inputs(deeds), &["x", "t"])).is_err() {
            break;
        }
        let Some(done) = lane.receiver.receive().await else { break };
        // The villain may have spoilt its own inputs before it looked at them; then it is the villain that says so.
        if let Ok(parts) = done.outcome {
            assert_eq!((parts[0][0].shape().dims(), parts[0][1].byte_elements().count()), (&[200_000][..], 20_000));
        }
    }
    let other = echo(ByteSize::mib(8)).await;
    let got = other.infer(vec![bytes("x", 300_000)], vec![], SOON).await.unwrap();
    assert_eq!(got, vec![bytes("y", 300_000)], "the neighbour has not noticed");
}

/// Names and nice values of a process's threads.
fn threads(pid: u32) -> Vec<(String, i32)> {
    let Ok(tasks) = std::fs::read_dir(format!("/proc/{pid}/task")) else { return Vec::new() };
    let read = |path: std::path::PathBuf| {
        let stat = std::fs::read_to_string(path.join("stat")).ok()?;
        let (name, rest) = (stat.split_once('(')?.1.rsplit_once(')')?.0.to_owned(), stat.rsplit_once(')')?.1.to_owned());
        Some((name, rest.split_whitespace().nth(16)?.parse().ok()?))
    };
    tasks.flatten().filter_map(|task| read(task.path())).collect()
}

#[tokio::test]
async fn loading_steps_back_and_executing_does_not() {
    let mine = threads(std::process::id())[0].1;
    let model = ModelDirectory::onnx(&onnx_model::offset(1.0));
    let runner = start(RunnerSpec { threads: 2, ..with_instances(&model, 2) }).await;
    let of = |pid: u32, name: &str| threads(pid).into_iter().filter(|(n, _)| n == name).map(|(_, nice)| nice).collect::<Vec<_>>();
    // A thread takes its name itself, a moment after it was made.
    eventually("two executors and one thread of the pool are at the usual priority", || of(runner.pid(), "compute") == vec![mine; 3]).await;

    let children = || -> Vec<u32> {
        let tasks = std::fs::read_dir("/proc/self/task").unwrap().flatten();
        let lists = tasks.map(|t| std::fs::read_to_string(t.path().join("children")).unwrap_or_default());
        lists.flat_map(|l| l.split_whitespace().map(|pid| pid.parse().unwrap()).collect::<Vec<_>>()).collect()
    };
    let slow = ModelDirectory::villain("load_hang = true");
    let loading = try_start(spec(&slow));
    let seen = eventually("the loading thread has stepped back", || {
        children().into_iter().filter(|pid| *pid != runner.pid()).any(|pid| of(pid, "load") == [19])
    });
    tokio::select! {
        _ = loading => panic!("it hangs"),
        () = seen => {}
    }
}

#[tokio::test]
async fn a_gpu_that_is_not_there_is_said_clearly() {
    if std::path::Path::new("/dev/nvidiactl").exists() {
        return;
    }
    let model = ModelDirectory::onnx(&onnx_model::offset(1.0));
    for (provider, name) in [(Provider::Cuda { device: 0 }, "CUDA"), (Provider::TensorRt { device: 1 }, "TensorRT")] {
        let error = try_start(RunnerSpec { provider, ..spec(&model) }).await.unwrap_err();
        let RunnerError::Load(text) = &error else { panic!("{error:?}") };
        assert!(text.contains(name) && text.contains("engine.provider") && !text.contains("/home"), "{text}");
    }
}
