//! Ends of attempts and of jobs.

use plinth_policy::jobs::State;

use super::*;
use crate::jobs::{Cancelled, Held, HeldState, ReplayWish, Report, WEBHOOK_KIND, Webhook};

pub(super) async fn a_late_worker_is_fenced(b: &Bench<'_>) {
    let id = b.submit(b.job()).await;
    let short = ClaimWish { lease_millis: 1, ..b.wish(1) };
    let lost = b.ledger.claim(short).await.unwrap().remove(0);
    assert_eq!(b.sweep().await.died, 0);
    pass(2).await;
    let swept = b.sweep().await;
    // The first sweep may have come after the millisecond already.
    assert!(swept.recovered <= 1 && b.get(id).await.state == State::Ready);
    let held = [Held { id, epoch: lost.epoch }];
    assert_eq!(b.ledger.heartbeat(&b.worker, held.to_vec(), LEASE).await.unwrap(), [HeldState::Lost]);
    let second = b.claim_one().await;
    assert_eq!((second.id, second.epoch, second.attempt), (id, 2, 2));
    assert_eq!(b.end(&lost, End::Succeeded(inline("late"))).await, Finished::Fenced);
    let report = Report { id, epoch: lost.epoch, progress: Some(1), checkpoint: None, events: Vec::new() };
    assert_eq!(b.ledger.report(report).await.unwrap(), Finished::Fenced);
    assert_eq!(b.ledger.result(&b.tenant, id).await.unwrap(), None);
    let other = WorkerId("node-b/1".into());
    let held = [Held { id, epoch: second.epoch }];
    assert_eq!(b.ledger.heartbeat(&other, held.to_vec(), LEASE).await.unwrap(), [HeldState::Lost], "another worker's");
    assert_eq!(b.ledger.heartbeat(&b.worker, held.to_vec(), LEASE).await.unwrap(), [HeldState::Held]);
    assert_eq!(b.sweep().await.recovered, 0);
    b.succeed(&second).await;
    let attempts = b.ledger.attempts(&b.tenant, id).await.unwrap();
    assert_eq!(attempts.iter().map(|a| (a.epoch, a.attempt, a.failure.reason)).collect::<Vec<_>>(), [(1, 1, Reason::WorkerLost)]);
}

pub(super) async fn a_job_that_kills_its_workers_is_dead_after_its_attempts(b: &Bench<'_>) {
    let retry = RetryPolicy { max_attempts: 3, ..RetryPolicy::default() };
    let id = b.submit(NewJob { retry, ..b.job() }).await;
    for attempt in 1..=3 {
        let short = ClaimWish { lease_millis: 0, ..b.wish(1) };
        assert_eq!(b.ledger.claim(short).await.unwrap()[0].attempt, attempt);
        pass(1).await;
        b.sweep().await;
    }
    let dead = b.get(id).await;
    assert_eq!((dead.state, dead.failure.unwrap().reason), (State::Dead, Reason::WorkerLost));
    assert_eq!(b.ledger.attempts(&b.tenant, id).await.unwrap().len(), 3);
    let wish = ReplayWish { tenant: b.tenant.clone(), ids: vec![id], kind: None, limit: 10 };
    assert_eq!(b.ledger.replay(wish.clone()).await.unwrap(), 1);
    assert_eq!(b.ledger.replay(wish.clone()).await.unwrap(), 0, "what is not dead is not replayed");
    let again = b.claim_one().await;
    assert_eq!((again.attempt, again.epoch > 3), (1, true), "with all its attempts, under a new epoch");
    b.succeed(&again).await;
    assert_eq!(b.ledger.replay(wish).await.unwrap(), 0);
    // All of a kind.
    for _ in 0..3 {
        b.submit(b.job()).await;
    }
    for job in b.claim(10).await {
        b.end(&job, End::Dead(failure("no"))).await;
    }
    let all = |kind: &str| ReplayWish { tenant: b.tenant.clone(), ids: Vec::new(), kind: Some(kind.into()), limit: 2 };
    assert_eq!(b.ledger.replay(all("other")).await.unwrap(), 0);
    assert_eq!(b.ledger.replay(all("k")).await.unwrap(), 2, "no more than the limit");
    assert_eq!(b.ledger.replay(all("k")).await.unwrap(), 1);
}

