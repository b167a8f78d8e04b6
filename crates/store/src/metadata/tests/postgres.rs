//! What is PostgreSQL's alone: finding it, and faults of the connection.
//!
//! Uses the database on the loopback when there is one; says so when there is none. `PLINTH_TEST_REQUIRE=postgres` makes
//! its absence a failure. Each test has a schema of its own.

use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use plinth_runtime::{Clock, Random, SystemClock, SystemRandom};
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{AssertSqlSafe, Connection, Executor, Row};

use super::*;
use crate::conformance;
use crate::faults::variable;
use crate::metadata::ledger::{Driver, SqlMetadata};
use crate::metadata::postgres::{PostgresDriver, connect};

/// The schemas of one test.
pub(super) struct Schemas {
    prefix: String,
    made: std::sync::atomic::AtomicU32,
}

/// Without TLS, which in a debug build takes longer than all else; one test turns it on.
pub(super) fn address() -> MetadataUrl {
    MetadataUrl::parse("postgres://postgres@127.0.0.1:5432/test?sslmode=disable", std::path::Path::new("")).unwrap()
}

/// Schemas for a test, or `None` when there is no PostgreSQL and nobody requires it.
pub(super) fn schemas() -> Option<Schemas> {
    let loopback: SocketAddr = "127.0.0.1:5432".parse().unwrap();
    if let Err(error) = TcpStream::connect_timeout(&loopback, Duration::from_secs(1)) {
        let required = variable("PLINTH_TEST_REQUIRE").is_some_and(|list| list.split(',').any(|name| name.trim() == "postgres"));
        assert!(!required, "PLINTH_TEST_REQUIRE asks for PostgreSQL, and nobody answers on {loopback}: {error}");
        println!("SKIPPED: no PostgreSQL answers on {loopback} ({error})");
        return None;
    }
    Some(Schemas { prefix: format!("plinth_test_{:016x}", SystemRandom.next_u64()), made: std::sync::atomic::AtomicU32::new(0) })
}

impl Schemas {
    pub(super) fn next(&self) -> SchemaName {
        let number = self.made.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        format!("{}_{number}", self.prefix).parse().unwrap()
    }

    /// Removes them. A test that fails leaves its schemas behind to be looked at.
    pub(super) async fn remove(self) {
        for number in 0..self.made.into_inner() {
            admin(&format!("DROP SCHEMA IF EXISTS {}_{number} CASCADE", self.prefix)).await;
        }
    }
}

pub(super) fn options(schema: &SchemaName) -> MetadataOptions {
    MetadataOptions { schema: Some(schema.clone()), ..MetadataOptions::new(address()) }
}

pub(super) async fn open_schema(schema: &SchemaName) -> Arc<dyn Metadata> {
    open(&options(schema), &World::real()).await.unwrap()
}

pub(super) async fn connection() -> PgConnection {
    let connect = PgConnectOptions::new()
        .host("127.0.0.1")
        .port(5432)
        .username("postgres")
        .database("test")
        .ssl_mode(sqlx::postgres::PgSslMode::Disable);
    PgConnection::connect_with(&connect).await.unwrap()
}

/// Runs something behind the adapter's back and gives the first column of the answer.
pub(super) async fn admin(sql: &str) -> Vec<String> {
    let mut connection = connection().await;
    let rows = connection.fetch_all(sqlx::raw_sql(AssertSqlSafe(sql.to_owned()))).await.unwrap();
    let texts = rows.iter().map(|row| row.try_get::<String, _>(0).unwrap_or_default()).collect();
    connection.close().await.unwrap();
    texts
}

#[tokio::test]
async fn postgres_conforms() {
    let Some(schemas) = schemas() else { return };
    // A fresh schema for each part of the suite would take longer than the suite; emptied tables are as good.
    let schema = schemas.next();
    open_schema(&schema).await.close().await;
    let name = schema.as_str();
    let empty = format!("DELETE FROM {name}.records; DELETE FROM {name}.audit; UPDATE {name}.head SET revision = 0");
    conformance::metadata(async || {
        admin(&empty).await;
        open_schema(&schema).await
    })
    .await;
    schemas.remove().await;
}

async fn driver(options: &MetadataOptions) -> PostgresDriver {
    let MetadataUrl::Postgres(url) = &options.url else { panic!("an address of PostgreSQL") };
    connect(url, options, &World::real()).await.unwrap()
}

