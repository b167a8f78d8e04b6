//! Events in PostgreSQL 15 or newer: one table for all streams, written a group at a time.
//!
//! Invariants: a commit waits for the server's disk (`synchronous_commit`); a connection goes back to its pool only after a clean end, so
//! the server undoes what a failure, a time-out or a dropped call left open. Several nodes may use one database. Partition `p` belongs to
//! writer
//! `p % writers` of each node, so writers of one node do not wait for each other's locks.

mod options;
mod read;
mod schema;
mod streams;
mod sweep;
mod write;

#[cfg(test)]
pub(crate) mod tests;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use plinth_runtime::{CrashPoint, World};
use plinth_types::TenantName;
use sqlx::pool::{PoolConnection, PoolOptions};
use sqlx::postgres::{PgConnectOptions, PgPool};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, Executor, PgConnection, Postgres};

pub use self::options::PostgresOptions;
use self::streams::Streams;
use crate::batcher::{Answer, Batcher, Commit, Submission};
use crate::error::EventsError;
use crate::event::{Appended, Event, EventId, Key, Stored};
use crate::port::{Created, Description, Events, Swept};
use crate::stream::{Resolved, Retention, Settings, Stream};

/// How long opening may take, migrations included.
const OPEN_TIMEOUT: Duration = Duration::from_secs(15 * 60);

const BEGIN: &str = "BEGIN ISOLATION LEVEL READ COMMITTED";

/// What a driver's error means.
fn failed(operation: &'static str) -> impl Fn(sqlx::Error) -> EventsError {
    /// `disk_full`.
    const DISK_FULL: &str = "53100";
    move |error| match error.as_database_error().and_then(|error| error.code()).as_deref() {
        Some(DISK_FULL) => EventsError::Full,
        _ => EventsError::unavailable(operation, error),
    }
}

async fn within<T>(limit: Duration, operation: &'static str, work: impl Future<Output = Result<T, EventsError>>) -> Result<T, EventsError> {
    match tokio::time::timeout(limit, work).await {
        Ok(outcome) => outcome,
        Err(elapsed) => Err(EventsError::unavailable(operation, elapsed)),
    }
}

/// A connection that is closed unless its work came to a clean end.
struct Checkout {
    connection: PoolConnection<Postgres>,
    clean: bool,
}

impl Drop for Checkout {
    fn drop(&mut self) {
        if !self.clean {
            self.connection.close_on_drop();
        }
    }
}

/// The database.
struct Database {
    pool: PgPool,
    limit: Duration,
    world: World,
}

impl Database {
    async fn checkout(&self, operation: &'static str) -> Result<Checkout, EventsError> {
        let connection = self.pool.acquire().await.map_err(failed(operation))?;
        Ok(Checkout { connection, clean: false })
    }

    /// Asks within the time limit.
    async fn ask<T>(
        &self,
        operation: &'static str,
        ask: impl AsyncFnOnce(&mut PgConnection) -> Result<T, EventsError>,
    ) -> Result<T, EventsError> {
        within(self.limit, operation, async {
            let mut checkout = self.checkout(operation).await?;
            let answer = ask(&mut checkout.connection).await?;
            checkout.clean = true;
            Ok(answer)
        })
        .await
    }

    /// Works in a transaction, within the time limit.
    async fn change<T>(
        &self,
        operation: &'static str,
        work: impl AsyncFnOnce(&mut PgConnection) -> Result<T, EventsError>,
    ) -> Result<T, EventsError> {
        self.ask(operation, async |db| {
            db.execute(BEGIN).await.map_err(failed(operation))?;
            let done = work(db).await?;
            db.execute("COMMIT").await.map_err(failed(operation))?;
            Ok(done)
        })
        .await
    }
}

/// One writer: commits a group at a time.
struct Writer(Arc<Database>);

#[async_trait]
impl Commit for Writer {
    async fn commit(&self, group: Vec<Submission>) -> Result<Vec<Answer>, EventsError> {
        let Database { world, .. } = &*self.0;
        let committed = self.0.change("append", async |db| {
            let answers = write::apply(db, &group, world.clock.now()).await.map_err(failed("append"))?;
            world.crash.reach(CrashPoint::EventsBeforeCommit);
            Ok(answers)
        });
        let answers = committed.await?;
        world.crash.reach(CrashPoint::EventsAfterCommit);
        Ok(answers)
    }
}

/// A store of events in PostgreSQL.
pub struct PostgresEvents {
    database: Arc<Database>,
    streams: Streams,
    batcher: Batcher,
    closed: AtomicBool,
}

impl PostgresEvents {
    /// Connects and brings the tables up to date. Needs a tokio runtime.
    ///
    /// # Errors
    /// [`EventsError::TooNew`], and [`EventsError::Unavailable`] also when nobody answers within the time for connecting.
    pub async fn open(options: &PostgresOptions, world: &World) -> Result<Self, EventsError> {
        let connect = options.connect().map_err(failed("open"))?;
        // The pool tries again and again while nobody listens; the first connection shall say at once that nobody does.
        within(options.connect_timeout, "connect", first_contact(&connect, options.schema())).await?;
        let writers = options.writers.clamp(1, 64);
        let connections = options.max_connections.max(u32::from(writers) + 1);
        let pool = PoolOptions::new().max_connections(connections).acquire_timeout(options.connect_timeout).connect_lazy_with(connect);
        let database = Arc::new(Database { pool, limit: options.operation_timeout, world: world.clone() });
        within(OPEN_TIMEOUT, "open", async {
            let mut checkout = database.checkout("open").await?;
            schema::migrate(&mut checkout.connection).await?;
            checkout.clean = true;
            Ok(())
        })
        .await?;
        let batcher = Batcher::start((0..writers).map(|_| Arc::new(Writer(database.clone()))), options.gathering, world);
        Ok(Self { database, streams: Streams::default(), batcher, closed: AtomicBool::new(false) })
    }

