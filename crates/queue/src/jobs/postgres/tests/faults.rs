//! What goes wrong between a node and its database.

use std::collections::BTreeSet;

use futures_util::future::join_all;
use plinth_policy::jobs::State;
use plinth_runtime::{Clock, SystemClock};

use super::*;
use crate::QueueError;
use crate::jobs::{Finished, JobId, ListJobs, Submitted};

#[tokio::test]
async fn a_database_of_a_newer_release_is_not_touched() {
    let Some(schemas) = schemas() else { return };
    let schema = schemas.next();
    open(&schema).await.close().await;
    admin(&format!("INSERT INTO {schema}.queue_migrations VALUES (9, 0, 'x')")).await;
    let error = PostgresJobs::open(&options(&schema), &World::real()).await.err().unwrap();
    assert!(matches!(error, QueueError::TooNew { found: 9, known: 1 }), "{error:?}");
    schemas.remove().await;
}

#[tokio::test]
async fn five_that_open_at_once_take_turns() {
    let Some(schemas) = schemas() else { return };
    let schema = schemas.next();
    for ledger in join_all((0..5).map(|_| open(&schema))).await {
        assert!(ledger.describe().await.unwrap().starts_with("postgresql 1"));
        ledger.close().await;
    }
    schemas.remove().await;
}

#[tokio::test]
async fn a_server_that_is_away_is_noticed_soon() {
    // A port that was free a moment ago, and an address where nobody answers at all.
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    for address in [free, silent.local_addr().unwrap()] {
        let options =
            PostgresOptions { connect_timeout: Duration::from_millis(300), ..PostgresOptions::new(format!("postgres://u@{address}/d")) };
        let start = SystemClock.monotonic();
        let error = PostgresJobs::open(&options, &World::real()).await.err().unwrap();
        assert!(matches!(error, QueueError::Unavailable { .. }), "{error:?}");
        assert!(SystemClock.monotonic().saturating_sub(start) < Duration::from_secs(5));
    }
}

#[tokio::test]
async fn sessions_are_durable_and_limited() {
    let Some(schemas) = schemas() else { return };
    let schema = schemas.next();
    let ledger = open(&schema).await;
    for (name, want) in [
        ("synchronous_commit", "on"),
        ("application_name", "plinth-queue"),
        ("statement_timeout", "30s"),
        ("lock_timeout", "15s"),
        ("idle_in_transaction_session_timeout", "30s"),
        ("search_path", schema.as_str()),
    ] {
        let found = ledger.database.ask("test", sqlx::query("SELECT current_setting($1)").bind(name)).await.unwrap();
        assert_eq!(found[0].get::<String, _>(0), want, "{name}");
    }
    ledger.close().await;
    schemas.remove().await;
}

#[tokio::test]
async fn whoever_holds_a_lock_holds_a_call_up_only_so_long() {
    let Some(schemas) = schemas() else { return };
    let schema = schemas.next();
    let impatient = PostgresOptions { operation_timeout: Duration::from_millis(400), ..options(&schema) };
    let ledger = PostgresJobs::open(&impatient, &World::real()).await.unwrap();
    let bench = Bench::new();
    ledger.submit(bench.submission(vec![bench.job()])).await.unwrap();
    let claimed = ledger.claim(wish("w/1", 1)).await.unwrap();
    let mut other = connection().await;
    other.execute(sqlx::raw_sql(AssertSqlSafe(format!("BEGIN; SELECT id FROM {schema}.jobs FOR UPDATE")))).await.unwrap();
    let start = SystemClock.monotonic();
    assert!(matches!(ledger.finish(well(&claimed[0])).await, Err(QueueError::Unavailable { .. })));
    assert!(SystemClock.monotonic().saturating_sub(start) < Duration::from_secs(3));
    assert!(ledger.get(&bench.tenant, claimed[0].id).await.unwrap().is_some(), "readers wait for nobody");
    other.execute("ROLLBACK").await.unwrap();
    assert_eq!(ledger.finish(well(&claimed[0])).await.unwrap(), Finished::Done);
    ledger.close().await;
    schemas.remove().await;
}

