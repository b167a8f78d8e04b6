//! How soon do the jobs of a process that was killed run again?
//!
//! On another process: its leases must run out first. On the same node's next process: at once. Worker processes with the defaults of a
//! node, `kill -9`.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use plinth_queue::jobs::JobId;
use plinth_runtime::{Random, SeededRandom};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::fleet::{Fleet, Process};
use super::ledgers::{self, Fresh, Server};
use super::sink::Sink;
use super::times::{Times, millis};
use super::worker::{Pace, Task};
use crate::line::{Line, Verdict};
use crate::setup::{Part, Setup};

/// Milliseconds until a job runs again elsewhere: a lease of 15 s, and a sweep every 2 s.
const ELSEWHERE: f64 = 17_000.0;
/// Milliseconds from the start of the node's next process.
const HERE: f64 = 1_000.0;
/// Longer than any of it.
const PATIENCE: Duration = Duration::from_secs(60);
/// Ledgers of their own on which a process is killed at the same time.
const GROUPS: usize = 4;
/// Restarts of a node.
const ROUNDS: usize = 4;
const SEED: u64 = 2026;

/// How much of it.
#[derive(clap::Args, Clone)]
pub struct Amount {
    /// Jobs that each killed process holds; four processes are killed for each figure.
    #[arg(long, default_value_t = 12)]
    jobs: usize,
    #[command(flatten)]
    server: Server,
}

impl Amount {
    pub fn scaled(scale: f64) -> Self {
        Self { jobs: ((12.0 * scale) as usize).clamp(2, 64), server: Server::default() }
    }
}

/// A ledger with its sink, and jobs that last longer than the measurement.
struct Stage {
    fleet: Fleet,
    sink: Sink,
}

impl Stage {
    fn new(fresh: &Fresh) -> Result<Self> {
        let sink = Sink::start(fresh.directory())?;
        let directory = fresh.directory().to_owned();
        let fleet = Fleet { place: fresh.place.clone(), pace: Pace::usual(64), directory, sink: sink.path().to_owned() };
        Ok(Self { fleet, sink })
    }

    async fn start(&self, node: &str) -> Result<Process> {
        let process = self.fleet.start(node, None)?;
        self.sink.ready(process.pid(), PATIENCE).await.with_context(|| self.fleet.logs())?;
        Ok(process)
    }

    /// Gives a process jobs, and waits until it runs all of them.
    async fn busy(&self, process: &Process, jobs: usize) -> Result<Vec<JobId>> {
        let task = Task { steps: 1, millis: 600_000, reports: false, bytes: 0 };
        let ids = process.submit(&format!("all-{}", process.pid()), vec![task; jobs]).await?;
        self.begun(&ids, process.pid()).await?;
        Ok(ids)
    }

    /// When each of these jobs began in a process.
    async fn begun(&self, ids: &[JobId], pid: u32) -> Result<Vec<Instant>> {
        let enough = |told: &super::sink::Told| {
            let of = |id: &JobId| told.begun.get(id)?.iter().find(|begun| begun.pid == pid).map(|begun| begun.at);
            ids.iter().map(of).collect::<Option<Vec<Instant>>>()
        };
        self.sink.until("jobs to begin", PATIENCE, enough).await.with_context(|| self.fleet.logs())
    }
}

/// Kills a process after a while beside another one; milliseconds until each of its jobs runs there.
async fn elsewhere(fresh: &Fresh, jobs: usize, after: Duration) -> Result<Vec<f64>> {
    let stage = Stage::new(fresh)?;
    let mut first = stage.start("first").await?;
    let ids = stage.busy(&first, jobs).await?;
    let second = stage.start("second").await?;
    tokio::time::sleep(after).await;
    let start = Instant::now();
    first.kill()?;
    let begun = stage.begun(&ids, second.pid()).await?;
    Ok(begun.into_iter().map(|at| millis(at.saturating_duration_since(start))).collect())
}

/// Kills a node's process and starts the next one at once; milliseconds from its start until each job runs.
async fn here(fresh: &Fresh, jobs: usize) -> Result<Vec<f64>> {
    let stage = Stage::new(fresh)?;
    let mut process = stage.start("node").await?;
    let ids = stage.busy(&process, jobs).await?;
    let mut took = Vec::new();
    for _ in 0..ROUNDS {
        process.kill()?;
        let start = Instant::now();
        process = stage.fleet.start("node", None)?;
        let begun = stage.begun(&ids, process.pid()).await?;
        took.extend(begun.into_iter().map(|at| millis(at.saturating_duration_since(start))));
    }
    Ok(took)
}

/// Several ledgers at the same time, each killed at another moment of its heartbeats.
async fn groups(server: &Server, jobs: usize) -> Result<Times> {
    let random = SeededRandom::new(SEED);
    let mut all = JoinSet::new();
    for _ in 0..GROUPS {
        let (url, after) = (server.postgres.clone(), Duration::from_millis(random.next_u64() % 5_000));
        all.spawn(async move {
            let fresh = Fresh::postgres(&url).await?;
            let took = elsewhere(&fresh, jobs, after).await;
            fresh.remove().await?;
            took
        });
    }
    let mut took = Vec::new();
    while let Some(some) = all.join_next().await {
        took.extend(some??);
    }
    Ok(Times::new(took))
}

async fn again(fresh: Result<Fresh>, jobs: usize) -> Result<Times> {
    let fresh = fresh?;
    let took = here(&fresh, jobs).await;
    fresh.remove().await?;
    Ok(Times::new(took?))
}

/// Measures and writes `jobs_recovery`.
pub async fn measure(setup: &Setup, amount: &Amount) -> Result<Verdict> {
    let jobs = amount.jobs;
    let mut results = vec![(
        "PostgreSQL: from `kill -9` of one of two processes until its job runs in the other".to_owned(),
        ELSEWHERE,
        groups(&amount.server, jobs).await,
    )];
    for (name, fresh) in ledgers::both(&amount.server).await {
        let what = format!("{name}: from the start of the node's next process until a job of the killed one runs");
        results.push((what, HERE, again(fresh, jobs).await));
    }
    let (mut lines, mut figures) = (Vec::new(), Vec::new());
    for (what, goal, found) in results {
        let bar = format!("p99 ≤ {:.0} s", goal / 1e3);
        match found {
            Ok(times) => {
                let [p50, p99, most] = [0.5, 0.99, 1.0].map(|share| times.at(share) / 1e3);
                let text = format!("p50 {p50:.2} s, p99 {p99:.2} s, max {most:.2} s of {} jobs", times.len());
                figures.push(json!({ "what": what, "times": times.figures() }));
                lines.push(Line::judged(what, bar, text, p99 * 1e3 <= goal));
            }
            Err(error) => lines.push(Line::missing(what, bar, &format!("{error:#}"))),
        }
    }
    setup.finish(&Part {
        name: "jobs_recovery",
        title: "Jobs of a process that was killed",
        how: &format!("{GROUPS} kills at the same time on ledgers of their own, {ROUNDS} restarts of a node, {jobs} jobs each"),
        about: "Worker processes with the defaults of a node: a lease of 15 s, a heartbeat every 5 s, a sweep every 2 s, a poll every 1 \
                s. Each process that is killed runs all jobs of its ledger; when, within the 5 s of a heartbeat, is drawn. A worker \
                process is the service and the worker of a node and nothing else; how long a node takes to start is in `footprint`.",
        lines: &lines,
        text: "",
        figures: Value::Array(figures),
    })
}
