//! Measures Plinth and writes the figures down.
//!
//! Each subcommand is a question, answered in `bench/results/<name>.md` and `.json`; `all` asks every one. What is compared
//! runs in the same run, in turn, on the same machine, with the same bytes from the same load generator. Other people's
//! servers are found where `scripts/rivals.sh` put them, and skipped with a line where they are not.
//!
//! Command: `make bench` (release build).
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::disallowed_methods,
    reason = "a measuring tool reads clocks, spawns and prints"
)]

mod all;
mod bare;
mod body;
mod cache;
mod conv;
mod digits;
mod endpoints;
mod events;
mod exchange;
mod faulty;
mod footprint;
mod grpc;
mod http2;
mod isolation;
mod jobs;
mod ledger;
mod line;
mod load;
mod member;
mod metrics;
mod neighbour;
mod noisy;
mod open;
mod outage;
mod page;
mod perf_analyzer;
mod plinth;
mod process;
mod proxy;
mod reloads;
mod replay;
mod rivals;
mod scrape;
mod setup;
mod sides;
mod sizes;
mod slow_clients;
mod steady;
mod surge;
mod table;
mod tenants;

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
    /// Measures everything.
    All {
        #[command(flatten)]
        setup: setup::Setup,
        #[command(flatten)]
        amount: all::Amount,
    },
    /// Copies the results into a page with places for them.
    Page {
        /// The directory with the results.
        results: PathBuf,
        /// The page.
        page: PathBuf,
    },
    /// Calls a net in this process without end and prints pictures per second.
    Raw {
        /// The net.
        model: PathBuf,
        /// ONNX Runtime's shared library.
        #[arg(long)]
        onnxruntime: PathBuf,
        #[command(flatten)]
        how: conv::Raw,
    },
    /// Measures the digits model beside the bare server, Triton and MLServer.
    Digits(Timed),
    /// Measures one element and 16 MB by every way in.
    Sizes(Timed),
    /// Measures what the response cache is worth.
    Cache(Timed),
    /// Measures a convolutional net beside raw ONNX Runtime.
    Conv(Timed),
    /// Measures what counting and tracing requests cost.
    Metrics(Timed),
    /// Measures a loaded model while another is loaded.
    Neighbour {
        #[command(flatten)]
        timed: Timed,
        /// How often quiet and loading windows are measured, two of each.
        #[arg(long, default_value_t = 2)]
        rounds: usize,
        /// Requests per second.
        #[arg(long, default_value_t = 1_000.0)]
        rate: f64,
    },
    /// Records what the engine's example says about the cost of isolation.
    Isolation {
        #[command(flatten)]
        setup: setup::Setup,
    },
    /// Measures a proxied echo beside Envoy and HAProxy.
    Proxy(Timed),
    /// Measures what an outage of an upstream costs, and its end.
    Outage {
        #[command(flatten)]
        setup: setup::Setup,
        /// Seconds of outage.
        #[arg(long, default_value_t = 60.0)]
        seconds: f64,
    },
    /// Measures eight endpoints of which k fail.
    Endpoints {
        #[command(flatten)]
        setup: setup::Setup,
        /// Seconds of faults.
        #[arg(long, default_value_t = 10.0)]
        seconds: f64,
    },
    /// Measures others beside ten thousand slow clients and hostile heads.
    #[command(name = "slow_clients")]
    SlowClients {
        #[command(flatten)]
        setup: setup::Setup,
        /// Seconds for each variant.
        #[arg(long, default_value_t = 45.0)]
        seconds: f64,
    },
    /// Measures five and ten times the peak.
    Surge(Timed),
    /// Measures a tenant beside one that asks for a hundred times its quota.
    Noisy(Timed),
    /// Serves the same answer, so many at a time and each after so many microseconds, and prints where.
    #[command(hide = true)]
    Limited { places: usize, micros: u64 },
    /// Measures a node with many tenants and keys beside one with a single one.
    Tenants {
        #[command(flatten)]
        timed: Timed,
        #[command(flatten)]
        amount: tenants::Amount,
    },
    /// Replays an hour of limits with two nodes on one Redis.
    Replay {
        #[command(flatten)]
        setup: setup::Setup,
        /// How long the processes take for the hour.
        #[arg(long, default_value_t = 120.0)]
        seconds: f64,
        /// The processes take the whole hour.
        #[arg(long)]
        hour: bool,
    },
    /// Changes and restarts two nodes under load.
    Reloads {
        #[command(flatten)]
        setup: setup::Setup,
        #[command(flatten)]
        amount: reloads::Amount,
    },
    #[command(flatten)]
    Jobs(jobs::Part),
    /// Serves the same answer to everything and prints where.
    #[command(hide = true)]
    Echo,
    /// Runs NVIDIA's perf_analyzer.
    #[command(name = "perf_analyzer")]
    PerfAnalyzer {
        #[command(flatten)]
        setup: setup::Setup,
        /// The highest concurrency.
        #[arg(long, default_value_t = 16)]
        concurrency: usize,
        /// The length of its windows in milliseconds.
        #[arg(long, default_value_t = 300)]
        window: u32,
    },
}

