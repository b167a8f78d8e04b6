//! Does loading and unloading give everything back: memory, open files, processes?

use std::time::Duration;

use anyhow::Result;
use serde::Serialize;
use serde_json::json;

use super::{Line, Part, image, succeed};
use crate::exchange::{Connection, Target};
use crate::plinth::{self, Home, Node};
use crate::process;
use crate::setup::Setup;

/// Samples before this cycle are the node warming up.
const SETTLED: usize = 20;
const EVERY: usize = 20;
/// What still counts as flat. Caches and pools fill up over the first hundred cycles; a lost model would be many times this.
const BAR_KIB_PER_CYCLE: f64 = 5.0;
const BAR_FILES_PER_CYCLE: f64 = 0.05;

#[derive(Serialize, Clone, Copy)]
struct Sample {
    cycle: usize,
    resident_kib: u64,
    open_files: usize,
    children: usize,
}

pub async fn measure(setup: &Setup, cycles: usize) -> Result<Part> {
    let directory = tempfile::tempdir()?;
    plinth::digits(setup, "2", "digits", directory.path())?;
    let mut home = Home::new(setup)?;
    let node = home.start()?;
    node.push("digits", directory.path(), true)?;
    let infer = image(&node, "digits")?;
    let change = |verb| Target::post(&format!("{}/v2/repository/models/digits/{verb}", node.http), b"", None, Some(&node.key));
    let (unload, load) = (change("unload")?, change("load")?);

    let mut samples = vec![sample(&node, 0).await?];
    let start = std::time::Instant::now();
    let mut pauses = Duration::ZERO;
    let mut connection = Connection::open(&infer.address).await?;
    for cycle in 1..=cycles {
        for target in [&unload, &load, &infer] {
            succeed(&mut connection, target).await?;
        }
        if cycle % EVERY == 0 || cycle == cycles {
            let pause = std::time::Instant::now();
            samples.push(sample(&node, cycle).await?);
            pauses += pause.elapsed();
        }
    }
    let each = (start.elapsed() - pauses).as_secs_f64() * 1000.0 / cycles as f64;
    Ok(part(&samples, cycles, each))
}

/// What the node holds once it has had time to bury what it let go.
async fn sample(node: &Node, cycle: usize) -> Result<Sample> {
    tokio::time::sleep(Duration::from_millis(500)).await;
    let pid = node.pid();
    Ok(Sample {
        cycle,
        resident_kib: process::resident_kib(pid)?,
        open_files: process::open_files(pid)?,
        children: process::children(pid)?,
    })
}

fn part(samples: &[Sample], cycles: usize, each_ms: f64) -> Part {
    let settled: Vec<Sample> = samples.iter().copied().filter(|s| s.cycle >= SETTLED.min(cycles)).collect();
    let (kib, files) = (slope(&settled, |s| s.resident_kib as f64), slope(&settled, |s| s.open_files as f64));
    let series = |show: fn(&Sample) -> String| samples.iter().map(show).collect::<Vec<_>>().join(" ");
    let resident = series(|s| format!("{:.1}", s.resident_kib as f64 / 1024.0));
    let children_end = samples.last().map_or(0, |s| s.children);
    Part {
        name: "cycles",
        lines: vec![
            Line::judged(
                format!("node's memory over {cycles} unloads and loads, from cycle {SETTLED}"),
                format!("flat: ≤ {BAR_KIB_PER_CYCLE:.0} KiB a cycle"),
                format!("{kib:+.1} KiB a cycle; MiB every {EVERY}: {resident}"),
                kib <= BAR_KIB_PER_CYCLE,
            ),
            Line::judged(
                "its open files",
                format!("flat: ≤ {BAR_FILES_PER_CYCLE} a cycle"),
                format!("{files:+.3} a cycle; every {EVERY}: {}", series(|s| s.open_files.to_string())),
                files <= BAR_FILES_PER_CYCLE,
            ),
            Line::judged("its child processes at the end", "1", children_end.to_string(), children_end == 1),
            Line::plain("one unload, load and answer", format!("{each_ms:.0} ms")),
        ],
        figures: json!({ "samples": samples, "kib_per_cycle": kib, "open_files_per_cycle": files, "cycle_ms": each_ms }),
    }
}

/// Of a value over the cycles: least squares.
fn slope(samples: &[Sample], value: fn(&Sample) -> f64) -> f64 {
    let count = samples.len() as f64;
    let points = || samples.iter().map(|s| (s.cycle as f64, value(s)));
    let (x, y) = points().fold((0.0, 0.0), |(x, y), (a, b)| (x + a / count, y + b / count));
    let (over, under) = points().fold((0.0, 0.0), |(over, under), (a, b)| (over + (a - x) * (b - y), under + (a - x) * (a - x)));
    if under > 0.0 { over / under } else { 0.0 }
}
