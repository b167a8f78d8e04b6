//! What is SQLite's alone: its file, its settings, a full disk, other processes.

use std::future::Future;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::*;
use crate::conformance;
use crate::faults::TinyDisk;
use crate::metadata::ledger::{Driver, SqlMetadata};
use crate::metadata::session::{Param, Session};
use crate::metadata::sqlite::{SqliteDriver, connect};

fn options(path: &Path) -> MetadataOptions {
    MetadataOptions::new(MetadataUrl::Sqlite(path.to_owned()))
}

async fn driver(path: &Path) -> SqliteDriver {
    connect(path, &options(path), &World::real()).await.unwrap()
}

pub(super) async fn open_file(path: &Path) -> Arc<dyn Metadata> {
    open_url(MetadataUrl::Sqlite(path.to_owned())).await
}

/// Runs something with a connection that writes.
pub(super) async fn raw<T>(path: &Path, run: impl AsyncFnOnce(&mut dyn Session) -> T) -> T {
    let driver = driver(path).await;
    let mut session = driver.writer().await.unwrap();
    let result = run(&mut *session).await;
    session.keep();
    drop(session);
    driver.close().await;
    result
}

#[tokio::test]
async fn sqlite_conforms() {
    let root = tempfile::tempdir().unwrap();
    let made = std::sync::atomic::AtomicU32::new(0);
    conformance::metadata(|| {
        let number = made.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let path = root.path().join(format!("{number}.sqlite"));
        async move { open_file(&path).await }
    })
    .await;
}

#[tokio::test]
async fn what_is_committed_is_there_after_reopening() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("deep/er/ledger");
    let ledger = open_file(&path).await;
    ledger.commit(set("a", 1)).await.unwrap();
    // The second handle sees it at once, and after both are closed a third sees both commits.
    let other = open_file(&path).await;
    assert_eq!(other.get(&key("a")).await.unwrap().unwrap().value, json!(1));
    other.commit(set("a", 2)).await.unwrap();
    assert_eq!(ledger.get(&key("a")).await.unwrap().unwrap().value, json!(2));
    ledger.close().await;
    other.close().await;
    assert!(!path.with_file_name("ledger-wal").exists(), "a clean end leaves only the database");
    let ledger = open_file(&path).await;
    assert_eq!(check_ledger(&*ledger).await, Revision(2));
}

#[tokio::test]
async fn only_the_owner_reads_the_files() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("new/ledger");
    let ledger = open_file(&path).await;
    ledger.commit(set("a", 1)).await.unwrap();
    let mode = |path: PathBuf| std::fs::metadata(&path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(root.path().join("new")), 0o700);
    for name in ["ledger", "ledger-wal", "ledger-shm"] {
        assert_eq!(mode(root.path().join("new").join(name)), 0o600, "{name}");
    }
    ledger.close().await;
    // A file that somebody made readable is taken back.
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
    open_file(&path).await;
    assert_eq!(mode(path), 0o600);
}

#[tokio::test]
async fn every_connection_is_durable_and_checks_itself() {
    let root = tempfile::tempdir().unwrap();
    let driver = driver(&root.path().join("ledger")).await;
    let pragma = async |session: &mut dyn Session, sql| session.fetch(sql, &[]).await.unwrap().remove(0);
    for (mut session, query_only) in [(driver.writer().await.unwrap(), 0), (driver.reader().await.unwrap(), 1)] {
        assert_eq!(pragma(&mut *session, "PRAGMA journal_mode").await.text().unwrap(), "wal");
        assert_eq!(pragma(&mut *session, "PRAGMA synchronous").await.int().unwrap(), 2, "FULL");
        assert_eq!(pragma(&mut *session, "PRAGMA foreign_keys").await.int().unwrap(), 1);
        assert_eq!(pragma(&mut *session, "PRAGMA busy_timeout").await.int().unwrap(), 5000);
        assert_eq!(pragma(&mut *session, "PRAGMA query_only").await.int().unwrap(), query_only);
    }
}

#[tokio::test]
async fn a_database_of_a_newer_or_unknown_release_is_not_touched() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("ledger");
    raw(&path, async |session| {
        session.script("INSERT INTO schema_migrations (version, applied_at, checksum) VALUES (7, 0, 'x')").await.unwrap();
    })
    .await;
    let before = std::fs::read(&path).unwrap();
    let error = open(&options(&path), &World::real()).await.err().unwrap();
    assert!(matches!(error, MetadataError::TooNew { found: 7, known: 3 }), "{error:?}");
    assert_eq!(std::fs::read(&path).unwrap(), before);

    let edited = root.path().join("edited");
    raw(&edited, async |session| session.script("UPDATE schema_migrations SET checksum = 'x' WHERE version = 1").await.unwrap()).await;
    assert!(matches!(open(&options(&edited), &World::real()).await.err(), Some(MetadataError::Damaged(_))));

    let alien = root.path().join("alien");
    std::fs::write(&alien, "this is no database at all, but it is longer than the header of one").unwrap();
    assert!(matches!(open(&options(&alien), &World::real()).await.err(), Some(MetadataError::Unavailable { .. })));
    assert!(std::fs::read_to_string(&alien).unwrap().starts_with("this is no database"));
}

