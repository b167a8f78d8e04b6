//! Batches as their routes take and show them.

use std::collections::BTreeMap;

use plinth_jobs::{Input, JobRequest, JobService, META_TYPE, Meta};
use plinth_net::Response;
use plinth_policy::jobs::State;
use plinth_queue::jobs::{Job, JobId, ListJobs};
use plinth_types::{Error, Reason, Result, TenantName, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{Counts, KIND, Spec, endpoint};
use crate::call::Call;
use crate::jobs::{self, MODEL_LABEL, infer_kind};
use crate::{Services, files, reply};

const PREFIX: &str = "batch_";
const WINDOW: &str = "24h";
const WINDOW_SECONDS: f64 = 86_400.0;
/// How long a batch is kept after its end.
const KEEP_SECONDS: f64 = 30.0 * 86_400.0;
/// Bounds of what a caller keeps with a batch, as OpenAI has them.
const MAX_PAIRS: usize = 16;
const MAX_NAME: usize = 64;
const MAX_VALUE: usize = 512;

/// What makes a batch.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    input_file_id: String,
    endpoint: String,
    completion_window: String,
    #[serde(default)]
    metadata: Option<BTreeMap<String, String>>,
}

/// A batch.
#[derive(Debug, Serialize)]
struct Batch {
    id: String,
    object: &'static str,
    endpoint: String,
    errors: Option<Value>,
    input_file_id: String,
    completion_window: String,
    status: &'static str,
    output_file_id: Option<String>,
    error_file_id: Option<String>,
    created_at: u64,
    in_progress_at: Option<u64>,
    expires_at: Option<u64>,
    finalizing_at: Option<u64>,
    completed_at: Option<u64>,
    failed_at: Option<u64>,
    expired_at: Option<u64>,
    cancelling_at: Option<u64>,
    cancelled_at: Option<u64>,
    request_counts: Value,
    metadata: Option<BTreeMap<String, String>>,
}

pub(super) async fn create(services: Services, mut call: Call) -> Result<Response> {
    let service = jobs::jobs(&services)?;
    let key = jobs::key(call.request.headers())?;
    let asked: Asked = call.json().await?;
    let bad = |field: &'static str, text: &str| Error::new(Reason::MalformedRequest, text).field(field);
    let (model, version) = endpoint(&asked.endpoint)
        .ok_or_else(|| bad("endpoint", "the endpoint of a batch is an inference: /v2/models/MODEL/infer, or one of a version"))?;
    call.principal.must_use(&model)?;
    if asked.completion_window != WINDOW {
        return Err(bad("completion_window", "the completion window is 24h"));
    }
    let fits = |metadata: &BTreeMap<String, String>| {
        metadata.len() <= MAX_PAIRS && metadata.iter().all(|(name, value)| name.len() <= MAX_NAME && value.len() <= MAX_VALUE)
    };
    if !asked.metadata.as_ref().is_none_or(fits) {
        return Err(bad("metadata", "metadata has at most 16 pairs of a name of 64 and a value of 512 bytes"));
    }
    let tenant = &call.principal.tenant;
    let file = files::find(service, tenant, &asked.input_file_id).await.map_err(|error| error.field("input_file_id"))?;
    let Asked { input_file_id, endpoint, completion_window, metadata } = asked;
    let spec = Spec { file: input_file_id, digest: file.digest.to_string(), endpoint, completion_window, metadata };
    let mut meta = Meta::of(META_TYPE);
    infer_kind::name(&mut meta, &model, version, None);
    let mut request = JobRequest {
        kind: KIND.into(),
        class: Some("background".into()),
        expires_seconds: Some(WINDOW_SECONDS),
        timeout_seconds: Some(WINDOW_SECONDS),
        keep_seconds: Some(KEEP_SECONDS),
        ..JobRequest::default()
    };
    request.labels.insert(MODEL_LABEL.into(), model.to_string());
    let bytes = serde_json::to_vec(&spec).map_err(|error| Error::internal("the input of a batch").source(error))?;
    let asked = vec![(request, Input { meta, bytes: bytes.into() })];
    let submitted = service.submit(tenant, &call.principal.actor(), key.as_deref(), asked).await?;
    let id = submitted.ids.first().copied().ok_or_else(|| Error::internal("a batch without a job"))?;
    let job = service.get(tenant, id).await?;
    reply::json(&shown(service, tenant, job).await?)
}

async fn find(services: &Services, call: &Call) -> Result<Job> {
    let service = jobs::jobs(services)?;
    let missing =
        || Error::new(Reason::RecordNotFound, "there is no such batch; batches are forgotten some time after their end").field("batch");
    let id: String = call.param("batch")?;
    let id: JobId = id.strip_prefix(PREFIX).and_then(|id| id.parse().ok()).ok_or_else(missing)?;
    let job = match service.get(&call.principal.tenant, id).await {
        Err(error) if error.reason() == Reason::JobNotFound => return Err(missing()),
        other => other?,
    };
    if job.kind != KIND || jobs::must_see(call, &job).is_err() {
        return Err(missing());
    }
    Ok(job)
}

