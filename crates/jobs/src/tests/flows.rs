//! Attempts, ends, waiting, schedules.

use plinth_policy::jobs::State;
use serde_json::json;

use super::*;
use crate::{RetryRequest, ScheduleRequest};

async fn scripted() -> (tempfile::TempDir, Node, Arc<Script>) {
    let directory = tempfile::tempdir().unwrap();
    let script = Arc::new(Script::default());
    let kinds: Vec<(&str, Arc<dyn Handler>)> = vec![("script", script.clone()), ("add", typed(Add))];
    let node = Node::start(directory.path(), kinds, Guard::new([])).await;
    (directory, node, script)
}

fn quick() -> JobRequest {
    let retry = RetryRequest { attempts: Some(3), base_seconds: Some(0.01), ..RetryRequest::default() };
    JobRequest { kind: "script".into(), retry, ..JobRequest::default() }
}

#[tokio::test]
async fn every_outcome_of_an_attempt_has_its_end() {
    let (_directory, node, script) = scripted().await;
    for (word, state, runs, reason) in [
        ("echo", State::Succeeded, 1, None),
        ("twice", State::Succeeded, 2, None),
        ("panic", State::Succeeded, 2, None),
        ("later", State::Succeeded, 2, None),
        ("large", State::Succeeded, 1, None),
        ("dies", State::Dead, 3, Some(Reason::RunnerCrashed)),
        ("bad", State::Dead, 1, Some(Reason::MalformedRequest)),
        ("huge", State::Dead, 1, Some(Reason::ResultTooLarge)),
    ] {
        let id = node.submit(quick(), word).await;
        let job = node.ended(id).await.job;
        assert_eq!((job.state, script.count(word), job.failure.map(|failure| failure.reason)), (state, runs, reason), "{word}");
        let result = node.service.result(&node.tenant, id).await;
        match reason {
            Some(reason) => assert_eq!(result.unwrap_err().reason(), reason),
            None if word == "large" => assert_eq!(result.unwrap().unwrap().1, vec![7; 200_000], "out of the object store"),
            None => assert_eq!(result.unwrap().unwrap().1, word),
        }
    }
    node.stop().await;
}

#[tokio::test]
async fn typed_kinds_take_and_give_types() {
    let (_directory, node, _) = scripted().await;
    let add = async |body: &str| {
        let id = node.submit(JobRequest { kind: "add".into(), ..JobRequest::default() }, body).await;
        (id, node.ended(id).await)
    };
    let (id, good) = add("{\"a\":2,\"b\":40}").await;
    assert_eq!(good.job.state, State::Succeeded);
    let (meta, bytes) = node.service.result(&node.tenant, id).await.unwrap().unwrap();
    assert_eq!((meta.content_type.as_str(), &bytes[..]), ("application/json", &b"{\"sum\":42}"[..]));
    let (_, bad) = add("{\"a\":2}").await;
    let failure = bad.job.failure.unwrap();
    assert_eq!((bad.job.state, bad.job.attempt, failure.reason), (State::Dead, 1, Reason::MalformedRequest));
    assert!(failure.text.contains("missing field `b`"), "{}", failure.text);
    node.stop().await;
}

#[tokio::test]
async fn a_job_that_takes_too_long_is_ended() {
    let (_directory, node, script) = scripted().await;
    let id = node
        .submit(
            JobRequest { timeout_seconds: Some(0.05), retry: RetryRequest { attempts: Some(1), ..RetryRequest::default() }, ..quick() },
            "deaf",
        )
        .await;
    let job = node.ended(id).await.job;
    assert_eq!((job.state, job.failure.unwrap().reason, script.count("deaf")), (State::Dead, Reason::JobTimeout, 1));
    node.stop().await;
}

#[tokio::test]
async fn cancelling_reaches_the_handler() {
    let (_directory, node, script) = scripted().await;
    let id = node.script("wait").await;
    script.begun.notified().await;
    node.service.cancel(&node.tenant, id).await.unwrap();
    assert_eq!(node.ended(id).await.job.state, State::Cancelled);
    let again = node.service.cancel(&node.tenant, id).await.unwrap();
    assert_eq!(again.state, State::Cancelled, "asked twice is asked once");
    let done = node.script("echo").await;
    node.ended(done).await;
    assert_eq!(node.service.cancel(&node.tenant, done).await.unwrap_err().reason(), Reason::JobFinished);
    node.stop().await;
}

