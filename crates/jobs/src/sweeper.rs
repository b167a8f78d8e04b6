//! What must happen without anybody asking: leases, schedules, retention, what the metrics show.
//!
//! Every node does all of it; the ledger makes sure that each thing happens once.

use std::time::Duration;

use plinth_policy::jobs::State;
use plinth_queue::jobs::SweepWish;
use plinth_runtime::CancellationToken;

use crate::worker::WorkerOptions;
use crate::{JobService, schedules};

/// Jobs for each thing that one sweep does; a sweep that did so many goes on at once.
const MOST: u32 = 500;
/// How often schedules are looked at.
const TICK: Duration = Duration::from_secs(1);
/// How often the jobs are counted for the metrics, at most.
const COUNT: Duration = Duration::from_secs(15);
/// Counting takes at most this part of the time.
const COUNT_SHARE: u32 = 100;

/// Sweeps until the node ends.
pub(crate) async fn sweeps(service: &JobService, options: &WorkerOptions, stopping: &CancellationToken) {
    let tick = TICK.min(options.sweep).max(Duration::from_millis(10));
    let (mut until_sweep, mut until_count) = (Duration::ZERO, Duration::ZERO);
    loop {
        if until_sweep.is_zero() {
            sweep(service).await;
            until_sweep = options.sweep;
        }
        if let Err(error) = schedules::tick(service).await {
            tracing::warn!(cause = error.log_text(), "schedules cannot be looked at");
        }
        if until_count.is_zero() {
            let begun = service.world().clock.monotonic();
            count(service).await;
            let took = service.world().clock.monotonic().saturating_sub(begun);
            until_count = COUNT.max(took * COUNT_SHARE);
        }
        until_sweep = until_sweep.saturating_sub(tick);
        until_count = until_count.saturating_sub(tick);
        if stopping.run_until_cancelled(tokio::time::sleep(tick)).await.is_none() {
            return;
        }
    }
}

async fn sweep(service: &JobService) {
    loop {
        match service.ledger().sweep(SweepWish { most: MOST }).await {
            Ok(swept) => {
                service.metrics().jobs_recovered.add(swept.recovered + swept.died);
                if swept.recovered + swept.due > 0 {
                    service.bus().ring();
                }
                if swept.recovered + swept.died > 0 {
                    tracing::warn!(again = swept.recovered, dead = swept.died, "jobs were taken back from workers that were not heard of");
                }
                let most = u64::from(MOST);
                if [swept.recovered + swept.died, swept.due, swept.expired, swept.forgotten].iter().all(|count| *count < most) {
                    return;
                }
            }
            Err(error) => {
                let error = service.failed(error);
                return tracing::warn!(cause = error.log_text(), "jobs cannot be swept");
            }
        }
    }
}

/// Shows how many wait, and since when.
async fn count(service: &JobService) {
    let Ok(counts) = service.ledger().counts(None).await else { return };
    let metrics = service.metrics();
    let now = service.world().clock.now();
    for kind in service.kinds().names() {
        let of = |state: State| counts.iter().find(|count| count.kind == kind && count.state == state);
        let jobs = |state: State| of(state).map_or(0, |count| count.jobs);
        for state in [State::Blocked, State::Scheduled, State::Ready, State::Running] {
            metrics.jobs_waiting.get([kind, state.as_str()]).set_whole(jobs(state));
        }
        metrics.jobs_dead.get([kind]).set_whole(jobs(State::Dead));
        metrics.jobs_oldest_ready.get([kind]).set(of(State::Ready).map_or(0.0, |count| now.since(count.oldest).as_secs_f64()));
    }
}
