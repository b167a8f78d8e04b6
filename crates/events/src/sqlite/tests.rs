//! Events in files: the common suite, the model, and what only files can show: a lock, a crash, an index that is half in memory.

use std::io::{BufRead, BufReader, Read};
use std::process::Stdio;
use std::sync::atomic::{AtomicU64, Ordering};

use futures_util::future::join_all;
use plinth_runtime::CrashPoint;
use proptest::prelude::*;

use super::*;
use crate::conformance::model::{Model, Step, follow, settings, steps};
use crate::conformance::{self, Bench, event, named, tombstone};
use crate::faults::{child, orders};
use crate::stream::Mode;

/// A small index, so that it is folded all the time.
fn options(directory: &Path) -> SqliteOptions {
    SqliteOptions { files: 2, index_entries: 40, ..SqliteOptions::new(directory) }
}

async fn open(directory: &Path) -> SqliteEvents {
    SqliteEvents::open(&options(directory), &World::real()).await.unwrap()
}

#[tokio::test]
async fn it_conforms() {
    let directory = tempfile::tempdir().unwrap();
    let (world, clock) = conformance::world();
    let store = SqliteEvents::open(&options(directory.path()), &world).await.unwrap();
    conformance::events(&Bench { store: &store, clock }).await;
    store.close().await;
    assert!(matches!(store.streams(None, None, 1).await, Err(EventsError::Closed)));
}

#[tokio::test]
async fn a_second_process_is_refused_and_the_number_of_files_stays() {
    let directory = tempfile::tempdir().unwrap();
    let first = open(directory.path()).await;
    // A lock belongs to an open file, so a second one in the same process stands for another process.
    let second = SqliteEvents::open(&options(directory.path()), &World::real()).await;
    assert!(matches!(second, Err(EventsError::InUse)));
    let stream = named("t", "s");
    first.create(&stream, &Settings::log()).await.unwrap();
    let events: Vec<_> = (0..100).map(|at| event(&at.to_string(), &at.to_string(), "")).collect();
    first.append(&stream, events.clone()).await.unwrap();
    first.close().await;
    let more = SqliteOptions { files: 5, ..options(directory.path()) };
    let again = SqliteEvents::open(&more, &World::real()).await.unwrap();
    assert_eq!(again.describe().writers, 2);
    let answers = again.append(&stream, events).await.unwrap();
    assert!(answers.iter().all(|answer| matches!(answer, Appended::Already(_))), "each is found where it was");
    again.close().await;
}

#[tokio::test]
async fn a_key_with_more_rows_than_a_page_is_read_whole() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path()).await;
    let stream = named("t", "hot");
    store.create(&stream, &Settings::log()).await.unwrap();
    for list in 0..25 {
        let events = (0..100).map(|at| event(&format!("{list}-{at}"), "hot", "")).collect();
        store.append(&stream, events).await.unwrap();
    }
    let (key, mut after) = ("hot".parse().unwrap(), 0);
    for want in [1000, 1000, 500, 0] {
        let page = store.by_key(&stream, &key, after, u32::MAX).await.unwrap();
        assert_eq!(page.len(), want);
        assert!(page.iter().zip(after + 1..).all(|(stored, offset)| stored.position.offset == offset));
        after += want as u64;
    }
    store.close().await;
}

fn follows(mode: Mode, steps: &[Step]) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let directory = tempfile::tempdir().unwrap();
        let (stream, mut model) = (named("t", "s"), Model::new(mode));
        let mut store = open(directory.path()).await;
        store.create(&stream, &settings(mode)).await.unwrap();
        for step in steps {
            if matches!(step, Step::Reopen) {
                store.close().await;
                store = open(directory.path()).await;
            }
            follow(&store, &stream, &mut model, step).await;
        }
        store.close().await;
    });
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, max_shrink_iters: 200, ..ProptestConfig::default() })]

    #[test]
    fn a_log_follows_the_model(steps in steps(Mode::Log)) {
        follows(Mode::Log, &steps);
    }

    #[test]
    fn rows_follow_the_model(steps in steps(Mode::Latest)) {
        follows(Mode::Latest, &steps);
    }
}

