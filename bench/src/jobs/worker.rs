//! A process that works on jobs, as a node does, to be killed: the hidden subcommand `job-worker`.
//!
//! It takes submissions over a Unix socket (a line of JSON each, answered when it is committed), runs jobs that do what their input says,
//! and tells the sink when a job begins, each of its effects, and what became of each end. Invariant: it ends when its standard input
//! does, so it does not outlive who started it.

use std::collections::HashSet;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use async_trait::async_trait;
use plinth_jobs::{
    Handler, Input, JobContext, JobError, JobRequest, JobService, META_TYPE, Meta, Output, Worker, WorkerOptions, WorkerParts,
};
use plinth_policy::jobs::RetryPolicy;
use plinth_queue::QueueError;
use plinth_queue::jobs::{Body, End, Finish, Finished, Payload};
use plinth_runtime::{CrashPoints, TaskGroup, World};
use plinth_types::{ByteSize, Digest, Error, Reason, TenantName};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};

use super::ledgers::Place;
use super::make::{self, KIND};
use super::sink::{NOTHING, Voice};
use super::watched::Watched;

/// Longer results go to the object store.
pub const INLINE: ByteSize = ByteSize(1024);
/// How long the ledger may be away when the process starts.
const PATIENCE: Duration = Duration::from_secs(60);
/// For one operation of the ledger: shorter than a node's, so that what hangs is noticed within a run.
const OPERATION: Duration = Duration::from_secs(5);
/// Whose all jobs are.
pub const TENANT: &str = "bench";

#[derive(clap::Args)]
pub struct Arguments {
    #[command(flatten)]
    place: Place,
    /// Where large results are.
    #[arg(long)]
    objects: PathBuf,
    /// The sink's socket.
    #[arg(long)]
    sink: PathBuf,
    /// The socket for submissions, to be made.
    #[arg(long)]
    listen: PathBuf,
    #[command(flatten)]
    pace: Pace,
    /// The node's name.
    #[arg(long)]
    node: String,
    /// The crash point to die at.
    #[arg(long)]
    crash: Option<String>,
    /// When it is passed for this time.
    #[arg(long, default_value_t = 1)]
    nth: u32,
}

/// How a worker works. Times in milliseconds.
#[derive(clap::Args, Clone, Copy)]
pub struct Pace {
    #[arg(long)]
    pub workers: u32,
    #[arg(long)]
    pub lease: u64,
    #[arg(long)]
    pub heartbeat: u64,
    #[arg(long)]
    pub sweep: u64,
    #[arg(long)]
    pub poll: u64,
}

impl Pace {
    /// As by default.
    pub fn usual(workers: u32) -> Self {
        let WorkerOptions { lease, heartbeat, sweep, poll, .. } = WorkerOptions::default();
        let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        Self { workers, lease: millis(lease), heartbeat: millis(heartbeat), sweep: millis(sweep), poll: millis(poll) }
    }

    /// As the arguments of a worker process.
    pub fn arguments(&self) -> Vec<String> {
        let Self { workers, lease, heartbeat, sweep, poll } = *self;
        let pairs = [("workers", workers.into()), ("lease", lease), ("heartbeat", heartbeat), ("sweep", sweep), ("poll", poll)];
        pairs.into_iter().flat_map(|(name, value)| [format!("--{name}"), value.to_string()]).collect()
    }

    fn options(&self, node: &str) -> WorkerOptions {
        let millis = Duration::from_millis;
        WorkerOptions {
            node: node.to_owned(),
            workers: self.workers,
            lease: millis(self.lease),
            heartbeat: millis(self.heartbeat),
            poll: millis(self.poll),
            sweep: millis(self.sweep),
            drain: Duration::from_secs(1),
        }
    }
}

/// What a job shall do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Task {
    /// How many effects it has outside.
    pub steps: u8,
    /// How long it takes.
    pub millis: u64,
    /// Whether it reports after each step.
    pub reports: bool,
    /// Bytes of its result beside the rest.
    pub bytes: usize,
}

/// What is asked of a worker process.
#[derive(Debug, Serialize, Deserialize)]
pub enum Ask {
    /// Jobs to be stored, under an idempotency key which is also their label.
    Submit { key: String, tasks: Vec<Task> },
    /// How many jobs have not ended.
    Open,
}

/// Does what a [`Task`] says.
struct Work {
    sink: PathBuf,
}

impl Work {
    async fn work(&self, task: Task, context: &JobContext) -> Result<Output, JobError> {
        let lost = |error: anyhow::Error| {
            JobError::Retry(Error::new(Reason::UpstreamUnavailable, "the sink").source(std::io::Error::other(error)), None)
        };
        let mut voice = Voice::connect(&self.sink).await.map_err(lost)?;
        voice.begun(context.id).await.map_err(lost)?;
        for step in 0..task.steps {
            tokio::select! {
                () = tokio::time::sleep(Duration::from_millis(task.millis / u64::from(task.steps))) => {}
                () = context.cancelled.cancelled() => return Err(JobError::Cancelled),
            }
            voice.effect(&context.effect_key(&step.to_string()), context.id, step).await.map_err(lost)?;
            if task.reports {
                let done = Some(f64::from(step + 1) / f64::from(task.steps));
                match context.reporter.report(done, Some(step.to_string()), vec![("step".to_owned(), step.to_string())]).await {
                    Err(error) if error.reason() == Reason::WorkerLost => return Err(JobError::Cancelled),
                    // Progress is no promise.
                    _ => {}
                }
            }
        }
        // No two attempts have the same result.
        let random = plinth_runtime::Random::next_u64(&plinth_runtime::SystemRandom);
        let text = format!(
            "{{\"by\":{},\"attempt\":{},\"random\":{random},\"more\":\"{}\"}}",
            std::process::id(),
            context.attempt,
            "x".repeat(task.bytes)
        );
        Ok(Output { meta: Meta::of(META_TYPE), bytes: text.into() })
    }
}

