//! A file of rows against a model: the kind `bulk`, and its routes.
//!
//! A job of this kind reads a stored file row by row ([`plinth_rows`]), asks the model in full batches, and writes one output row for each input row, in
//! order. What is written lies in parts in the object store, and the checkpoint names them, so that another attempt on any node goes on behind the last
//! part. Invariants: the output is the same, byte for byte, however often the job was interrupted; a row that is not understood or that the model refuses
//! is an error in its place and no more; memory does not grow with the file. Left to others: which node runs it and when (`jobs`), how batches are
//! put together further (`serving`).

pub mod batches;
mod engine;
mod run;
mod score;
mod spec;
mod submit;
mod table;

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::Method;
use plinth_jobs::{Blobs, Handler, Input, JobContext, JobError, Output};
use plinth_net::{Access, Route};
use plinth_policy::jobs::RetryPolicy;
use plinth_runtime::Clock;
use plinth_types::{Error, Reason};

use self::engine::Engine;
use self::run::{Journal, Part, Run, State};
use self::spec::Spec;
use crate::Services;
use crate::call::{Context, route};
use crate::jobs::infer_kind;
use crate::services::WeakServices;

/// The kind's name.
pub const KIND: &str = "bulk";

/// The routes of bulk jobs.
#[must_use]
pub fn routes(services: &Services) -> Vec<Route<Context>> {
    let mut routes = vec![
        route(services, Method::POST, "/api/v1/bulk", Access::Infer, "bulk.submit", submit::submit),
        route(services, Method::GET, "/api/v1/jobs/{job}/output", Access::Infer, "bulk.output", submit::output),
    ];
    routes.extend(batches::routes(services));
    routes
}

/// Runs bulk jobs. Made before the services are, which it asks: they are handed in later.
#[derive(Default)]
pub struct BulkKind(OnceLock<WeakServices>);

impl BulkKind {
    /// Without services yet: until then jobs are put back.
    #[must_use]
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// Hands the services in, once.
    pub fn attach(&self, services: &Services) {
        let _ = self.0.set(services.downgrade());
    }
}

#[async_trait]
impl Handler for BulkKind {
    async fn run(&self, input: Input, context: &JobContext) -> Result<Output, JobError> {
        let services = self.0.get().and_then(WeakServices::upgrade);
        let Some((services, jobs)) = services.and_then(|services| Some((services.clone(), services.jobs.clone()?))) else {
            return Err(JobError::NotNow(Duration::from_millis(200)));
        };
        // The model is named beside the input, where only the route that asked for the caller's rights writes it.
        let Some(model) = infer_kind::model(&input.meta) else {
            let text = "a bulk job is submitted at /api/v1/bulk";
            return Err(JobError::Dead(Error::new(Reason::MalformedRequest, text).field("kind")));
        };
        let spec: Spec = serde_json::from_slice(&input.bytes).map_err(|error| {
            JobError::Dead(Error::new(Reason::MalformedRequest, "the input of a bulk job cannot be read").source(error))
        })?;
        let state = context.checkpoint.as_deref().map_or_else(|| Ok(State::default()), serde_json::from_str);
        let mut state = state.map_err(|error| JobError::Dead(Error::internal("the checkpoint of a bulk job").source(error)))?;
        let journal = Stored { blobs: jobs.blobs().clone(), clock: services.world.clock.clone(), context };
        let work = async {
            let engine = Engine::open(&services, context, model, &spec, &state).await?;
            engine.pin(&mut state);
            let file = jobs.blobs().local(&spec.digest()?).await?;
            let run = Run { table: engine.table(), file, spec: &spec, state, concurrency: engine.concurrency() };
            run.through(&engine, &journal).await
        };
        let manifest = tokio::select! {
            manifest = Box::pin(work) => manifest?,
            // Dropping the work cancels it in the engine's queue; the last checkpoint stands.
            () = context.cancelled.cancelled() => return Err(JobError::Cancelled),
        };
        Output::json(&manifest)
    }

    /// Attempts go on where the one before stopped, so a run that takes a day has more of them.
    fn retry(&self) -> RetryPolicy {
        RetryPolicy { max_attempts: 20, ..RetryPolicy::default() }
    }
}

/// Parts in the object store, checkpoints in the ledger.
struct Stored<'a> {
    blobs: Blobs,
    clock: Arc<dyn Clock>,
    context: &'a JobContext,
}

#[async_trait]
impl Journal for Stored<'_> {
    async fn keep(&self, bytes: Bytes) -> Result<Part, Error> {
        let size = bytes.len() as u64;
        Ok(Part { digest: self.blobs.put(bytes).await?.to_string(), size })
    }

    async fn report(&self, done: Option<f64>, state: Option<&State>) -> Result<(), Error> {
        let checkpoint = state.map(serde_json::to_string).transpose();
        let checkpoint = checkpoint.map_err(|error| Error::internal("a checkpoint").source(error))?;
        let told = state.map(|state| ("rows".to_owned(), format!("{{\"rows\":{},\"failed\":{}}}", state.rows, state.failed)));
        match self.context.reporter.report(done, checkpoint, told.into_iter().collect()).await {
            // The ledger is away for a while: the work goes on, and the next report says it.
            Err(error) if error.reason() == Reason::StoreUnavailable => Ok(()),
            other => other,
        }
    }

    fn now(&self) -> Duration {
        self.clock.monotonic()
    }
}