/// The child of the tests below: clients that append and say what was acknowledged, until the process is killed.
async fn burst(world: World, place: &str) {
    let store = SqliteEvents::open(&options(Path::new(place)), &world).await.unwrap();
    let stream = named("t", "burst");
    store.create(&stream, &Settings::latest()).await.unwrap();
    let next = AtomicU64::new(0);
    let client = async || {
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            let events =
                vec![event(&format!("a{number}"), &format!("k{number}"), "x"), tombstone(&format!("b{number}"), &format!("g{number}"))];
            store.append(&stream, events).await.unwrap();
            // One write, so that a line is there whole or not at all.
            println!("ACK {number}\n");
        }
    };
    join_all((0..16).map(|_| client())).await;
}

/// Kills a child in the middle of a burst and counts.
async fn dies(test: &str, point: Option<CrashPoint>, pass: u32) {
    let directory = tempfile::tempdir().unwrap();
    let place = directory.path().to_str().unwrap().to_owned();
    let mut process = child(test, point, pass, &place).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut output = BufReader::new(process.stdout.take().unwrap());
    let (mut line, mut acknowledged) = (String::new(), std::collections::BTreeSet::new());
    while output.read_line(&mut line).unwrap_or(0) > 0 {
        if let Some(number) = line.trim_end().strip_prefix("ACK ") {
            acknowledged.insert(number.parse::<u64>().unwrap());
        }
        line.clear();
        if point.is_none() && acknowledged.len() >= 500 {
            process.kill().unwrap();
        }
    }
    let mut errors = String::new();
    process.stderr.take().unwrap().read_to_string(&mut errors).unwrap();
    let status = process.wait().unwrap();
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(9), "{status}: {errors}");

    let store = open(directory.path()).await;
    let stream = named("t", "burst");
    let stored = conformance::all(&store, &stream).await;
    let ids: std::collections::BTreeSet<_> = stored.iter().map(|stored| stored.event.id.as_str().to_owned()).collect();
    assert_eq!(ids.len(), stored.len(), "none is there twice");
    for number in &acknowledged {
        assert!(ids.contains(&format!("a{number}")) && ids.contains(&format!("b{number}")), "{number} was acknowledged");
    }
    let live = stored.iter().filter(|stored| stored.event.data.is_some()).count() as u64;
    assert_eq!(store.count(&stream).await.unwrap(), live, "the count is of the same transactions");
    // Whoever was not told sends again; nothing is there twice after that either.
    let last = acknowledged.last().copied().unwrap_or(0) + 40;
    for number in 0..=last {
        let answers = store.append(&stream, vec![event(&format!("a{number}"), &format!("k{number}"), "x")]).await.unwrap();
        assert!(!acknowledged.contains(&number) || matches!(answers[0], Appended::Already(_)));
        assert!(!matches!(answers[0], Appended::Differs(_)));
    }
    let (want, now) =
        (ids.iter().filter(|id| id.starts_with('a')).filter_map(|id| id[1..].parse::<u64>().ok()), store.count(&stream).await);
    assert_eq!(now.unwrap(), want.chain(0..=last).collect::<std::collections::BTreeSet<_>>().len() as u64);
    store.close().await;
}

#[tokio::test]
async fn what_was_acknowledged_survives_a_kill() {
    let test = concat!(module_path!(), "::what_was_acknowledged_survives_a_kill");
    match orders() {
        Some((world, place)) => burst(world, &place).await,
        None => dies(test, None, 0).await,
    }
}

#[tokio::test]
async fn a_crash_before_a_commit_loses_nothing_that_was_acknowledged() {
    let test = concat!(module_path!(), "::a_crash_before_a_commit_loses_nothing_that_was_acknowledged");
    match orders() {
        Some((world, place)) => burst(world, &place).await,
        None => dies(test, Some(CrashPoint::EventsBeforeCommit), 20).await,
    }
}

#[tokio::test]
async fn a_crash_after_a_commit_stores_nothing_twice() {
    let test = concat!(module_path!(), "::a_crash_after_a_commit_stores_nothing_twice");
    match orders() {
        Some((world, place)) => burst(world, &place).await,
        None => dies(test, Some(CrashPoint::EventsAfterCommit), 20).await,
    }
}
