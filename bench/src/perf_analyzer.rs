//! Does NVIDIA's own load generator run against Plinth to its end, over HTTP and gRPC, with and without shared memory?
//!
//! Its figures are kept, but not compared: it takes more of the cores than our own generator. The question is whether it
//! meets an error.

use std::fmt::Write as _;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::line::{Line, Verdict};
use crate::plinth::{self, Home, Node};
use crate::rivals::place;
use crate::setup::{Part, Setup};

/// How long one sweep may take.
const PATIENCE: Duration = Duration::from_secs(180);

const SWEEPS: [(&str, &str, bool); 4] = [
    ("HTTP", "http", false),
    ("gRPC", "grpc", false),
    ("HTTP, system shared memory", "http", true),
    ("gRPC, system shared memory", "grpc", true),
];

/// Measures and writes `perf_analyzer`.
pub async fn measure(setup: &Setup, range: (usize, usize), window_ms: u32) -> Result<Verdict> {
    let place = place(setup, "perf_analyzer")?;
    let directory = tempfile::tempdir()?;
    let model = directory.path().join("digits");
    plinth::digits(setup, "2", "digits", &model)?;
    let mut home = Home::with(setup, &[("shared_memory.enabled", "true")])?;
    let node = home.start()?;
    node.push("digits", &model, true)?;
    let (mut lines, mut text, mut figures) = (Vec::new(), String::new(), Vec::new());
    for (name, protocol, shared) in SWEEPS {
        let csv = directory.path().join(format!("{protocol}-{shared}.csv"));
        let log = directory.path().join(format!("{protocol}-{shared}.log"));
        let mut command = Command::new(place.join("perf_analyzer"));
        let address = if protocol == "grpc" { node.grpc.clone() } else { node.http.trim_start_matches("http://").to_owned() };
        command.env("LD_LIBRARY_PATH", place.join("lib")).args(["-m", "digits", "-i", protocol, "-u", &address]);
        command.arg("--concurrency-range").arg(format!("{}:{}", range.0, range.1));
        // How much windows differ says nothing about errors: any three in a row are enough. No space after the colon: over gRPC
        // it would become part of the value.
        command.args(["-p", &window_ms.to_string(), "-s", "999", "-r", "6"]);
        command.arg("-H").arg(format!("authorization:Bearer {}", node.key)).arg("-f").arg(&csv);
        if shared {
            command.args(["--shared-memory", "system", "--output-shared-memory-size", "1024"]);
        }
        let file = std::fs::File::create(&log)?;
        command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
        let outcome = sweep(command, &csv, range.1 - range.0 + 1).await;
        let words = std::fs::read_to_string(&log).unwrap_or_default().replace(&node.key, "KEY");
        match outcome {
            Ok(rows) => {
                lines.push(Line::judged(
                    format!("sweep over {name}, concurrency {}:{}", range.0, range.1),
                    "to its end, no error",
                    "so it was",
                    true,
                ));
                writeln!(text, "{name}:\n\n| concurrency | inferences/s | p50 µs | p99 µs |\n|---:|---:|---:|---:|")?;
                for row in &rows {
                    let field = |key: &str| row[key].as_str().unwrap_or("").to_owned();
                    writeln!(
                        text,
                        "| {} | {} | {} | {} |",
                        field("Concurrency"),
                        field("Inferences/Second"),
                        field("p50 latency"),
                        field("p99 latency")
                    )?;
                }
                writeln!(text)?;
                figures.push(json!({ "sweep": name, "rows": rows }));
            }
            Err(error) => {
                let last: Vec<&str> = words.lines().filter(|line| !line.trim().is_empty()).collect();
                let last = last[last.len().saturating_sub(3)..].join(" | ");
                eprintln!("perf_analyzer over {name}: {error:#}: {last}");
                let what = format!("sweep over {name}, concurrency {}:{}", range.0, range.1);
                lines.push(Line::judged(what, "to its end, no error", format!("{error:#}: {}", last.replace('|', "/")), false));
                figures.push(json!({ "sweep": name, "failure": format!("{error:#}"), "last_words": last }));
            }
        }
        ensure!(alive(&node).await, "the node does not answer after the sweep over {name}");
    }
    setup.finish(&Part {
        name: "perf_analyzer",
        title: "NVIDIA's perf_analyzer",
        how: &format!("windows of {window_ms} ms"),
        about: "`perf_analyzer` of `tritonclient` 2.50.0 against Plinth, the digits model, keys on. It runs on the same cores and takes more of them than our own generator, so its figures are a check \
                and not a comparison.",
        lines: &lines,
        text: &text,
        figures: json!(figures),
    })
}

async fn alive(node: &Node) -> bool {
    let Ok(target) = crate::exchange::Target::get(&format!("{}/v2/health/ready", node.http)) else { return false };
    match crate::exchange::Connection::open(&target.address).await {
        Ok(mut connection) => matches!(connection.exchange(&target).await, Ok(answer) if answer.status == 200),
        Err(_) => false,
    }
}

/// Runs a sweep to its end; a row of its table for each concurrency.
async fn sweep(mut command: Command, csv: &std::path::Path, expected: usize) -> Result<Vec<Value>> {
    let mut child = command.spawn().context("starting perf_analyzer")?;
    let end = std::time::Instant::now() + PATIENCE;
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if std::time::Instant::now() > end {
            let _ = child.kill();
            let _ = child.wait();
            anyhow::bail!("it did not end in {} s", PATIENCE.as_secs());
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    ensure!(status.success(), "it ended with {status}");
    let table = std::fs::read_to_string(csv).context("it wrote no table")?;
    let mut rows = table.lines().filter(|line| !line.trim().is_empty()).map(|line| line.split(',').collect::<Vec<_>>());
    let head = rows.next().context("its table is empty")?;
    let mut rows: Vec<Value> = rows
        .map(|row| head.iter().zip(row).map(|(key, value)| ((*key).to_owned(), json!(value))).collect::<serde_json::Map<_, _>>().into())
        .collect();
    rows.sort_by_key(|row| row["Concurrency"].as_str().and_then(|n| n.parse::<u64>().ok()));
    ensure!(rows.len() == expected, "its table has {} rows instead of {expected}", rows.len());
    Ok(rows)
}
