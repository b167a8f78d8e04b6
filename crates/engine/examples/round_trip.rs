//! What does isolation cost: a model in a process of its own, against the same model called in this process?
//!
//! Units: microseconds, p50 and p99, of one request at a time (closed loop); requests per second with two outstanding
//! against a thread of this process that calls the model without end, both from the median time between two answers, which
//! what else runs on the machine disturbs least. Sizes: 1 KiB, 64 KiB, 1 MiB and 16 MiB of an identity model, which computes
//! nothing and so shows the channel alone; and `dense`, some matrix products over 1 and 32 rows, which computes as long as
//! small real models do. Rounds of the two sides alternate, so that the machine's moods hit both.
//! Command: `cargo run --release -p plinth-engine --features testing --example round_trip`.
#![allow(clippy::print_stdout, clippy::unwrap_used, reason = "a program for people that stops at the first surprise")]

use std::process::ExitCode;
use std::time::Duration;

use plinth_engine::backend::onnx::Onnx;
use plinth_engine::testing::{ModelDirectory, onnx_library, onnx_model, tensor};
use plinth_engine::{Backend, Batch, Lane, LoadRequest, Part, Provider, RUNNER_COMMAND, Runner, RunnerSpec};
use plinth_runtime::{Clock, OnEnd, SystemClock, TaskGroup, World};
use plinth_types::{DataType, Dim, Tensor};

const SIZES: [u64; 4] = [1 << 10, 64 << 10, 1 << 20, 16 << 20];
const DEADLINE: Duration = Duration::from_secs(5);

