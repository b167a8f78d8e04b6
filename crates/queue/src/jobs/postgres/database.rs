//! Connections and transactions: how one begins with the database's time, ends with its commit, and what an error in it means.
//!
//! Invariants: a connection goes back to its pool only after a clean end; after an error that is not the server's own answer, a time-out
//! or a cancelled call it is closed, and the server undoes what was open. A transaction that the server ended because of a deadlock or a
//! conflict (40P01, 40001) had no effect, so it runs again, at most [`TRIES`] times in all; nothing else does: after any other failure
//! around a commit nobody knows what happened, and only the caller can ask.

use std::time::Duration;

use plinth_runtime::{CrashPoint, CrashPoints, World};
use sqlx::pool::PoolConnection;
use sqlx::postgres::{PgConnection, PgPool, PgPoolOptions, PgRow};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, Executor, Postgres, Row};

use super::PostgresOptions;
use crate::QueueError;

/// How often a transaction runs that loses against others.
pub(super) const TRIES: u32 = 8;
/// How long opening may take, migrations of large tables included.
const OPEN_TIMEOUT: Duration = Duration::from_secs(15 * 60);

/// The database's time in milliseconds, for `concat!`.
macro_rules! now_sql {
    () => {
        "(extract(epoch FROM clock_timestamp()) * 1000)::bigint"
    };
}
pub(super) use now_sql;

/// Where a test may end the process around a commit.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Points {
    pub(super) before: Option<CrashPoint>,
    pub(super) after: Option<CrashPoint>,
}

/// The pool with what every call needs. Cheap to clone.
#[derive(Clone)]
pub(super) struct Database {
    pool: PgPool,
    world: World,
    pub(super) timeout: Duration,
}

/// Why a transaction did not do its work.
#[derive(Debug)]
pub(super) struct Failed {
    pub(super) error: QueueError,
    /// The server refused what it was given, and nothing has happened.
    pub(super) refused: bool,
}

/// An open transaction. Dropped before its end, its connection is closed.
pub(super) struct Transaction {
    connection: Option<PoolConnection<Postgres>>,
    /// The database's time at its beginning.
    pub(super) now: i64,
    /// Whether a job's time has come or is over.
    pub(super) due: bool,
}

/// How a transaction ended.
pub(super) enum Ending<T> {
    Done(T),
    /// It lost against another and had no effect.
    Again(sqlx::Error),
    Failed(sqlx::Error),
}

impl Database {
    /// Connects, makes the schema when it is missing, and brings the tables up to date.
    pub(super) async fn open(options: &PostgresOptions, world: &World) -> Result<Self, QueueError> {
        let connect = options.connect()?;
        // The pool tries again and again while nobody listens; the first connection shall say at once that nobody does.
        let contact = async {
            let mut first = connect.connect().await.map_err(failed("connect"))?;
            if let Some(schema) = &options.schema {
                // Under the lock, because two `IF NOT EXISTS` at once may both find nothing and then collide.
                let create = format!("BEGIN; {}; CREATE SCHEMA IF NOT EXISTS {schema}; COMMIT", super::schema::LOCK);
                first.execute(sqlx::raw_sql(AssertSqlSafe(create))).await.map_err(failed("create schema"))?;
            }
            Ok(first)
        };
        let mut first = within(options.connect_timeout, "connect", contact).await?;
        within(OPEN_TIMEOUT, "open", super::schema::migrate(&mut first)).await?;
        let _ = first.close().await;
        let pool = PgPoolOptions::new().max_connections(options.max_connections.max(1)).acquire_timeout(options.operation_timeout);
        Ok(Self { pool: pool.connect_lazy_with(connect), world: world.clone(), timeout: options.operation_timeout })
    }

    /// A connection. Boxed: the driver's future is larger than all of ours together.
    async fn checkout(&self) -> Result<Transaction, sqlx::Error> {
        Ok(Transaction { connection: Some(Box::pin(self.pool.acquire()).await?), now: 0, due: false })
    }

    /// Begins a transaction.
    pub(super) async fn begin(&self) -> Result<Transaction, sqlx::Error> {
        const BEGIN: &str = concat!(
            "BEGIN ISOLATION LEVEL READ COMMITTED; SELECT now, EXISTS (SELECT 1 FROM jobs WHERE state = 1 AND run_at <= now) \
             OR EXISTS (SELECT 1 FROM jobs WHERE expires_at IS NOT NULL AND state < 3 AND expires_at <= now) FROM (SELECT ",
            now_sql!(),
            " AS now OFFSET 0) AS clock"
        );
        let mut transaction = self.checkout().await?;
        let row = transaction.db()?.fetch_one(sqlx::raw_sql(BEGIN)).await?;
        (transaction.now, transaction.due) = (row.try_get(0)?, row.try_get(1)?);
        Ok(transaction)
    }

    pub(super) const fn crash(&self) -> &CrashPoints {
        &self.world.crash
    }

    /// Asks a question outside of a transaction.
    pub(super) async fn ask(
        &self,
        operation: &'static str,
        query: sqlx::query::Query<'_, Postgres, sqlx::postgres::PgArguments>,
    ) -> Result<Vec<PgRow>, QueueError> {
        let asked = async {
            let mut transaction = self.checkout().await?;
            let rows = query.fetch_all(transaction.db()?).await?;
            drop(transaction.connection.take());
            Ok(rows)
        };
        self.within(operation, async { asked.await.map_err(failed(operation)) }).await
    }

