//! The ledger in PostgreSQL 15 or newer.
//!
//! Invariants: a commit waits for the server's disk (`synchronous_commit`); the lock on the one row of `head` puts
//! commits in a line; the server gives up statements, locks and forgotten transactions by itself, so that a node that was
//! cut off does not hold the line for the others.

use std::time::Duration;

use async_trait::async_trait;
use plinth_runtime::World;
use sqlx::pool::PoolOptions;
use sqlx::postgres::{PgConnectOptions, PgPool, PgSslMode};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, Executor};

use super::ledger::{Driver, SqlMetadata, within};
use super::migrate::{Flavour, migrate};
use super::options::PostgresUrl;
use super::session::{Checkout, Session, failed};
use super::statements::Dialect;
use super::{MetadataError, MetadataOptions, SchemaName};

/// How long opening may take, migrations of a large ledger included.
const OPEN_TIMEOUT: Duration = Duration::from_secs(15 * 60);

/// One lock for whoever migrates anything in this database; the number is "plinth" in ASCII.
const LOCK_MIGRATIONS: &str = "SELECT pg_advisory_xact_lock(123610927625320)";

static DIALECT: Dialect = Dialect {
    product: "postgresql",
    version: "SELECT current_setting('server_version')",
    begin_read: "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY",
    begin_write: "BEGIN ISOLATION LEVEL READ COMMITTED",
    lock_head: "SELECT revision FROM head WHERE id = 1 FOR UPDATE",
    begin_migration: &["BEGIN", "SET LOCAL statement_timeout = '10min'", "SET LOCAL lock_timeout = '60s'", LOCK_MIGRATIONS],
};

pub(super) struct PostgresDriver {
    pool: PgPool,
}

/// Connects and brings the schema up to date.
pub(super) async fn open(url: &PostgresUrl, options: &MetadataOptions, world: &World) -> Result<SqlMetadata, MetadataError> {
    let driver = connect(url, options, world).await?;
    Ok(SqlMetadata::new(Box::new(driver), options.operation_timeout))
}

pub(super) async fn connect(url: &PostgresUrl, options: &MetadataOptions, world: &World) -> Result<PostgresDriver, MetadataError> {
    let connect = connect_options(url, options).map_err(failed("open"))?;
    // The pool tries again and again while nobody listens; the first connection shall say at once that nobody does.
    within(options.connect_timeout, "connect", first_contact(&connect, options.schema.as_ref())).await?;

    let pool = PoolOptions::new().max_connections(options.max_connections.max(1)).acquire_timeout(options.connect_timeout);
    let driver = PostgresDriver { pool: pool.connect_lazy_with(connect) };
    within(OPEN_TIMEOUT, "open", async {
        let mut session = driver.writer().await.map_err(failed("open"))?;
        migrate(&mut *session, &DIALECT, Flavour::Postgres, world).await?;
        session.keep();
        Ok(())
    })
    .await?;
    Ok(driver)
}

fn connect_options(url: &PostgresUrl, options: &MetadataOptions) -> Result<PgConnectOptions, sqlx::Error> {
    let url = url.as_url();
    let mut connect = PgConnectOptions::from_url(url)?.port(url.port().unwrap_or(5432)).application_name("plinth");
    // A line for each statement drowns what matters; the registry logs each commit once.
    connect = connect.disable_statement_logging();
    // What the address does not say, the driver would take from the environment, and only `config` reads that.
    if url.password().is_none() {
        connect = connect.password("");
    }
    if !url.query_pairs().any(|(key, _)| key == "sslmode") {
        connect = connect.ssl_mode(PgSslMode::Prefer);
    }
    let millis = |time: Duration| time.as_millis().clamp(1, 3_600_000).to_string();
    connect = connect.options([
        ("synchronous_commit", "on".to_owned()),
        ("statement_timeout", millis(options.operation_timeout)),
        ("lock_timeout", millis(options.operation_timeout / 2)),
        ("idle_in_transaction_session_timeout", millis(options.operation_timeout)),
    ]);
    if let Some(schema) = &options.schema {
        connect = connect.options([("search_path", schema.as_str())]);
    }
    Ok(connect)
}

async fn first_contact(connect: &PgConnectOptions, schema: Option<&SchemaName>) -> Result<(), MetadataError> {
    let mut connection = connect.connect().await.map_err(failed("connect"))?;
    if let Some(schema) = schema {
        // Under the lock, because two `IF NOT EXISTS` at once may both find nothing and then collide.
        let create = format!("BEGIN; {LOCK_MIGRATIONS}; CREATE SCHEMA IF NOT EXISTS {}; COMMIT", schema.as_str());
        connection.execute(sqlx::raw_sql(AssertSqlSafe(create))).await.map_err(failed("create schema"))?;
    }
    connection.close().await.map_err(failed("connect"))
}

#[async_trait]
impl Driver for PostgresDriver {
    fn dialect(&self) -> &'static Dialect {
        &DIALECT
    }

    async fn reader(&self) -> Result<Box<dyn Session>, sqlx::Error> {
        Ok(Box::new(Checkout::new(self.pool.acquire().await?)))
    }

    async fn writer(&self) -> Result<Box<dyn Session>, sqlx::Error> {
        self.reader().await
    }

    async fn close(&self) {
        self.pool.close().await;
    }
}
