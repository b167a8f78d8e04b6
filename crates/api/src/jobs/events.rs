//! What a job reports, as server-sent events (HTML Living Standard, 9.2).
//!
//! Each report has its number as `id`, so that a client that comes back with `Last-Event-ID` misses nothing and sees nothing twice. Changes of state and
//! of progress come as `job` without an id: who comes back gets the state as it is then. The stream ends with the job.

use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use http::HeaderValue;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use plinth_jobs::JobService;
use plinth_net::{Body, Response};
use plinth_queue::jobs::{Job, JobEvent, JobId};
use plinth_types::{Error, Reason, Result, TenantName};

use super::{id, jobs, must_see, show};
use crate::Services;
use crate::call::Call;

/// After so long without news a comment keeps the connection from being taken for dead.
const KEEP_ALIVE: Duration = Duration::from_secs(10);

pub(super) async fn events(services: Services, call: Call) -> Result<Response> {
    let (jobs, id, tenant) = (jobs(&services)?.clone(), id(&call)?, call.principal.tenant.clone());
    let job = jobs.get(&tenant, id).await?;
    must_see(&call, &job)?;
    let header = call.request.headers().get("last-event-id").and_then(|value| value.to_str().ok()).map(str::to_owned);
    let after = match header.or_else(|| call.query("after")) {
        None => 0,
        Some(text) => text
            .parse()
            .map_err(|_| Error::new(Reason::MalformedRequest, "Last-Event-ID is the number of an event").field("Last-Event-ID"))?,
    };
    let draining = services.draining.clone();
    let begin = Follow { jobs, tenant, id, after, shown: None, first: true };
    let news = stream::unfold(Some(begin), move |follow| {
        let draining = draining.clone();
        async move {
            let mut follow = follow?;
            // A node that ends closes its streams; clients come back to another with Last-Event-ID.
            match draining.run_until_cancelled(follow.next()).await? {
                Ok((text, true)) => Some((Ok(text), None)),
                Ok((text, false)) => Some((Ok(text), Some(follow))),
                Err(error) => Some((Err(std::io::Error::other(error.log_text())), None)),
            }
        }
    });
    let mut response = Response::new(Body::stream(news));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream; charset=utf-8"));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

struct Follow {
    jobs: JobService,
    tenant: TenantName,
    id: JobId,
    after: u64,
    /// What was last shown of state, progress and attempt.
    shown: Option<(plinth_policy::jobs::State, u16, u32)>,
    first: bool,
}

impl Follow {
    /// The next piece of the stream, and whether it is the last.
    async fn next(&mut self) -> Result<(Bytes, bool)> {
        let wait = if self.first { Duration::ZERO } else { KEEP_ALIVE };
        self.first = false;
        let (job, events) = self.jobs.follow(&self.tenant, self.id, self.after, wait).await?;
        let mut text = String::new();
        for event in &events {
            self.after = event.seq;
            write_event(&mut text, event);
        }
        // A full page may not be the last one.
        let ended = job.state.ended() && events.len() < 100;
        let now = (job.state, job.progress, job.attempt);
        if self.shown != Some(now) || ended {
            self.shown = Some(now);
            write_state(&mut text, job)?;
        }
        if text.is_empty() {
            text.push_str(":\n\n");
        }
        Ok((text.into(), ended))
    }
}

fn write_event(text: &mut String, event: &JobEvent) {
    use std::fmt::Write;
    // Names come from handlers; data is JSON, which has no line breaks outside of strings and none inside.
    let name: String = event.name.chars().filter(|c| !c.is_control()).collect();
    let data = event.data.replace(['\r', '\n'], " ");
    let _ = write!(text, "id: {}\nevent: {name}\ndata: {data}\n\n", event.seq);
}

fn write_state(text: &mut String, job: Job) -> Result<()> {
    use std::fmt::Write;
    let shown = serde_json::to_string(&show::job(job)).map_err(|error| Error::internal("an event").source(error))?;
    let _ = write!(text, "event: job\ndata: {shown}\n\n");
    Ok(())
}