#[tokio::test]
async fn a_damaged_record_is_named_and_hurts_no_other() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("ledger");
    let ledger = open_file(&path).await;
    ledger.commit(set("good", 1)).await.unwrap();
    ledger.commit(set("bad", 2)).await.unwrap();
    raw(&path, async |session| session.script("UPDATE records SET value = '{' WHERE name = 'bad'").await.unwrap()).await;
    let error = ledger.get(&key("bad")).await.unwrap_err();
    assert!(matches!(&error, MetadataError::Damaged(text) if text.contains("'bad'")), "{error:?}");
    assert_eq!(ledger.get(&key("good")).await.unwrap().unwrap().value, json!(1));
}

#[tokio::test]
async fn a_writer_that_does_not_end_holds_a_commit_up_only_so_long() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("ledger");
    let options = MetadataOptions { connect_timeout: Duration::from_millis(50), ..options(&path) };
    let ledger = open(&options, &World::real()).await.unwrap();
    raw(&path, async |session| {
        session.script("BEGIN IMMEDIATE").await.unwrap();
        assert!(matches!(ledger.commit(set("a", 1)).await, Err(MetadataError::Unavailable { .. })));
        assert_eq!(ledger.head().await.unwrap(), Revision(0), "readers do not wait for writers");
        session.script("ROLLBACK").await.unwrap();
    })
    .await;
    ledger.commit(set("a", 1)).await.unwrap();
    // The same when SQLite would wait longer than the operation may take.
    let patient = MetadataOptions { operation_timeout: Duration::from_millis(100), ..self::options(&path) };
    let ledger = open(&patient, &World::real()).await.unwrap();
    raw(&path, async |session| {
        session.script("BEGIN IMMEDIATE").await.unwrap();
        let refused = ledger.commit(set("a", 2)).await;
        assert!(matches!(refused, Err(MetadataError::Unavailable { .. })), "{refused:?}");
        session.script("ROLLBACK").await.unwrap();
    })
    .await;
}

/// Fills the ledger until it is full, lets `relieve` make space, and shows that nothing was lost and all works again.
async fn fill_and_recover<Relieved: Future<Output = ()>>(ledger: &dyn Metadata, relieve: impl FnOnce() -> Relieved) {
    let block = "x".repeat(20_000);
    let mut acknowledged = check_ledger(ledger).await;
    let error = loop {
        match ledger.commit(set(&format!("r{}", acknowledged.0), block.clone())).await {
            Ok(revision) => acknowledged = revision,
            Err(error) => break error,
        }
        assert!(acknowledged < Revision(10_000), "the disk is never full");
    };
    assert!(matches!(error, MetadataError::Full), "{error:?}");
    for _ in 0..3 {
        assert!(matches!(ledger.commit(set("again", block.clone())).await, Err(MetadataError::Full)));
    }
    assert_eq!(check_ledger(ledger).await, acknowledged, "what was acknowledged is there, and nothing else");
    relieve().await;
    check_works(ledger).await;
}

#[tokio::test]
async fn a_ledger_at_its_largest_size_is_full_and_loses_nothing() {
    let root = tempfile::tempdir().unwrap();
    let driver = driver(&root.path().join("ledger")).await;
    let pool = driver.writer.clone();
    let limit = async |sql: &'static str| {
        sqlx::query(sql).fetch_all(&pool).await.unwrap();
    };
    limit("PRAGMA max_page_count = 100").await;
    let ledger = SqlMetadata::new(Box::new(driver), Duration::from_secs(30));
    let block = "x".repeat(20_000);
    let mut acknowledged = Revision(0);
    let error = loop {
        match ledger.commit(set(&format!("r{}", acknowledged.0), block.clone())).await {
            Ok(revision) => acknowledged = revision,
            Err(error) => break error,
        }
        assert!(acknowledged < Revision(1000), "the limit does not hold");
    };
    assert!(matches!(error, MetadataError::Full), "{error:?}");
    assert_eq!(check_ledger(&ledger).await, acknowledged);
    // The connection was replaced, and the limit was the old connection's.
    check_works(&ledger).await;
}

