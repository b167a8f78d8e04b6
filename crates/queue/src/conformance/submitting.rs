//! Submissions, keys, and what waits for what.

use plinth_policy::jobs::State;

use super::*;

pub(super) async fn a_job_goes_from_submission_to_result(b: &Bench<'_>) {
    let mut job = b.job();
    job.labels = "colour=red".into();
    let id = b.submit(job).await;
    let waiting = b.get(id).await;
    assert_eq!((waiting.state, waiting.attempt, waiting.epoch, waiting.labels.as_str()), (State::Ready, 0, 0, "colour=red"));
    assert_eq!(b.ledger.payload(&b.tenant, id).await.unwrap(), Some(inline("x")));
    assert_eq!(b.ledger.result(&b.tenant, id).await.unwrap(), None);

    let claimed = b.claim_one().await;
    assert_eq!((claimed.id, claimed.epoch, claimed.attempt, &claimed.payload), (id, 1, 1, &inline("x")));
    assert_eq!(claimed.retry, RetryPolicy::default());
    assert!(b.claim(1).await.is_empty(), "a job is held by one worker");
    let running = b.get(id).await;
    assert_eq!((running.state, running.running.unwrap().worker), (State::Running, "node-a/1".to_owned()));

    b.succeed(&claimed).await;
    let ended = b.get(id).await;
    assert_eq!((ended.state, ended.progress, ended.result_size), (State::Succeeded, 1000, Some(4)));
    assert!(ended.ended_at.unwrap() >= ended.started_at.unwrap() && ended.running.is_none());
    assert_eq!(b.ledger.result(&b.tenant, id).await.unwrap(), Some(inline("done")));
    assert_eq!(b.end(&claimed, End::Dead(failure("late"))).await, Finished::Fenced, "an end is an end");

    let large = Payload { meta: "{}".into(), body: Body::Object { digest: "sha256:00".into(), size: 1 << 40 } };
    let id = b.submit(NewJob { payload: large.clone(), ..b.job() }).await;
    assert_eq!(b.claim_one().await.payload, large);
    assert_eq!(b.ledger.payload(&b.tenant, id).await.unwrap(), Some(large));
}

pub(super) async fn a_key_makes_a_submission_happen_once(b: &Bench<'_>) {
    let submit = async |owner: &str, key: IdempotencyKey| {
        let job = b.job();
        let id = job.id;
        (b.ledger.submit(Submission { tenant: tenant(owner), key: Some(key), jobs: vec![job] }).await.unwrap(), id)
    };
    let (first, id) = submit("acme", key("k1", "body")).await;
    assert_eq!(first, Submitted::Created);
    assert_eq!(submit("acme", key("k1", "body")).await.0, Submitted::Replayed(vec![id]));
    assert_eq!(submit("acme", key("k1", "another body")).await.0, Submitted::KeyReused);
    assert_eq!(submit("acme", key("k2", "body")).await.0, Submitted::Created);
    assert_eq!(submit("other", key("k1", "body")).await.0, Submitted::Created, "each tenant has keys of its own");
    assert_eq!(b.claim(10).await.len(), 3);
    assert_eq!(submit("acme", key("k1", "body")).await.0, Submitted::Replayed(vec![id]), "also when it runs");

    let (short, _) = submit("acme", IdempotencyKey { keep_millis: 1, ..key("k3", "body") }).await;
    assert_eq!(short, Submitted::Created);
    pass(2).await;
    assert_eq!(submit("acme", key("k3", "another body")).await.0, Submitted::Created, "a key that is over is free");
}

pub(super) async fn a_hundred_at_once_with_one_key_make_one_job(b: &Bench<'_>) {
    let attempts = (0..100).map(|_| {
        let submission = Submission { tenant: b.tenant.clone(), key: Some(key("same", "body")), jobs: vec![b.job()] };
        b.ledger.submit(submission)
    });
    let outcomes = futures_util::future::join_all(attempts).await;
    let created = outcomes.iter().filter(|outcome| matches!(outcome, Ok(Submitted::Created))).count();
    assert_eq!(created, 1);
    let jobs = b.claim(100).await;
    assert_eq!(jobs.len(), 1);
    assert!(outcomes.iter().all(
        |outcome| matches!(outcome, Ok(Submitted::Created)) || matches!(outcome, Ok(Submitted::Replayed(ids)) if *ids == [jobs[0].id])
    ));
}

