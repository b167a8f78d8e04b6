//! Does Plinth keep the processor as busy with a convolutional net as ONNX Runtime alone does, and how late are its answers
//! when it is not full?
//!
//! The net's width is chosen at run time so that one picture takes about 0.7 ms on one thread of this machine. Raw: a loop
//! in a process of its own that calls ONNX Runtime and does nothing else, at its best over sessions, threads and batch
//! sizes, with all cores. Plinth: single pictures over binary HTTP, at its best over instances and connections; beside it
//! the load generator takes a part of the same cores. That part is measured (its own processor time) and both ratios are
//! shown: as it is, and with the raw rate scaled to the cores that the generator left.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use ort::value::TensorRef;
use plinth_engine::testing::onnx_model::ModelBuilder;
use plinth_types::{DataType, Dim};
use serde::Serialize;
use serde_json::json;

use crate::Shape;
use crate::bare;
use crate::body;
use crate::exchange::Target;
use crate::line::{Line, Verdict};
use crate::load::{self, Traffic};
use crate::plinth::{self, Home, Model};
use crate::process;
use crate::setup::{Part, Setup};

const PICTURE: [usize; 4] = [1, 3, 32, 32];
const TARGET_MS: f64 = 0.7;
const LAYERS: usize = 4;
const CLASSES: usize = 10;
/// In which lateness is measured.
const WINDOWS: usize = 3;

/// Four convolutions of 3 × 3 without padding, each followed by ReLU; the mean of each channel; a linear layer.
fn net(width: usize) -> Vec<u8> {
    let weights = |count: usize| (0..count).flat_map(|i| ((i * 7 % 13) as f32 * 0.01 - 0.06).to_le_bytes()).collect::<Vec<u8>>();
    let (any, side) = (Dim::Any, width as i64);
    let mut model = ModelBuilder::new().input("x", DataType::Fp32, &[any, Dim::Fixed(3), Dim::Fixed(32), Dim::Fixed(32)]).output(
        "y",
        DataType::Fp32,
        &[any, Dim::Fixed(CLASSES as u64)],
    );
    let mut from = "x".to_owned();
    for layer in 0..LAYERS {
        let inputs = if layer == 0 { 3 } else { width };
        let (w, c, r) = (format!("w{layer}"), format!("c{layer}"), format!("r{layer}"));
        model = model.weights(&w, DataType::Fp32, &[side, inputs as i64, 3, 3], weights(width * inputs * 9));
        model = model.node("Conv", &[&from, &w], &[&c]).node("Relu", &[&c], &[&r]);
        from = r;
    }
    model
        .weights("w", DataType::Fp32, &[side, CLASSES as i64], weights(width * CLASSES))
        .node("GlobalAveragePool", &[&from], &["mean"])
        .node("Flatten", &["mean"], &["flat"])
        .node("MatMul", &["flat", "w"], &["y"])
        .build()
}

/// How raw ONNX Runtime is run.
#[derive(clap::Args, Clone, Copy, Debug, Serialize)]
pub struct Raw {
    /// Sessions, each called by a thread of its own.
    #[arg(long, default_value_t = 1)]
    sessions: usize,
    /// Threads inside each session.
    #[arg(long, default_value_t = 1)]
    threads: usize,
    /// Pictures in each call.
    #[arg(long, default_value_t = 1)]
    batch: usize,
    /// How long to measure.
    #[arg(long, default_value_t = 1.0)]
    seconds: f64,
}

/// Calls the model without end in this process and returns pictures per second.
pub fn raw(model: &Path, library: &Path, how: Raw) -> Result<f64> {
    let environment = bare::open(library)?;
    let onnx = std::fs::read(model)?;
    let shape = [how.batch as i64, 3, 32, 32];
    let data = vec![0.5_f32; how.batch * 3 * 32 * 32];
    let mut sessions = Vec::new();
    for _ in 0..how.sessions {
        sessions.push(bare::build(&environment, &onnx, how.threads).map_err(|error| anyhow::anyhow!("the net cannot be loaded: {error}"))?);
    }
    for session in &mut sessions {
        session.run(ort::inputs!["x" => TensorRef::from_array_view((shape, &data[..]))?])?;
    }
    let start = Instant::now();
    let end = start + Duration::from_secs_f64(how.seconds);
    let calls: Result<Vec<usize>> = std::thread::scope(|scope| {
        let work = sessions.iter_mut().map(|session| {
            let data = &data;
            scope.spawn(move || -> Result<usize> {
                let mut calls = 0;
                while Instant::now() < end {
                    session.run(ort::inputs!["x" => TensorRef::from_array_view((shape, &data[..]))?])?;
                    calls += 1;
                }
                Ok(calls)
            })
        });
        let work: Vec<_> = work.collect();
        work.into_iter().map(|thread| thread.join().map_err(|_| anyhow::anyhow!("a thread failed"))?).collect()
    });
    Ok((calls?.iter().sum::<usize>() * how.batch) as f64 / start.elapsed().as_secs_f64())
}

