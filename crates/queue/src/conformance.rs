//! What every adapter of the ledger of jobs must do: one suite, run against each.
//!
//! Each case gets an empty ledger. The cases say what is promised by [`crate::jobs`]; faults and crashes are tested elsewhere.

mod ending;
mod lines;
mod settings;
mod submitting;

use plinth_policy::jobs::RetryPolicy;
use plinth_runtime::World;
use plinth_types::{Reason, TenantName};

use crate::jobs::{
    Body, ClaimWish, Claimed, End, Failure, Finish, Finished, IdempotencyKey, Job, JobId, JobIds, Jobs, KindWish, NewJob, OnFailure,
    Payload, Submission, Submitted, SweepWish, Swept, WorkerId,
};

/// Runs all cases, each on a ledger of its own.
pub async fn jobs<F, Fut>(open: F)
where
    F: Fn() -> Fut,
    Fut: Future<Output = Box<dyn Jobs>>,
{
    macro_rules! run {
        ($($case:path),* $(,)?) => {
            $({
                let ledger = open().await;
                $case(&Bench::new(&*ledger)).await;
                ledger.close().await;
            })*
        };
    }
    run!(
        submitting::a_job_goes_from_submission_to_result,
        submitting::a_key_makes_a_submission_happen_once,
        submitting::a_hundred_at_once_with_one_key_make_one_job,
        submitting::another_tenant_sees_nothing,
        submitting::what_waits_for_others,
        submitting::a_failure_goes_down_the_line,
        submitting::what_does_not_exist_is_not_waited_for,
        ending::a_late_worker_is_fenced,
        ending::a_job_that_kills_its_workers_is_dead_after_its_attempts,
        ending::a_pause_is_kept_and_a_release_uses_no_attempt,
        ending::cancelling,
        ending::reports_and_events,
        ending::the_end_is_told_by_a_job,
        ending::what_is_over_is_forgotten,
        ending::a_node_that_starts_again_gives_back_what_it_held,
        lines::tenants_take_turns,
        lines::one_at_a_time_is_no_way_to_the_front,
        lines::classes_and_priorities,
        lines::positions_and_counts,
        lines::lists_have_pages_and_filters,
        settings::a_paused_kind_does_not_begin,
        settings::concurrency_and_rate_of_a_kind,
        settings::a_tick_fires_once,
        settings::secrets_belong_to_a_tenant,
    );
}

/// A ledger under test with what makes cases short.
struct Bench<'a> {
    ledger: &'a dyn Jobs,
    ids: JobIds,
    tenant: TenantName,
    worker: WorkerId,
}

/// A lease that does not run out while a case runs.
const LEASE: u64 = 60_000;

impl<'a> Bench<'a> {
    fn new(ledger: &'a dyn Jobs) -> Self {
        let tenant = tenant("acme");
        Self { ledger, ids: JobIds::new(World::real()), tenant, worker: WorkerId("node-a/1".into()) }
    }

    /// A job of kind `k` with the payload `x`.
    fn job(&self) -> NewJob {
        NewJob {
            id: self.ids.next(),
            kind: "k".into(),
            class: 1,
            priority: 0,
            run_at: None,
            expires_at: None,
            timeout_millis: 1000,
            retry: RetryPolicy::default(),
            keep_millis: 3_600_000,
            actor: "somebody".into(),
            parent: None,
            waits_for: Vec::new(),
            on_failure: OnFailure::Fail,
            webhook: None,
            labels: String::new(),
            payload: inline("x"),
        }
    }

    async fn submit(&self, job: NewJob) -> JobId {
        let id = job.id;
        let submission = Submission { tenant: self.tenant.clone(), key: None, jobs: vec![job] };
        assert_eq!(self.ledger.submit(submission).await.unwrap(), Submitted::Created);
        id
    }

    async fn submit_for(&self, name: &str, count: usize) -> Vec<JobId> {
        let jobs: Vec<_> = (0..count).map(|_| self.job()).collect();
        let ids = jobs.iter().map(|job| job.id).collect();
        let submission = Submission { tenant: tenant(name), key: None, jobs };
        assert_eq!(self.ledger.submit(submission).await.unwrap(), Submitted::Created);
        ids
    }

    fn wish(&self, most: u32) -> ClaimWish {
        let kinds = vec![KindWish { kind: "k".into(), most }];
        ClaimWish { worker: self.worker.clone(), kinds, most, lowest_class: 3, lease_millis: LEASE }
    }

    async fn claim(&self, most: u32) -> Vec<Claimed> {
        self.ledger.claim(self.wish(most)).await.unwrap()
    }

    /// Takes exactly one job.
    async fn claim_one(&self) -> Claimed {
        let mut claimed = self.claim(1).await;
        assert_eq!(claimed.len(), 1, "nothing was ready");
        claimed.remove(0)
    }

    async fn end(&self, job: &Claimed, end: End) -> Finished {
        self.ledger.finish(Finish { id: job.id, epoch: job.epoch, end }).await.unwrap()
    }

    async fn succeed(&self, job: &Claimed) {
        assert_eq!(self.end(job, End::Succeeded(inline("done"))).await, Finished::Done);
    }

    async fn get(&self, id: JobId) -> Job {
        self.ledger.get(&self.tenant, id).await.unwrap().expect("the job is there")
    }

    async fn sweep(&self) -> Swept {
        self.ledger.sweep(SweepWish { most: 1000 }).await.unwrap()
    }
}

fn tenant(name: &str) -> TenantName {
    name.parse().unwrap()
}

fn inline(text: &str) -> Payload {
    Payload { meta: "{\"type\":\"text/plain\"}".into(), body: Body::Inline(text.as_bytes().to_vec()) }
}

fn failure(text: &str) -> Failure {
    Failure { reason: Reason::ModelExecutionFailed, text: text.into() }
}

fn key(word: &str, of: &str) -> IdempotencyKey {
    let fingerprint = *plinth_types::Digest::of(of.as_bytes()).as_bytes();
    IdempotencyKey { key: word.into(), fingerprint, keep_millis: 3_600_000 }
}

/// Until the ledger's clock has surely moved on by this.
async fn pass(millis: u64) {
    tokio::time::sleep(std::time::Duration::from_millis(millis + 5)).await;
}
