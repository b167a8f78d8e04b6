//! Opening the file: made for its owner only, locked against a second process, brought to this release's schema.

use std::fs::{File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, OpenFlags};
use rustix::fs::{FlockOperation, flock};

use super::failed;
use crate::QueueError;

/// Older ones may corrupt a database when the WAL is reset while another connection writes.
const OLDEST: i32 = 3_051_003;

/// How long a statement waits for another process that has the file for a moment (a backup).
const BUSY: Duration = Duration::from_secs(5);

/// The schema as the steps that lead to it; step `n` makes version `n + 1`. A step that was released is never changed.
pub type Migrations = &'static [&'static str];

/// Holds the lock of a file for as long as it lives.
#[derive(Debug)]
pub(super) struct Lock(#[allow(dead_code, reason = "closing the file gives the lock back")] File);

/// Makes the file and its directory when they are missing, and takes the lock.
pub(super) fn prepare(path: &Path) -> Result<Lock, QueueError> {
    let io = |error: io::Error| match error.kind() {
        io::ErrorKind::StorageFull => QueueError::Full,
        _ => QueueError::unavailable("open", error),
    };
    if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        std::fs::create_dir_all(parent).map_err(io)?;
    }
    let open = |path: &Path| OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path).map_err(io);
    let mut beside = path.as_os_str().to_owned();
    beside.push(".lock");
    let lock = open(&PathBuf::from(beside))?;
    flock(&lock, FlockOperation::NonBlockingLockExclusive).map_err(|_| QueueError::InUse)?;
    let file = open(path)?;
    if file.metadata().map_err(io)?.permissions().mode() & 0o077 != 0 {
        file.set_permissions(Permissions::from_mode(0o600)).map_err(io)?;
    }
    if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        File::open(parent).and_then(|directory| directory.sync_all()).map_err(io)?;
    }
    Ok(Lock(lock))
}

/// A connection with the settings that the queue's promises rest on.
///
/// # Errors
/// [`QueueError::Unavailable`] when the file cannot be opened or the file system has no shared memory for SQLite's WAL.
pub fn open_connection(path: &Path, read_only: bool) -> Result<Connection, QueueError> {
    let open = failed("open");
    if rusqlite::version_number() < OLDEST {
        let text = format!("this binary is linked with SQLite {}; 3.51.3 is the oldest that keeps a queue safe", rusqlite::version());
        return Err(QueueError::unavailable("open", text));
    }
    let access = if read_only { OpenFlags::SQLITE_OPEN_READ_ONLY } else { OpenFlags::SQLITE_OPEN_READ_WRITE };
    let db = Connection::open_with_flags(path, access | OpenFlags::SQLITE_OPEN_NO_MUTEX).map_err(&open)?;
    db.busy_timeout(BUSY).map_err(&open)?;
    if !read_only {
        let mode: String = db.query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0)).map_err(&open)?;
        if mode != "wal" {
            let text = format!("the file system below the queue does not support SQLite's WAL (journal mode is '{mode}')");
            return Err(QueueError::unavailable("open", text));
        }
    }
    // The WAL is moved into the file every 4,000 pages (16 MiB) and not every 1,000: it is what a burst of jobs would else wait for.
    db.execute_batch(
        "PRAGMA synchronous = FULL; PRAGMA cache_size = -8192; PRAGMA wal_autocheckpoint = 4000; PRAGMA journal_size_limit = 67108864",
    )
    .map_err(&open)?;
    db.set_prepared_statement_cache_capacity(128);
    Ok(db)
}

/// Brings the schema up to date, step by step, each in a transaction.
pub(super) fn migrate(db: &Connection, steps: Migrations) -> Result<(), QueueError> {
    let open = failed("migrate");
    let found: u32 = db.query_row("PRAGMA user_version", [], |row| row.get(0)).map_err(&open)?;
    let known = u32::try_from(steps.len()).unwrap_or(u32::MAX);
    if found > known {
        return Err(QueueError::TooNew { found, known });
    }
    for (step, version) in steps.iter().zip(1u32..).skip(found as usize) {
        db.execute_batch(&format!("BEGIN IMMEDIATE; {step}; PRAGMA user_version = {version}; COMMIT")).map_err(&open)?;
    }
    Ok(())
}
