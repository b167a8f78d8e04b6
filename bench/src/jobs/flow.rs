//! How many jobs that do nothing pass through in a second, and how soon does one begin when nothing else is to be done?
//!
//! A service and a worker in this process, as a node has them: checked, stored, claimed, run, and the end committed.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use async_trait::async_trait;
use plinth_jobs::{
    Handler, Input, JobContext, JobError, JobLimits, JobRequest, JobService, META_TYPE, Meta, Output, Worker, WorkerOptions, WorkerParts,
};
use plinth_policy::jobs::State;
use plinth_queue::jobs::Finished;
use plinth_runtime::{TaskGroup, World};
use plinth_types::TenantName;
use serde_json::{Value, json};
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinSet;

use super::ledgers::{self, Fresh, PATIENCE, Server};
use super::make::{self, KIND};
use super::times::{Times, millis};
use super::watched::Watched;
use crate::line::{Line, Verdict};
use crate::setup::{Part, Setup};

/// Jobs in a second from end to end.
const GOAL: f64 = 3_000.0;
/// Milliseconds from a submission to the start, half of the time.
const SOON: f64 = 20.0;
const BYTES: usize = 200;
/// The longest that the jobs may take to end.
const LONG: Duration = Duration::from_secs(300);

/// How much of it.
#[derive(clap::Args, Clone)]
pub struct Amount {
    /// Jobs that pass through.
    #[arg(long, default_value_t = 60_000)]
    jobs: usize,
    /// Clients that submit them, each one at a time.
    #[arg(long, default_value_t = 64)]
    clients: usize,
    /// Jobs that are submitted one by one while nothing else is to be done.
    #[arg(long, default_value_t = 200)]
    alone: usize,
    #[command(flatten)]
    server: Server,
}

impl Amount {
    pub fn scaled(scale: f64) -> Self {
        let some = |count: f64| (count * scale).ceil().max(1.0) as usize;
        Self { jobs: some(60_000.0), clients: 64, alone: some(200.0), server: Server::default() }
    }
}

/// Does nothing, and says when.
struct Nothing {
    begun: mpsc::Sender<Instant>,
}

#[async_trait]
impl Handler for Nothing {
    async fn run(&self, input: Input, _: &JobContext) -> Result<Output, JobError> {
        // Nobody may be listening.
        let _ = self.begun.try_send(Instant::now());
        Ok(Output { meta: input.meta, bytes: bytes::Bytes::from_static(b"{}") })
    }
}

/// A service and its worker.
struct Node {
    service: JobService,
    worker: Worker,
    tasks: TaskGroup,
    tenant: TenantName,
    begun: mpsc::Receiver<Instant>,
    /// Ends that were committed.
    ended: Arc<(AtomicUsize, Notify)>,
}

impl Node {
    async fn start(fresh: &Fresh) -> Result<Self> {
        let world = World::real();
        let ended: Arc<(AtomicUsize, Notify)> = Arc::default();
        let counts = ended.clone();
        let ledger = Watched::around(
            fresh.place.open(&world, PATIENCE).await?,
            Arc::new(move |_, outcome| {
                if matches!(outcome, Ok(Finished::Done)) {
                    counts.0.fetch_add(1, Ordering::Relaxed);
                    counts.1.notify_waiters();
                }
            }),
        );
        let (sender, begun) = mpsc::channel(1);
        let objects = fresh.directory().join("objects");
        let service = make::service(ledger, Arc::new(Nothing { begun: sender }), &objects, JobLimits::default().inline, &world).await?;
        let tasks = TaskGroup::new("flow");
        let parts = WorkerParts { service: service.clone(), options: WorkerOptions::default(), lowest_class: Arc::new(|| 3) };
        let worker = Worker::start(parts, &tasks);
        Ok(Self { service, worker, tasks, tenant: "bench".parse()?, begun, ended })
    }

    /// Jobs in a second, from the first submission to the last committed end.
    async fn pass(&self, jobs: usize, clients: usize) -> Result<f64> {
        let (start, before) = (Instant::now(), self.ended.0.load(Ordering::Relaxed));
        let next = Arc::new(AtomicUsize::new(0));
        let mut all = JoinSet::new();
        for _ in 0..clients {
            let (service, tenant, next) = (self.service.clone(), self.tenant.clone(), next.clone());
            all.spawn(async move {
                while next.fetch_add(1, Ordering::Relaxed) < jobs {
                    service.submit(&tenant, "bench", None, vec![job()]).await?;
                }
                anyhow::Ok(())
            });
        }
        while let Some(client) = all.join_next().await {
            client??;
        }
        let all_ended = async {
            loop {
                let next = self.ended.1.notified();
                if self.ended.0.load(Ordering::Relaxed) - before >= jobs {
                    return;
                }
                next.await;
            }
        };
        tokio::time::timeout(LONG, all_ended).await.context("not all jobs have ended")?;
        Ok(jobs as f64 / start.elapsed().as_secs_f64())
    }

