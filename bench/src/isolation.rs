//! Keeps what the engine's example `round_trip` measured: a runner against the same backend in the caller's own process.
//!
//! The example is the one place that can call a backend in its own process; here its words are recorded and its figures
//! for small requests compared with the goals.

use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::json;

use crate::line::{Line, Verdict};
use crate::setup::{Part, Setup};

const ADDED_US: f64 = 30.0;
const RATIO: f64 = 0.90;

/// The number that follows a text in a line.
fn after(line: &str, text: &str) -> Option<f64> {
    let rest = line.split_once(text)?.1.trim_start();
    let end = rest.find(|c: char| !(c.is_ascii_digit() || matches!(c, '.' | '-' | '+'))).unwrap_or(rest.len());
    rest[..end].trim_start_matches('+').trim_end_matches('.').parse().ok()
}

/// Which model and size a line is about: what stands before its first colon.
fn subject(line: &str) -> String {
    line.split(':').next().unwrap_or_default().split_whitespace().collect::<Vec<_>>().join(" ")
}

fn judge(text: &str) -> Vec<Line> {
    let mut lines = Vec::new();
    for line in text.lines() {
        if let Some(added) = after(line, "added at p50") {
            let (what, measured) = (format!("{}: added at p50", subject(line)), format!("{added:.1} µs"));
            // For large tensors the copy is what counts, and they are there to be read, not judged.
            let large = line.contains("MiB") || ["1024 KiB", "16384 KiB", "64 KiB"].iter().any(|size| line.contains(size));
            lines.push(if large {
                Line::plain(what, measured)
            } else {
                Line::judged(what, format!("≤ {ADDED_US:.0} µs"), measured, added <= ADDED_US)
            });
        } else if let Some(ratio) = after(line, "ratio") {
            let (what, measured) =
                (format!("{}: throughput at saturation, isolated over in-process", subject(line)), format!("{ratio:.2} ×"));
            // A model that computes nothing has no throughput that could be kept.
            let idle = line.trim_start().starts_with("identity");
            lines.push(if idle {
                Line::plain(what, measured)
            } else {
                Line::judged(what, format!("≥ {RATIO:.2} ×"), measured, ratio >= RATIO)
            });
        }
    }
    lines
}

/// Runs the example and writes `isolation`.
pub fn measure(setup: &Setup) -> Result<Verdict> {
    let program = setup.round_trip.as_ref().context("the example was not given (--round-trip)")?;
    let output = Command::new(program).output().context("running the example round_trip")?;
    let text = String::from_utf8_lossy(&output.stdout);
    ensure!(output.status.success(), "the example failed: {}", String::from_utf8_lossy(&output.stderr));
    let mut lines = judge(&text);
    if lines.is_empty() {
        lines.push(Line::missing("the cost of isolation", "measured", "the example's output was not understood"));
    }
    setup.finish(&Part {
        name: "isolation",
        title: "What a process of its own costs a model",
        how: "the example `round_trip` of the engine, rounds of both sides in turn",
        about: "The same backend called in the caller's own process and through a runner: one request at a time, and as many as keep it busy. `identity` computes nothing and shows the \
                channel alone; the others compute.",
        lines: &lines,
        text: &format!("As it said it:\n\n```text\n{}\n```\n", text.trim_end()),
        figures: json!({ "output": text.lines().collect::<Vec<_>>() }),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_found_in_the_words() {
        let lines = judge(
            "  identity     1 KiB: here p50 5.0 p99 9.0 us; isolated p50 17.5 p99 20.0 us; added at p50 12.5 us\n  dense 1 rows: here 9/s, isolated 8/s: ratio 0.89\n",
        );
        assert_eq!(lines.len(), 2);
        assert_eq!((lines[0].ok, lines[1].ok), (Some(true), Some(false)));
    }
}