/// The server ends one of two that want each other's rows; what was chosen runs again and nobody is told.
#[tokio::test]
async fn a_deadlock_is_lost_and_tried_again() {
    let Some(schemas) = schemas() else { return };
    let schema = schemas.next();
    let named = PostgresOptions { url: format!("{ADDRESS}&application_name=own-{schema}").into(), ..options(&schema) };
    let ledger = PostgresJobs::open(&named, &World::real()).await.unwrap();
    let bench = Bench::new();
    let first = bench.job();
    let follower = NewJob { waits_for: vec![first.id], ..bench.job() };
    let hex = |id: JobId| id.to_string().replace('-', "");
    let lock = |id: JobId| AssertSqlSafe(format!("SELECT id FROM {schema}.jobs WHERE id = '\\x{}' FOR UPDATE", hex(id)));
    let (first_id, follower_id) = (first.id, follower.id);
    ledger.submit(bench.submission(vec![first, follower])).await.unwrap();
    let claimed = ledger.claim(wish("w/1", 9)).await.unwrap();
    let mut other = connection().await;
    other.execute("SET deadlock_timeout = '1min'").await.unwrap();
    other.execute("BEGIN").await.unwrap();
    other.execute(sqlx::raw_sql(lock(follower_id))).await.unwrap();
    let against = async {
        // As soon as the end holds its job and waits for the follower.
        let waiting =
            format!("SELECT count(*)::text FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND application_name = 'own-{schema}'");
        while admin(&waiting).await == ["0"] {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        other.execute(sqlx::raw_sql(lock(first_id))).await.unwrap();
        other.execute("COMMIT").await.unwrap();
    };
    let (finished, ()) = futures_util::join!(ledger.finish(well(&claimed[0])), against);
    assert_eq!(finished.unwrap(), Finished::Done);
    assert_eq!(ledger.claim(wish("w/1", 9)).await.unwrap()[0].id, follower_id);
    ledger.close().await;
    schemas.remove().await;
}

/// One caller's data that the server does not take fails nobody else.
#[tokio::test]
async fn what_is_wrong_with_one_costs_no_other() {
    let Some(schemas) = schemas() else { return };
    let ledger = open(&schemas.next()).await;
    let bench = Bench::new();
    let taken = bench.job();
    ledger.submit(bench.submission(vec![taken.clone()])).await.unwrap();
    let zero = NewJob { actor: "some\0body".into(), ..bench.job() };
    let nowhere = bench.ids.next();
    let lost = NewJob { waits_for: vec![nowhere], ..bench.job() };
    let jobs = [bench.job(), taken, bench.job(), zero.clone(), lost, bench.job()];
    let outcomes = join_all(jobs.into_iter().map(|job| ledger.submit(bench.submission(vec![job])))).await;
    let told: Vec<Option<Submitted>> = outcomes.into_iter().map(Result::ok).collect();
    let ok = || Some(Submitted::Created);
    assert_eq!(told, [ok(), None, ok(), ok(), Some(Submitted::NoSuchJob(nowhere)), ok()]);
    assert_eq!(ledger.get(&bench.tenant, zero.id).await.unwrap().unwrap().actor, "some\u{fffd}body");
    ledger.close().await;
    schemas.remove().await;
}

/// Ends the connections of the ledger with this name, as a server that restarts does.
async fn end_connections(admin: &mut PgConnection, name: &str) -> usize {
    let sql = format!("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = '{name}'");
    admin.fetch_all(sqlx::raw_sql(AssertSqlSafe(sql))).await.unwrap().len()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_that_the_server_ends_lose_and_double_nothing() {
    const JOBS: usize = 200;
    let Some(schemas) = schemas() else { return };
    let schema = schemas.next();
    let name = format!("own-{schema}");
    let named = PostgresOptions {
        url: format!("{ADDRESS}&application_name={name}").into(),
        operation_timeout: Duration::from_secs(10),
        ..options(&schema)
    };
    let ledger = PostgresJobs::open(&named, &World::real()).await.unwrap();
    let bench = Bench::new();
    let ended = std::sync::atomic::AtomicBool::new(false);
    let wreck = async {
        let mut admin = connection().await;
        let (mut killed, mut pause) = (0, Duration::from_millis(10));
        while !ended.load(Ordering::Relaxed) {
            killed += end_connections(&mut admin, &name).await;
            // Ever more seldom, so that a slow machine comes to an end too.
            pause += Duration::from_millis(3);
            tokio::time::sleep(pause).await;
        }
        killed
    };
    let drive = async {
        // A submission that failed may have happened: it is asked for again with its key.
        let submit = |at: usize| {
            let (ledger, bench) = (&ledger, &bench);
            async move {
                let key = crate::jobs::IdempotencyKey { key: format!("k{at}"), fingerprint: [1; 32], keep_millis: 600_000 };
                let submission = Submission { key: Some(key), ..bench.submission(vec![bench.job()]) };
                let mut failed = 0;
                while ledger.submit(submission.clone()).await.is_err() {
                    failed += 1;
                }
                failed
            }
        };
        let mut failed = 0;
        for some in (0..JOBS).collect::<Vec<_>>().chunks(40) {
            failed += join_all(some.iter().map(|at| submit(*at))).await.into_iter().sum::<usize>();
        }
        let mut done: Vec<JobId> = Vec::new();
        while done.len() < JOBS {
            // A claim that failed may have happened: its jobs come back with the next process of the node.
            let Ok(claimed) = ledger.claim(wish("node/1", 16)).await else {
                failed += 1;
                while ledger.release("node", &WorkerId("node/0".into())).await.is_err() {}
                continue;
            };
            for job in claimed {
                // An end that failed may have happened: then the second one is void, and the job has ended.
                let finished = loop {
                    match ledger.finish(well(&job)).await {
                        Ok(finished) => break finished,
                        Err(_) => failed += 1,
                    }
                };
                if finished == Finished::Fenced {
                    let state = loop {
                        if let Ok(found) = ledger.get(&bench.tenant, job.id).await {
                            break found.unwrap().state;
                        }
                    };
                    assert_eq!(state, State::Succeeded);
                }
                done.push(job.id);
            }
        }
        ended.store(true, Ordering::Relaxed);
        (done, failed)
    };
    let ((done, failed), killed) = futures_util::join!(drive, wreck);
    println!("{killed} connections ended, {failed} calls failed");
    assert!(killed > 0 && failed > 0, "{killed} connections ended, {failed} calls failed");
    assert_eq!(done.iter().copied().collect::<BTreeSet<_>>().len(), JOBS);
    let query = ListJobs { tenant: bench.tenant.clone(), kind: None, state: None, parent: None, label: None, before: None, limit: 10_000 };
    let jobs = ledger.list(&query).await.unwrap();
    assert!(jobs.len() == JOBS && jobs.iter().all(|job| job.state == State::Succeeded), "{} jobs", jobs.len());
    // All of it works again.
    ledger.submit(bench.submission(vec![bench.job()])).await.unwrap();
    assert_eq!(ledger.claim(wish("w/1", 1)).await.unwrap().len(), 1);
    ledger.close().await;
    schemas.remove().await;
}
