//! The routes of jobs, of their kinds, of schedules and of the secrets of webhooks. All lie under `/api/v1`.
//!
//! Invariants: a submission carries an idempotency key, so it may be repeated after a broken connection and happens once all the same; what a
//! job was given and has given is read in pieces, so memory does not grow with it. How long to wait for a job, and what to show meanwhile, is
//! left to the caller.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use reqwest::header::{ACCEPT, CONTENT_TYPE, HeaderName, HeaderValue};
use reqwest::{RequestBuilder, Response, StatusCode};
use serde::Serialize;
use url::Url;

use crate::admin::{number, query};
use crate::error::TransportKind;
use crate::transport::{Call, Repeat};
use crate::wire::jobs::{Attempt, Count, Job, KindSettings, NewSecret, Replay, Replayed, Schedule, Submitted};
use crate::{Client, Error, Paging, Result, wire};

mod events;
mod request;
#[cfg(test)]
mod tests;

pub use events::{Event, Events};
pub use request::{HttpTarget, NewJob, NewSchedule, Retry, Webhook};

pub(crate) const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// Which jobs a list shows; all when nothing is said.
#[derive(Debug, Clone, Default)]
pub struct JobFilter {
    /// Of this kind.
    pub kind: Option<String>,
    /// In this state.
    pub state: Option<String>,
    /// Parts of this job.
    pub parent: Option<String>,
    /// With this label, `name=value`.
    pub label: Option<String>,
}

/// What a job was given or has given, as it arrives.
pub struct Download {
    pub(crate) client: Client,
    pub(crate) response: Response,
}

impl Download {
    /// What it is, such as `application/json`; without parameters, in small letters.
    #[must_use]
    pub fn content_type(&self) -> String {
        let text = self.response.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or("application/octet-stream");
        text.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
    }

    /// Its length in bytes, when the node has said it.
    #[must_use]
    pub fn length(&self) -> Option<u64> {
        self.response.content_length()
    }

    /// The next piece; `None` at the end. A dropped call loses nothing that was not read.
    ///
    /// # Errors
    /// When nothing arrives for the idle timeout, or the connection breaks.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>> {
        let (client, response) = (&self.client, &mut self.response);
        let next = async { response.chunk().await.map_err(|error| client.transport(error)) };
        client.within(client.options.idle_timeout, next).await
    }

    /// All of it; `None` when it has more than `limit` bytes.
    ///
    /// # Errors
    /// As [`Download::chunk`].
    pub async fn bytes(mut self, limit: usize) -> Result<Option<Bytes>> {
        let mut all = BytesMut::new();
        while let Some(chunk) = self.chunk().await? {
            if all.len() + chunk.len() > limit {
                return Ok(None);
            }
            all.extend_from_slice(&chunk);
        }
        Ok(Some(all.freeze()))
    }
}

impl Client {
    fn jobs_url(&self, rest: &[&str]) -> Url {
        self.url(["api", "v1", "jobs"].into_iter().chain(rest.iter().copied()))
    }

    /// `POST /api/v1/jobs`: one [`NewJob`], or `{"jobs": [...]}`. Repeated under the same `key` when the connection breaks or the node is not
    /// ready; it happens once however often it is sent.
    ///
    /// # Errors
    /// As [`Client::status`]; [`Error::Settings`] for a key that cannot stand in a header.
    pub async fn submit_jobs(&self, submission: &impl Serialize, key: &str) -> Result<Submitted> {
        let key = HeaderValue::from_str(key)
            .map_err(|_| Error::Settings("an idempotency key has no line breaks and no control characters".into()))?;
        let body = serde_json::to_vec(submission).map_err(|e| Error::Settings(format!("the request cannot be written as JSON: {e}")))?;
        let body = Bytes::from(body);
        // A second for each MiB, because the input of a job may be long.
        let timeout = self.options.request_timeout + Duration::from_secs(body.len() as u64 >> 20);
        let (mut left, mut pause) = (self.options.retries, self.options.backoff);
        loop {
            let request = self.http.post(self.jobs_url(&[])).header(CONTENT_TYPE, "application/json").header(IDEMPOTENCY_KEY, key.clone());
            let exchange = async {
                let response = self.success(request.body(body.clone())).await?;
                self.read(response, self.options.max_answer).await
            };
            match self.within(timeout, exchange).await {
                Err(error) if left > 0 && may_pass(&error) => {
                    tokio::time::sleep(pause).await;
                    left -= 1;
                    pause = pause.saturating_mul(4);
                }
                end => return self.parse(&end?),
            }
        }
    }