/// The same in a process of its own.
fn raw_apart(setup: &Setup, model: &Path, how: Raw) -> Result<f64> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("raw").arg(model).arg("--onnxruntime").arg(&setup.onnxruntime);
    for (flag, value) in [("--sessions", how.sessions), ("--threads", how.threads), ("--batch", how.batch)] {
        command.arg(flag).arg(value.to_string());
    }
    let output = command.arg("--seconds").arg(how.seconds.to_string()).output()?;
    ensure!(output.status.success(), "raw ONNX Runtime: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout)?.trim().parse().context("raw ONNX Runtime printed no rate")
}

/// The width whose time for a picture is nearest to the target; its time in milliseconds.
fn calibrate(setup: &Setup, file: &Path) -> Result<(usize, f64)> {
    let mut best: Option<(usize, f64)> = None;
    for width in (8..=128).step_by(8) {
        std::fs::write(file, net(width))?;
        let ms = 1000.0 / raw_apart(setup, file, Raw { sessions: 1, threads: 1, batch: 1, seconds: 0.2 })?;
        let distance = |ms: f64| (ms / TARGET_MS).ln().abs();
        if best.is_none_or(|(_, before)| distance(ms) < distance(before)) {
            best = Some((width, ms));
        }
        if ms > TARGET_MS * 1.5 {
            break;
        }
    }
    let (width, ms) = best.context("no width was tried")?;
    std::fs::write(file, net(width))?;
    Ok((width, ms))
}

/// All cores, shared out between sessions and their threads; and every sensible size of a batch.
fn settings(seconds: f64) -> Vec<Raw> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let mut shares: Vec<(usize, usize)> =
        (1..=cores).filter(|sessions| cores.is_multiple_of(*sessions)).map(|sessions| (sessions, cores / sessions)).collect();
    shares.push((1, 1));
    shares.dedup();
    let batches = [1, 2, 4, 8, 16, 32];
    shares.iter().flat_map(|&(sessions, threads)| batches.map(|batch| Raw { sessions, threads, batch, seconds })).collect()
}

/// How late answers are at 80 % of the best rate: here, and in turn with that of a server without features, at 80 % of its own best.
async fn tails(setup: &Setup, net: &Path, ours: &Arc<Traffic>, best: f64, seconds: f64) -> Result<(Vec<load::Report>, Vec<load::Report>)> {
    let bare = bare::Bare::start(net, &setup.onnxruntime)?;
    let body = body::binary("x", &PICTURE);
    let theirs = Traffic::http(&Target::post(&bare.url(), &body.bytes, body.header_length, None)?);
    let mut most = 0.0_f64;
    for connections in [4, 16, 64] {
        most = most.max(load::run(&theirs, Shape { connections, seconds: seconds / 6.0, rate: None }).await?.per_second);
    }
    let at = |rate: f64| Shape { connections: 64, seconds: seconds / 2.0, rate: Some(rate * 0.8) };
    let (mut late, mut late_bare) = (Vec::new(), Vec::new());
    for _ in 0..WINDOWS {
        late.push(load::run(ours, at(best)).await?);
        late_bare.push(load::run(&theirs, at(most)).await?);
    }
    Ok((late, late_bare))
}

/// The p99 over the p50 of the window that is neither the best nor the worst.
fn middle_tail(windows: &[load::Report]) -> Option<f64> {
    let mut tails: Vec<f64> = windows.iter().filter(|window| window.requests > 0).map(|window| window.p99_us / window.p50_us).collect();
    tails.sort_by(f64::total_cmp);
    tails.get(tails.len() / 2).copied()
}

