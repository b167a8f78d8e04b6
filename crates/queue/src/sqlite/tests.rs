//! The writer that commits what has gathered: who shares a transaction, and who does not pay for whom.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use futures_util::future::join_all;
use plinth_runtime::World;
use rusqlite::Connection;

use super::{GroupWriter, Points};
use crate::QueueError;

const STEPS: super::Migrations = &["CREATE TABLE words (word TEXT NOT NULL PRIMARY KEY) STRICT"];

fn open(directory: &Path) -> GroupWriter {
    GroupWriter::open(&directory.join("words"), STEPS, &World::real()).unwrap()
}

fn put(db: &Connection, word: &str) -> rusqlite::Result<()> {
    db.execute("INSERT INTO words (word) VALUES (?1)", [word]).map(|_| ())
}

async fn count(writer: &GroupWriter) -> u64 {
    let count = |db: &Connection| db.query_row("SELECT count(*) FROM words", [], |row| row.get::<_, i64>(0));
    writer.write("count", Points::default(), count).await.unwrap().unsigned_abs()
}

#[tokio::test]
async fn one_that_fails_and_one_that_panics_fail_alone() {
    let directory = tempfile::tempdir().unwrap();
    let writer = open(directory.path());
    let writer = &writer;
    let outcomes = join_all((0..100).map(|number| async move {
        let work = move |db: &Connection| {
            put(db, &format!("word {number}"))?;
            match number % 10 {
                3 => put(db, "word 0").and(put(db, &format!("word {number}"))),
                7 => panic!("the work panics"),
                _ => Ok(()),
            }
        };
        writer.write("put", Points::default(), work).await
    }))
    .await;
    for (number, outcome) in outcomes.iter().enumerate() {
        let fails = matches!(number % 10, 3 | 7);
        assert_eq!(outcome.is_err(), fails, "{number}: {outcome:?}");
    }
    assert_eq!(count(writer).await, 80, "nothing is left of what failed");
}

#[tokio::test]
async fn many_at_once_share_few_transactions() {
    let directory = tempfile::tempdir().unwrap();
    let writer = open(directory.path());
    // A reader sees whole transactions only, so how many words it sees at most tells how many were committed together.
    let path = directory.path().join("words");
    let sizes = Arc::new(AtomicU32::new(0));
    let outcomes = join_all((0..1000).map(|number| {
        let (sizes, path) = (sizes.clone(), path.clone());
        let work = move |db: &Connection| {
            put(db, &format!("word {number}"))?;
            let own: u32 = db.query_row("SELECT count(*) FROM words", [], |row| row.get(0))?;
            if number % 100 == 99 {
                let reader = Connection::open(&path)?;
                let committed: u32 = reader.query_row("SELECT count(*) FROM words", [], |row| row.get(0))?;
                sizes.fetch_max(own - committed, Ordering::SeqCst);
            }
            Ok(())
        };
        writer.write("put", Points::default(), work)
    }))
    .await;
    assert!(outcomes.iter().all(Result::is_ok));
    assert_eq!(count(&writer).await, 1000);
    let largest = sizes.load(Ordering::SeqCst);
    assert!(largest >= 100, "at most {largest} of a thousand writes shared a transaction");
}

#[tokio::test]
async fn a_caller_that_goes_away_costs_nobody() {
    let directory = tempfile::tempdir().unwrap();
    let writer = open(directory.path());
    for number in 0..50 {
        // Dropped after its first poll: the work is sent and nobody waits for it.
        let mut gone = Box::pin(writer.write("put", Points::default(), move |db: &Connection| put(db, &format!("gone {number}"))));
        let _ = futures_util::poll!(&mut gone);
        drop(gone);
        writer.write("put", Points::default(), move |db: &Connection| put(db, &format!("stays {number}"))).await.unwrap();
    }
    assert_eq!(count(&writer).await, 100);
}

#[tokio::test]
async fn a_full_disk_leaves_nothing_half_and_heals() {
    let directory = tempfile::tempdir().unwrap();
    let writer = open(directory.path());
    writer.write("limit", Points::default(), |db: &Connection| db.pragma_update(None, "max_page_count", 8)).await.unwrap();
    let long = "x".repeat(20_000);
    let (mut stored, mut full) = (0, 0);
    for number in 0..10 {
        let word = format!("{number} {long}");
        match writer.write("put", Points::default(), move |db: &Connection| put(db, &word)).await {
            Ok(()) => stored += 1,
            Err(QueueError::Full | QueueError::Unavailable { .. }) => full += 1,
            Err(other) => panic!("{other}"),
        }
    }
    assert!(full > 0, "the limit was not felt");
    assert_eq!(count(&writer).await, stored);
    writer.write("limit", Points::default(), |db: &Connection| db.pragma_update(None, "max_page_count", 1_000_000)).await.unwrap();
    writer.write("put", Points::default(), move |db: &Connection| put(db, &long)).await.unwrap();
    assert_eq!(count(&writer).await, stored + 1);
}