    /// An end for every wait.
    pub(super) async fn within<T>(
        &self,
        operation: &'static str,
        work: impl Future<Output = Result<T, QueueError>>,
    ) -> Result<T, QueueError> {
        within(self.timeout, operation, work).await
    }

    /// Closes all connections when they are given back.
    pub(super) async fn close(&self) {
        self.pool.close().await;
    }

    /// Ends a transaction: commits what worked, undoes what did not.
    pub(super) async fn end<T>(&self, mut transaction: Transaction, outcome: Result<T, sqlx::Error>, points: Points) -> Ending<T> {
        let worked = match outcome {
            Err(error) => Err(error),
            Ok(value) => {
                if let Some(point) = points.before {
                    self.world.crash.reach(point);
                }
                transaction.simple("COMMIT").await.map(|()| value)
            }
        };
        match worked {
            Ok(value) => {
                if let Some(point) = points.after {
                    self.world.crash.reach(point);
                }
                drop(transaction.connection.take());
                Ending::Done(value)
            }
            Err(error) => {
                // The server has answered, so the connection is in order once it has undone the transaction.
                if error.as_database_error().is_some() && transaction.simple("ROLLBACK").await.is_ok() {
                    drop(transaction.connection.take());
                }
                if lost(&error) { Ending::Again(error) } else { Ending::Failed(error) }
            }
        }
    }
}

impl Transaction {
    /// The connection.
    pub(super) fn db(&mut self) -> Result<&mut PgConnection, sqlx::Error> {
        self.connection.as_deref_mut().ok_or(sqlx::Error::PoolClosed)
    }

    async fn simple(&mut self, sql: &'static str) -> Result<(), sqlx::Error> {
        self.db()?.execute(sqlx::raw_sql(sql)).await.map(|_| ())
    }
}

impl Drop for Transaction {
    fn drop(&mut self) {
        if let Some(connection) = &mut self.connection {
            connection.close_on_drop();
        }
    }
}

/// Runs work in a transaction, again when it lost against another, and gives what it gave after the commit.
///
/// A macro, because a closure that borrows a connection across an await cannot yet say that its future is `Send`.
macro_rules! transaction {
    ($database:expr, $operation:expr, $points:expr, |$db:ident, $begun:ident| $work:expr) => {{
        let (database, operation, points) = ($database, $operation, $points);
        let run = async {
            let mut tries = 1;
            loop {
                let mut transaction = database.begin().await.map_err($crate::jobs::postgres::database::explained(operation))?;
                #[allow(unused_variables, reason = "not every piece of work asks for the time")]
                let $begun = (transaction.now, transaction.due);
                let outcome = match transaction.db() {
                    Ok($db) => $work.await,
                    Err(error) => Err(error),
                };
                match database.end(transaction, outcome, points).await {
                    $crate::jobs::postgres::database::Ending::Done(value) => break Ok(value),
                    $crate::jobs::postgres::database::Ending::Again(error) if tries < $crate::jobs::postgres::database::TRIES => {
                        tracing::debug!(operation, tries, %error, "lost against another transaction, again");
                        tokio::time::sleep(std::time::Duration::from_millis(1 << tries)).await;
                        tries += 1;
                    }
                    $crate::jobs::postgres::database::Ending::Again(error)
                    | $crate::jobs::postgres::database::Ending::Failed(error) => {
                        break Err($crate::jobs::postgres::database::explained(operation)(error));
                    }
                }
            }
        };
        match tokio::time::timeout(database.timeout, run).await {
            Ok(outcome) => outcome,
            Err(_) => Err($crate::jobs::postgres::database::Failed::late(operation)),
        }
    }};
}
pub(super) use transaction;

impl Failed {
    pub(super) fn late(operation: &'static str) -> Self {
        Self { error: QueueError::unavailable(operation, "the database did not answer in time"), refused: false }
    }
}

impl From<Failed> for QueueError {
    fn from(failed: Failed) -> Self {
        failed.error
    }
}

async fn within<T>(timeout: Duration, operation: &'static str, work: impl Future<Output = Result<T, QueueError>>) -> Result<T, QueueError> {
    tokio::time::timeout(timeout, work).await.unwrap_or_else(|_| Err(Failed::late(operation).error))
}

/// Whether the server says that the transaction lost against another and had no effect.
fn lost(error: &sqlx::Error) -> bool {
    matches!(code(error).as_deref(), Some("40001" | "40P01"))
}

fn code(error: &sqlx::Error) -> Option<String> {
    error.as_database_error().and_then(|error| error.code().map(|code| code.into_owned()))
}

/// What a driver's error means to the port.
pub(super) fn failed(operation: &'static str) -> impl Fn(sqlx::Error) -> QueueError {
    /// `disk_full`.
    const FULL: &str = "53100";
    move |error| match &error {
        _ if code(&error).as_deref() == Some(FULL) => QueueError::Full,
        sqlx::Error::Decode(what) => damaged(what.to_string()),
        sqlx::Error::ColumnDecode { index, source } => damaged(format!("column {index}: {source}")),
        _ => QueueError::unavailable(operation, error),
    }
}

/// As [`failed`], and whether the fault was in what the server was given: data that it does not take (class 22) or that breaks a
/// constraint (23).
pub(super) fn explained(operation: &'static str) -> impl Fn(sqlx::Error) -> Failed {
    move |error| {
        let refused = code(&error).is_some_and(|code| code.starts_with("22") || code.starts_with("23"));
        Failed { error: failed(operation)(error), refused }
    }
}

pub(super) fn damaged(text: String) -> QueueError {
    QueueError::Damaged(text)
}