pub(super) async fn a_pause_is_kept_and_a_release_uses_no_attempt(b: &Bench<'_>) {
    let id = b.submit(b.job()).await;
    let first = b.claim_one().await;
    let end = End::Retry { failure: failure("busy"), after_millis: 40 };
    assert_eq!(b.end(&first, end).await, Finished::Done);
    let paused = b.get(id).await;
    assert_eq!((paused.state, paused.failure.unwrap().text.as_str()), (State::Scheduled, "busy"));
    assert!(b.claim(1).await.is_empty(), "not before its time");
    pass(40).await;
    let second = b.claim_one().await;
    assert_eq!((second.attempt, second.epoch), (2, 2));
    assert_eq!(b.end(&second, End::Released { after_millis: 0 }).await, Finished::Done);
    let third = b.claim_one().await;
    assert_eq!((third.attempt, third.epoch), (2, 3));
    b.succeed(&third).await;
    assert_eq!(b.get(id).await.failure, None, "what went well in the end has no failure");

    let later = plinth_types::Timestamp::from_millis(b.ledger.now().await.unwrap().millis() + 40).unwrap();
    let id = b.submit(NewJob { run_at: Some(later), ..b.job() }).await;
    assert_eq!((b.get(id).await.state, b.claim(1).await.len()), (State::Scheduled, 0));
    pass(40).await;
    b.sweep().await;
    assert_eq!(b.claim_one().await.id, id);
}

pub(super) async fn cancelling(b: &Bench<'_>) {
    let (waiting, running) = (b.submit(NewJob { priority: 1, ..b.job() }).await, b.submit(b.job()).await);
    let claimed = b.claim_one().await;
    assert_eq!(claimed.id, running);
    assert_eq!(b.ledger.cancel(&b.tenant, waiting).await.unwrap(), Some(Cancelled::Ended));
    assert_eq!(b.ledger.cancel(&b.tenant, waiting).await.unwrap(), Some(Cancelled::Was(State::Cancelled)));
    assert!(b.claim(1).await.is_empty());
    assert_eq!(b.ledger.cancel(&b.tenant, running).await.unwrap(), Some(Cancelled::Asked));
    let held = vec![Held { id: running, epoch: claimed.epoch }];
    assert_eq!(b.ledger.heartbeat(&b.worker, held, LEASE).await.unwrap(), [HeldState::CancelAsked]);
    assert_eq!(b.end(&claimed, End::Cancelled).await, Finished::Done);
    assert_eq!(b.get(running).await.state, State::Cancelled);
    assert_eq!(b.ledger.cancel(&b.tenant, b.ids.next()).await.unwrap(), None);

    // Asked for, and the worker ends it otherwise: what is done is done, what would come again does not.
    for (end, state) in [
        (End::Succeeded(inline("done")), State::Succeeded),
        (End::Retry { failure: failure("busy"), after_millis: 0 }, State::Cancelled),
        (End::Released { after_millis: 0 }, State::Cancelled),
    ] {
        let id = b.submit(b.job()).await;
        let claimed = b.claim_one().await;
        b.ledger.cancel(&b.tenant, id).await.unwrap();
        b.end(&claimed, end).await;
        assert_eq!(b.get(id).await.state, state);
    }
}

pub(super) async fn reports_and_events(b: &Bench<'_>) {
    let id = b.submit(b.job()).await;
    let claimed = b.claim_one().await;
    let report = |progress, checkpoint: Option<&str>, names: &[&str]| Report {
        id,
        epoch: claimed.epoch,
        progress,
        checkpoint: checkpoint.map(Into::into),
        events: names.iter().map(|name| ((*name).to_owned(), format!("{{\"of\":\"{name}\"}}"))).collect(),
    };
    for wish in [report(Some(250), Some("row 1"), &["a", "b"]), report(None, None, &["c"]), report(Some(500), None, &[])] {
        assert_eq!(b.ledger.report(wish).await.unwrap(), Finished::Done);
    }
    assert_eq!(b.get(id).await.progress, 500);
    let events = b.ledger.events(&b.tenant, id, 0, 10).await.unwrap();
    assert_eq!(events.iter().map(|e| (e.seq, e.name.as_str())).collect::<Vec<_>>(), [(1, "a"), (2, "b"), (3, "c")]);
    let after = b.ledger.events(&b.tenant, id, 1, 1).await.unwrap();
    assert_eq!((after.len(), after[0].seq, after[0].data.as_str()), (1, 2, "{\"of\":\"b\"}"));
    assert_eq!(b.end(&claimed, End::Retry { failure: failure("x"), after_millis: 0 }).await, Finished::Done);
    assert_eq!(b.claim_one().await.checkpoint.as_deref(), Some("row 1"), "the next worker goes on from there");
}

