//! Measures Plinth beside a rival in the same run and writes the table down.
//!
//! `plinth-bench table` answers: how many requests per second, and how late, for JSON and binary
//! bodies, 1 / 16 / 64 connections, the digits model and identity models of 1 KiB and 1 MiB; Plinth
//! against a bare HTTP server that calls ONNX Runtime in its own process. Both sides get the same
//! bytes from the same load generator on the same machine, one after the other within each row.
//!
//! Command: `make bench` (release build); results go to `bench/results/`.
#![allow(clippy::print_stdout, clippy::print_stderr, clippy::disallowed_methods, reason = "a measuring tool reads clocks and prints")]

mod bare;
mod body;
mod load;
mod plinth;
mod table;

use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(version, about = "Measures Plinth beside a rival in the same run.")]
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
    /// Measures the whole table.
    Table {
        /// The release binary of Plinth.
        #[arg(long)]
        plinth: PathBuf,
        /// ONNX Runtime's shared library.
        #[arg(long)]
        onnxruntime: PathBuf,
        /// The digits model.
        #[arg(long)]
        digits: PathBuf,
        /// Where to write the results: this path with `.md` and `.json`.
        #[arg(long)]
        out: PathBuf,
        /// Seconds for each cell.
        #[arg(long, default_value_t = 3.0)]
        seconds: f64,
        /// The commit that is measured, for the heading.
        #[arg(long, default_value = "unknown")]
        commit: String,
        /// The date, for the heading.
        #[arg(long, default_value = "unknown")]
        date: String,
    },
}

#[derive(clap::Args, Clone, Copy)]
struct Shape {
    /// Connections that each send one request after another.
    #[arg(long, default_value_t = 16)]
    connections: usize,
    /// How long to measure.
    #[arg(long, default_value_t = 3.0)]
    seconds: f64,
    /// Sends so many requests per second in total, on a fixed schedule, and counts lateness from the schedule (open
    /// loop). Without it every connection sends as fast as it is answered (closed loop).
    #[arg(long)]
    rate: Option<f64>,
}

fn main() -> anyhow::Result<()> {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let arguments = Arguments::parse();
    match arguments.command {
        Command::Bare { model, onnxruntime } => runtime(2)?.block_on(bare::serve(&model, &onnxruntime)),
        Command::Load { url, body, header_length, key, shape } => {
            let target = load::Target::new(&url, &std::fs::read(body)?, header_length, key.as_deref())?;
            let report = runtime(1)?.block_on(load::run(&target, shape))?;
            println!("{}", serde_json::to_string_pretty(&report)?);
            Ok(())
        }
        Command::Table { plinth, onnxruntime, digits, out, seconds, commit, date } => {
            let plan = table::Plan { plinth, onnxruntime, digits, out, cell: Duration::from_secs_f64(seconds), commit, date };
            runtime(1)?.block_on(table::measure(&plan))
        }
    }
}

fn runtime(threads: usize) -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread().worker_threads(threads).enable_all().build()
}