    /// `GET /api/v1/jobs`: newest first.
    ///
    /// # Errors
    /// As [`Client::status`].
    pub async fn jobs(&self, filter: &JobFilter, page: &Paging) -> Result<wire::Page<Job>> {
        let mut url = self.jobs_url(&[]);
        let JobFilter { kind, state, parent, label } = filter.clone();
        let filter = [("kind", kind), ("state", state), ("parent", parent), ("label", label)];
        query(&mut url, &filter);
        query(&mut url, &[("cursor", page.after.clone()), ("limit", number(page.limit))]);
        self.fetch(Call::get(url)).await
    }

    /// `GET /api/v1/jobs/{id}`: as it stands; with `wait`, as soon as it has ended, at the latest after so long.
    ///
    /// # Errors
    /// As [`Client::status`].
    pub async fn job(&self, id: &str, wait: Option<Duration>) -> Result<Job> {
        let mut url = self.jobs_url(&[id]);
        query(&mut url, &[("wait", wait.map(|wait| wait.as_secs().to_string()))]);
        self.fetch(Call::get(url).within(self.options.request_timeout + wait.unwrap_or_default())).await
    }

    /// `GET /api/v1/jobs/{id}/result`; `None` while the job has not ended.
    ///
    /// # Errors
    /// As [`Client::status`]; the job's own failure when it has ended badly.
    pub async fn job_result(&self, id: &str) -> Result<Option<Download>> {
        let response = self.open(|| self.http.get(self.jobs_url(&[id, "result"]))).await?;
        Ok((response.status() != StatusCode::ACCEPTED).then(|| Download { client: self.clone(), response }))
    }

    /// `GET /api/v1/jobs/{id}/input`.
    ///
    /// # Errors
    /// As [`Client::status`].
    pub async fn job_input(&self, id: &str) -> Result<Download> {
        let response = self.open(|| self.http.get(self.jobs_url(&[id, "input"]))).await?;
        Ok(Download { client: self.clone(), response })
    }

    /// `GET /api/v1/jobs/{id}/events`: what the job tells, after the event with the id `after`, as it happens.
    ///
    /// # Errors
    /// As [`Client::status`].
    pub async fn job_events(&self, id: &str, after: Option<&str>) -> Result<Events> {
        let after = after.map(HeaderValue::from_str).transpose();
        let after = after.map_err(|_| Error::Settings("the id of an event has no line breaks and no control characters".into()))?;
        let response = self
            .open(|| {
                let request = self.http.get(self.jobs_url(&[id, "events"])).header(ACCEPT, "text/event-stream");
                after.iter().fold(request, |request, after| request.header(LAST_EVENT_ID, after.clone()))
            })
            .await?;
        Ok(Events::new(self.clone(), response))
    }

    /// `GET /api/v1/jobs/{id}/attempts`: those that failed.
    ///
    /// # Errors
    /// As [`Client::status`].
    pub async fn job_attempts(&self, id: &str) -> Result<Vec<Attempt>> {
        self.fetch(Call::get(self.jobs_url(&[id, "attempts"]))).await
    }

    /// `POST /api/v1/jobs/{id}/cancel`: the job as it stands then; one that runs is asked to end.
    ///
    /// # Errors
    /// As [`Client::status`]; a conflict when it had ended before.
    pub async fn cancel_job(&self, id: &str) -> Result<Job> {
        self.fetch(Call::post(self.jobs_url(&[id, "cancel"]))).await
    }

