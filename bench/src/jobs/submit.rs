//! How many jobs can be submitted in a second, each committed and synced before its client hears of it?
//!
//! 64 clients that each wait for the answer, one job of 200 bytes in a submission: at the ledger itself in SQLite and in PostgreSQL, and
//! over HTTP at a real node on SQLite that runs none of them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use plinth_queue::jobs::{Jobs, Submitted};
use plinth_runtime::World;
use plinth_types::TenantName;
use serde_json::json;
use tokio::task::JoinSet;

use super::ledgers::{self, Fresh, PATIENCE, Server};
use super::make::Maker;
use super::times::{Rate, since};
use crate::exchange::{Connection, Target};
use crate::line::{Line, Verdict};
use crate::plinth::Home;
use crate::setup::{Part, Setup};

/// Submissions in a second that a ledger must take.
const GOAL: f64 = 5_000.0;
/// Bytes of a job's input.
const BYTES: usize = 200;

/// How much of it.
#[derive(clap::Args, Clone)]
pub struct Amount {
    /// Clients, each with one submission at a time.
    #[arg(long, default_value_t = 64)]
    clients: usize,
    /// Seconds for each figure.
    #[arg(long, default_value_t = 6.0)]
    seconds: f64,
    #[command(flatten)]
    server: Server,
}

impl Amount {
    pub fn scaled(scale: f64) -> Self {
        Self { clients: 64, seconds: 6.0 * scale, server: Server::default() }
    }

    fn length(&self) -> Duration {
        Duration::from_secs_f64(self.seconds)
    }
}

/// What a ledger took, without and with idempotency keys.
struct Found {
    about: String,
    plain: Rate,
    keyed: Rate,
    /// Syncs of the write-ahead log for each submission, where the server counts them.
    syncs: Option<f64>,
}

/// Clients at the ledger itself.
async fn window(ledger: &Arc<dyn Jobs>, maker: &Arc<Maker>, clients: usize, length: Duration, keyed: bool) -> Result<Rate> {
    let start = Instant::now();
    let tenant: TenantName = "bench".parse()?;
    let mut all = JoinSet::new();
    for _ in 0..clients {
        let (ledger, maker, tenant) = (ledger.clone(), maker.clone(), tenant.clone());
        all.spawn(async move {
            let mut took = Vec::new();
            while start.elapsed() < length {
                let begin = Instant::now();
                let submitted = ledger.submit(maker.submission(&tenant, 1, keyed)).await?;
                ensure!(submitted == Submitted::Created, "a submission gave {submitted:?}");
                took.push(since(begin));
            }
            Ok(took)
        });
    }
    Rate::of(all, start).await
}

/// How often the server has synced its write-ahead log since it started.
async fn syncs(server: Option<&str>) -> Option<f64> {
    let server = server?;
    tokio::time::sleep(Duration::from_millis(300)).await;
    ledgers::sql(server, "SELECT wal_sync::text FROM pg_stat_wal").await.ok()?.pop()?.parse().ok()
}

async fn library(fresh: &Fresh, amount: &Amount, server: Option<&str>) -> Result<Found> {
    let world = World::real();
    let ledger = fresh.place.open(&world, PATIENCE).await?;
    let maker = Arc::new(Maker::new(&world, BYTES));
    window(&ledger, &maker, amount.clients, amount.length() / 4, false).await?;
    // The server's sessions report what they have done when they end.
    ledger.close().await;
    let before = syncs(server).await;
    let ledger = fresh.place.open(&world, PATIENCE).await?;
    let plain = window(&ledger, &maker, amount.clients, amount.length(), false).await?;
    ledger.close().await;
    let after = syncs(server).await;
    let ledger = fresh.place.open(&world, PATIENCE).await?;
    let keyed = window(&ledger, &maker, amount.clients, amount.length(), true).await?;
    ledger.close().await;
    let syncs = before.zip(after).map(|(before, after)| (after - before) / plain.times.len() as f64);
    Ok(Found { about: fresh.about().await?, plain, keyed, syncs })
}

