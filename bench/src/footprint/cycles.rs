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
/// What still counts as flat. A lost runner or a lost model would be hundreds of KiB for each cycle.
const BAR_KIB_PER_CYCLE: f64 = 5.0;

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
    let change = |verb| Target::post(&format!("{}/v2/repository/models/digits/{verb}", node.http), b"{}", None, Some(&node.key));
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
    let slope = slope(&settled);
    let ends = |pick: fn(&Sample) -> usize| (settled.first().map_or(0, pick), settled.last().map_or(0, pick));
    let ((files, files_end), (children, children_end)) = (ends(|s| s.open_files), ends(|s| s.children));
    let series: Vec<String> = samples.iter().map(|s| format!("{:.1}", s.resident_kib as f64 / 1024.0)).collect();
    let slope_text = format!("{slope:+.1} KiB a cycle; MiB every {EVERY}: {}", series.join(" "));
    let bar = format!("flat: ≤ {BAR_KIB_PER_CYCLE:.0} KiB a cycle from cycle {SETTLED}");
    Part {
        name: "cycles",
        lines: vec![
            Line::judged(format!("node's memory over {cycles} unloads and loads"), bar, slope_text, slope <= BAR_KIB_PER_CYCLE),
            Line::judged("open files, first to last", "no more", format!("{files} → {files_end}"), files_end <= files),
            Line::judged("child processes, first to last", "1 → 1", format!("{children} → {children_end}"), (children, children_end) == (1, 1)),
            Line::plain("one unload, load and answer", format!("{each_ms:.0} ms")),
        ],
        figures: json!({ "samples": samples, "slope_kib_per_cycle": slope, "cycle_ms": each_ms }),
    }
}

/// Of the resident memory over the cycles: least squares.
fn slope(samples: &[Sample]) -> f64 {
    let count = samples.len() as f64;
    let points = || samples.iter().map(|s| (s.cycle as f64, s.resident_kib as f64));
    let (x, y) = points().fold((0.0, 0.0), |(x, y), (a, b)| (x + a / count, y + b / count));
    let (over, under) = points().fold((0.0, 0.0), |(over, under), (a, b)| (over + (a - x) * (b - y), under + (a - x) * (a - x)));
    if under > 0.0 { over / under } else { 0.0 }
}
