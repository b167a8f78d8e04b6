//! The shape of OpenAI's batches beside the native one: `/v1/batches`, and the kind `batch` behind it.
//!
//! The input file has a request in each line, `{"custom_id", "method", "url", "body"}`, all of them for the endpoint that the batch names: an inference
//! of the Open Inference Protocol. What went well goes into the output file, what did not into the error file, each in the order of the input.
//! Invariants: the endpoint's model is one that the submitter may use, and no line names another; a line is answered once in the files, however often
//! the job was interrupted.

mod lines;
mod show;

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::stream::FuturesOrdered;
use futures_util::{FutureExt, StreamExt};
use http::Method;
use plinth_jobs::{Blobs, Handler, Input, JobContext, JobError, JobService, Output};
use plinth_net::{Access, Route};
use plinth_policy::jobs::RetryPolicy;
use plinth_rows::{Checkpoint, Compression, Format, Limits, Reader, Source};
use plinth_types::{Digest, Error, ModelName, Reason, Result, VersionNumber};
use serde::{Deserialize, Serialize};

use self::lines::{Answer, Answerer};
use super::run::{Part, stop, unreadable};
use crate::call::{Context, route};
use crate::jobs::infer_kind;
use crate::services::WeakServices;
use crate::{Services, files};

/// The kind's name.
pub const KIND: &str = "batch";

/// Lines that are read together.
const LINES: usize = 256;
/// Bytes of lines that are read together, about.
const LINES_BYTES: usize = 16 << 20;
/// Lines that are answered at a time.
const CONCURRENCY: usize = 16;
/// A part ends when it has so many bytes, or after so long.
const PART_BYTES: usize = 4 << 20;
const PART_TIME: Duration = Duration::from_secs(5);

/// The routes of batches.
pub(super) fn routes(services: &Services) -> Vec<Route<Context>> {
    use Access::Infer;
    vec![
        route(services, Method::POST, "/v1/batches", Infer, "batches.create", show::create),
        route(services, Method::GET, "/v1/batches", Infer, "batches.list", show::list),
        route(services, Method::GET, "/v1/batches/{batch}", Infer, "batches.show", show::one),
        route(services, Method::POST, "/v1/batches/{batch}/cancel", Infer, "batches.cancel", show::cancel),
    ]
}

/// The job's input.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Spec {
    file: String,
    digest: String,
    endpoint: String,
    completion_window: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    metadata: Option<BTreeMap<String, String>>,
}

/// How far a run came.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct State {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    reader: Option<Checkpoint>,
    completed: u64,
    failed: u64,
    output: Vec<Part>,
    errors: Vec<Part>,
}

/// What a batch has given, and what its event `counts` says.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Counts {
    completed: u64,
    failed: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    output_file_id: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    error_file_id: Option<String>,
}

/// The model and version of an endpoint of the Open Inference Protocol.
fn endpoint(path: &str) -> Option<(ModelName, Option<VersionNumber>)> {
    let parts: Vec<&str> = path.strip_prefix("/v2/models/")?.strip_suffix("/infer")?.split('/').collect();
    match parts[..] {
        [model] => Some((model.parse().ok()?, None)),
        [model, "versions", version] => Some((model.parse().ok()?, Some(version.parse().ok()?))),
        _ => None,
    }
}

/// Runs batches. Made before the services are, which it asks: they are handed in later.
#[derive(Default)]
pub struct BatchKind(OnceLock<WeakServices>);

impl BatchKind {
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
impl Handler for BatchKind {
    async fn run(&self, input: Input, context: &JobContext) -> Result<Output, JobError> {
        let services = self.0.get().and_then(WeakServices::upgrade);
        let Some((services, jobs)) = services.and_then(|services| Some((services.clone(), services.jobs.clone()?))) else {
            return Err(JobError::NotNow(Duration::from_millis(200)));
        };
        let dead = |reason: Reason, text: &str| JobError::Dead(Error::new(reason, text));
        let named = infer_kind::model(&input.meta);
        let spec: Spec =
            serde_json::from_slice(&input.bytes).map_err(|_| dead(Reason::MalformedRequest, "the input is not that of a batch"))?;
        let Some((model, version)) = endpoint(&spec.endpoint).filter(|(model, _)| Some(model) == named.as_ref()) else {
            return Err(dead(Reason::MalformedRequest, "a batch is made at /v1/batches"));
        };
        let answerer = Answerer::new(&services, context, &spec.endpoint, model, version);
        let run = Run { services: &services, jobs: &jobs, context, answerer };
        tokio::select! {
            counts = Box::pin(run.through(&spec)) => Output::json(&counts?),
            () = context.cancelled.cancelled() => Err(JobError::Cancelled),
        }
    }

    /// Attempts go on where the one before stopped.
    fn retry(&self) -> RetryPolicy {
        RetryPolicy { max_attempts: 20, ..RetryPolicy::default() }
    }
}

struct Run<'a> {
    services: &'a Services,
    jobs: &'a JobService,
    context: &'a JobContext,
    answerer: Answerer<'a>,
}