#[async_trait]
impl Handler for Work {
    async fn run(&self, input: Input, context: &JobContext) -> Result<Output, JobError> {
        let task = serde_json::from_slice(&input.bytes)
            .map_err(|error| JobError::Dead(Error::new(Reason::MalformedRequest, "no task").source(error)))?;
        self.work(task, context).await
    }

    fn retry(&self) -> RetryPolicy {
        let pause = Duration::from_millis(100);
        RetryPolicy { max_attempts: 100, base: pause, factor: 1, cap: pause }
    }
}

/// A word for a result by which it is known again.
pub fn word(result: &Payload) -> String {
    match &result.body {
        Body::Inline(bytes) => Digest::of(bytes).to_string(),
        Body::Object { digest, .. } => digest.clone(),
    }
}

/// Tells the sink of ends, over a connection of its own that is written at once.
struct Ends {
    to: Mutex<std::os::unix::net::UnixStream>,
    /// Ends that failed once: what became of those, nobody knows.
    unknown: Mutex<HashSet<(plinth_queue::jobs::JobId, u64)>>,
}

impl Ends {
    fn tell(&self, finish: &Finish, outcome: &Result<Finished, QueueError>) {
        let (id, epoch) = (finish.id, finish.epoch);
        let word = match outcome {
            Ok(Finished::Done) => "done",
            Ok(Finished::Fenced) => "fenced",
            Err(_) => "unknown",
        };
        let again = {
            let mut unknown = self.unknown.lock().unwrap_or_else(PoisonError::into_inner);
            if outcome.is_err() { !unknown.insert((id, epoch)) } else { unknown.remove(&(id, epoch)) }
        };
        let result = match &finish.end {
            End::Succeeded(result) => self::word(result),
            End::Dead(_) | End::Cancelled => NOTHING.to_owned(),
            // The job goes on.
            End::Retry { .. } | End::Released { .. } => return,
        };
        let line = format!("ended {id} {epoch} {word} {again} {result}\n");
        // The sink goes only when the run is over.
        let _ = self.to.lock().unwrap_or_else(PoisonError::into_inner).write_all(line.as_bytes());
    }
}

/// Works until the standard input ends.
pub async fn work(arguments: Arguments) -> Result<()> {
    std::thread::Builder::new().name("parent".to_owned()).spawn(|| {
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        std::process::exit(0);
    })?;
    let crash = match &arguments.crash {
        Some(name) => CrashPoints::arm(name, arguments.nth).map_err(anyhow::Error::msg)?,
        None => CrashPoints::none(),
    };
    let world = World { crash, ..World::real() };
    let start = Instant::now();
    let ledger = loop {
        match arguments.place.open(&world, OPERATION).await {
            Ok(ledger) => break ledger,
            Err(error) if start.elapsed() > PATIENCE => return Err(error).context("the ledger cannot be opened"),
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    };
    let ends = Ends { to: Mutex::new(std::os::unix::net::UnixStream::connect(&arguments.sink)?), unknown: Mutex::default() };
    let ledger = Watched::around(ledger, Arc::new(move |finish, outcome| ends.tell(finish, outcome)));
    let handler = Arc::new(Work { sink: arguments.sink.clone() });
    let service = make::service(ledger, handler, &arguments.objects, INLINE, &world).await?;
    let listener = listen(&arguments.listen)?;
    let tasks = TaskGroup::new("job worker");
    let options = arguments.pace.options(&arguments.node);
    let _worker = Worker::start(WorkerParts { service: service.clone(), options, lowest_class: Arc::new(|| 3) }, &tasks);
    Voice::connect(&arguments.sink).await?.ready().await?;
    loop {
        let (stream, _) = listener.accept().await?;
        let service = service.clone();
        tokio::spawn(async move {
            // The client asks again, here or elsewhere.
            let _ = answer(stream, &service).await;
        });
    }
}

fn listen(path: &Path) -> Result<UnixListener> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => bail!("{error}"),
        _ => UnixListener::bind(path).context("the socket for submissions"),
    }
}

async fn answer(stream: UnixStream, service: &JobService) -> Result<()> {
    let (from, mut to) = stream.into_split();
    let mut lines = BufReader::new(from).lines();
    while let Some(line) = lines.next_line().await? {
        let answer = match one(serde_json::from_str(&line)?, service).await {
            Ok(answer) => format!("ok {answer}\n"),
            Err(error) => format!("no {}\n", error.reason()),
        };
        to.write_all(answer.as_bytes()).await?;
    }
    Ok(())
}

async fn one(ask: Ask, service: &JobService) -> plinth_types::Result<String> {
    match ask {
        Ask::Submit { key, tasks } => {
            let tenant: TenantName = TENANT.parse().map_err(|_| Error::internal("the tenant's name"))?;
            let jobs = tasks.iter().map(|task| {
                let labels = [("key".to_owned(), key.clone())].into();
                let request = JobRequest { kind: KIND.into(), labels, ..JobRequest::default() };
                let bytes = serde_json::to_vec(task).unwrap_or_default();
                (request, Input { meta: Meta::of(META_TYPE), bytes: bytes.into() })
            });
            let submitted = service.submit(&tenant, "bench", Some(&key), jobs.collect()).await?;
            Ok(submitted.ids.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "))
        }
        Ask::Open => {
            let counts = service.counts(None).await?;
            Ok(counts.iter().filter(|count| !count.state.ended()).map(|count| count.jobs).sum::<u64>().to_string())
        }
    }
}
