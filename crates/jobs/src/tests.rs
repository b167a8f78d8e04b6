//! Whole paths through the service and a worker, over a ledger in a file.

mod flows;
mod telling;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::Mutex;
use std::time::Duration;

use async_trait::async_trait;
use plinth_net::outbound::Guard;
use plinth_queue::Jobs;
use plinth_queue::jobs::JobId;
use plinth_queue::jobs::sqlite::SqliteJobs;
use plinth_runtime::{TaskGroup, World};
use plinth_store::objects::{self, ObjectsOptions, ObjectsUrl};
use plinth_telemetry::{BuildInfo, Catalogue};
use plinth_types::{ByteSize, Error, Reason, TenantName};
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

use crate::{
    Blobs, Handler, Input, JobContext, JobError, JobLimits, JobRequest, JobService, Kind, Kinds, META_TYPE, Meta, Output, ServiceParts,
    View, Worker, WorkerOptions, WorkerParts, typed,
};

/// A node's jobs: a ledger in a directory, a service, a worker.
struct Node {
    service: JobService,
    worker: Worker,
    tasks: TaskGroup,
    tenant: TenantName,
}

/// A kind whose attempts do what their input says.
#[derive(Default)]
struct Script {
    /// How often each word was run.
    runs: Mutex<BTreeMap<String, u32>>,
    /// A job has begun.
    begun: Notify,
    /// Lets go on those that wait.
    go: Notify,
}

impl Script {
    fn count(&self, word: &str) -> u32 {
        self.runs.lock().unwrap().get(word).copied().unwrap_or_default()
    }
}

#[async_trait]
impl Handler for Script {
    async fn run(&self, input: Input, context: &JobContext) -> Result<Output, JobError> {
        let word = String::from_utf8(input.bytes.to_vec()).unwrap();
        let times = {
            let mut runs = self.runs.lock().unwrap();
            let times = runs.entry(word.clone()).or_default();
            *times += 1;
            *times
        };
        self.begun.notify_one();
        let error = |reason| Error::new(reason, "as the script says");
        match word.as_str() {
            "echo" => {}
            "twice" if times == 1 => return Err(JobError::Retry(error(Reason::RunnerCrashed), None)),
            "dies" => return Err(JobError::Died(error(Reason::RunnerCrashed))),
            "bad" => return Err(JobError::Dead(error(Reason::MalformedRequest))),
            "panic" if times == 1 => panic!("as the script says"),
            "later" if times == 1 => return Err(JobError::NotNow(Duration::from_millis(5))),
            "wait" => tokio::select! {
                () = self.go.notified() => {}
                () = context.cancelled.cancelled() => return Err(JobError::Cancelled),
            },
            "deaf" => self.go.notified().await,
            "large" => return Ok(Output { meta: Meta::of("application/octet-stream"), bytes: vec![7; 200_000].into() }),
            "huge" => return Ok(Output { meta: Meta::of("application/octet-stream"), bytes: vec![7; 2_000_000].into() }),
            "reports" => {
                for step in 1..=3 {
                    let event = ("step".to_owned(), format!("{step}"));
                    context.reporter.report(Some(f64::from(step) / 4.0), Some(step.to_string()), vec![event]).await?;
                }
            }
            _ => {}
        }
        Ok(Output { meta: input.meta, bytes: word.into() })
    }
}

#[derive(Deserialize)]
struct Pair {
    a: i64,
    b: i64,
}

#[derive(Serialize, Deserialize)]
struct Sum {
    sum: i64,
}

struct Add;

impl Kind for Add {
    type Input = Pair;
    type Output = Sum;

    async fn run(&self, input: Pair, _: &JobContext) -> Result<Sum, JobError> {
        Ok(Sum { sum: input.a + input.b })
    }
}

async fn ledger(directory: &std::path::Path) -> Arc<dyn Jobs> {
    Arc::new(SqliteJobs::open(&directory.join("jobs"), &World::real()).await.unwrap())
}

fn options() -> WorkerOptions {
    WorkerOptions {
        node: "here".into(),
        workers: 8,
        heartbeat: Duration::from_millis(50),
        lease: Duration::from_millis(400),
        poll: Duration::from_millis(100),
        sweep: Duration::from_millis(50),
        drain: Duration::from_millis(100),
    }
}

impl Node {
    async fn start(directory: &std::path::Path, kinds: Vec<(&str, Arc<dyn Handler>)>, guard: Guard) -> Self {
        Self::with(directory, ledger(directory).await, kinds, guard).await
    }

    async fn with(directory: &std::path::Path, ledger: Arc<dyn Jobs>, kinds: Vec<(&str, Arc<dyn Handler>)>, guard: Guard) -> Self {
        let world = World::real();
        let objects = ObjectsOptions::new(ObjectsUrl::File(directory.join("blobs")));
        let objects = objects::open(&objects, &world).await.unwrap();
        let limits = JobLimits { max_result: ByteSize::mib(1), max_waiting: 50, ..JobLimits::default() };
        let parts = ServiceParts {
            ledger,
            blobs: Blobs::new(objects, limits.inline, world.crash.clone()),
            kinds: Kinds::new(kinds.into_iter().map(|(name, handler)| (name.to_owned(), handler))),
            limits,
            guard,
            bus: plinth_bus::Bus::local(),
            metrics: Arc::new(Catalogue::new(BuildInfo { version: "0", commit: "test" })),
            world,
        };
        let service = JobService::new(parts);
        let tasks = TaskGroup::new("test");
        let worker = Worker::start(WorkerParts { service: service.clone(), options: options(), lowest_class: Arc::new(|| 3) }, &tasks);
        Self { service, worker, tasks, tenant: "acme".parse().unwrap() }
    }

    async fn submit(&self, request: JobRequest, body: &str) -> JobId {
        let input = Input { meta: Meta::of(META_TYPE), bytes: body.to_owned().into() };
        self.service.submit(&self.tenant, "ann", None, vec![(request, input)]).await.unwrap().ids[0]
    }

    async fn script(&self, word: &str) -> JobId {
        self.submit(JobRequest { kind: "script".into(), ..JobRequest::default() }, word).await
    }

    async fn ended(&self, id: JobId) -> View {
        let view = self.service.wait(&self.tenant, id, Duration::from_secs(10)).await.unwrap();
        assert!(view.job.state.ended(), "{view:?}");
        view
    }

    async fn stop(self) {
        self.worker.stop().await;
        let late = self.tasks.close(Duration::from_secs(5)).await;
        assert!(late.is_empty(), "{late:?}");
        self.service.ledger().close().await;
    }
}