    /// Milliseconds from the call of a submission to the start of its job, one job after the other.
    async fn alone(&mut self, jobs: usize) -> Result<Times> {
        // What was told while many ran.
        while self.begun.try_recv().is_ok() {}
        let mut took = Vec::new();
        for number in 0..jobs {
            let before = self.ended.0.load(Ordering::Relaxed);
            let start = Instant::now();
            self.service.submit(&self.tenant, "bench", None, vec![job()]).await?;
            let begun = tokio::time::timeout(LONG, self.begun.recv()).await?.context("the worker has ended")?;
            took.push(millis(begun.saturating_duration_since(start)));
            while self.ended.0.load(Ordering::Relaxed) == before {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            // Not in step with anything that comes round by itself.
            tokio::time::sleep(Duration::from_millis(3 + (number as u64 * 7) % 20)).await;
        }
        Ok(Times::new(took))
    }

    async fn stop(self, expected: usize) -> Result<()> {
        self.worker.stop().await;
        let counts = self.service.counts(None).await?;
        let well: u64 = counts.iter().filter(|count| count.state == State::Succeeded).map(|count| count.jobs).sum();
        let all: u64 = counts.iter().map(|count| count.jobs).sum();
        ensure!((well, all) == (expected as u64, expected as u64), "of {expected} jobs the ledger has {all}, and {well} ended well");
        self.tasks.close(Duration::from_secs(5)).await;
        self.service.ledger().close().await;
        Ok(())
    }
}

fn job() -> (JobRequest, Input) {
    let request = JobRequest { kind: KIND.into(), ..JobRequest::default() };
    (request, Input { meta: Meta::of(META_TYPE), bytes: vec![b'x'; BYTES].into() })
}

struct Found {
    about: String,
    per_second: f64,
    alone: Times,
}

async fn one(fresh: &Fresh, amount: &Amount) -> Result<Found> {
    let mut node = Node::start(fresh).await?;
    let warm = amount.jobs.div_ceil(20);
    node.pass(warm, amount.clients).await?;
    let per_second = node.pass(amount.jobs, amount.clients).await?;
    let alone = node.alone(amount.alone).await?;
    node.stop(warm + amount.jobs + amount.alone).await?;
    Ok(Found { about: fresh.about().await?, per_second, alone })
}

/// Measures and writes `jobs_flow`.
pub async fn measure(setup: &Setup, amount: &Amount) -> Result<Verdict> {
    let (mut lines, mut about, mut figures) = (Vec::new(), Vec::new(), serde_json::Map::new());
    for (name, fresh) in ledgers::both(&amount.server).await {
        let found = match fresh {
            Ok(fresh) => {
                let found = one(&fresh, amount).await;
                fresh.remove().await?;
                found
            }
            Err(error) => Err(error),
        };
        let (flow, flow_bar) = (format!("{name}: jobs from submission to the committed end"), format!("≥ {GOAL:.0}/s"));
        let (soon, soon_bar) =
            (format!("{name}: from a submission to the start of its job, nothing else to do"), format!("p50 ≤ {SOON:.0} ms"));
        match found {
            Ok(found) => {
                lines.push(Line::judged(flow, flow_bar, format!("{:.0}/s", found.per_second), found.per_second >= GOAL));
                let (p50, p99) = (found.alone.at(0.5), found.alone.at(0.99));
                lines.push(Line::judged(soon, soon_bar, format!("p50 {p50:.1} ms, p99 {p99:.1} ms"), p50 <= SOON));
                figures.insert(name.to_lowercase(), json!({ "per_second": found.per_second, "alone": found.alone.figures() }));
                about.push(found.about);
            }
            Err(error) => {
                lines.push(Line::missing(flow, flow_bar, &format!("{error:#}")));
                lines.push(Line::missing(soon, soon_bar, &format!("{error:#}")));
            }
        }
    }
    setup.finish(&Part {
        name: "jobs_flow",
        title: "Jobs from end to end",
        how: &format!("{} jobs by {} clients, then {} one by one", amount.jobs, amount.clients, amount.alone),
        about: &format!(
            "A service and a worker with the defaults of a node (64 jobs at a time) in one process with their clients, and a kind that \
             does nothing with its {BYTES} bytes. Each submission has one job and is answered when it is committed and synced; a job has \
             passed when its end is. {}.",
            about.join("; ")
        ),
        lines: &lines,
        text: "",
        figures: Value::Object(figures),
    })
}
