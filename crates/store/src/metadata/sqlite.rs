//! The ledger in a SQLite file: one connection that writes, a few that read.
//!
//! Invariants: WAL and `synchronous=FULL`, so a commit is on the disk before it is acknowledged; the file is the owner's
//! alone; no SQLite older than 3.51.3 ever opens it. Other processes may have the file open too: they take turns.

use std::fs::{OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use async_trait::async_trait;
use plinth_runtime::World;
use sqlx::ConnectOptions;
use sqlx::pool::PoolOptions;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqliteSynchronous};

use super::ledger::{Driver, SqlMetadata, within};
use super::migrate::{Flavour, migrate};
use super::session::{Checkout, Session, failed};
use super::statements::Dialect;
use super::{MetadataError, MetadataOptions};
use crate::durable;

/// Older ones may corrupt a database when the WAL is reset while another connection writes.
const OLDEST: [u32; 3] = [3, 51, 3];

/// How long opening may take, migrations of a large ledger included.
const OPEN_TIMEOUT: Duration = Duration::from_secs(15 * 60);

static DIALECT: Dialect = Dialect {
    product: "sqlite",
    version: "SELECT sqlite_version()",
    begin_read: "BEGIN",
    begin_write: "BEGIN IMMEDIATE",
    lock_head: super::statements::HEAD,
    begin_migration: &["BEGIN IMMEDIATE"],
};

pub(super) struct SqliteDriver {
    pub(super) writer: SqlitePool,
    readers: SqlitePool,
}

/// Opens the file, makes it when it is not there, and brings its schema up to date.
pub(super) async fn open(path: &Path, options: &MetadataOptions, world: &World) -> Result<SqlMetadata, MetadataError> {
    let driver = within(OPEN_TIMEOUT, "open", connect(path, options, world)).await?;
    Ok(SqlMetadata::new(Box::new(driver), options.operation_timeout))
}

pub(super) async fn connect(path: &Path, options: &MetadataOptions, world: &World) -> Result<SqliteDriver, MetadataError> {
    let file = path.to_owned();
    let prepared = tokio::task::spawn_blocking(move || prepare_file(&file)).await;
    prepared.map_err(io::Error::other).and_then(|result| result).map_err(|error| {
        if durable::is_full(&error) {
            MetadataError::Full
        } else {
            MetadataError::Unavailable { operation: "open", source: Box::new(error) }
        }
    })?;

    // A line for each statement drowns what matters; the registry logs each commit once.
    let connect = SqliteConnectOptions::new()
        .disable_statement_logging()
        .filename(path)
        .create_if_missing(false)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .foreign_keys(true)
        // The default is 2 MiB for each connection, which an audit that grows fills over days; the kernel caches the file anyway.
        .pragma("cache_size", "-256")
        .busy_timeout(options.connect_timeout);
    let pool = |connections: u32| {
        // An idle connection to a file costs nothing and does not die.
        let pool = PoolOptions::new().max_connections(connections).acquire_timeout(options.operation_timeout);
        pool.idle_timeout(None).max_lifetime(None).test_before_acquire(false)
    };
    let driver = SqliteDriver {
        writer: pool(1).connect_lazy_with(connect.clone()),
        readers: pool(options.max_connections.max(1)).connect_lazy_with(connect.pragma("query_only", "ON")),
    };

    let mut session = driver.writer().await.map_err(failed("open"))?;
    check_library(&mut *session).await?;
    migrate(&mut *session, &DIALECT, Flavour::Sqlite, world).await?;
    session.keep();
    drop(session);
    Ok(driver)
}

/// Makes the file and what is missing above it, for the owner only. SQLite gives the files beside it the same mode.
fn prepare_file(path: &Path) -> io::Result<()> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).map_or_else(|| PathBuf::from("."), Path::to_owned);
    durable::create_directories(&parent)?;
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)?;
    if file.metadata()?.permissions().mode() & 0o077 != 0 {
        file.set_permissions(Permissions::from_mode(0o600))?;
    }
    durable::sync_directory(&parent)
}

async fn check_library(session: &mut dyn Session) -> Result<(), MetadataError> {
    let one = |rows: Vec<super::session::Row>| rows.into_iter().next().map(|mut row| row.text()).transpose();
    let version = one(session.fetch(DIALECT.version, &[]).await.map_err(failed("open"))?)?.unwrap_or_default();
    if !is_new_enough(&version) {
        return Err(refused(format!("this binary is linked with SQLite {version}; 3.51.3 is the oldest that keeps a ledger safe")));
    }
    // Some network file systems cannot share the WAL's index; SQLite then silently keeps another mode.
    let mode = one(session.fetch("PRAGMA journal_mode", &[]).await.map_err(failed("open"))?)?.unwrap_or_default();
    if mode != "wal" {
        return Err(refused(format!("the file system below the database does not support SQLite's WAL (journal mode is '{mode}')")));
    }
    Ok(())
}

fn refused(why: String) -> MetadataError {
    MetadataError::Unavailable { operation: "open", source: why.into() }
}

fn is_new_enough(version: &str) -> bool {
    let parts: Option<Vec<u32>> = version.split('.').map(|part| part.parse().ok()).collect();
    parts.is_some_and(|parts| parts.as_slice() >= OLDEST.as_slice())
}

#[async_trait]
impl Driver for SqliteDriver {
    fn dialect(&self) -> &'static Dialect {
        &DIALECT
    }

    async fn reader(&self) -> Result<Box<dyn Session>, sqlx::Error> {
        Ok(Box::new(Checkout::new(self.readers.acquire().await?)))
    }

    async fn writer(&self) -> Result<Box<dyn Session>, sqlx::Error> {
        Ok(Box::new(Checkout::new(self.writer.acquire().await?)))
    }

    async fn close(&self) {
        // The writer last: the last connection moves the WAL into the database and removes it, and readers cannot.
        self.readers.close().await;
        self.writer.close().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_compare_as_numbers() {
        for good in ["3.51.3", "3.52.0", "3.100", "4.0"] {
            assert!(is_new_enough(good), "{good}");
        }
        for bad in ["3.51.2", "3.9.9", "3.51", "2.99.99", "", "x"] {
            assert!(!is_new_enough(bad), "{bad}");
        }
    }
}