/// Clients over HTTP, each with a connection that stays open and a key for each request.
async fn over_http(url: &str, key: &str, clients: usize, length: Duration) -> Result<Rate> {
    let start = Instant::now();
    let body = json!({ "kind": "infer", "model": "bench", "input": { "text": "x".repeat(BYTES - 11) } }).to_string();
    let mut all = JoinSet::new();
    for client in 0..clients {
        let (url, key, body) = (url.to_owned(), key.to_owned(), body.clone());
        all.spawn(async move {
            let target = |number: usize| {
                let once = format!("{}-{client}-{number}", start.elapsed().as_nanos());
                Target::post_with(&url, body.as_bytes(), None, Some(&key), &[("Idempotency-Key", &once)])
            };
            let mut connection = Connection::open(&target(0)?.address).await?;
            let mut took = Vec::new();
            while start.elapsed() < length {
                let target = target(took.len())?;
                let begin = Instant::now();
                let answer = connection.exchange(&target).await?;
                if answer.status != 202 {
                    bail!("a submission was answered with {}: {}", answer.status, String::from_utf8_lossy(answer.body));
                }
                took.push(since(begin));
            }
            Ok(took)
        });
    }
    Rate::of(all, start).await
}

async fn node(setup: &Setup, amount: &Amount) -> Result<Rate> {
    let mut home = Home::with(setup, &[("limits.ban_requests", "0"), ("jobs.workers", "0")])?;
    let node = home.start()?;
    let url = format!("{}/api/v1/jobs", node.http);
    over_http(&url, &node.key, amount.clients, amount.length() / 4).await?;
    let rate = over_http(&url, &node.key, amount.clients, amount.length()).await?;
    node.stop().context("ending the node")?;
    Ok(rate)
}

/// Measures and writes `jobs_submit`.
pub async fn measure(setup: &Setup, amount: &Amount) -> Result<Verdict> {
    let clients = amount.clients;
    let bar = format!("≥ {GOAL:.0}/s");
    let (mut lines, mut about, mut figures) = (Vec::new(), Vec::new(), serde_json::Map::new());
    for (name, fresh) in ledgers::both(&amount.server).await {
        let what = format!("the ledger itself in {name}: submissions, {clients} clients");
        let server = (name == "PostgreSQL").then_some(&*amount.server.postgres);
        let found = match fresh {
            Ok(fresh) => {
                let found = library(&fresh, amount, server).await;
                fresh.remove().await?;
                found
            }
            Err(error) => Err(error),
        };
        match found {
            Ok(found) => {
                lines.push(Line::judged(&what, &bar, found.plain.text(), found.plain.per_second >= GOAL));
                lines.push(Line::plain(format!("{what}, each with an idempotency key"), found.keyed.text()));
                if let Some(syncs) = found.syncs {
                    lines.push(Line::plain(
                        "syncs of the server's log for each of them, whoever else used it included",
                        format!("{syncs:.3}"),
                    ));
                }
                figures.insert(
                    name.to_lowercase(),
                    json!({ "plain": found.plain.figures(), "keyed": found.keyed.figures(), "syncs": found.syncs }),
                );
                about.push(found.about);
            }
            Err(error) => lines.push(Line::missing(&what, &bar, &format!("{error:#}"))),
        }
    }
    let rate = node(setup, amount).await?;
    let what = format!("over HTTP at a node on SQLite: submissions, {clients} connections, each with an idempotency key");
    lines.push(Line::plain(what, rate.text()));
    figures.insert("http".to_owned(), rate.figures());
    setup.finish(&Part {
        name: "jobs_submit",
        title: "Durable submissions",
        how: &format!("closed loop, {clients} clients, {:.1} s for each figure after a quarter of that", amount.seconds),
        about: &format!(
            "One job with {BYTES} bytes of input in each submission; a client asks again when it was answered, and it is answered when \
             the job is committed and synced. {}. The node is `plinth up` with its keys and defaults but `jobs.workers = 0`; the \
             generator runs beside it on the same cores.",
            about.join("; ")
        ),
        lines: &lines,
        text: "",
        figures: figures.into(),
    })
}
