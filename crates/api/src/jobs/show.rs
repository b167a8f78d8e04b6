//! Looking at jobs.

use std::collections::BTreeMap;
use std::time::Duration;

use http::StatusCode;
use http::header::RETRY_AFTER;
use plinth_client::wire::Page;
use plinth_client::wire::jobs as wire;
use plinth_jobs::View;
use plinth_net::Response;
use plinth_policy::jobs::State;
use plinth_queue::jobs::{Failure, Job, JobId, ListJobs};
use plinth_types::{Error, Reason, Result};

use super::{id, jobs, may_see, must_see};
use crate::Services;
use crate::call::Call;
use crate::reply;

/// The longest that one request waits for the end of a job.
const MAX_WAIT: f64 = 60.0;
/// The classes by number.
const CLASSES: [&str; 4] = ["critical", "default", "sheddable", "background"];

pub(super) async fn one(services: Services, call: Call) -> Result<Response> {
    let (jobs, id, tenant) = (jobs(&services)?, id(&call)?, &call.principal.tenant);
    let wait = wait(&call)?;
    must_see(&call, &jobs.get(tenant, id).await?)?;
    let view = if wait.is_zero() { jobs.view(tenant, id).await? } else { jobs.wait(tenant, id, wait).await? };
    let after = view.retry_after;
    let mut response = reply::json(&job_with(view))?;
    if let Some(after) = after {
        response.headers_mut().insert(RETRY_AFTER, after.as_secs().max(1).into());
    }
    Ok(response)
}

/// `?wait=SECONDS`.
fn wait(call: &Call) -> Result<Duration> {
    let Some(text) = call.query("wait") else { return Ok(Duration::ZERO) };
    let seconds = text.trim_end_matches('s').parse::<f64>().ok().filter(|seconds| (0.0..=3600.0).contains(seconds));
    let seconds = seconds.ok_or_else(|| Error::new(Reason::MalformedRequest, "'wait' is a number of seconds").field("wait"))?;
    Ok(Duration::from_secs_f64(seconds.min(MAX_WAIT)))
}

pub(super) async fn result(services: Services, call: Call) -> Result<Response> {
    let (jobs, id, tenant) = (jobs(&services)?, id(&call)?, &call.principal.tenant);
    must_see(&call, &jobs.get(tenant, id).await?)?;
    let wait = wait(&call)?;
    if !wait.is_zero() {
        jobs.wait(tenant, id, wait).await?;
    }
    if let Some((meta, bytes)) = jobs.result(tenant, id).await? {
        return Ok(super::submit::with_meta(&meta, bytes));
    }
    let view = jobs.view(tenant, id).await?;
    let after = view.retry_after.unwrap_or(Duration::from_secs(1));
    let mut response = reply::json_with(StatusCode::ACCEPTED, &job_with(view))?;
    response.headers_mut().insert(RETRY_AFTER, after.as_secs().max(1).into());
    Ok(response)
}

pub(super) async fn input(services: Services, call: Call) -> Result<Response> {
    let (jobs, id, tenant) = (jobs(&services)?, id(&call)?, &call.principal.tenant);
    must_see(&call, &jobs.get(tenant, id).await?)?;
    let (meta, bytes) = jobs.input(tenant, id).await?;
    Ok(super::submit::with_meta(&meta, bytes))
}

pub(super) async fn attempts(services: Services, call: Call) -> Result<Response> {
    let (jobs, id, tenant) = (jobs(&services)?, id(&call)?, &call.principal.tenant);
    must_see(&call, &jobs.get(tenant, id).await?)?;
    let attempts = jobs.attempts(tenant, id).await?;
    let list: Vec<_> = attempts
        .into_iter()
        .map(|attempt| wire::Attempt {
            attempt: attempt.attempt,
            worker: attempt.worker,
            started_at: attempt.started_at,
            ended_at: attempt.ended_at,
            error: failure(attempt.failure),
        })
        .collect();
    reply::json(&list)
}

pub(super) async fn list(services: Services, call: Call) -> Result<Response> {
    let jobs = jobs(&services)?;
    let page = call.page("cursor")?;
    let bad = |field: &'static str, text: String| Error::new(Reason::MalformedRequest, text).field(field);
    let state = call.query("state").map(|text| text.parse::<State>()).transpose().map_err(|error| bad("state", error.to_string()))?;
    let id_of = |field: &'static str, text: Option<String>| {
        text.map(|text| text.parse::<JobId>()).transpose().map_err(|error| bad(field, error.to_string()))
    };
    let query = ListJobs {
        tenant: call.principal.tenant.clone(),
        kind: call.query("kind"),
        state,
        parent: id_of("parent", call.query("parent"))?,
        label: call.query("label"),
        before: id_of("cursor", page.after.clone())?,
        limit: page.limit,
    };
    let found = jobs.list(&query).await?;
    let next = (found.len() == page.limit as usize).then(|| found.last().map(|job| job.id.to_string())).flatten();
    let items = found.into_iter().filter(|job| may_see(&call, job)).map(job).collect();
    reply::json(&Page { items, next })
}

pub(super) async fn counts(services: Services, call: Call) -> Result<Response> {
    let counts = jobs(&services)?.counts(Some(&call.principal.tenant)).await?;
    let list: Vec<_> = counts
        .into_iter()
        .map(|count| wire::Count { kind: count.kind, state: count.state.to_string(), jobs: count.jobs, oldest: count.oldest })
        .collect();
    reply::json(&list)
}

/// Labels as they lie in the ledger, one by one.
pub(super) fn labels(text: &str) -> impl Iterator<Item = (&str, &str)> {
    text.split(' ').filter_map(|label| label.split_once('='))
}

fn failure(failure: Failure) -> wire::Failure {
    wire::Failure { reason: failure.reason, detail: failure.text }
}

pub(super) fn job_with(view: View) -> wire::Job {
    let (position, wait) = (view.position, view.wait);
    wire::Job { position, wait_seconds: wait.map(|wait| (wait.as_secs_f64() * 1000.0).round() / 1000.0), ..job(view.job) }
}

pub(crate) fn job(job: Job) -> wire::Job {
    let labels: BTreeMap<_, _> = labels(&job.labels).map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    wire::Job {
        id: job.id.to_string(),
        kind: job.kind,
        state: job.state.to_string(),
        class: CLASSES.get(usize::from(job.class)).copied().unwrap_or("default").to_owned(),
        priority: job.priority,
        attempt: job.attempt,
        max_attempts: job.max_attempts,
        progress: f64::from(job.progress) / 1000.0,
        position: None,
        wait_seconds: None,
        waits_for: job.waits,
        cancel_asked: job.cancel_asked,
        created_at: job.created_at,
        run_at: job.run_at,
        started_at: job.started_at,
        ended_at: job.ended_at,
        worker: job.running.map(|running| running.worker),
        parent: job.parent.map(|id| id.to_string()),
        actor: job.actor,
        labels,
        webhook: job.webhook.map(|webhook| webhook.url),
        error: job.failure.map(failure),
        result_size: job.result_size,
    }
}