#[derive(clap::Args)]
struct Timed {
    #[command(flatten)]
    setup: setup::Setup,
    /// Seconds for each figure.
    #[arg(long, default_value_t = 4.0)]
    seconds: f64,
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
            let report = runtime(1)?.block_on(load::run(&load::Traffic::http(&target), shape))?;
            println!("{}", serde_json::to_string_pretty(&report)?);
            Ok(())
        }
        Command::Table { setup, seconds } => runtime(1)?.block_on(table::measure(&setup, Duration::from_secs_f64(seconds))),
        Command::Raw { model, onnxruntime, how } => {
            println!("{}", conv::raw(&model, &onnxruntime, how)?);
            Ok(())
        }
        Command::Page { results, page } => page::write(&results, &page),
        Command::All { setup, amount } => runtime(1)?.block_on(all::measure(&setup, &amount)),
        Command::Footprint { setup, amount } => judge(runtime(1)?.block_on(footprint::measure(&setup, &amount))?),
        Command::Digits(Timed { setup, seconds }) => judge(runtime(1)?.block_on(digits::measure(&setup, seconds))?),
        Command::Sizes(Timed { setup, seconds }) => judge(runtime(1)?.block_on(sizes::measure(&setup, seconds))?),
        Command::Cache(Timed { setup, seconds }) => judge(runtime(1)?.block_on(cache::measure(&setup, seconds))?),
        Command::Conv(Timed { setup, seconds }) => judge(runtime(1)?.block_on(conv::measure(&setup, seconds))?),
        Command::Metrics(Timed { setup, seconds }) => judge(runtime(1)?.block_on(metrics::measure(&setup, seconds))?),
        Command::Neighbour { timed, rounds, rate } => {
            judge(runtime(1)?.block_on(neighbour::measure(&timed.setup, timed.seconds, rounds, rate))?)
        }
        Command::Outage { setup, seconds } => judge(runtime(1)?.block_on(outage::measure(&setup, seconds))?),
        Command::Endpoints { setup, seconds } => judge(runtime(1)?.block_on(endpoints::measure(&setup, seconds))?),
        Command::SlowClients { setup, seconds } => judge(runtime(1)?.block_on(slow_clients::measure(&setup, seconds))?),
        Command::Proxy(Timed { setup, seconds }) => judge(runtime(1)?.block_on(proxy::measure(&setup, seconds))?),
        Command::Surge(Timed { setup, seconds }) => judge(runtime(1)?.block_on(surge::measure(&setup, seconds))?),
        Command::Noisy(Timed { setup, seconds }) => judge(runtime(1)?.block_on(noisy::measure(&setup, seconds))?),
        Command::Limited { places, micros } => runtime(1)?.block_on(surge::limited(places, Duration::from_micros(micros))),
        Command::Tenants { timed, amount } => judge(runtime(1)?.block_on(tenants::measure(&timed.setup, timed.seconds, amount))?),
        Command::Replay { setup, seconds, hour } => judge(runtime(1)?.block_on(replay::measure(&setup, seconds, hour))?),
        Command::Reloads { setup, amount } => judge(runtime(1)?.block_on(reloads::measure(&setup, amount))?),
        Command::Jobs(part) => judge(part.measure()?),
        Command::Echo => runtime(1)?.block_on(proxy::echo()),
        Command::Isolation { setup } => judge(isolation::measure(&setup)?),
        Command::PerfAnalyzer { setup, concurrency, window } => {
            judge(runtime(1)?.block_on(perf_analyzer::measure(&setup, (1, concurrency), window))?)
        }
    }
}

/// A figure that missed its bar, or is not there, is a failure, with the results written.
fn judge(verdict: line::Verdict) -> anyhow::Result<()> {
    match verdict {
        line::Verdict { missed: 0, unmeasured: 0 } => Ok(()),
        line::Verdict { missed, unmeasured } => anyhow::bail!("{missed} of the bars were missed, {unmeasured} could not be measured"),
    }
}

fn runtime(threads: usize) -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread().worker_threads(threads).enable_all().build()
}
