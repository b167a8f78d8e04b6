//! How long is one request through a runner, channel and process switch included?
//!
//! Unit: microseconds, p50 and p99, of an identity model over 1 KiB, 64 KiB and 1 MiB, one caller, closed loop; beside it
//! a villain that echoes, which is the channel without ONNX Runtime, and the same session called in this process.
//! Command: `cargo run --release -p plinth-engine --features testing --example round_trip`.
#![allow(clippy::print_stdout, clippy::unwrap_used, reason = "a program for people that stops at the first surprise")]

use std::process::ExitCode;
use std::time::Duration;

use plinth_engine::backend::onnx::Onnx;
use plinth_engine::testing::{ModelDirectory, onnx_library, onnx_model, tensor};
use plinth_engine::{Backend, LoadRequest, RUNNER_COMMAND, Runner};
use plinth_runtime::{Clock, SystemClock, TaskGroup, World};
use plinth_types::{DataType, Dim};

const ROUNDS: usize = 5000;
const SIZES: [u64; 3] = [1 << 10, 64 << 10, 1 << 20];

fn main() -> ExitCode {
    if std::env::args().nth(1).as_deref() == Some(RUNNER_COMMAND) {
        return plinth_engine::runner_main();
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let identity = onnx_model::identity(DataType::Uint8, &[Dim::Any]);
    let villain = "[[inputs]]\nname = 'x'\ndatatype = 'UINT8'\nshape = [-1]\n";
    runtime.block_on(measure("onnx", &ModelDirectory::onnx(&identity), "y"));
    runtime.block_on(measure("villain", &ModelDirectory::villain(villain), "x"));
    in_this_process(&identity);
    ExitCode::SUCCESS
}

async fn measure(name: &str, model: &ModelDirectory, output: &str) {
    let group = TaskGroup::new("round trip");
    let begun = SystemClock.monotonic();
    let runner = Runner::start(model.spec(std::env::current_exe().unwrap()), &World::real(), &group).await.unwrap();
    println!("{name}: loaded in {} ms; sandbox {:?}", (SystemClock.monotonic() - begun).as_millis(), runner.sandbox());
    for size in SIZES {
        let input = tensor("x", DataType::Uint8, &[size], vec![7; usize::try_from(size).unwrap()]);
        let mut times = Vec::with_capacity(ROUNDS);
        for _ in 0..ROUNDS {
            let begun = SystemClock.monotonic();
            runner.infer(vec![input.clone()], vec![output.to_owned()], Duration::from_secs(5)).await.unwrap();
            times.push(SystemClock.monotonic() - begun);
        }
        report(name, size, times);
    }
    runner.stop(Duration::from_secs(1)).await;
}

fn in_this_process(model: &[u8]) {
    let files = [("model.onnx".parse().unwrap(), model.to_vec().into())].into();
    let mut model = Onnx::load(onnx_library(), &LoadRequest { files, threads: 1 }).unwrap();
    for size in SIZES {
        let input = tensor("x", DataType::Uint8, &[size], vec![7; usize::try_from(size).unwrap()]);
        let mut times = Vec::with_capacity(ROUNDS);
        for _ in 0..ROUNDS {
            let begun = SystemClock.monotonic();
            model.execute(vec![input.clone()], &["y".to_owned()]).unwrap();
            times.push(SystemClock.monotonic() - begun);
        }
        report("in this process", size, times);
    }
}

fn report(name: &str, size: u64, mut times: Vec<Duration>) {
    times.sort();
    let at = |share: usize| times[times.len() * share / 100].as_nanos() as f64 / 1000.0;
    println!("{name}: {size} bytes: p50 {:.1} us, p99 {:.1} us", at(50), at(99));
}
