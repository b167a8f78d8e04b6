//! Events in PostgreSQL: the common suite, the model, and what only a server with several nodes can show.
//!
//! Uses the database on the loopback when there is one; says so when there is none. `PLINTH_TEST_REQUIRE=postgres` makes its absence a
//! failure. Each test has a schema of its own.

use std::net::{SocketAddr, TcpListener, TcpStream};

use futures_util::future::join_all;
use plinth_runtime::{Clock, Random, SystemClock, SystemRandom};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;

use super::*;
use crate::conformance::model::{Model, follow, settings, steps};
use crate::conformance::{self, Bench, event, named};
use crate::faults::variable;
use crate::stream::Mode;

/// Without TLS, which in a debug build takes longer than all else.
const ADDRESS: &str = "postgres://postgres@127.0.0.1:5432/test?sslmode=disable";

/// Options with a schema of their own, or `None` when there is no PostgreSQL and nobody requires it.
fn options() -> Option<PostgresOptions> {
    let loopback: SocketAddr = "127.0.0.1:5432".parse().unwrap();
    if let Err(error) = TcpStream::connect_timeout(&loopback, Duration::from_secs(1)) {
        let required = variable("PLINTH_TEST_REQUIRE").is_some_and(|list| list.split(',').any(|name| name.trim() == "postgres"));
        assert!(!required, "PLINTH_TEST_REQUIRE asks for PostgreSQL, and nobody answers on {loopback}: {error}");
        println!("SKIPPED: no PostgreSQL answers on {loopback} ({error})");
        return None;
    }
    let schema = format!("plinth_test_{:016x}", SystemRandom.next_u64());
    Some(PostgresOptions::new(ADDRESS).unwrap().in_schema(&schema).unwrap())
}

async fn admin(sql: String) {
    let connect = PostgresOptions::new(ADDRESS).unwrap().connect().unwrap();
    let mut connection = connect.connect().await.unwrap();
    connection.execute(sqlx::raw_sql(AssertSqlSafe(sql))).await.unwrap();
    connection.close().await.unwrap();
}

/// Removes the schema. A test that fails leaves it behind to be looked at.
async fn remove(options: &PostgresOptions) {
    admin(format!("DROP SCHEMA {} CASCADE", options.schema().unwrap())).await;
}

async fn open(options: &PostgresOptions) -> PostgresEvents {
    PostgresEvents::open(options, &World::real()).await.unwrap()
}

#[tokio::test]
async fn it_conforms() {
    let Some(options) = options() else { return };
    let (world, clock) = conformance::world();
    let store = PostgresEvents::open(&options, &world).await.unwrap();
    conformance::events(&Bench { store: &store, clock }).await;
    store.close().await;
    assert!(matches!(store.streams(None, None, 1).await, Err(EventsError::Closed)));
    remove(&options).await;
}

#[tokio::test]
async fn it_follows_the_model() {
    let Some(options) = options() else { return };
    let store = open(&options).await;
    let mut runner = TestRunner::new(ProptestConfig::default());
    for (case, mode) in (0..6).zip([Mode::Log, Mode::Latest].into_iter().cycle()) {
        let steps = steps(mode).new_tree(&mut runner).unwrap().current();
        let (stream, mut model) = (named("t", &format!("s{case}")), Model::new(mode));
        store.create(&stream, &settings(mode)).await.unwrap();
        println!("{mode:?}: {steps:?}");
        for step in &steps {
            follow(&store, &stream, &mut model, step).await;
        }
    }
    store.close().await;
    remove(&options).await;
}

#[tokio::test]
async fn two_nodes_with_the_same_events_store_each_once() {
    let Some(options) = options() else { return };
    let (one, two) = (open(&options).await, open(&options).await);
    let stream = named("t", "shared");
    let rows = Settings::latest();
    let (a, b) = tokio::join!(one.create(&stream, &rows), two.create(&stream, &rows));
    assert_ne!(a.unwrap(), b.unwrap(), "one of them made it");
    let both = (0..200).map(|at| {
        let node = if at % 2 == 0 { &one } else { &two };
        let list = (0..5).map(|i| (at / 2 + i) % 100).map(|i| event(&format!("e{i}"), &format!("k{}", i % 30), "x")).collect();
        node.append(&stream, list)
    });
    let answers: Vec<_> = join_all(both).await.into_iter().flat_map(Result::unwrap).collect();
    assert_eq!(answers.iter().filter(|answer| matches!(answer, Appended::New(_))).count(), 100);
    assert!(answers.iter().all(|answer| !matches!(answer, Appended::Differs(_))));
    assert_eq!((one.count(&stream).await.unwrap(), two.count(&stream).await.unwrap()), (30, 30));
    assert_eq!(conformance::all(&one, &stream).await.len(), 100);
    // What the other node deletes and makes anew is found again.
    assert!(two.delete(&stream).await.unwrap());
    assert!(matches!(one.append(&stream, vec![event("e1", "k1", "x")]).await, Err(EventsError::NoSuchStream)));
    two.create(&stream, &Settings::log()).await.unwrap();
    assert!(matches!(one.append(&stream, vec![event("e1", "k1", "x")]).await.unwrap()[..], [Appended::New(_)]));
    one.close().await;
    two.close().await;
    remove(&options).await;
}

#[tokio::test]
async fn sessions_are_durable_and_a_lost_connection_is_replaced() {
    let Some(options) = options() else { return };
    let store = open(&options).await;
    let stream = named("t", "s");
    store.create(&stream, &Settings::log()).await.unwrap();
    let asked = store.database.ask("test", async |db| {
        let setting = sqlx::query_scalar::<_, String>("SELECT current_setting('synchronous_commit')");
        Ok((
            setting.fetch_one(&mut *db).await.unwrap(),
            sqlx::query_scalar::<_, i32>("SELECT pg_backend_pid()").fetch_one(db).await.unwrap(),
        ))
    });
    let (durable, pid) = asked.await.unwrap();
    assert_eq!(durable, "on");
    admin(format!("SELECT pg_terminate_backend({pid})")).await;
    // Whether this meets that connection or another: after at most one failure it goes on.
    let first = store.append(&stream, vec![event("1", "k", "x")]).await;
    assert!(first.is_ok() || first.is_err_and(|error| error.retriable()));
    store.append(&stream, vec![event("1", "k", "x")]).await.unwrap();
    assert_eq!(store.count(&stream).await.unwrap(), 1);
    store.close().await;
    remove(&options).await;
}

#[tokio::test]
async fn a_database_of_a_newer_release_is_not_touched() {
    let Some(options) = options() else { return };
    open(&options).await.close().await;
    admin(format!("INSERT INTO {}.event_migrations VALUES (9)", options.schema().unwrap())).await;
    let refused = PostgresEvents::open(&options, &World::real()).await;
    assert!(matches!(refused.err(), Some(EventsError::TooNew { found: 9, known: 1 })));
    remove(&options).await;
}

#[tokio::test]
async fn a_server_that_is_away_is_noticed_soon() {
    // A listener that never answers.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("postgres://u@{}/d", silent.local_addr().unwrap());
    let mut options = PostgresOptions::new(&url).unwrap();
    options.connect_timeout = Duration::from_millis(200);
    let start = SystemClock.monotonic();
    let error = PostgresEvents::open(&options, &World::real()).await.err().unwrap();
    assert!(error.retriable(), "{error:?}");
    assert!(SystemClock.monotonic().saturating_sub(start) < Duration::from_secs(5));
}