#[tokio::test]
async fn sessions_are_durable_named_and_limited() {
    let Some(schemas) = schemas() else { return };
    let schema = schemas.next();
    // The address says nothing of TLS, so it is used when the server has it.
    let url = MetadataUrl::parse("postgres://postgres@127.0.0.1:5432/test", std::path::Path::new("")).unwrap();
    let driver = driver(&MetadataOptions { url, ..options(&schema) }).await;
    let mut session = driver.writer().await.unwrap();
    for (name, want) in [
        ("SELECT current_setting('synchronous_commit')", "on"),
        ("SELECT current_setting('application_name')", "plinth"),
        ("SELECT current_setting('statement_timeout')", "30s"),
        ("SELECT current_setting('lock_timeout')", "15s"),
        ("SELECT current_setting('idle_in_transaction_session_timeout')", "30s"),
        ("SELECT current_schema()::text", schema.as_str()),
        ("SELECT (ssl = current_setting('ssl')::boolean)::text FROM pg_stat_ssl WHERE pid = pg_backend_pid()", "true"),
    ] {
        assert_eq!(session.fetch(name, &[]).await.unwrap().remove(0).text().unwrap(), want, "{name}");
    }
    drop(session);
    driver.close().await;
    schemas.remove().await;
}

#[tokio::test]
async fn a_database_of_a_newer_or_unknown_release_is_not_touched() {
    let Some(schemas) = schemas() else { return };
    let (newer, edited) = (schemas.next(), schemas.next());
    open_schema(&newer).await;
    admin(&format!("INSERT INTO {}.schema_migrations VALUES (9, 0, 'x')", newer.as_str())).await;
    let error = open(&options(&newer), &World::real()).await.err().unwrap();
    assert!(matches!(error, MetadataError::TooNew { found: 9, known: 3 }), "{error:?}");
    open_schema(&edited).await;
    admin(&format!("UPDATE {}.schema_migrations SET checksum = 'x' WHERE version = 2", edited.as_str())).await;
    assert!(matches!(open(&options(&edited), &World::real()).await.err(), Some(MetadataError::Damaged(_))));
    schemas.remove().await;
}

#[tokio::test]
async fn two_that_migrate_at_once_take_turns() {
    let Some(schemas) = schemas() else { return };
    let schema = schemas.next();
    let opened = futures_util::future::join_all((0..5).map(|_| open_schema(&schema))).await;
    for ledger in &opened {
        check_works(&**ledger).await;
        ledger.close().await;
    }
    schemas.remove().await;
}

#[tokio::test]
async fn a_server_that_is_away_is_noticed_soon() {
    // A port that was free a moment ago, and an address where nobody answers at all.
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let silent = silent.local_addr().map(|address| (address, silent)).unwrap();
    for address in [free, silent.0] {
        let url = MetadataUrl::parse(&format!("postgres://u@{address}/d"), std::path::Path::new("")).unwrap();
        let options = MetadataOptions { connect_timeout: Duration::from_millis(300), ..MetadataOptions::new(url) };
        let start = SystemClock.monotonic();
        let error = open(&options, &World::real()).await.err().unwrap();
        assert!(matches!(error, MetadataError::Unavailable { .. }), "{error:?}");
        assert!(SystemClock.monotonic().saturating_sub(start) < Duration::from_secs(5));
    }
}

#[tokio::test]
async fn a_writer_that_does_not_end_holds_a_commit_up_only_so_long() {
    let Some(schemas) = schemas() else { return };
    let schema = schemas.next();
    let impatient = MetadataOptions { operation_timeout: Duration::from_millis(400), ..options(&schema) };
    let ledger = open(&impatient, &World::real()).await.unwrap();
    let mut other = connection().await;
    let lock = format!("BEGIN; SELECT revision FROM {}.head FOR UPDATE", schema.as_str());
    other.execute(sqlx::raw_sql(AssertSqlSafe(lock))).await.unwrap();
    assert!(matches!(ledger.commit(set("a", 1)).await, Err(MetadataError::Unavailable { .. })));
    assert_eq!(ledger.head().await.unwrap(), Revision(0), "readers do not wait for writers");
    other.execute("ROLLBACK").await.unwrap();
    check_works(&*ledger).await;
    schemas.remove().await;
}

#[tokio::test]
async fn a_lost_connection_is_replaced() {
    let Some(schemas) = schemas() else { return };
    let one = MetadataOptions { max_connections: 1, ..options(&schemas.next()) };
    let driver = driver(&one).await;
    let mut session = driver.reader().await.unwrap();
    let pid = session.fetch("SELECT pg_backend_pid()::text", &[]).await.unwrap().remove(0).text().unwrap();
    session.keep();
    drop(session);
    let ledger = SqlMetadata::new(Box::new(driver), one.operation_timeout);
    check_works(&ledger).await;
    let killed = admin(&format!("SELECT pg_terminate_backend({pid})::text")).await;
    assert_eq!(killed, ["true"], "the one connection had ended before");
    check_works(&ledger).await;
    ledger.close().await;
    schemas.remove().await;
}

#[tokio::test]
async fn a_prefix_does_not_depend_on_the_collation_of_the_database() {
    let Some(schemas) = schemas() else { return };
    let schema = schemas.next();
    open_schema(&schema).await;
    let collations = admin(&format!(
        "SELECT DISTINCT collation_name::text FROM information_schema.columns WHERE table_schema = '{}' AND column_name IN ('kind', 'tenant', 'name', 'subject')",
        schema.as_str()
    ))
    .await;
    assert_eq!(collations, ["C"]);
    schemas.remove().await;
}