#[tokio::test]
async fn progress_is_followed_from_where_one_was() {
    let (_directory, node, _) = scripted().await;
    let id = node.script("reports").await;
    node.ended(id).await;
    let (job, events) = node.service.follow(&node.tenant, id, 1, Duration::from_secs(1)).await.unwrap();
    assert_eq!(job.state, State::Succeeded);
    assert_eq!(events.iter().map(|event| (event.seq, event.data.as_str())).collect::<Vec<_>>(), [(2, "2"), (3, "3")]);
    node.stop().await;
}

#[tokio::test]
async fn a_node_that_ends_gives_back_what_it_holds_and_another_goes_on() {
    let (directory, node, script) = scripted().await;
    let id = node.script("wait").await;
    script.begun.notified().await;
    node.stop().await;
    let script = Arc::new(Script::default());
    let node = Node::start(directory.path(), vec![("script", script.clone())], Guard::new([])).await;
    script.begun.notified().await;
    let job = node.service.get(&node.tenant, id).await.unwrap();
    assert_eq!((job.state, job.attempt), (State::Running, 1), "no attempt was used up");
    script.go.notify_one();
    assert_eq!(node.ended(id).await.job.state, State::Succeeded);
    node.stop().await;
}

#[tokio::test]
async fn a_lease_that_is_kept_alive_is_not_taken() {
    let (_directory, node, script) = scripted().await;
    let id = node.script("wait").await;
    script.begun.notified().await;
    // Two leases long; the sweeper looks each 50 ms.
    tokio::time::sleep(options().lease * 2).await;
    script.go.notify_one();
    let job = node.ended(id).await.job;
    assert_eq!((job.state, job.attempt, script.count("wait")), (State::Succeeded, 1, 1));
    node.stop().await;
}

#[tokio::test]
async fn submissions_are_judged() {
    let (_directory, node, _) = scripted().await;
    let submit = async |jobs: Vec<JobRequest>, key: Option<&str>| {
        let asked = jobs.into_iter().map(|job| (job, Input { meta: Meta::of(META_TYPE), bytes: "echo".into() })).collect();
        node.service.submit(&node.tenant, "ann", key, asked).await
    };
    let job = |name: &str, after: &[&str]| JobRequest {
        name: Some(name.into()),
        after: after.iter().map(|word| (*word).to_owned()).collect(),
        ..quick()
    };
    let refused = async |jobs: Vec<JobRequest>, key: Option<&str>| {
        let error = submit(jobs, key).await.unwrap_err();
        (error.reason(), error.field_name().unwrap_or_default().to_owned())
    };
    assert_eq!(refused(vec![job("a", &["b"]), job("b", &["a"])], None).await, (Reason::DependencyCycle, "jobs[0].after".into()));
    assert_eq!(refused(vec![job("a", &[]), job("a", &[])], None).await.1, "jobs[1].name");
    assert_eq!(refused(vec![], None).await.0, Reason::MalformedRequest);
    assert_eq!(refused(vec![JobRequest { kind: "none".into(), ..quick() }], None).await, (Reason::JobKindUnknown, "jobs[0].kind".into()));
    assert_eq!(refused(vec![job("a", &["0199f1c2-7b3a-7000-8000-0123456789ab"])], None).await.0, Reason::JobNotFound);
    assert_eq!(refused(vec![quick()], Some("a b")).await.0, Reason::IdempotencyKeyInvalid);
    let metadata = crate::WebhookRequest { url: "http://169.254.169.254/latest/".into(), secret: None };
    assert_eq!(
        refused(vec![JobRequest { webhook: Some(metadata), ..quick() }], None).await,
        (Reason::WebhookRefused, "jobs[0].webhook.url".into())
    );

    // In any order of writing, each after what it waits for; ids in the order of writing.
    let first = submit(vec![job("last", &["mid"]), job("mid", &["start"]), job("start", &[])], Some("k")).await.unwrap();
    let again = submit(vec![job("last", &["mid"]), job("mid", &["start"]), job("start", &[])], Some("k")).await.unwrap();
    assert_eq!((again.ids.clone(), again.replayed), (first.ids.clone(), true));
    assert_eq!(refused(vec![job("last", &[])], Some("k")).await.0, Reason::IdempotencyKeyReused);
    assert_eq!(node.ended(first.ids[0]).await.job.state, State::Succeeded);
    let ended = async |at: usize| node.service.get(&node.tenant, first.ids[at]).await.unwrap().ended_at.unwrap();
    assert!(ended(2).await <= ended(1).await && ended(1).await <= ended(0).await);
    node.stop().await;
}