#[tokio::test]
async fn a_full_disk_loses_nothing() {
    let Some(disk) = TinyDisk::mount("4m") else { return };
    let path = disk.path().join("ledger");
    let ledger = open_file(&path).await;
    ledger.commit(set("first", 1)).await.unwrap();
    let ballast = disk.path().join("ballast");
    std::fs::write(&ballast, vec![0; 1 << 20]).unwrap();
    fill_and_recover(&*ledger, async || std::fs::remove_file(&ballast).unwrap()).await;
    // And it opens again, from scratch.
    let head = ledger.head().await.unwrap();
    ledger.close().await;
    assert_eq!(check_ledger(&*open_file(&path).await).await, head);
}

#[tokio::test]
async fn a_disk_that_is_full_at_the_start_says_so() {
    let Some(disk) = TinyDisk::mount("1m") else { return };
    let ballast = disk.fill();
    let path = disk.path().join("ledger");
    let error = open(&options(&path), &World::real()).await.err().unwrap();
    assert!(matches!(error, MetadataError::Full), "{error:?}");
    std::fs::remove_file(ballast).unwrap();
    check_works(&*open_file(&path).await).await;
}

#[tokio::test]
async fn a_disk_that_cannot_be_written_is_refused_and_not_harmed() {
    let Some(disk) = TinyDisk::mount("4m") else { return };
    let path = disk.path().join("ledger");
    open_file(&path).await.close().await;
    // No file is open for writing here, or the kernel would not let the disk become read-only.
    disk.read_only(true);
    assert!(matches!(open(&options(&path), &World::real()).await.err(), Some(MetadataError::Unavailable { .. })));
    disk.read_only(false);
    check_works(&*open_file(&path).await).await;
}

#[tokio::test]
async fn two_that_migrate_at_once_take_turns() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("ledger");
    let opened = futures_util::future::join_all((0..6).map(|_| open_file(&path))).await;
    for ledger in &opened {
        check_works(&**ledger).await;
    }
    let steps =
        raw(&path, async |session| session.fetch("SELECT count(*) FROM schema_migrations WHERE version > $1", &[Param::Int(0)]).await);
    assert_eq!(steps.await.unwrap().remove(0).int().unwrap(), 3);
}

/// The entries at which the chain does not hold.
async fn broken(path: &Path) -> Vec<u64> {
    let ledger = open_file(path).await;
    let (mut previous, mut found) = (None, Vec::new());
    for entry in ledger.audit_chain(Revision(1), 100).await.unwrap() {
        if entry.stored.is_some_and(|link| link != entry.after(previous)) {
            found.push(entry.revision.0);
        }
        previous = Some(entry.base());
    }
    ledger.close().await;
    found
}

#[tokio::test]
async fn a_changed_audit_shows_and_that_of_an_older_release_goes_on() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("ledger");
    let ledger = open_file(&path).await;
    for n in 0..6 {
        ledger.commit(set("a", n)).await.unwrap();
    }
    ledger.close().await;
    assert_eq!(broken(&path).await, [0; 0]);
    let copy = root.path().join("copy");
    for (harm, at) in [
        ("UPDATE audit SET actor = 'nobody' WHERE revision = 3", vec![3]),
        ("UPDATE audit SET changes = replace(changes, '2', '7') WHERE revision = 3", vec![3]),
        ("UPDATE audit SET actor = actor || 'm', action = substr(action, 2) WHERE revision = 3", vec![3]),
        ("DELETE FROM audit WHERE revision = 3", vec![4]),
        ("UPDATE audit SET link = (SELECT link FROM audit WHERE revision = 2) WHERE revision = 3", vec![3, 4]),
    ] {
        std::fs::copy(&path, &copy).unwrap();
        raw(&copy, async |session| session.script(harm).await.unwrap()).await;
        assert_eq!(broken(&copy).await, at, "{harm}");
    }
    // As an older release left it: without links. What follows is linked to the last of them.
    raw(&path, async |session| session.script("UPDATE audit SET link = ''").await.unwrap()).await;
    let ledger = open_file(&path).await;
    ledger.commit(set("a", 7)).await.unwrap();
    let links: Vec<_> = ledger.audit_chain(Revision(1), 100).await.unwrap().iter().map(|entry| entry.stored.is_some()).collect();
    assert_eq!(links, [false, false, false, false, false, false, true]);
    ledger.close().await;
    assert_eq!(broken(&path).await, [0; 0]);
    raw(&path, async |session| session.script("UPDATE audit SET actor = 'nobody' WHERE revision = 6").await.unwrap()).await;
    assert_eq!(broken(&path).await, [7]);
}