fn main() -> ExitCode {
    if std::env::args().nth(1).as_deref() == Some(RUNNER_COMMAND) {
        return plinth_engine::runner_main();
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let group = TaskGroup::new("round trip");
    // In a task, as the node does it: not on the thread that waits for the whole.
    runtime.block_on(async {
        let tasks = group.clone();
        group.spawn("measure", OnEnd::Ignore, async move { compare(&tasks).await });
        group.wait(Duration::from_secs(600)).await;
    });
    ExitCode::SUCCESS
}

struct Side {
    name: &'static str,
    model: Vec<u8>,
    inputs: Vec<(String, Tensor)>,
}

fn sides() -> Vec<Side> {
    let identity = onnx_model::identity(DataType::Uint8, &[Dim::Any]);
    let bytes = |size: u64| tensor("x", DataType::Uint8, &[size], vec![7; usize::try_from(size).unwrap()]);
    let sizes = SIZES.iter().map(|size| (format!("{:>5} KiB", size >> 10), bytes(*size))).collect();
    let rows = |rows: usize| tensor("x", DataType::Fp32, &[rows as u64, DENSE as u64], vec![0; rows * DENSE * 4]);
    let inputs = [1, 32].map(|n| (format!("{n:>5} rows"), rows(n))).into();
    vec![Side { name: "identity", model: identity, inputs: sizes }, Side { name: "dense", model: dense(), inputs }]
}

const DENSE: usize = 512;

/// Four products with a square matrix.
fn dense() -> Vec<u8> {
    let row = [Dim::Any, Dim::Fixed(DENSE as u64)];
    let side = i64::try_from(DENSE).unwrap();
    let weights = || (0..DENSE * DENSE).flat_map(|i| ((i % 7) as f32 * 1e-4).to_le_bytes()).collect::<Vec<u8>>();
    let mut model = onnx_model::ModelBuilder::new().input("x", DataType::Fp32, &row).output("y", DataType::Fp32, &row);
    for layer in 0..4 {
        let (from, to) = (format!("h{layer}"), format!("h{}", layer + 1));
        let from = if layer == 0 { "x" } else { &from };
        let to = if layer == 3 { "y" } else { &to };
        model = model.weights(&format!("w{layer}"), DataType::Fp32, &[side, side], weights());
        model = model.node("MatMul", &[from, &format!("w{layer}")], &[to]);
    }
    model.build()
}

async fn compare(group: &TaskGroup) {
    let only = std::env::args().nth(1);
    for side in sides().into_iter().filter(|side| only.as_deref().is_none_or(|only| only == side.name)) {
        let here = in_this_process(&side.model);
        let directory = ModelDirectory::onnx(&side.model);
        let spec = RunnerSpec { shared_memory: plinth_types::ByteSize::mib(256), ..directory.spec(std::env::current_exe().unwrap()) };
        let runner = Runner::start(spec, &World::real(), group).await.unwrap();
        let mut lane = runner.take_lanes().remove(0);
        for (size, input) in &side.inputs {
            let rounds = if input.data().len() > 1 << 20 { 40 } else { 500 };
            let (mut direct, mut isolated, mut inside) = (Vec::new(), Vec::new(), Vec::new());
            for _ in 0..10 {
                for _ in 0..rounds {
                    direct.push(timed(|| drop(here.execute(vec![input.clone()], &["y".to_owned()]).unwrap())));
                }
                for _ in 0..rounds {
                    let begun = SystemClock.monotonic();
                    lane.sender.send(batch(input)).unwrap();
                    let done = lane.receiver.receive().await.unwrap();
                    isolated.push(SystemClock.monotonic() - begun);
                    inside.push(done.timing.infer);
                    drop(done.outcome.unwrap());
                }
            }
            let (d, i, m) = (Percentiles::of(direct), Percentiles::of(isolated), Percentiles::of(inside));
            println!(
                "  {} {size}: here p50 {:.1} p99 {:.1} us; isolated p50 {:.1} p99 {:.1} us, the model's own part {:.1} us; added at p50 {:.1} us",
                side.name,
                d.p50,
                d.p99,
                i.p50,
                i.p99,
                m.p50,
                i.p50 - d.p50
            );
            let (direct, isolated) = saturate(&*here, &mut lane, input, rounds).await;
            println!(
                "  {} {size}: here {direct:.0}/s, isolated with two outstanding {isolated:.0}/s: ratio {:.2}",
                side.name,
                isolated / direct
            );
        }
        runner.stop(Duration::from_secs(1)).await;
    }
}

fn batch(input: &Tensor) -> Batch {
    Batch {
        id: 0,
        parts: vec![Part { inputs: vec![input.clone()], outputs: vec!["y".to_owned()], trace: None }],
        batched: false,
        deadline: DEADLINE,
    }
}

fn in_this_process(model: &[u8]) -> Box<dyn Backend> {
    let files = [("model.onnx".parse().unwrap(), model.to_vec().into())].into();
    let request = LoadRequest { files, threads: 1, provider: Provider::Cpu, spawner: None };
    Box::new(Onnx::load(onnx_library(), &request).unwrap())
}

fn timed(work: impl FnOnce()) -> Duration {
    let begun = SystemClock.monotonic();
    work();
    SystemClock.monotonic() - begun
}

/// Requests per second: called without end here, and through a lane that always has two.
async fn saturate(here: &dyn Backend, lane: &mut Lane, input: &Tensor, rounds: usize) -> (f64, f64) {
    let (mut direct, mut isolated) = (Vec::new(), Vec::new());
    for _ in 0..10 {
        for _ in 0..rounds {
            direct.push(timed(|| drop(here.execute(vec![input.clone()], &["y".to_owned()]).unwrap())));
        }
        lane.sender.send(batch(input)).unwrap();
        let mut last = SystemClock.monotonic();
        for _ in 0..rounds {
            lane.sender.send(batch(input)).unwrap();
            drop(lane.receiver.receive().await.unwrap());
            let now = SystemClock.monotonic();
            isolated.push(now - last);
            last = now;
        }
        drop(lane.receiver.receive().await.unwrap());
    }
    let rate = |times: Vec<Duration>| 1e6 / Percentiles::of(times).p50;
    (rate(direct), rate(isolated))
}

struct Percentiles {
    p50: f64,
    p99: f64,
}

impl Percentiles {
    fn of(mut times: Vec<Duration>) -> Self {
        times.sort();
        let at = |share: usize| times[times.len() * share / 100].as_nanos() as f64 / 1000.0;
        Self { p50: at(50), p99: at(99) }
    }
}