pub(super) async fn one(services: Services, call: Call) -> Result<Response> {
    let job = find(&services, &call).await?;
    reply::json(&shown(jobs::jobs(&services)?, &call.principal.tenant, job).await?)
}

pub(super) async fn cancel(services: Services, call: Call) -> Result<Response> {
    let job = find(&services, &call).await?;
    let service = jobs::jobs(&services)?;
    let job = service.cancel(&call.principal.tenant, job.id).await?;
    reply::json(&shown(service, &call.principal.tenant, job).await?)
}

/// `?limit=&after=`: newest first.
pub(super) async fn list(services: Services, call: Call) -> Result<Response> {
    let service = jobs::jobs(&services)?;
    let page = call.page("after")?;
    let before = page.after.as_deref().map(|id| id.strip_prefix(PREFIX).unwrap_or(id).parse::<JobId>()).transpose();
    let before = before.map_err(|error| Error::new(Reason::MalformedRequest, error.to_string()).field("after"))?;
    let tenant = call.principal.tenant.clone();
    let query =
        ListJobs { tenant: tenant.clone(), kind: Some(KIND.into()), state: None, parent: None, label: None, before, limit: page.limit };
    let found = service.list(&query).await?;
    let has_more = found.len() == page.limit as usize;
    let mut data = Vec::with_capacity(found.len());
    for job in found.into_iter().filter(|job| jobs::must_see(&call, job).is_ok()) {
        match shown(service, &tenant, job).await {
            Ok(batch) => data.push(batch),
            Err(error) if matches!(error.reason(), Reason::JobNotFound | Reason::RecordNotFound) => {}
            Err(error) => return Err(error),
        }
    }
    let (first_id, last_id) = (data.first().map(|batch| &batch.id), data.last().map(|batch| &batch.id));
    reply::json(&json!({ "object": "list", "data": data, "has_more": has_more, "first_id": first_id, "last_id": last_id }))
}

fn status(job: &Job) -> &'static str {
    match job.state {
        State::Running if job.cancel_asked => "cancelling",
        State::Running => "in_progress",
        State::Succeeded => "completed",
        State::Cancelled => "cancelled",
        State::Dead if job.attempt == 0 => "expired",
        State::Dead => "failed",
        _ if job.attempt > 0 => "in_progress",
        _ => "validating",
    }
}

async fn shown(service: &JobService, tenant: &TenantName, job: Job) -> Result<Batch> {
    let (_, input) = service.input(tenant, job.id).await?;
    let missing = |_| Error::new(Reason::RecordNotFound, "there is no such batch").field("batch");
    let spec: Spec = serde_json::from_slice(&input).map_err(missing)?;
    let status = status(&job);
    let counts = match job.state {
        State::Succeeded => {
            let result = service.result(tenant, job.id).await?;
            result.and_then(|(_, bytes)| serde_json::from_slice(&bytes).ok()).unwrap_or_default()
        }
        _ => last_told(service, tenant, job.id).await?,
    };
    let seconds = |at: Timestamp| at.millis() / 1000;
    let ended = |word: &str| job.ended_at.filter(|_| status == word).map(seconds);
    let errors = job.failure.as_ref().filter(|_| status == "failed").map(|failure| {
        json!({ "object": "list", "data": [{ "code": failure.reason.slug(), "message": failure.text, "line": null, "param": null }] })
    });
    let Counts { completed, failed, output_file_id, error_file_id } = counts;
    Ok(Batch {
        id: format!("{PREFIX}{}", job.id),
        object: "batch",
        endpoint: spec.endpoint,
        errors,
        input_file_id: spec.file,
        completion_window: spec.completion_window,
        status,
        output_file_id,
        error_file_id,
        created_at: seconds(job.created_at),
        in_progress_at: job.started_at.map(seconds),
        expires_at: Some(seconds(job.created_at) + WINDOW_SECONDS as u64),
        finalizing_at: None,
        completed_at: ended("completed"),
        failed_at: ended("failed"),
        expired_at: ended("expired"),
        cancelling_at: None,
        cancelled_at: ended("cancelled"),
        request_counts: json!({ "total": completed + failed, "completed": completed, "failed": failed }),
        metadata: spec.metadata,
    })
}

/// What the job told last of its lines.
async fn last_told(service: &JobService, tenant: &TenantName, id: JobId) -> Result<Counts> {
    let (mut counts, mut after) = (Counts::default(), 0);
    loop {
        let events = service.ledger().events(tenant, id, after, 100).await.map_err(plinth_jobs::from_queue)?;
        for event in &events {
            after = event.seq;
            if event.name == "counts" {
                counts = serde_json::from_str(&event.data).unwrap_or(counts);
            }
        }
        if events.len() < 100 {
            return Ok(counts);
        }
    }
}
