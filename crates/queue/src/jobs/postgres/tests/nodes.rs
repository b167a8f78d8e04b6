//! Many nodes on one database: nothing is done twice, nothing is left.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::future::join_all;
use plinth_policy::jobs::State;

use super::super::database::{Ending, Points};
use super::*;
use crate::jobs::{Counts, IdempotencyKey, JobId, KindLimits, KindSettings, Submitted};

async fn nodes(schema: &str, count: usize) -> Vec<PostgresJobs> {
    let mut nodes = Vec::new();
    for _ in 0..count {
        nodes.push(PostgresJobs::open(&PostgresOptions { max_connections: 4, ..options(schema) }, &World::real()).await.unwrap());
    }
    nodes
}

/// What must not be there between two transactions.
const NEVER: [(&str, &str); 7] = [
    (
        "ready jobs without a place in line",
        "jobs j WHERE j.state = 2 AND NOT EXISTS (SELECT 1 FROM flows f WHERE f.kind = j.kind AND f.class = j.class AND \
            f.tenant = j.tenant)",
    ),
    (
        "blocked jobs that wait for nothing",
        "jobs j WHERE j.state = 0 AND NOT EXISTS (SELECT 1 FROM dependencies d JOIN jobs o ON o.id = d.on_job WHERE d.job = \
            j.id AND o.state < 4)",
    ),
    (
        "blocked jobs that count other jobs than they wait for",
        "jobs j WHERE j.state = 0 AND j.waits <> (SELECT count(*) FROM dependencies d WHERE d.job = j.id)",
    ),
    (
        "dependencies on what has ended or is not there",
        "dependencies d LEFT JOIN jobs o ON o.id = d.on_job WHERE o.id IS NULL OR o.state > 3",
    ),
    ("jobs that are held and do not run", "jobs WHERE (state = 3) <> (worker IS NOT NULL) OR (state = 3) <> (lease_until IS NOT NULL)"),
    ("jobs that ended well without a result", "jobs j WHERE j.state = 4 AND NOT EXISTS (SELECT 1 FROM results r WHERE r.id = j.id)"),
    ("jobs without a payload", "jobs j WHERE NOT EXISTS (SELECT 1 FROM payloads p WHERE p.id = j.id)"),
];

async fn check(schema: &str) {
    for (what, from) in NEVER {
        assert_eq!(admin(&format!("SET search_path = {schema}; SELECT count(*)::text FROM {from}")).await, ["0"], "{what}");
    }
}

async fn close(nodes: Vec<PostgresJobs>, schemas: Schemas) {
    for number in 0..schemas.made.load(Ordering::Relaxed) {
        check(&format!("{}_{number}", schemas.prefix)).await;
    }
    join_all(nodes.iter().map(Jobs::close)).await;
    schemas.remove().await;
}

async fn by_state(ledger: &PostgresJobs) -> BTreeMap<State, u64> {
    let mut states = BTreeMap::new();
    for Counts { state, jobs, .. } in ledger.counts(None).await.unwrap() {
        *states.entry(state).or_default() += jobs;
    }
    states
}

/// What is left undone for good shall be seen as such.
async fn in_time<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(50), work).await.expect("something is left that nobody claims")
}

