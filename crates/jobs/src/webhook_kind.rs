//! The kind whose jobs tell of the end of others.
//!
//! The ledger makes such a job in the transaction that ends the other one; here it is sent. Invariant: each attempt is recorded as an event of the job, without
//! secret and body; the delivery has the job's id at each attempt, so that a receiver knows it again.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use plinth_net::outbound::Guard;
use plinth_policy::jobs::RetryPolicy;
use plinth_queue::Jobs;
use plinth_queue::jobs::{Job, JobId};
use plinth_runtime::{Random, World};
use plinth_types::{Error, Label, Reason, Result, TenantName};
use serde_json::json;

use crate::from_queue;
use crate::handler::{Handler, Input, JobContext, JobError, Output};
use crate::webhooks::{Address, Delivery, MessageId, Outcome, Secret, Secrets, Sender, next_wait};

/// The name of the secret that signs when a webhook names none.
pub const DEFAULT_SECRET: &str = "default";

/// Sends webhooks.
pub struct WebhookKind {
    ledger: Arc<dyn Jobs>,
    sender: Sender,
    guard: Guard,
    world: World,
}

impl WebhookKind {
    /// With the ledger in which the jobs are that are told of.
    #[must_use]
    pub fn new(ledger: Arc<dyn Jobs>, sender: Sender, guard: Guard, world: World) -> Self {
        Self { ledger, sender, guard, world }
    }

    async fn delivery(&self, input: &Input, context: &JobContext) -> Result<Option<Delivery>> {
        let of: JobId = std::str::from_utf8(&input.bytes)
            .ok()
            .and_then(|text| text.parse().ok())
            .ok_or_else(|| Error::internal("a webhook's job names no job"))?;
        let Some(job) = self.ledger.get(&context.tenant, of).await.map_err(from_queue)? else { return Ok(None) };
        let Some(webhook) = &job.webhook else { return Ok(None) };
        let name = webhook.secret.as_deref().unwrap_or(DEFAULT_SECRET);
        let secrets = secrets(&*self.ledger, &*self.world.random, &context.tenant, name).await?;
        let address = Address::parse(&webhook.url, &self.guard).map_err(|error| Error::new(Reason::WebhookRefused, error.to_string()))?;
        let state = input.meta.more.get("state").and_then(|state| state.as_str()).unwrap_or(job.state.as_str());
        let body = serde_json::to_vec(&body(&job, state)).map_err(|error| Error::internal("a webhook's body").source(error))?;
        let id: MessageId = context.id.to_string().parse().map_err(|_| Error::internal("the id of a delivery"))?;
        Delivery::new(id, address, secrets, body.into()).map(Some).map_err(|error| Error::internal(error.to_string()))
    }
}

/// What a receiver gets: which job, how it ended, and where its result is to be had; never the result itself.
fn body(job: &Job, state: &str) -> serde_json::Value {
    json!({
        "type": format!("job.{state}"),
        "timestamp": job.ended_at.unwrap_or(job.created_at),
        "data": {
            "id": job.id,
            "kind": job.kind,
            "state": state,
            "labels": job.labels.split(' ').filter_map(|label| label.split_once('=')).collect::<BTreeMap<_, _>>(),
            "attempt": job.attempt,
            "created_at": job.created_at,
            "ended_at": job.ended_at,
            "error": job.failure.as_ref().map(|failure| json!({ "reason": failure.reason, "detail": failure.text })),
            "result": (state == "succeeded").then(|| format!("/api/v1/jobs/{}/result", job.id)),
        },
    })
}

#[async_trait]
impl Handler for WebhookKind {
    async fn run(&self, input: Input, context: &JobContext) -> Result<Output, JobError> {
        let Some(delivery) = self.delivery(&input, context).await? else {
            return Err(JobError::Dead(Error::new(Reason::JobNotFound, "the job that should be told of is forgotten")));
        };
        let sent = self.sender.send(&delivery).await;
        if !sent.is_attempt() {
            let Outcome::Retry { after } = sent.outcome else { return Err(JobError::NotNow(Duration::from_secs(1))) };
            return Err(JobError::NotNow(after.unwrap_or(Duration::from_secs(1))));
        }
        let record = serde_json::to_string(&sent.attempt).unwrap_or_default();
        context.reporter.report(None, None, vec![("attempt".to_owned(), record)]).await?;
        if !sent.diagnostic.is_empty() {
            // What the tenant must not see.
            tracing::info!(job = %context.id, attempt = context.attempt, cause = sent.diagnostic, "a webhook was not delivered");
        }
        let error = sent.error().unwrap_or_else(|| Error::new(Reason::WebhookFailed, "the webhook's receiver failed"));
        match sent.outcome {
            Outcome::Delivered => Output::json(&sent.attempt),
            Outcome::Gone => Err(JobError::Dead(error)),
            Outcome::Retry { after } => {
                let since = self.world.clock.now().since(context.created_at);
                match next_wait(context.attempt - 1, since, after, self.world.random.next_u64()) {
                    Some(wait) => Err(JobError::Retry(error, Some(wait))),
                    None => Err(JobError::Dead(error)),
                }
            }
        }
    }

    /// The pause is the sender's alone ([`next_wait`]): the policy adds none and lets it be as long as an hour.
    fn retry(&self) -> RetryPolicy {
        retry()
    }
}

/// See [`WebhookKind`]'s `retry`; the ledger gives the same to the jobs that it makes.
fn retry() -> RetryPolicy {
    RetryPolicy { max_attempts: 200, base: Duration::ZERO, factor: 1, cap: Duration::from_hours(2) }
}

/// Draws a new secret; the one before signs beside it until the next.
pub(crate) async fn rotate(ledger: &dyn Jobs, random: &dyn Random, tenant: &TenantName, name: &str) -> Result<String> {
    name.parse::<Label>().map_err(|error| Error::new(Reason::InvalidName, error.to_string()).field("secret"))?;
    let before = ledger.secret(tenant, name).await.map_err(from_queue)?;
    let fresh = Secret::draw(random).reveal();
    let kept = match before.as_deref().and_then(|text| text.split(' ').next()) {
        Some(previous) => format!("{fresh} {previous}"),
        None => fresh.clone(),
    };
    ledger.set_secret(tenant, name, Some(kept)).await.map_err(from_queue)?;
    Ok(fresh)
}

/// The secrets that sign for a tenant under a name; drawn when there are none yet, so that nothing is ever sent unsigned.
async fn secrets(ledger: &dyn Jobs, random: &dyn Random, tenant: &TenantName, name: &str) -> Result<Secrets> {
    let kept = match ledger.secret(tenant, name).await.map_err(from_queue)? {
        Some(kept) => kept,
        None => rotate(ledger, random, tenant, name).await?,
    };
    let damaged = |_| Error::internal("a webhook's secret in the ledger cannot be read");
    let mut words = kept.split(' ').map(Secret::parse);
    let current = words.next().transpose().map_err(damaged)?.ok_or_else(|| Error::internal("a webhook's secret is empty"))?;
    Ok(Secrets { current, previous: words.next().transpose().map_err(damaged)? })
}