impl Run<'_> {
    async fn through(&self, spec: &Spec) -> Result<Counts, JobError> {
        let state = self.context.checkpoint.as_deref().map_or_else(|| Ok(State::default()), serde_json::from_str);
        let mut state: State = state.map_err(|error| JobError::Dead(Error::internal("the checkpoint of a batch").source(error)))?;
        let digest: Digest = spec.digest.parse().map_err(|_| JobError::Dead(Error::internal("the digest of a batch's file")))?;
        let file = self.jobs.blobs().local(&digest).await?;
        let at = state.reader.clone();
        let mut reader = blocking(move || match at {
            None => Reader::open(Source::seek(file), Format::JsonLines, Compression::None, Limits::default()),
            Some(at) => Reader::resume(Source::seek(file), &at, Limits::default()),
        })
        .await?
        .map_err(unreadable)?;
        let clock = &self.services.world.clock;
        let (mut output, mut errors, mut cut_at) = (Vec::new(), Vec::new(), clock.monotonic());
        loop {
            let (back, rows) = blocking(move || {
                let rows = reader.next_batch(LINES, LINES_BYTES);
                (reader, rows)
            })
            .await?;
            reader = back;
            let rows = rows.map_err(unreadable)?;
            let last = rows.is_none();
            let mut waiting = rows.map(|batch| batch.rows).unwrap_or_default().into_iter();
            let mut answers = FuturesOrdered::new();
            loop {
                while answers.len() < CONCURRENCY
                    && let Some(row) = waiting.next()
                {
                    answers.push_back(self.answerer.answer(row).boxed());
                }
                let Some(answer) = answers.next().await else { break };
                let Answer { good, line } = answer?;
                *(if good { &mut state.completed } else { &mut state.failed }) += 1;
                let lines = if good { &mut output } else { &mut errors };
                lines.extend_from_slice(&line);
                lines.push(b'\n');
            }
            let now = clock.monotonic();
            if last || output.len() + errors.len() >= PART_BYTES || now.saturating_sub(cut_at) >= PART_TIME {
                for (lines, parts) in [(&mut output, &mut state.output), (&mut errors, &mut state.errors)] {
                    if !lines.is_empty() {
                        let bytes = std::mem::take(lines);
                        let size = bytes.len() as u64;
                        parts.push(Part { digest: self.jobs.blobs().put(bytes.into()).await?.to_string(), size });
                    }
                }
                state.reader = Some(reader.checkpoint());
                self.report(&state).await?;
                cut_at = now;
            }
            if last {
                break;
            }
        }
        Ok(Counts {
            completed: state.completed,
            failed: state.failed,
            output_file_id: self.file("output", &state.output).await?,
            error_file_id: self.file("error", &state.errors).await?,
        })
    }

    async fn report(&self, state: &State) -> Result<(), JobError> {
        let checkpoint = serde_json::to_string(state).map_err(|error| Error::internal("a checkpoint").source(error))?;
        let told = format!("{{\"completed\":{},\"failed\":{}}}", state.completed, state.failed);
        match self.context.reporter.report(None, Some(checkpoint), vec![("counts".to_owned(), told)]).await {
            Err(error) if error.reason() != Reason::StoreUnavailable => Err(stop(error)),
            _ => Ok(()),
        }
    }

    /// Makes one file of parts; none of none.
    async fn file(&self, what: &str, parts: &[Part]) -> Result<Option<String>, JobError> {
        if parts.is_empty() {
            return Ok(None);
        }
        let blobs: &Blobs = self.jobs.blobs();
        let stored = blobs.put_stream(super::submit::parts(blobs.clone(), parts.to_vec()), files::MAX_FILE).await?;
        let name = format!("batch_{}_{what}.jsonl", self.context.id);
        let said = files::Said { name, purpose: "batch_output".into(), content_type: "application/jsonl".into(), keep: None };
        let who = files::Uploader { tenant: self.context.tenant.clone(), actor: self.context.actor.clone() };
        Ok(Some(files::record(self.jobs, &who, said, stored).await?.id))
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, JobError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| JobError::from(Error::internal("a blocking step").source(error)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_inferences_of_models() {
        let read = |path: &str| endpoint(path).map(|(model, version)| (model.to_string(), version.map(VersionNumber::get)));
        assert_eq!(read("/v2/models/digits/infer"), Some(("digits".into(), None)));
        assert_eq!(read("/v2/models/digits/versions/3/infer"), Some(("digits".into(), Some(3))));
        for bad in
            ["", "/v2/models//infer", "/v2/models/a/b/infer", "/v2/models/a/versions/x/infer", "/v1/chat/completions", "/v2/models/infer"]
        {
            assert_eq!(read(bad), None, "{bad}");
        }
    }
}