/// Measures and writes `conv`.
pub async fn measure(setup: &Setup, seconds: f64) -> Result<Verdict> {
    let directory = tempfile::tempdir()?;
    let file = directory.path().join("net.onnx");
    let (width, ms) = calibrate(setup, &file)?;
    let onnx = std::fs::read(&file)?;
    let look = (seconds / 6.0).min(0.3);

    let mut tried = Vec::new();
    for how in settings(look) {
        tried.push((how, raw_apart(setup, &file, how)?));
    }
    let (best_raw, _) = tried.iter().max_by(|a, b| a.1.total_cmp(&b.1)).context("raw was not measured")?;
    let best_raw = Raw { seconds: seconds / 2.0, ..*best_raw };

    let mut home = Home::new(setup)?;
    let node = home.start()?;
    let body = body::binary("x", &PICTURE);
    let mut variants = Vec::new();
    for instances in [1, 2] {
        let name = format!("conv_{instances}");
        let model = Model { name: &name, onnx: &onnx, max_batch: 32, input: ("x", &PICTURE[1..]), outputs: &[("y", "FP32", &[CLASSES])] };
        let rest = format!("dynamic_batching {{ }}\ninstance_group [ {{ count: {instances} kind: KIND_CPU }} ]");
        plinth::batched(&model, &rest, &directory.path().join(&name))?;
        node.push(&name, &directory.path().join(&name), true)?;
        let traffic = Traffic::http(&Target::post(&node.infer_url(&name), &body.bytes, body.header_length, Some(&node.key))?);
        for connections in [4, 16, 64] {
            // The first time warms the model up and lets the scheduler learn.
            for _ in 0..2 {
                let report = load::run(&traffic, Shape { connections, seconds: look, rate: None }).await?;
                ensure!(report.errors == 0, "{} requests failed", report.errors);
                variants.push((instances, connections, report.per_second, traffic.clone()));
            }
        }
    }
    let (instances, connections, _, traffic) = variants.iter().max_by(|a, b| a.2.total_cmp(&b.2)).context("Plinth was not measured")?;

    let shape = Shape { connections: *connections, seconds: seconds / 2.0, rate: None };
    let raw_1 = raw_apart(setup, &file, best_raw)?;
    let (cpu, start) = (process::own_cpu_seconds()?, Instant::now());
    let (first, second) = (load::run(traffic, shape).await?, load::run(traffic, shape).await?);
    let cores = std::thread::available_parallelism().map_or(1, usize::from) as f64;
    let generator = (process::own_cpu_seconds()? - cpu) / (start.elapsed().as_secs_f64() * cores);
    let raw_2 = raw_apart(setup, &file, best_raw)?;
    let (raw, ours) = (f64::midpoint(raw_1, raw_2), first.merge(&second)?);
    let (late, late_bare) = tails(setup, &file, traffic, ours.per_second, seconds).await?;

    let good = ours.errors == 0;
    let late_errors: u64 = late.iter().map(|report| report.errors).sum();
    let why = format!("{} and {late_errors} requests failed", ours.errors);
    let (plain, fair) = (ours.per_second / raw, ours.per_second / (raw * (1.0 - generator)));
    let tail = (late_errors == 0).then(|| middle_tail(&late)).flatten();
    let lines = [
        Line::at_least(
            "best throughput over raw ONNX Runtime's, on the cores that the load generator left",
            0.95,
            good.then_some(fair),
            &why,
        ),
        Line::plain("the same without that correction", format!("{plain:.2} ×")),
        Line::at_most(
            "p99 over p50 at 80 % of the best throughput, constant rate, open loop, the middle of three windows",
            2.0,
            tail,
            &why,
        ),
        Line::plain(
            "the same for the bare server at 80 % of its own best",
            middle_tail(&late_bare).map_or_else(|| "none".to_owned(), |tail| format!("{tail:.2} ×")),
        ),
    ];
    let windows = |reports: &[load::Report]| {
        let each = reports.iter().map(|r| format!("{:.0}/s: p50 {:.0} µs, p99 {:.0} µs", r.per_second, r.p50_us, r.p99_us));
        each.collect::<Vec<_>>().join("; ")
    };
    let text = format!(
        "| what | figure |\n|---|---|\n| the net | 4 convolutions, {width} channels, 3 × 32 × 32 floats in; {ms:.2} ms for one picture on one thread |\n\
         | raw ONNX Runtime at its best | {raw:.0} pictures/s ({} sessions × {} threads, batches of {}) |\n\
         | Plinth at its best | {:.0} pictures/s ({instances} instances, {connections} connections) |\n\
         | the load generator's share of the processor meanwhile | {:.1} % |\n\
         | at 80 %: {:.0} requests/s, three windows | {} |\n\
         | the bare server at 80 % of its best, in between | {} |\n",
        best_raw.sessions,
        best_raw.threads,
        best_raw.batch,
        ours.per_second,
        generator * 100.0,
        ours.per_second * 0.8,
        windows(&late),
        windows(&late_bare)
    );
    setup.finish(&Part {
        name: "conv",
        title: "A convolutional net of about 0.7 ms",
        how: &format!("{seconds:.1} s for each, raw before and after"),
        about: "Raw: ONNX Runtime called in a loop, at its best over sessions, threads and batch sizes, with all cores. Plinth: single pictures over binary HTTP from the load generator on the same cores; what \
                the generator takes of them (its own processor time) is not Plinth's to use, so the raw rate is scaled by what is left, and the figure without that stands beside it. The kernel's work for \
                the connections counts on both sides' account as it fell. Lateness at 80 % counts from when a request was due, at a constant rate: with random arrivals two servers at 80 % have a tail of \
                more than twice the median by queueing alone.",
        lines: &lines,
        text: &text,
        figures: json!({ "width": width, "one_picture_ms": ms, "raw": tried.iter().map(|(how, rate)| json!({ "how": how, "per_second": rate })).collect::<Vec<_>>(),
                         "raw_best_per_second": raw, "plinth": ours, "generator_share": generator, "at_80_percent": late, "bare_at_80_percent": late_bare }),
    })
}
