//! Measures Plinth and writes the figures down.
//!
//! `plinth-bench table` answers: how many requests per second, and how late, for JSON and binary bodies, 1 / 16 / 64
//! connections, the digits model and identity models of 1 KiB and 1 MiB; Plinth against a bare HTTP server that calls
//! ONNX Runtime in its own process. Both sides get the same bytes from the same load generator on the same machine, one
//! after the other within each row.
//!
//! `plinth-bench footprint` answers: does a node start fast enough, stay small, give memory back, swap versions without
//! a failed request, recover from a runner's death in time, and what does a process of its own for each model cost.
//!
//! Command: `make bench` (release build); results go to `bench/results/`.
#![allow(clippy::print_stdout, clippy::disallowed_methods, reason = "a measuring tool reads clocks, spawns and prints")]

mod bare;
mod body;
mod exchange;
mod footprint;
mod load;
mod plinth;
mod process;
mod setup;
mod table;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(version, about = "Measures Plinth and writes the figures down.")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Runs the bare server: HTTP in front of ONNX Runtime, no features at all.
    Bare {
        /// The model.
        model: PathBuf,
        /// ONNX Runtime's shared library.
        #[arg(long)]
        onnxruntime: PathBuf,
    },
    /// Opens ONNX Runtime's library and prints how many microseconds that took.
    Library {
        /// ONNX Runtime's shared library.
        onnxruntime: PathBuf,
    },
    /// Sends load to one URL and prints what came back.
    Load {
        /// Where to; POST.
        url: String,
        /// A file with the body.
        #[arg(long)]
        body: PathBuf,
        /// Length of the JSON header when the body is binary.
        #[arg(long)]
        header_length: Option<usize>,
        /// A key to show.
        #[arg(long)]
        key: Option<String>,
        #[command(flatten)]
        shape: Shape,
    },
    /// Measures speed: every model, body and number of connections, beside the bare server.
    Table {
        #[command(flatten)]
        setup: setup::Setup,
        /// Seconds for each cell and server.
        #[arg(long, default_value_t = 4.0)]
        seconds: f64,
    },
    /// Measures start-up, memory, hot swap, recovery and the cost of isolation, and compares them with their bars.
    Footprint {
        #[command(flatten)]
        setup: setup::Setup,
        #[command(flatten)]
        amount: footprint::Amount,
    },
}

#[derive(clap::Args, Clone, Copy)]
struct Shape {
    /// Connections that each send one request after another.
    #[arg(long, default_value_t = 16)]
    connections: usize,
    /// How long to measure.
    #[arg(long, default_value_t = 4.0)]
    seconds: f64,
    /// Sends so many requests per second in total, on a fixed schedule, and counts lateness from the schedule (open
    /// loop). Without it every connection sends as fast as it is answered (closed loop).
    #[arg(long)]
    rate: Option<f64>,
}

fn main() -> anyhow::Result<()> {
    match Arguments::parse().command {
        Command::Bare { model, onnxruntime } => runtime(bare::THREADS)?.block_on(bare::serve(&model, &onnxruntime)),
        Command::Library { onnxruntime } => {
            let start = Instant::now();
            let environment = bare::open(&onnxruntime)?;
            println!("{}", start.elapsed().as_micros());
            drop(environment);
            Ok(())
        }
        Command::Load { url, body, header_length, key, shape } => {
            let target = exchange::Target::post(&url, &std::fs::read(body)?, header_length, key.as_deref())?;
            let report = runtime(1)?.block_on(load::run(&target, shape))?;
            println!("{}", serde_json::to_string_pretty(&report)?);
            Ok(())
        }
        Command::Table { setup, seconds } => runtime(1)?.block_on(table::measure(&setup, Duration::from_secs_f64(seconds))),
        Command::Footprint { setup, amount } => runtime(1)?.block_on(footprint::measure(&setup, &amount)),
    }
}

fn runtime(threads: usize) -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread().worker_threads(threads).enable_all().build()
}