    /// `POST /api/v1/jobs/replay`: dead letters run again.
    ///
    /// # Errors
    /// As [`Client::status`].
    pub async fn replay_jobs(&self, which: &Replay) -> Result<Replayed> {
        self.fetch(Call::post(self.jobs_url(&["replay"])).json(which)?.within(self.options.work_timeout)).await
    }

    /// `GET /api/v1/job-counts`.
    ///
    /// # Errors
    /// As [`Client::status`].
    pub async fn job_counts(&self) -> Result<Vec<Count>> {
        self.fetch(Call::get(self.url(["api", "v1", "job-counts"]))).await
    }

    /// `GET /api/v1/job-kinds`.
    ///
    /// # Errors
    /// As [`Client::status`].
    pub async fn job_kinds(&self) -> Result<Vec<KindSettings>> {
        self.fetch(Call::get(self.url(["api", "v1", "job-kinds"]))).await
    }

    /// `PUT /api/v1/job-kinds/{kind}`: takes the place of all that held for the kind.
    ///
    /// # Errors
    /// As [`Client::status`].
    pub async fn set_job_kind(&self, kind: &str, settings: &KindSettings) -> Result<KindSettings> {
        let settings = KindSettings { kind: String::new(), ..settings.clone() };
        self.fetch(Call::put(self.url(["api", "v1", "job-kinds", kind])).json(&settings)?).await
    }

    /// `GET /api/v1/schedules`.
    ///
    /// # Errors
    /// As [`Client::status`].
    pub async fn schedules(&self) -> Result<Vec<Schedule>> {
        self.fetch(Call::get(self.url(["api", "v1", "schedules"]))).await
    }

    /// `GET /api/v1/schedules/{name}`.
    ///
    /// # Errors
    /// As [`Client::status`].
    pub async fn schedule(&self, name: &str) -> Result<Schedule> {
        self.fetch(Call::get(self.url(["api", "v1", "schedules", name]))).await
    }

    /// `PUT /api/v1/schedules/{name}`: a [`NewSchedule`], or the same as JSON.
    ///
    /// # Errors
    /// As [`Client::status`].
    pub async fn put_schedule(&self, name: &str, schedule: &impl Serialize) -> Result<Schedule> {
        self.fetch(Call::put(self.url(["api", "v1", "schedules", name])).json(schedule)?).await
    }

    /// `DELETE /api/v1/schedules/{name}`: jobs that it has submitted go on.
    ///
    /// # Errors
    /// As [`Client::status`].
    pub async fn delete_schedule(&self, name: &str) -> Result<()> {
        self.send(Call::delete(self.url(["api", "v1", "schedules", name]))).await.map(drop)
    }

    /// `POST /api/v1/webhook-secrets/{name}/rotate`: the secret before signs beside the new one until the next rotation.
    ///
    /// # Errors
    /// As [`Client::status`].
    pub async fn rotate_webhook_secret(&self, name: &str) -> Result<NewSecret> {
        self.fetch(Call::post(self.url(["api", "v1", "webhook-secrets", name, "rotate"]))).await
    }

    /// Sends what only reads, and returns when the head of the answer is there.
    pub(crate) async fn open(&self, request: impl Fn() -> RequestBuilder) -> Result<Response> {
        let mut repeat = Repeat::new(self, true);
        loop {
            match self.within(self.options.request_timeout, self.success(request())).await {
                Err(error) if repeat.again(&error).await => {}
                end => return end,
            }
        }
    }
}

/// Whether the same request, sent again, may meet a better end: for requests that do no harm when they are repeated.
#[must_use]
pub fn may_pass(error: &Error) -> bool {
    match error {
        Error::Transport(transport) => transport.kind != TransportKind::Tls,
        Error::Problem(refusal) => matches!(refusal.problem.status, 502..=504),
        _ => false,
    }
}
