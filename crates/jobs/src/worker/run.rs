//! One attempt: the handler, its time, and the end that is written.

use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures_util::FutureExt;
use plinth_policy::jobs::{Failure as Kind, Next, RetryPolicy};
use plinth_queue::QueueError;
use plinth_queue::jobs::{Claimed, End, Finish, Finished, JobId};
use plinth_types::{Error, Reason};

use super::held::{Stop, Why};
use crate::follow::Followers;
use crate::handler::{Input, JobContext, JobError, Output, Reporter, failure};
use crate::request::millis;
use crate::{Handler, JobService};

/// How long a handler that was told to stop may take before it is dropped.
const GRACE: Duration = Duration::from_secs(5);
/// The longest pause between two offers of an end to a ledger that is away.
const LONGEST_OFFER: Duration = Duration::from_secs(5);

/// Runs a claimed job and writes its end.
pub(super) async fn run(service: &JobService, job: Claimed, stop: &Stop) {
    let metrics = service.metrics();
    let clock = &service.world().clock;
    if job.attempt == 1 {
        metrics.jobs_wait_duration.get([&job.kind]).observe(clock.now().since(job.created_at));
    }
    let _running = metrics.jobs_running.get([&job.kind]).hold();
    let (id, epoch, kind, retry, attempt) = (job.id, job.epoch, job.kind.clone(), job.retry, job.attempt);
    let begun = clock.monotonic();
    let outcome = work(service, job, stop).await;
    let ran = clock.monotonic().saturating_sub(begun);
    if stop.why() == Some(Why::Lost) {
        metrics.jobs_attempts.get([&kind, "fenced"]).inc();
        return;
    }
    let end = match end_of(service, outcome, stop, (&retry, attempt)).await {
        Ok(end) => end,
        // What must be kept before the end is written cannot be kept now: the lease runs out, and it runs again.
        Err(error) => return tracing::warn!(job = %id, cause = error.log_text(), "the result of a job cannot be kept"),
    };
    let word = match &end {
        End::Succeeded(_) => "succeeded",
        End::Retry { .. } => "retried",
        End::Dead(_) => "dead",
        End::Cancelled => "cancelled",
        End::Released { .. } => "released",
    };
    if let End::Dead(failure) = &end {
        tracing::info!(job = %id, kind, reason = %failure.reason, "a job has failed for good: {}", failure.text);
    }
    let finished = offer(service, Finish { id, epoch, end }, stop).await;
    let word = if finished == Some(Finished::Fenced) { "fenced" } else { word };
    metrics.jobs_attempts.get([&kind, word]).inc();
    metrics.jobs_run_duration.get([&kind]).observe(ran);
    if word == "succeeded" {
        service.seen().ended(&kind, ran, clock.monotonic());
    }
}

/// The handler's outcome, within the attempt's time.
async fn work(service: &JobService, job: Claimed, stop: &Stop) -> Result<Output, JobError> {
    let Some(handler) = service.kinds().get(&job.kind).cloned() else {
        // A node that knows the kind shall have it.
        return Err(JobError::NotNow(Duration::from_secs(30)));
    };
    let (meta, bytes) = service.blobs().read(job.payload).await?;
    let timeout = Duration::from_millis(job.timeout_millis);
    let reporter = Reporter {
        ledger: service.ledger().clone(),
        id: job.id,
        epoch: job.epoch,
        lost: stop.token.clone(),
        crash: service.world().crash.clone(),
        seen: Followers::clone(service.followers()),
    };
    let context = JobContext {
        id: job.id,
        tenant: job.tenant,
        kind: job.kind,
        attempt: job.attempt,
        class: job.class,
        actor: job.actor,
        created_at: job.created_at,
        timeout,
        checkpoint: job.checkpoint,
        cancelled: stop.token.clone(),
        reporter,
    };
    let running = guarded(&*handler, Input { meta, bytes }, &context);
    tokio::pin!(running);
    tokio::select! {
        outcome = &mut running => return outcome,
        () = tokio::time::sleep(timeout) => {
            let text = format!("the attempt took longer than its {} s", timeout.as_secs_f64());
            return Err(JobError::Retry(Error::new(Reason::JobTimeout, text), None));
        }
        () = stop.token.cancelled() => {}
    }
    // Told to stop: it may still say how far it came.
    tokio::time::timeout(GRACE, running).await.unwrap_or(Err(JobError::Cancelled))
}

