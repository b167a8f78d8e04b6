//! The job that tells of another's end.

use std::time::Duration;

use plinth_policy::jobs::{RetryPolicy, State};

use super::{Body, JobId, NewJob, OnFailure, Payload, WEBHOOK_KIND};

/// How often a webhook is tried at most. The sender ends it by time, after a day; when to come again it says with each failure.
const ATTEMPTS: u32 = 200;
/// How long one attempt may take, waiting for its turn at the receiver included.
const TIMEOUT_MILLIS: u64 = 30_000;

/// A webhook's job: made by the ledger in the transaction that ends `of`. Its payload is the id of the job that ended, its meta in which state.
pub(super) fn webhook_job(of: JobId, state: State, class: u8, keep_millis: u64, id: JobId) -> NewJob {
    NewJob {
        id,
        kind: WEBHOOK_KIND.into(),
        class,
        priority: 0,
        run_at: None,
        expires_at: None,
        timeout_millis: TIMEOUT_MILLIS,
        // The pauses are the sender's: the policy adds none.
        retry: RetryPolicy { max_attempts: ATTEMPTS, base: Duration::ZERO, factor: 1, cap: Duration::from_hours(2) },
        keep_millis,
        actor: "plinth".into(),
        parent: Some(of),
        waits_for: Vec::new(),
        on_failure: OnFailure::Fail,
        webhook: None,
        labels: String::new(),
        payload: Payload { meta: format!("{{\"state\":\"{state}\"}}"), body: Body::Inline(of.to_string().into_bytes()) },
    }
}