#[tokio::test]
async fn a_schedule_fires_and_rests() {
    let (_directory, node, script) = scripted().await;
    let request = |paused: bool| -> ScheduleRequest {
        let job = json!({ "kind": "script", "labels": { "who": "night" } });
        serde_json::from_value(json!({ "cron": "* * * * * *", "zone": "Asia/Shanghai", "job": job, "input": "tick", "paused": paused }))
            .unwrap()
    };
    let view = node.service.put_schedule(&node.tenant, "ann", "tick", request(false)).await.unwrap();
    assert!(view.next_at.is_some() && view.last_at.is_none());
    script.begun.notified().await;
    let job = node.service.schedules(&node.tenant).await.unwrap().remove(0);
    assert!(job.last_at.is_some(), "{job:?}");
    let query = plinth_queue::jobs::ListJobs {
        tenant: node.tenant.clone(),
        kind: None,
        state: None,
        parent: None,
        label: Some("schedule=tick".into()),
        before: None,
        limit: 10,
    };
    assert!(!node.service.list(&query).await.unwrap().is_empty());
    let resting = node.service.put_schedule(&node.tenant, "ann", "tick", request(true)).await.unwrap();
    assert_eq!((resting.next_at, resting.last_at.is_some()), (None, true));
    node.service.delete_schedule(&node.tenant, "tick").await.unwrap();
    assert_eq!(node.service.delete_schedule(&node.tenant, "tick").await.unwrap_err().reason(), Reason::RecordNotFound);
    let never = ScheduleRequest { cron: "0 0 30 2 *".into(), ..request(false) };
    let error = node.service.put_schedule(&node.tenant, "ann", "tick", never).await.unwrap_err();
    assert_eq!((error.reason(), error.field_name()), (Reason::InvalidSchedule, Some("cron")));
    node.stop().await;
}

#[tokio::test]
async fn an_idle_worker_begins_at_once() {
    let (_directory, node, _) = scripted().await;
    let mut waits = Vec::new();
    for _ in 0..20 {
        let id = node.script("echo").await;
        let job = node.ended(id).await.job;
        waits.push(job.started_at.unwrap().since(job.created_at));
    }
    waits.sort_unstable();
    // The bell, not the poll of 100 ms.
    assert!(waits[10] < Duration::from_millis(50), "{waits:?}");
    node.stop().await;
}

#[tokio::test]
async fn a_tenant_has_no_more_waiting_than_it_may() {
    let (_directory, node, _) = scripted().await;
    let later = JobRequest { delay_seconds: Some(60.0), ..quick() };
    let submit =
        || node.service.submit(&node.tenant, "ann", None, vec![(later.clone(), Input { meta: Meta::of(META_TYPE), bytes: "echo".into() })]);
    let mut stored = 0;
    let refused = loop {
        match submit().await {
            Ok(_) => stored += 1,
            Err(error) => break error,
        }
        assert!(stored <= 60);
    };
    assert_eq!((refused.reason(), refused.retry_delay().is_some()), (Reason::JobsLimited, true));
    assert!((50..=55).contains(&stored), "{stored}");
    let other: TenantName = "other".parse().unwrap();
    let input = Input { meta: Meta::of(META_TYPE), bytes: "echo".into() };
    node.service.submit(&other, "bob", None, vec![(quick(), input)]).await.unwrap();
    node.stop().await;
}
