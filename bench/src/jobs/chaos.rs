//! Is a job lost or ended twice when everything goes wrong?
//!
//! Clients submit with idempotency keys and ask again after every outcome that they do not know, while workers are killed (also at each
//! named crash point of a job's life), stopped for longer than their leases and woken again, and denied their disk, and the database is
//! restarted. Then the faults end, all must come to rest, and what was promised is set beside what is there. Everything random follows
//! from a seed that is printed.

mod clients;
mod faults;
mod judge;

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use plinth_runtime::{Random, SystemRandom, World};
use plinth_types::{DigestHasher, TenantName};
use serde_json::{Value, json};

use self::clients::Clients;
use self::faults::{Counts, Faults};
use self::judge::Judged;
use super::cluster::Cluster;
use super::fleet::{self, Fleet};
use super::ledgers::{Fresh, PATIENCE};
use super::sink::Sink;
use super::worker::{Pace, TENANT};
use crate::line::{Line, Verdict};
use crate::setup::{Part, Setup};

/// A short lease, so that many run out: milliseconds.
pub const LEASE: u64 = 1_000;
const PACE: Pace = Pace { workers: 64, lease: LEASE, heartbeat: 250, sweep: 300, poll: 100 };
/// How long all may take to come to rest after the faults.
const REST: Duration = Duration::from_secs(180);

/// How much of it.
#[derive(clap::Args, Clone)]
pub struct Amount {
    /// Jobs on each of the two ledgers.
    #[arg(long, default_value_t = 20_000)]
    jobs: usize,
    /// Over how many seconds they are submitted, and faults happen.
    #[arg(long, default_value_t = 100.0)]
    seconds: f64,
    /// Repeats what was random in a run; drawn when absent. When a process is reached by a signal is not repeated.
    #[arg(long)]
    seed: Option<u64>,
}

impl Amount {
    pub fn scaled(scale: f64) -> Self {
        Self { jobs: ((20_000.0 * scale) as usize).max(200), seconds: (100.0 * scale).max(10.0), seed: None }
    }
}

/// What happened on a ledger.
struct Found {
    judged: Judged,
    counts: Counts,
    /// Submissions that were asked for again.
    repeated: u64,
    /// Seconds of faults, and until rest after them.
    seconds: [f64; 2],
}

/// A number for one purpose that follows from a seed.
fn derived(seed: u64, purpose: &str) -> u64 {
    let mut hash = DigestHasher::new();
    hash.update(&seed.to_be_bytes());
    hash.update(purpose.as_bytes());
    hash.finish().as_bytes().first_chunk::<8>().map_or(0, |bytes| u64::from_be_bytes(*bytes))
}

