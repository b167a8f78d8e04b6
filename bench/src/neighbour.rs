//! Does a model that is being loaded slow down one that is loaded already?
//!
//! Digits under a moderate load on a fixed schedule (open loop), in windows: quiet, and while a model of 500 MB is unloaded
//! and loaded again without pause, in the order A B B A, several times.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Instant;

use anyhow::{Result, ensure};
use plinth_engine::testing::onnx_model::ModelBuilder;
use plinth_types::{DataType, Dim};
use serde_json::json;

use crate::Shape;
use crate::body;
use crate::exchange::{Connection, Target};
use crate::line::{Line, Verdict};
use crate::load::{self, Report, Traffic};
use crate::plinth::{self, Home, Node};
use crate::setup::{Part, Setup};

const GOAL: f64 = 1.1;
/// 125,000 rows of 1,000 floats: 500 MB.
const ROWS: i64 = 125_000;
const COLUMNS: i64 = 1_000;
const CONNECTIONS: usize = 16;

/// A table of random bits in which a row is looked up: it costs much to load and nothing to run.
fn large() -> Vec<u8> {
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    let mut bytes = Vec::with_capacity((ROWS * COLUMNS * 4) as usize);
    while bytes.len() < bytes.capacity() {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        bytes.extend_from_slice(&random.to_le_bytes());
    }
    ModelBuilder::new()
        .input("row", DataType::Int64, &[Dim::Any])
        .output("y", DataType::Fp32, &[Dim::Any, Dim::Fixed(COLUMNS as u64)])
        .weights("table", DataType::Fp32, &[ROWS, COLUMNS], bytes)
        .node("Gather", &["table", "row"], &["y"])
        .build()
}

/// Unloads and loads the large model until told to stop; the times of the loads in seconds.
async fn churn(change: [Target; 2], stop: Arc<AtomicBool>, loads: Arc<AtomicUsize>) -> Result<Vec<f64>> {
    let mut connection = Connection::open(&change[0].address).await?;
    let mut times = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        for (number, target) in change.iter().enumerate() {
            let start = Instant::now();
            let answer = connection.exchange(target).await?;
            ensure!(answer.status == 200, "a load was answered with {}: {}", answer.status, String::from_utf8_lossy(answer.body));
            if number == 1 {
                times.push(start.elapsed().as_secs_f64());
                loads.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
    Ok(times)
}

fn changes(node: &Node) -> Result<[Target; 2]> {
    let change = |verb| Target::post(&format!("{}/v2/repository/models/large/{verb}", node.http), b"", None, Some(&node.key));
    Ok([change("unload")?, change("load")?])
}

/// Measures and writes `neighbour`.
pub async fn measure(setup: &Setup, seconds: f64, rounds: usize, rate: f64) -> Result<Verdict> {
    let directory = tempfile::tempdir()?;
    let (digits, large_at) = (directory.path().join("digits"), directory.path().join("large"));
    plinth::digits(setup, "2", "digits", &digits)?;
    std::fs::create_dir_all(&large_at)?;
    std::fs::write(large_at.join("model.onnx"), large())?;
    let mut home = Home::new(setup)?;
    let node = home.start()?;
    node.push("digits", &digits, true)?;
    node.push("large", &large_at, true)?;
    let body = body::binary("image", &[1, 64]);
    let traffic = Traffic::http(&Target::post(&node.infer_url("digits"), &body.bytes, body.header_length, Some(&node.key))?);
    let shape = |seconds| Shape { connections: CONNECTIONS, seconds, rate: Some(rate) };
    load::run(&traffic, shape(1.0_f64.min(seconds))).await?;

    let (mut quiet, mut loading) = (None, None);
    let mut times = Vec::new();
    let loads = Arc::new(AtomicUsize::new(0));
    for _ in 0..rounds {
        for busy in [false, true, true, false] {
            let window = shape(seconds);
            if !busy {
                add(&mut quiet, load::run(&traffic, window).await?)?;
                continue;
            }
            let stop = Arc::new(AtomicBool::new(false));
            let work = tokio::task::spawn(churn(changes(&node)?, stop.clone(), loads.clone()));
            let report = load::run(&traffic, window).await;
            stop.store(true, Ordering::Relaxed);
            times.extend(work.await??);
            add(&mut loading, report?)?;
            // What the last unload left is given back before the next window.
            tokio::time::sleep(std::time::Duration::from_millis(500)).await;
        }
    }
    let (Some(quiet), Some(loading)) = (quiet, loading) else { anyhow::bail!("nothing was measured") };
    let what = "p99 of digits while a model of 500 MB is loaded again and again, over p99 without";
    let errors = quiet.errors + loading.errors;
    let good = errors == 0 && !times.is_empty();
    let why = format!("{errors} requests failed, {} loads ended", times.len());
    let lines = [Line::at_most(what, GOAL, good.then_some(loading.p99_us / quiet.p99_us), &why)];
    let load_s = times.iter().sum::<f64>() / times.len().max(1) as f64;
    let row = |name: &str, r: &Report| {
        format!("| {name} | {} | {:.0} | {:.0} | {:.0} | {:.0} | {} |\n", r.requests, r.per_second, r.p50_us, r.p99_us, r.max_us, r.errors)
    };
    let text = format!(
        "| window | requests | requests/s | p50 µs | p99 µs | max µs | errors |\n|---|---:|---:|---:|---:|---:|---:|\n{}{}\n{} loads in the windows, {load_s:.2} s each.\n",
        row("quiet", &quiet),
        row("loading", &loading),
        times.len()
    );
    setup.finish(&Part {
        name: "neighbour",
        title: "A loaded model while another is loaded",
        how: &format!("{} windows of {seconds:.1} s on each side, {rate:.0} requests/s on a fixed schedule (open loop)", rounds * 2),
        about: "Digits, binary HTTP, 16 connections. In every second pair of windows a model of 500 MB (one table of random bits) is unloaded and loaded without pause through the repository extension. Times \
                count from when a request was due. Also at SCHED_IDLE, with which the kernel gives the processor at once to a request that wakes up, on the virtual machine of these figures the switch \
                comes 1.7 to 3.6 ms late while the load touches fresh pages: the guest clears them and the host has to find them, because free memory is reported to the host, and meanwhile the virtual processor \
                takes no interrupt. A thread that copies within memory it already has delays a neighbour at the 99th percentile by 0.15 ms.",
        lines: &lines,
        text: &text,
        figures: json!({ "quiet": quiet, "loading": loading, "loads": times }),
    })
}

fn add(sum: &mut Option<Report>, report: Report) -> Result<()> {
    *sum = Some(match sum.take() {
        Some(before) => before.merge(&report)?,
        None => report,
    });
    Ok(())
}