/// A handler that panics has failed like another.
async fn guarded(handler: &dyn Handler, input: Input, context: &JobContext) -> Result<Output, JobError> {
    let running = AssertUnwindSafe(handler.run(input, context)).catch_unwind();
    running.await.unwrap_or_else(|_| Err(JobError::Retry(Error::internal("a handler panicked"), None)))
}

/// What is written for an outcome.
async fn end_of(
    service: &JobService,
    outcome: Result<Output, JobError>,
    stop: &Stop,
    (retry, attempt): (&RetryPolicy, u32),
) -> Result<End, Error> {
    let after = |error: &Error, kind: Kind| {
        let draw = service.world().random.next_u64() as f64 / u64::MAX as f64;
        match retry.after(attempt, kind, draw) {
            Next::Retry(pause) => End::Retry { failure: failure(error), after_millis: millis(pause) },
            Next::Dead => End::Dead(failure(error)),
        }
    };
    Ok(match (outcome, stop.why()) {
        (Ok(output), _) if output.bytes.len() as u64 > service.limits().max_result.0 => {
            let text = format!("the result has {} bytes, and a job may keep at most {}", output.bytes.len(), service.limits().max_result);
            End::Dead(failure(&Error::new(Reason::ResultTooLarge, text)))
        }
        (Ok(output), _) => End::Succeeded(keep(service, &output, stop).await?),
        (Err(_), Some(Why::Asked)) | (Err(JobError::Cancelled), Some(Why::Lost)) => End::Cancelled,
        (Err(_), Some(Why::NodeEnds)) => End::Released { after_millis: 0 },
        (Err(JobError::Cancelled), None) => End::Released { after_millis: 0 },
        (Err(JobError::NotNow(pause)), _) => End::Released { after_millis: millis(pause) },
        (Err(JobError::Retry(error, wish)), _) => {
            tracing::debug!(cause = error.log_text(), "an attempt at a job failed");
            after(&error, Kind::Retriable { after: wish })
        }
        (Err(JobError::Died(error)), _) => after(&error, Kind::Died),
        (Err(JobError::Dead(error)), _) => after(&error, Kind::Final),
    })
}

/// Puts the result away; while the object store is away, again and again, for the work must not be done twice for that.
async fn keep(service: &JobService, output: &Output, stop: &Stop) -> Result<plinth_queue::jobs::Payload, Error> {
    let mut pause = Duration::from_millis(100);
    loop {
        match service.blobs().keep(&output.meta, output.bytes.clone()).await {
            Ok(payload) => return Ok(payload),
            Err(error) if stop.why().is_some() => return Err(error),
            Err(error) => tracing::warn!(cause = error.log_text(), "the result of a job cannot be stored yet"),
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LONGEST_OFFER);
    }
}

/// Offers an end to the ledger until it answers. `None` when the node ended first.
async fn offer(service: &JobService, finish: Finish, stop: &Stop) -> Option<Finished> {
    let mut pause = Duration::from_millis(50);
    loop {
        match service.ledger().finish(finish.clone()).await {
            Ok(finished) => return Some(finished),
            Err(QueueError::Damaged(text)) => {
                tracing::error!(job = %finish.id, text, "the end of a job cannot be written");
                return None;
            }
            Err(error) => {
                let error = service.failed(error);
                note(finish.id, &error);
                if stop.why() == Some(Why::NodeEnds) {
                    return None;
                }
            }
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LONGEST_OFFER);
    }
}

fn note(id: JobId, error: &Error) {
    tracing::warn!(job = %id, cause = error.log_text(), "the end of a job cannot be written yet; it is kept");
}
