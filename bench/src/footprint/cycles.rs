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

const EVERY: usize = 20;
const BAR_FILES_PER_CYCLE: f64 = 0.05;

#[derive(Serialize, Clone, Copy)]
struct Sample {
    cycle: usize,
    resident_kib: u64,
    open_files: usize,
    children: usize,
}

/// `settle` cycles in which caches and pools fill up, and `cycles` after them, over which the slope is taken.
pub async fn measure(setup: &Setup, settle: usize, cycles: usize) -> Result<Part> {
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
    let all = settle + cycles;
    for cycle in 1..=all {
        for target in [&unload, &load, &infer] {
            succeed(&mut connection, target).await?;
        }
        if cycle % EVERY == 0 || cycle == all {
            let pause = std::time::Instant::now();
            samples.push(sample(&node, cycle).await?);
            pauses += pause.elapsed();
        }
    }
    let each = (start.elapsed() - pauses).as_secs_f64() * 1000.0 / all.max(1) as f64;
    Ok(part(&samples, settle, cycles, each))
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

fn part(samples: &[Sample], settle: usize, cycles: usize, each_ms: f64) -> Part {
    let settled: Vec<Sample> = samples.iter().copied().filter(|s| s.cycle >= settle).collect();
    let (kib, files) = (slope(&settled, |s| s.resident_kib as f64), slope(&settled, |s| s.open_files as f64));
    let series = |show: fn(&Sample) -> String| samples.iter().step_by(5).map(show).collect::<Vec<_>>().join(" ");
    let resident = series(|s| format!("{:.1}", s.resident_kib as f64 / 1024.0));
    let children_end = samples.last().map_or(0, |s| s.children);
    let flat = kib.low <= 0.0;
    let judged = |what: String, bar: &str, measured: String, ok| {
        if settled.len() >= 10 { Line::judged(what, bar, measured, ok) } else { Line::plain(what, measured) }
    };
    Part {
        name: "cycles",
        lines: vec![
            judged(
                format!("node's memory over {cycles} unloads and loads, after {settle} to settle"),
                "0 is in the slope's 95 % interval, or above it",
                format!("{:+.2} KiB a cycle, interval {:+.2} to {:+.2}; MiB every {}: {resident}", kib.slope, kib.low, kib.high, EVERY * 5),
                flat,
            ),
            judged(
                "its open files".to_owned(),
                &format!("flat: ≤ {BAR_FILES_PER_CYCLE} a cycle"),
                format!("{:+.4} a cycle; every {}: {}", files.slope, EVERY * 5, series(|s| s.open_files.to_string())),
                files.slope <= BAR_FILES_PER_CYCLE,
            ),
            Line::judged("its child processes at the end", "1", children_end.to_string(), children_end == 1),
            Line::plain("one unload, load and answer", format!("{each_ms:.0} ms")),
        ],
        figures: json!({ "samples": samples, "settle": settle, "kib_per_cycle": kib, "open_files_per_cycle": files, "cycle_ms": each_ms }),
    }
}

/// A line through points, with the interval in which its slope lies at 95 %.
#[derive(Serialize, Clone, Copy)]
struct Slope {
    slope: f64,
    low: f64,
    high: f64,
}

/// Of a value over the cycles: least squares. Neighbouring samples resemble each other, so that they are worth fewer
/// independent ones: n (1 - r) / (1 + r), with r the correlation of a residual with the one before.
fn slope(samples: &[Sample], value: fn(&Sample) -> f64) -> Slope {
    let count = samples.len() as f64;
    let points: Vec<(f64, f64)> = samples.iter().map(|s| (s.cycle as f64, value(s))).collect();
    let (x, y) = points.iter().fold((0.0, 0.0), |(x, y), (a, b)| (x + a / count, y + b / count));
    let over: f64 = points.iter().map(|(a, b)| (a - x) * (b - y)).sum();
    let under: f64 = points.iter().map(|(a, _)| (a - x) * (a - x)).sum();
    if under <= 0.0 || samples.len() < 4 {
        return Slope { slope: 0.0, low: f64::NEG_INFINITY, high: f64::INFINITY };
    }
    let slope = over / under;
    let residuals: Vec<f64> = points.iter().map(|(a, b)| b - y - slope * (a - x)).collect();
    let squares: f64 = residuals.iter().map(|r| r * r).sum();
    let lagged: f64 = residuals.windows(2).map(|pair| pair[0] * pair[1]).sum();
    let r = if squares > 0.0 { (lagged / squares).clamp(0.0, 0.95) } else { 0.0 };
    let effective = (count * (1.0 - r) / (1.0 + r)).max(3.0);
    let deviation = (squares / (count - 2.0) / under * (count / effective)).sqrt();
    // Student's t at 97.5 %, close enough from three degrees of freedom on.
    let freedom = (effective - 2.0).max(1.0);
    let t = 1.96 + 2.4 / freedom + 4.0 / (freedom * freedom) + 4.4 / freedom.powi(3);
    Slope { slope, low: slope - t * deviation, high: slope + t * deviation }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples(kib: impl Fn(usize) -> u64) -> Vec<Sample> {
        (0..50).map(|i| Sample { cycle: i * EVERY, resident_kib: kib(i), open_files: 9, children: 1 }).collect()
    }

    #[test]
    fn a_leak_is_told_from_noise() {
        let noise = |i: usize| (i * 7_919 % 97) as u64;
        let flat = slope(&samples(|i| 20_000 + noise(i)), |s| s.resident_kib as f64);
        assert!(flat.low < 0.0 && flat.high > 0.0, "{} to {}", flat.low, flat.high);
        let leak = slope(&samples(|i| 20_000 + noise(i) + (i * EVERY) as u64), |s| s.resident_kib as f64);
        assert!(leak.low > 0.5 && leak.high < 1.5, "{} to {}", leak.low, leak.high);
    }
}
