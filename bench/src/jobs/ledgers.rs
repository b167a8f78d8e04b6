//! Ledgers of jobs to measure on: a file in a directory of its own, or a schema of its own in a PostgreSQL server.
//!
//! Invariant: a [`Fresh`] ledger is empty, and [`Fresh::remove`] leaves nothing of it behind.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use plinth_queue::jobs::Jobs;
use plinth_queue::jobs::postgres::{PostgresJobs, PostgresOptions};
use plinth_queue::jobs::sqlite::SqliteJobs;
use plinth_runtime::World;
use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Connection, Executor, Row};

/// Where a server is looked for when nobody says: where the tests look too. Without TLS, as on one machine.
pub const LOOPBACK: &str = "postgres://postgres@127.0.0.1:5432/test?sslmode=disable";

/// Which server.
#[derive(clap::Args, Clone)]
pub struct Server {
    /// A PostgreSQL server in which schemas are made and dropped again.
    #[arg(long, default_value = LOOPBACK)]
    pub postgres: String,
}

impl Default for Server {
    fn default() -> Self {
        Self { postgres: LOOPBACK.to_owned() }
    }
}

/// Where a ledger is.
#[derive(clap::Args, Clone)]
#[group(required = true)]
pub struct Place {
    /// A SQLite file.
    #[arg(long)]
    sqlite: Option<PathBuf>,
    /// The address of a PostgreSQL database.
    #[arg(long, conflicts_with = "sqlite", requires = "schema")]
    postgres: Option<String>,
    /// The schema there.
    #[arg(long)]
    schema: Option<String>,
}

impl Place {
    pub fn sqlite(path: PathBuf) -> Self {
        Self { sqlite: Some(path), postgres: None, schema: None }
    }

    pub fn postgres(url: &str, schema: &str) -> Self {
        Self { sqlite: None, postgres: Some(url.to_owned()), schema: Some(schema.to_owned()) }
    }

    /// As the arguments of a worker process.
    pub fn arguments(&self) -> Vec<String> {
        let pair = |name: &str, value: Option<String>| value.into_iter().flat_map(|value| [name.to_owned(), value]).collect::<Vec<_>>();
        let path = self.sqlite.as_ref().map(|path| path.display().to_string());
        [pair("--sqlite", path), pair("--postgres", self.postgres.clone()), pair("--schema", self.schema.clone())].concat()
    }

    /// Opens it, with this most time for one operation.
    pub async fn open(&self, world: &World, patience: Duration) -> Result<Arc<dyn Jobs>, plinth_queue::QueueError> {
        if let Some(path) = &self.sqlite {
            return Ok(Arc::new(SqliteJobs::open(path, world).await?));
        }
        let url = self.postgres.clone().unwrap_or_default();
        let options = PostgresOptions { schema: self.schema.clone(), operation_timeout: patience, ..PostgresOptions::new(url) };
        Ok(Arc::new(PostgresJobs::open(&options, world).await?))
    }
}

/// The usual time for an operation.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// An empty ledger.
pub struct Fresh {
    pub place: Place,
    /// For objects, and for the file.
    directory: tempfile::TempDir,
    drop: Option<(String, String)>,
}

impl Fresh {
    /// A file.
    pub fn sqlite() -> Result<Self> {
        let directory = tempfile::tempdir()?;
        Ok(Self { place: Place::sqlite(directory.path().join("jobs.sqlite")), directory, drop: None })
    }

    /// A schema of a server.
    ///
    /// # Errors
    /// When nobody answers there.
    pub async fn postgres(url: &str) -> Result<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        sql(url, "SELECT 'here'").await.context("no PostgreSQL server answers")?;
        let schema = format!("plinth_bench_{}_{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        let place = Place::postgres(url, &schema);
        Ok(Self { place, directory: tempfile::tempdir()?, drop: Some((url.to_owned(), schema)) })
    }

    /// The directory that goes with it.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// What a sync means here, in words.
    pub async fn about(&self) -> Result<String> {
        match &self.drop {
            None => {
                let kind = rustix::fs::statfs(self.directory())?.f_type;
                let memory = if kind == TMPFS { ", **in a file system in memory, where a sync costs nothing**" } else { "" };
                Ok(format!("SQLite with WAL and `synchronous=FULL`{memory}"))
            }
            Some((url, _)) => {
                let say = "SELECT 'PostgreSQL ' || current_setting('server_version_num')::int / 10000 || ' with fsync ' || \
                           current_setting('fsync') || ' and `synchronous_commit` ' || current_setting('synchronous_commit')";
                Ok(sql(url, say).await?.pop().unwrap_or_default())
            }
        }
    }

    /// Removes what a server holds of it; the directory goes by itself.
    pub async fn remove(self) -> Result<()> {
        if let Some((url, schema)) = &self.drop {
            sql(url, &format!("DROP SCHEMA IF EXISTS {schema} CASCADE")).await?;
        }
        Ok(())
    }
}

/// The number by which the kernel knows tmpfs.
const TMPFS: rustix::fs::FsWord = 0x0102_1994;

/// Both ledgers, each with the reason when it cannot be had.
pub async fn both(server: &Server) -> [(&'static str, Result<Fresh>); 2] {
    [("SQLite", Fresh::sqlite()), ("PostgreSQL", Fresh::postgres(&server.postgres).await)]
}

/// Runs a statement over a connection of its own and gives the first column of the answer, which is text.
pub async fn sql(url: &str, statement: &str) -> Result<Vec<String>> {
    let work = async {
        let mut connection = PgConnection::connect(url).await?;
        let rows = connection.fetch_all(sqlx::raw_sql(AssertSqlSafe(statement.to_owned()))).await?;
        let texts = rows.iter().map(|row| row.try_get::<String, _>(0).unwrap_or_default()).collect();
        connection.close().await?;
        Ok(texts)
    };
    tokio::time::timeout(Duration::from_secs(120), work).await.context("the PostgreSQL server does not answer")?
}