/// Claims and ends until nothing is ready or held by anybody; what was claimed.
async fn work(ledger: &PostgresJobs, name: &str, most: u32) -> Vec<JobId> {
    let mut done = Vec::new();
    loop {
        let claimed = ledger.claim(wish(name, most)).await.unwrap();
        if claimed.is_empty() {
            let states = by_state(ledger).await;
            if [State::Ready, State::Running, State::Blocked].iter().all(|state| !states.contains_key(state)) {
                return done;
            }
        }
        join_all(claimed.iter().map(|job| async { ledger.finish(well(job)).await.unwrap() })).await;
        done.extend(claimed.iter().map(|job| job.id));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_job_is_claimed_once_by_eight_nodes() {
    const JOBS: usize = 2000;
    let Some(schemas) = schemas() else { return };
    let schema = schemas.next();
    let nodes = nodes(&schema, 8).await;
    let bench = Bench::new();
    let submissions = (0..JOBS / 10).map(|at| {
        let tenant = format!("tenant-{}", at % 5).parse().unwrap();
        let jobs = (0..10).map(|_| bench.job()).collect();
        nodes[at % 8].submit(Submission { tenant, key: None, jobs })
    });
    // While half of it is submitted the workers begin.
    let submit = join_all(submissions);
    let work = join_all(nodes.iter().enumerate().map(|(at, node)| async move {
        let mut done = Vec::new();
        while done.is_empty() || by_state(node).await.keys().any(|state| *state < State::Succeeded) {
            done.extend(work(node, &format!("node-{at}/1"), 32).await);
        }
        done
    }));
    let (submitted, done) = in_time(async { futures_util::join!(submit, work) }).await;
    assert!(submitted.into_iter().all(|outcome| matches!(outcome, Ok(Submitted::Created))));
    let claims: usize = done.iter().map(Vec::len).sum();
    let each: BTreeSet<JobId> = done.iter().flatten().copied().collect();
    assert_eq!((claims, each.len()), (JOBS, JOBS), "claims of {:?}", done.iter().map(Vec::len).collect::<Vec<_>>());
    assert_eq!(by_state(&nodes[0]).await, [(State::Succeeded, JOBS as u64)].into());
    // Flows go when nobody needs them.
    assert!(nodes[0].claim(wish("node-0/1", 1)).await.unwrap().is_empty());
    assert_eq!(admin(&format!("SELECT count(*)::text FROM {schema}.flows")).await, ["0"]);
    close(nodes, schemas).await;
}

/// Waits until a ledger, which has this name, waits for a lock.
async fn until_it_waits(name: &str) {
    let waiting = format!("SELECT count(*)::text FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND application_name = '{name}'");
    while admin(&waiting).await == ["0"] {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// A submission that is not committed holds its flow: a claim that finds nothing in it leaves it be.
#[tokio::test]
async fn a_flow_that_somebody_is_about_to_fill_is_not_deleted() {
    let Some(schemas) = schemas() else { return };
    let nodes = nodes(&schemas.next(), 2).await;
    let bench = Bench::new();
    let flows = async || nodes[0].database.ask("test", sqlx::query("SELECT kind FROM flows")).await.unwrap().len();
    nodes[0].submit(bench.submission(vec![bench.job()])).await.unwrap();
    assert_eq!(nodes[1].claim(wish("w/1", 1)).await.unwrap().len(), 1);
    assert_eq!(flows().await, 1, "empty, and nobody knows");
    let mut open = nodes[0].database.begin().await.unwrap();
    let now = open.now;
    let submission = [bench.submission(vec![bench.job()])];
    super::super::submit::submit(open.db().unwrap(), now, &submission).await.unwrap();
    assert!(nodes[1].claim(wish("w/1", 1)).await.unwrap().is_empty());
    assert!(matches!(nodes[0].database.end(open, Ok(()), Points::default()).await, Ending::Done(())));
    assert_eq!(flows().await, 1);
    assert_eq!(nodes[1].claim(wish("w/1", 2)).await.unwrap().len(), 1);
    assert!(nodes[1].claim(wish("w/1", 2)).await.unwrap().is_empty());
    assert_eq!(flows().await, 0, "empty, and somebody has seen it");
    close(nodes, schemas).await;
}

/// A submission that meets the deletion of its flow waits for it and makes the flow anew.
#[tokio::test]
async fn a_flow_that_is_being_deleted_is_made_anew() {
    let Some(schemas) = schemas() else { return };
    let schema = schemas.next();
    let name = format!("own-{schema}");
    let named = PostgresOptions { url: format!("{ADDRESS}&application_name={name}").into(), ..options(&schema) };
    let nodes = vec![open(&schema).await, PostgresJobs::open(&named, &World::real()).await.unwrap()];
    let bench = Bench::new();
    nodes[0].submit(bench.submission(vec![bench.job()])).await.unwrap();
    assert_eq!(nodes[0].claim(wish("w/1", 2)).await.unwrap().len(), 1);
    let mut open = nodes[0].database.begin().await.unwrap();
    let begun = (open.now, open.due);
    // It finds the flow empty, and deletes it.
    assert!(super::super::claim::claim(open.db().unwrap(), begun, &wish("w/1", 2)).await.unwrap().is_empty());
    let commit = async {
        until_it_waits(&name).await;
        assert!(matches!(nodes[0].database.end(open, Ok(()), Points::default()).await, Ending::Done(())));
    };
    let (submitted, ()) = futures_util::join!(nodes[1].submit(bench.submission(vec![bench.job()])), commit);
    assert_eq!(submitted.unwrap(), Submitted::Created);
    assert_eq!(nodes[0].claim(wish("w/1", 2)).await.unwrap().len(), 1);
    close(nodes, schemas).await;
}

/// Chains, fans and joins of what other submitters are adding at the same moment.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_stays_blocked_while_lines_grow_and_end() {
    const ROUNDS: usize = 40;
    let Some(schemas) = schemas() else { return };
    let schema = schemas.next();
    let nodes = nodes(&schema, 8).await;
    let bench = Bench::new();
    let submit = async |at: usize| {
        let mut last: Vec<JobId> = Vec::new();
        for round in 0..ROUNDS {
            // Two that gather all of the round before, which is being worked on now, and one that gathers those two.
            let mut two: Vec<NewJob> = (0..2).map(|_| NewJob { waits_for: last.clone(), ..bench.job() }).collect();
            let waits_for = two.iter().map(|job| job.id).collect();
            let join = NewJob { waits_for, ..bench.job() };
            last = two.iter().map(|job| job.id).chain([join.id]).collect();
            two.push(join);
            let node = &nodes[(at + round) % 8];
            assert_eq!(node.submit(bench.submission(two)).await.unwrap(), Submitted::Created);
        }
    };
    let submitters = join_all((0..4).map(submit));
    let ended = std::sync::atomic::AtomicBool::new(false);
    let workers = join_all(nodes.iter().enumerate().map(|(at, node)| {
        let ended = &ended;
        async move {
            let name = format!("node-{at}/1");
            let mut done = 0;
            while !ended.load(Ordering::Relaxed) {
                done += work(node, &name, 3).await.len();
            }
            done + work(node, &name, 3).await.len()
        }
    }));
    let all = async {
        submitters.await;
        ended.store(true, Ordering::Relaxed);
    };
    let ((), done) = in_time(async { futures_util::join!(all, workers) }).await;
    let jobs = 4 * ROUNDS * 3;
    assert_eq!(done.iter().sum::<usize>(), jobs);
    assert_eq!(by_state(&nodes[0]).await, [(State::Succeeded, jobs as u64)].into());
    assert_eq!(admin(&format!("SELECT count(*)::text FROM {schema}.dependencies")).await, ["0"]);
    close(nodes, schemas).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_key_from_four_nodes_makes_one_job() {
    let Some(schemas) = schemas() else { return };
    let nodes = nodes(&schemas.next(), 4).await;
    let bench = Bench::new();
    for round in 0..20 {
        let outcomes = join_all((0..20).map(|at| {
            let key = Some(IdempotencyKey { key: format!("k{round}"), fingerprint: [1; 32], keep_millis: 60_000 });
            nodes[at % 4].submit(Submission { key, ..bench.submission(vec![bench.job()]) })
        }))
        .await;
        let outcomes: Vec<Submitted> = outcomes.into_iter().map(Result::unwrap).collect();
        let created = outcomes.iter().filter(|outcome| **outcome == Submitted::Created).count();
        let replayed: BTreeSet<JobId> = outcomes
            .iter()
            .filter_map(|outcome| match outcome {
                Submitted::Replayed(ids) => Some(ids[0]),
                _ => None,
            })
            .collect();
        assert_eq!((created, replayed.len()), (1, 1), "{outcomes:?}");
    }
    assert_eq!(by_state(&nodes[0]).await, [(State::Ready, 20)].into());
    // One hundred at once with one key, which was used and is over.
    let key = |keep_millis| Some(IdempotencyKey { key: "old".into(), fingerprint: [1; 32], keep_millis });
    nodes[0].submit(Submission { key: key(1), ..bench.submission(vec![bench.job()]) }).await.unwrap();
    tokio::time::sleep(Duration::from_millis(5)).await;
    let again = (0..100).map(|at| nodes[at % 4].submit(Submission { key: key(60_000), ..bench.submission(vec![bench.job()]) }));
    let outcomes: Vec<Submitted> = join_all(again).await.into_iter().map(Result::unwrap).collect();
    assert_eq!(outcomes.iter().filter(|outcome| **outcome == Submitted::Created).count(), 1, "{outcomes:?}");
    assert_eq!(by_state(&nodes[0]).await, [(State::Ready, 22)].into());
    close(nodes, schemas).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_limit_holds_over_all_nodes() {
    let Some(schemas) = schemas() else { return };
    let nodes = nodes(&schemas.next(), 8).await;
    let bench = Bench::new();
    let limits = KindLimits { concurrency: Some(5), rate_per_second: None };
    nodes[0].set_kind(KindSettings { kind: "k".into(), paused: false, limits }).await.unwrap();
    nodes[0].submit(bench.submission((0..100).map(|_| bench.job()).collect())).await.unwrap();
    for _ in 0..10 {
        let claimed = join_all(nodes.iter().map(|node| node.claim(wish("w/1", 3)))).await;
        let claimed: Vec<_> = claimed.into_iter().flat_map(Result::unwrap).collect();
        assert_eq!(claimed.len(), 5);
        for job in &claimed {
            nodes[1].finish(well(job)).await.unwrap();
        }
    }
    close(nodes, schemas).await;
}

/// Two nodes end the two halves of what one job waits for, a hundred times, each time at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_that_end_at_once_let_their_follower_go() {
    let Some(schemas) = schemas() else { return };
    let nodes = nodes(&schemas.next(), 2).await;
    let bench = Bench::new();
    for _ in 0..50 {
        let (a, b) = (bench.job(), bench.job());
        let join = NewJob { waits_for: vec![a.id, b.id], ..bench.job() };
        let id = join.id;
        nodes[0].submit(bench.submission(vec![a, b, join])).await.unwrap();
        let two = nodes[0].claim(wish("w/1", 2)).await.unwrap();
        let late = NewJob { waits_for: vec![two[0].id, two[1].id], ..bench.job() };
        let late_id = late.id;
        let (first, second, third) = futures_util::join!(
            nodes[0].finish(well(&two[0])),
            nodes[1].finish(well(&two[1])),
            nodes[1].submit(bench.submission(vec![late]))
        );
        assert!(first.is_ok() && second.is_ok() && third.is_ok());
        let next = nodes[1].claim(wish("w/1", 9)).await.unwrap();
        assert_eq!(next.iter().map(|job| job.id).collect::<BTreeSet<_>>(), [id, late_id].into());
        for job in &next {
            nodes[0].finish(well(job)).await.unwrap();
        }
    }
    close(nodes, schemas).await;
}