pub(super) async fn another_tenant_sees_nothing(b: &Bench<'_>) {
    let id = b.submit(b.job()).await;
    let stranger = tenant("stranger");
    assert_eq!(b.ledger.get(&stranger, id).await.unwrap(), None);
    assert_eq!(b.ledger.payload(&stranger, id).await.unwrap(), None);
    assert_eq!(b.ledger.cancel(&stranger, id).await.unwrap(), None);
    assert_eq!(b.ledger.position(&stranger, id, 10).await.unwrap(), None);
    let claimed = b.claim_one().await;
    assert_eq!(b.end(&claimed, End::Dead(failure("no"))).await, Finished::Done);
    let wish = crate::jobs::ReplayWish { tenant: stranger.clone(), ids: vec![id], kind: None, limit: 10 };
    assert_eq!(b.ledger.replay(wish).await.unwrap(), 0);
    assert!(b.ledger.attempts(&stranger, id).await.unwrap().is_empty() && b.ledger.events(&stranger, id, 0, 10).await.unwrap().is_empty());
    let submission = Submission { tenant: stranger, key: None, jobs: vec![NewJob { waits_for: vec![id], ..b.job() }] };
    assert_eq!(b.ledger.submit(submission).await.unwrap(), Submitted::NoSuchJob(id));
}

pub(super) async fn what_waits_for_others(b: &Bench<'_>) {
    // Two in front, one that gathers, one that was there before.
    let (first, second) = (b.job(), b.job());
    let gather = NewJob { waits_for: vec![first.id, second.id, first.id], ..b.job() };
    let (first_id, second_id, gather_id) = (first.id, second.id, gather.id);
    let submission = Submission { tenant: b.tenant.clone(), key: None, jobs: vec![first, second, gather] };
    assert_eq!(b.ledger.submit(submission).await.unwrap(), Submitted::Created);
    let waiting = b.get(gather_id).await;
    assert_eq!((waiting.state, waiting.waits), (State::Blocked, 2));
    let running = b.claim(10).await;
    assert_eq!(running.iter().map(|job| job.id).collect::<Vec<_>>(), [first_id, second_id]);
    b.succeed(&running[0]).await;
    assert_eq!((b.get(gather_id).await.state, b.claim(10).await.len()), (State::Blocked, 0));
    b.succeed(&running[1]).await;
    let gathered = b.claim_one().await;
    assert_eq!(gathered.id, gather_id);
    b.succeed(&gathered).await;
    let late = b.submit(NewJob { waits_for: vec![first_id, gather_id], ..b.job() }).await;
    assert_eq!(b.claim_one().await.id, late, "what has ended well need not be waited for");
}

pub(super) async fn a_failure_goes_down_the_line(b: &Bench<'_>) {
    let first = b.submit(b.job()).await;
    let follow = async |on: JobId, rule: OnFailure| b.submit(NewJob { waits_for: vec![on], on_failure: rule, ..b.job() }).await;
    let fail = follow(first, OnFailure::Fail).await;
    let below = follow(fail, OnFailure::Fail).await;
    let cancel = follow(first, OnFailure::Cancel).await;
    let run = follow(first, OnFailure::Run).await;
    let claimed = b.claim_one().await;
    assert_eq!(b.end(&claimed, End::Dead(failure("broken"))).await, Finished::Done);
    let mut states = Vec::new();
    for id in [first, fail, below, cancel, run] {
        states.push(b.get(id).await.state);
    }
    assert_eq!(states, [State::Dead, State::Dead, State::Dead, State::Cancelled, State::Ready]);
    let why = b.get(below).await.failure.unwrap();
    assert_eq!(why.reason, Reason::DependencyFailed);
    assert!(why.text.contains(&fail.to_string()), "{}", why.text);
    // The same for what is submitted after the failure.
    let mut states = Vec::new();
    for rule in [OnFailure::Fail, OnFailure::Cancel, OnFailure::Run] {
        states.push(b.get(follow(first, rule).await).await.state);
    }
    assert_eq!(states, [State::Dead, State::Cancelled, State::Ready]);
}

pub(super) async fn what_does_not_exist_is_not_waited_for(b: &Bench<'_>) {
    let nowhere = b.ids.next();
    let jobs = vec![b.job(), NewJob { waits_for: vec![nowhere], ..b.job() }];
    let submission = Submission { tenant: b.tenant.clone(), key: Some(key("k", "x")), jobs };
    assert_eq!(b.ledger.submit(submission).await.unwrap(), Submitted::NoSuchJob(nowhere));
    assert!(b.claim(10).await.is_empty(), "nothing of it is stored");
    let submission = Submission { tenant: b.tenant.clone(), key: Some(key("k", "y")), jobs: vec![b.job()] };
    assert_eq!(b.ledger.submit(submission).await.unwrap(), Submitted::Created, "nor its key");
}
