//! Runs many seeds of the simulation: `cargo run -p plinth-queue --features testing --example simulate -- --seeds 1000000 --from 0`.
//!
//! One line of progress every 1,000 seeds, one line for each broken rule, and with `--history` the tail of its history. Ends with 1 when a rule
//! was broken. `--release` makes it several times as fast; seeds mean the same.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "an example talks to people")]

use std::process::ExitCode;

use plinth_queue::simulation::Simulation;
use plinth_runtime::{Clock, SystemClock};

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().collect();
    let number = |name: &str, otherwise: u64| {
        let at = words.iter().position(|word| word == name);
        at.and_then(|at| words.get(at + 1)).and_then(|word| word.parse().ok()).unwrap_or(otherwise)
    };
    let (seeds, from) = (number("--seeds", 1000), number("--from", 0));
    let history = words.iter().any(|word| word == "--history");
    let mut simulation = match Simulation::new() {
        Ok(simulation) => simulation,
        Err(error) => {
            eprintln!("no database in memory: {error}");
            return ExitCode::FAILURE;
        }
    };
    let began = SystemClock.monotonic();
    let (mut failed, mut calls, mut jobs, mut millis) = (0u64, 0, 0, 0);
    for (done, seed) in (1..=seeds).zip(from..) {
        match simulation.run(seed, None) {
            Ok(report) => (calls, jobs, millis) = (calls + report.calls, jobs + report.jobs, millis + report.millis),
            Err(failure) => {
                failed += 1;
                if history { println!("{failure}") } else { println!("seed {seed}: {}", failure.broken) }
            }
        }
        if done % 1000 == 0 || done == seeds {
            let seconds = (SystemClock.monotonic() - began).as_secs_f64();
            let rate = done as f64 / seconds;
            eprintln!(
                "{done} of {seeds} seeds, {failed} broke a rule; {rate:.0} seeds a second, {calls} calls, {jobs} jobs, {} simulated hours",
                millis / 3_600_000
            );
        }
    }
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