async fn run(fresh: &Fresh, cluster: Option<Cluster>, workers: usize, amount: &Amount, seed: u64) -> Result<Found> {
    let sink = Sink::start(fresh.directory())?;
    let directory = fresh.directory().to_owned();
    let fleet = Fleet { place: fresh.place.clone(), pace: PACE, directory, sink: sink.path().to_owned() };
    let nodes: Vec<String> = (0..workers).map(|number| format!("node-{number}")).collect();
    let mut faults = Faults::new(fleet.clone(), &nodes, cluster, derived(seed, "faults"))?;
    for process in faults.processes() {
        sink.ready(process.pid(), PATIENCE).await.with_context(|| fleet.logs())?;
    }
    let start = Instant::now();
    let sockets = nodes.iter().map(|node| fleet.listen(node)).collect();
    let clients = Clients::start(sockets, amount.jobs, Duration::from_secs_f64(amount.seconds), derived(seed, "clients"));
    faults.rage(|| clients.are_done()).await?;
    let submitted = clients.end().await?;
    let disturbed = start.elapsed().as_secs_f64();

    // Rest: the workers as they are, or new ones where one waits to crash.
    let start = Instant::now();
    faults.heal().await?;
    while !matches!(fleet::open(&fleet.listen(&nodes[0]), Duration::from_secs(10)).await, Ok(0)) {
        anyhow::ensure!(start.elapsed() < REST, "jobs have not come to rest within {} s; {}", REST.as_secs(), fleet.logs());
        faults.watch()?;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let rested = start.elapsed().as_secs_f64();
    // What was offered to the sink last is on its way.
    tokio::time::sleep(Duration::from_millis(500)).await;
    let (counts, cluster) = faults.end()?;

    let ledger = fresh.place.open(&World::real(), PATIENCE).await?;
    let tenant: TenantName = TENANT.parse()?;
    let told = std::mem::take(&mut *sink.told());
    let judged = judge::judge(&ledger, &tenant, &submitted, &told).await?;
    ledger.close().await;
    drop(cluster);
    Ok(Found { judged, counts, repeated: submitted.repeated, seconds: [disturbed, rested] })
}

async fn sqlite(amount: &Amount, seed: u64) -> Result<Found> {
    run(&Fresh::sqlite()?, None, 1, amount, derived(seed, "sqlite")).await
}

async fn postgres(amount: &Amount, seed: u64) -> Result<Found> {
    let cluster = Cluster::start().await?;
    let fresh = Fresh::postgres(&cluster.url()).await?;
    run(&fresh, Some(cluster), 4, amount, derived(seed, "postgres")).await
}

fn lines(name: &str, found: &Result<Found>) -> Vec<Line> {
    let whats = [
        "acknowledged jobs that are not there",
        "submissions that were stored twice",
        "jobs with not exactly one end",
        "effects that counted twice at a receiver which honours keys",
        "results written twice, or by who did not hold the job any more",
        "rules of the simulation's judge that are broken",
    ];
    let what = |what: &str| format!("{name}: {what}");
    let found = match found {
        Ok(found) => found,
        Err(error) => return whats.iter().map(|one| Line::missing(what(one), "0", &format!("{error:#}"))).collect(),
    };
    let Found { judged, counts, repeated, seconds } = found;
    let numbers = [judged.lost, judged.stored_twice, judged.not_one_end, judged.effects_twice, judged.results_twice];
    let mut lines: Vec<Line> =
        whats.iter().zip(numbers).map(|(one, number)| Line::judged(what(one), "0", number.to_string(), number == 0)).collect();
    let broken = judged.broken.clone().map_or_else(|| "0".to_owned(), |broken| format!("at least 1: {broken}"));
    lines.push(Line::judged(what(whats[5]), "0", broken, judged.broken.is_none()));
    lines.push(Line::plain(
        what("jobs: submitted / ended well / dead letters"),
        format!("{} / {} / {}", judged.acknowledged, judged.succeeded, judged.dead),
    ));
    lines.push(Line::plain(
        what("attempts begun; effects offered again; ends refused because the job was another's"),
        format!("{}; {}; {}", judged.begun, judged.effects_again, judged.fenced),
    ));
    lines.push(Line::plain(what("submissions that were asked for again"), repeated.to_string()));
    lines.push(Line::plain(what("faults"), counts.text()));
    let (visited, all) = counts.points();
    lines.push(Line::plain(what("crash points of a job's life at which a worker died"), format!("{visited} of {all}")));
    lines.push(Line::plain(what("seconds with faults / until rest after them"), format!("{:.0} / {:.1}", seconds[0], seconds[1])));
    lines
}

/// Measures and writes `jobs_chaos`.
pub async fn measure(setup: &Setup, amount: &Amount) -> Result<Verdict> {
    let seed = amount.seed.unwrap_or_else(|| SystemRandom.next_u64());
    println!("seed {seed}");
    let sides = [("SQLite", sqlite(amount, seed).await), ("PostgreSQL", postgres(amount, seed).await)];
    let mut all = Vec::new();
    let mut figures = serde_json::Map::new();
    figures.insert("seed".to_owned(), seed.into());
    for (name, found) in &sides {
        all.extend(lines(name, found));
        let Ok(found) = found else { continue };
        let value = json!({ "judged": found.judged, "faults": found.counts, "repeated": found.repeated, "seconds": found.seconds });
        figures.insert(name.to_lowercase(), value);
    }
    setup.finish(&Part {
        name: "jobs_chaos",
        title: "Jobs under faults",
        how: &format!("{} jobs on each ledger over {:.0} s, seed {seed}", amount.jobs, amount.seconds),
        about: &format!(
            "SQLite: one worker process, which also takes the submissions. PostgreSQL: four, and a server of its own. Processes are \
             killed at random moments and at the crash points of a job's life, stopped for 1.2 to 3 leases of {} s and woken, and on \
             SQLite denied writes as by a full disk (a limit of the files' length: the error is EFBIG instead of ENOSPC, and comes in \
             the middle of a file's writing alike). The server of PostgreSQL is restarted, half of the times as in a crash; its disk is \
             never full. A job takes 20 to 400 ms, one in fifty longer than its lease; it has up to 3 effects outside, reports in one of \
             four, and has a result in the object store in one of ten. Each may be tried 100 times.",
            LEASE as f64 / 1e3
        ),
        lines: &all,
        text: "",
        figures: Value::Object(figures),
    })
}

/// The random numbers of a purpose.
fn random(seed: u64) -> Arc<dyn Random> {
    Arc::new(plinth_runtime::SeededRandom::new(seed))
}