pub(super) async fn the_end_is_told_by_a_job(b: &Bench<'_>) {
    let webhook = Some(Webhook { url: "https://example.org/done".into(), secret: None });
    let id = b.submit(NewJob { webhook: webhook.clone(), ..b.job() }).await;
    let quiet = b.submit(b.job()).await;
    for job in b.claim(2).await {
        b.succeed(&job).await;
    }
    let kinds = vec![KindWish { kind: WEBHOOK_KIND.into(), most: 10 }];
    let telling = b.ledger.claim(ClaimWish { kinds, ..b.wish(10) }).await.unwrap();
    assert_eq!(telling.len(), 1);
    assert_eq!(telling[0].payload.body, Body::Inline(id.to_string().into_bytes()));
    assert_eq!((telling[0].tenant.clone(), telling[0].payload.meta.as_str()), (b.tenant.clone(), "{\"state\":\"succeeded\"}"));
    assert_ne!(telling[0].id, quiet);
    b.succeed(&telling[0]).await;
    assert!(
        b.ledger.claim(ClaimWish { kinds: vec![KindWish { kind: WEBHOOK_KIND.into(), most: 10 }], ..b.wish(10) }).await.unwrap().is_empty()
    );
    // Each end is told: dead, replayed, cancelled before it began.
    let id = b.submit(NewJob { webhook, ..b.job() }).await;
    let claimed = b.claim_one().await;
    b.end(&claimed, End::Dead(failure("no"))).await;
    b.ledger.replay(ReplayWish { tenant: b.tenant.clone(), ids: vec![id], kind: None, limit: 1 }).await.unwrap();
    b.ledger.cancel(&b.tenant, id).await.unwrap();
    let kinds = vec![KindWish { kind: WEBHOOK_KIND.into(), most: 10 }];
    let telling = b.ledger.claim(ClaimWish { kinds, ..b.wish(10) }).await.unwrap();
    let states: Vec<_> = telling.iter().map(|job| job.payload.meta.as_str()).collect();
    assert_eq!(states, ["{\"state\":\"dead\"}", "{\"state\":\"cancelled\"}"]);
}

pub(super) async fn what_is_over_is_forgotten(b: &Bench<'_>) {
    let now = b.ledger.now().await.unwrap();
    let soon = plinth_types::Timestamp::from_millis(now.millis() + 1).unwrap();
    let late = b.submit(NewJob { expires_at: Some(soon), ..b.job() }).await;
    let short = b.submit(NewJob { keep_millis: 1, ..b.job() }).await;
    let kept = b.submit(b.job()).await;
    pass(2).await;
    assert_eq!(b.sweep().await.expired, 1);
    let expired = b.get(late).await;
    assert_eq!((expired.state, expired.failure.unwrap().reason), (State::Dead, Reason::DeadlineExceeded));
    for job in b.claim(10).await {
        assert_ne!(job.id, late);
        b.succeed(&job).await;
    }
    pass(2).await;
    assert_eq!(b.sweep().await.forgotten, 1);
    assert_eq!(b.ledger.get(&b.tenant, short).await.unwrap(), None);
    assert_eq!(b.ledger.result(&b.tenant, short).await.unwrap(), None);
    assert_eq!(b.get(kept).await.state, State::Succeeded);
    assert_eq!(b.sweep().await, Swept::default());
}

pub(super) async fn a_node_that_starts_again_gives_back_what_it_held(b: &Bench<'_>) {
    for _ in 0..3 {
        b.submit(b.job()).await;
    }
    b.claim(1).await;
    let another = WorkerId("node-ab/1".into());
    b.ledger.claim(ClaimWish { worker: another, ..b.wish(1) }).await.unwrap();
    let newer = WorkerId("node-a/2".into());
    let living = b.ledger.claim(ClaimWish { worker: newer.clone(), ..b.wish(1) }).await.unwrap();
    assert_eq!(b.ledger.release("node-a", &newer).await.unwrap(), 1);
    assert_eq!(b.claim(10).await.len(), 1);
    assert_eq!(b.get(living[0].id).await.state, State::Running);
}
