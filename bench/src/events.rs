//! How many small writes are acknowledged in a second, each committed and synced, and are all of them there afterwards?
//!
//! 64 clients at the store itself, each with one call at a time: lists of ten events, and single ones; in SQLite and in PostgreSQL. The count is compared after the
//! store was closed and opened again. What a kill in the middle leaves is tested in the crate `plinth-events`.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use plinth_events::{Appended, Event, Events, PostgresEvents, PostgresOptions, Settings, SqliteEvents, SqliteOptions, Stream};
use plinth_runtime::World;
use serde_json::json;
use tokio::task::JoinSet;

use crate::line::{Line, Verdict};
use crate::setup::{Part, Setup};

const CLIENTS: u64 = 64;
const GOAL: f64 = 50_000.0;
/// Events of a run with lists of ten.
const EVENTS: f64 = 1_000_000.0;
/// Where the tests look for a server too.
const POSTGRES: &str = "postgres://postgres@127.0.0.1:5432/test?sslmode=disable";

enum Place {
    Sqlite(tempfile::TempDir),
    Postgres(String),
}

impl Place {
    async fn open(&self, world: &World) -> Result<Arc<dyn Events>> {
        Ok(match self {
            Self::Sqlite(directory) => Arc::new(SqliteEvents::open(&SqliteOptions::new(directory.path().join("events")), world).await?),
            Self::Postgres(schema) => Arc::new(PostgresEvents::open(&PostgresOptions::new(POSTGRES)?.in_schema(schema)?, world).await?),
        })
    }
}

fn event(number: u64) -> Result<Event> {
    let data = format!("{{\"user\":{number},\"what\":\"like\",\"weight\":1}}");
    Ok(Event {
        id: format!("event-{number}").parse().context("an id")?,
        key: format!("picture-{}", number % 10_000).parse().context("a key")?,
        at: None,
        data: Some(data.into_bytes()),
    })
}

/// Events in a second, and commits for each.
async fn run(place: &Place, name: &str, events: u64, list: u64, world: &World) -> Result<(f64, f64)> {
    let store = place.open(world).await?;
    let stream = Stream { tenant: "bench".parse()?, name: name.parse()? };
    store.create(&stream, &Settings::log()).await?;
    let groups = store.describe().groups;
    let next = Arc::new(AtomicU64::new(0));
    let start = Instant::now();
    let mut clients = JoinSet::new();
    for _ in 0..CLIENTS {
        let (store, stream, next) = (store.clone(), stream.clone(), next.clone());
        clients.spawn(async move {
            loop {
                let first = next.fetch_add(list, Ordering::Relaxed);
                if first >= events {
                    return Ok::<_, anyhow::Error>(());
                }
                let batch = (first..(first + list).min(events)).map(event).collect::<Result<Vec<_>>>()?;
                let appended = store.append(&stream, batch).await?;
                ensure!(appended.iter().all(|one| matches!(one, Appended::New(_))), "an event was there before");
            }
        });
    }
    while let Some(client) = clients.join_next().await {
        client??;
    }
    let seconds = start.elapsed().as_secs_f64();
    let groups = store.describe().groups - groups;
    // One's own writes, and all of them, also for who opens the store anew.
    let own = store.get(&stream, &"event-0".parse().context("an id")?).await?;
    ensure!(own.len() == 1, "a write cannot be seen");
    store.close().await;
    let store = place.open(world).await?;
    let count = store.count(&stream).await?;
    store.close().await;
    ensure!(count == events, "{events} were acknowledged and {count} are there");
    Ok((events as f64 / seconds, groups as f64 / events as f64))
}

/// Measures and writes `events`.
pub async fn measure(setup: &Setup, scale: f64) -> Result<Verdict> {
    let world = World::real();
    let (mut lines, mut figures) = (Vec::new(), serde_json::Map::new());
    let schema = format!("bench_events_{}", std::process::id());
    for (product, place) in [("SQLite", Place::Sqlite(tempfile::tempdir()?)), ("PostgreSQL", Place::Postgres(schema.clone()))] {
        for (list, share) in [(10, 1.0), (1, 0.3)] {
            let events = (EVENTS * share * scale) as u64;
            let what =
                format!("{product}: {events} events, {CLIENTS} clients, {}", if list == 1 { "one in a call" } else { "ten in a call" });
            let bar = format!("≥ {GOAL:.0}/s");
            match run(&place, &format!("list-{list}"), events, list, &world).await {
                Ok((rate, groups)) => {
                    lines.push(Line::judged(&what, &bar, format!("{rate:.0}/s, {:.1} events in a commit", 1.0 / groups), rate >= GOAL));
                    figures
                        .insert(format!("{}_{list}", product.to_lowercase()), json!({ "per_second": rate, "commits_per_event": groups }));
                }
                Err(error) => lines.push(Line::missing(&what, &bar, &format!("{error:#}"))),
            }
        }
    }
    let drop = format!("DROP SCHEMA IF EXISTS {schema} CASCADE");
    if let Ok(mut admin) = <sqlx::PgConnection as sqlx::Connection>::connect(POSTGRES).await {
        let _ = sqlx::Executor::execute(&mut admin, sqlx::raw_sql(sqlx::AssertSqlSafe(drop))).await;
    }
    setup.finish(&Part {
        name: "events",
        title: "Streams of small writes",
        how: &format!("closed loop, {CLIENTS} clients at the store in this process, each event about 60 bytes"),
        about: "An append is answered when it is committed and synced. After each run the store is closed, opened again, and its count is exact, or the line says so.",
        lines: &lines,
        text: "",
        figures: figures.into(),
    })
}