    fn open_still(&self) -> Result<(), EventsError> {
        if self.closed.load(Ordering::Acquire) { Err(EventsError::Closed) } else { Ok(()) }
    }

    /// A stream as the database has it now.
    async fn found(&self, db: &mut PgConnection, stream: &Stream) -> Result<Arc<Resolved>, EventsError> {
        self.streams.find(db, stream).await
    }

    async fn ask<T>(
        &self,
        operation: &'static str,
        stream: &Stream,
        ask: impl AsyncFnOnce(&mut PgConnection, i64) -> Result<T, EventsError>,
    ) -> Result<T, EventsError> {
        self.open_still()?;
        self.database
            .ask(operation, async |db| {
                let number = self.found(db, stream).await?.number;
                ask(db, number).await
            })
            .await
    }
}

async fn first_contact(connect: &PgConnectOptions, schema: Option<&str>) -> Result<(), EventsError> {
    let mut connection = connect.connect().await.map_err(failed("connect"))?;
    if let Some(schema) = schema {
        // Under the lock, because two `IF NOT EXISTS` at once may both find nothing and then collide.
        let create = format!("BEGIN; {}; CREATE SCHEMA IF NOT EXISTS {schema}; COMMIT", schema::LOCK);
        connection.execute(sqlx::raw_sql(AssertSqlSafe(create))).await.map_err(failed("create schema"))?;
    }
    connection.close().await.map_err(failed("connect"))
}

#[async_trait]
impl Events for PostgresEvents {
    async fn create(&self, stream: &Stream, settings: &Settings) -> Result<Created, EventsError> {
        self.open_still()?;
        self.database.change("create", async |db| streams::create(db, stream, settings).await).await
    }

    async fn settings(&self, stream: &Stream) -> Result<Settings, EventsError> {
        self.open_still()?;
        let found = self.database.ask("settings", async |db| streams::find(db, stream).await).await?;
        found.map(|(_, settings)| settings).ok_or(EventsError::NoSuchStream)
    }

    async fn set_retention(&self, stream: &Stream, retention: Retention) -> Result<(), EventsError> {
        self.open_still()?;
        self.database.change("set retention", async |db| streams::set(db, stream, |settings| settings.retention = retention).await).await
    }

    async fn streams(
        &self,
        tenant: Option<&TenantName>,
        after: Option<&Stream>,
        limit: u32,
    ) -> Result<Vec<(Stream, Settings)>, EventsError> {
        self.open_still()?;
        self.database.ask("streams", async |db| streams::list(db, tenant, after, limit).await).await
    }

    async fn delete(&self, stream: &Stream) -> Result<bool, EventsError> {
        self.open_still()?;
        self.streams.forget(stream);
        self.database.change("delete", async |db| streams::delete(db, stream).await).await
    }

    async fn append(&self, stream: &Stream, events: Vec<Event>) -> Result<Vec<Appended>, EventsError> {
        self.open_still()?;
        let Some(known) = self.streams.known(stream) else {
            let found = self.database.ask("find", async |db| self.found(db, stream).await).await?;
            return self.batcher.append(found, events).await;
        };
        // What was remembered may have been deleted by another node, and perhaps made anew; a copy for that one more time.
        let again = events.clone();
        match self.batcher.append(known, events).await {
            Err(EventsError::NoSuchStream) => {
                self.streams.forget(stream);
                let found = self.database.ask("find", async |db| self.found(db, stream).await).await?;
                self.batcher.append(found, again).await
            }
            answer => answer,
        }
    }

    async fn read(&self, stream: &Stream, partition: u16, after: u64, limit: u32) -> Result<Vec<Stored>, EventsError> {
        self.ask("read", stream, async |db, number| read::read(db, number, partition, after, limit).await).await
    }

    async fn get(&self, stream: &Stream, id: &EventId) -> Result<Vec<Stored>, EventsError> {
        self.ask("get", stream, async |db, number| read::get(db, number, id).await).await
    }

    async fn by_key(&self, stream: &Stream, key: &Key, after: u64, limit: u32) -> Result<Vec<Stored>, EventsError> {
        self.ask("by key", stream, async |db, number| read::by_key(db, number, key, after, limit).await).await
    }

    async fn latest(&self, stream: &Stream, key: &Key) -> Result<Option<Stored>, EventsError> {
        self.ask("latest", stream, async |db, number| read::latest(db, number, key).await).await
    }

    async fn count(&self, stream: &Stream) -> Result<u64, EventsError> {
        self.ask("count", stream, async |db, number| read::count(db, number).await).await
    }

    async fn sweep(&self, most: u32) -> Result<Swept, EventsError> {
        self.open_still()?;
        let now = self.database.world.clock.now();
        self.database.change("sweep", async |db| sweep::sweep(db, now, most).await).await
    }

    fn describe(&self) -> Description {
        Description {
            product: "postgresql",
            writers: self.batcher.writers(),
            waiting: self.batcher.waiting(),
            groups: self.batcher.groups(),
        }
    }

    async fn close(&self) {
        self.closed.store(true, Ordering::Release);
        self.batcher.close().await;
        self.database.pool.close().await;
    }
}
