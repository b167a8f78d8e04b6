//! Is a node with 100,000 tenants and 1,000,000 keys as fast as one with a single tenant and key?
//!
//! Two nodes on one processor, the load generator on another, in turn: requests with a key that is drawn at random from all of the side's.
//! The request is the lightest that there is behind a key and limits, so that nothing hides what those cost. Then what a key takes of
//! memory, how long the node needs to start, and how soon a new key is good and a deleted one is refused.

mod isolated;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use plinth_client::wire;
use plinth_identity::ApiKey;
use plinth_runtime::SystemRandom;
use plinth_store::resources::gateway::PlanRecord;
use plinth_types::TenantName;
use serde_json::{Value, json};

use crate::Shape;
use crate::exchange::{Keyed, Keys, Target};
use crate::ledger::Ledger;
use crate::line::{Line, Verdict};
use crate::load::{self, Call, Report, Traffic};
use crate::plinth::{Home, Node};
use crate::process;
use crate::setup::{Part, Setup};

const GOAL: f64 = 0.95;
const CONNECTIONS: usize = 16;
/// Windows of each side, closed and open loop.
const WINDOWS: usize = 8;
/// Requests per second of the open loop: about a third of what one processor answers.
const RATE: f64 = 10_000.0;
/// The processor of the nodes, and that of the generator.
const NODES: usize = 0;
const GENERATOR: usize = 1;
/// Keys that are made and deleted to see how soon that counts.
const CHANGES: usize = 20;
/// So long a node may take to read everything.
const LONG: Duration = Duration::from_secs(300);

/// How many of what.
#[derive(clap::Args, Clone, Copy)]
pub struct Amount {
    /// Tenants of the large side.
    #[arg(long, default_value_t = 100_000)]
    pub tenants: usize,
    /// Keys of the large side.
    #[arg(long, default_value_t = 1_000_000)]
    pub keys: usize,
}

impl Default for Amount {
    fn default() -> Self {
        Self { tenants: 100_000, keys: 1_000_000 }
    }
}

/// So high that nobody is refused: what is measured is the way of a request that is let in.
fn plan() -> Value {
    let limit = |name: &str, scope: &str| json!({ "name": name, "scope": scope, "rate": "1000000/s", "burst": 1_000_000 });
    json!({ "limits": [limit("requests", "tenant"), limit("mine", "user")], "concurrency": 10_000 })
}

/// Adds tenants, and keys that are dealt out to them in turn; the keys as their owners hold them.
async fn fill(data: &Path, tenants: usize, keys: usize) -> Result<Vec<String>> {
    let mut ledger = Ledger::open(data).await?;
    ledger.plan("bench", &plan()).await?;
    let names: Vec<TenantName> = (0..tenants).map(|n| Ok(format!("tenant-{n:06}").parse()?)).collect::<Result<_>>()?;
    for name in &names {
        ledger.tenant(name, "bench").await?;
    }
    let mut shown = Vec::with_capacity(keys);
    for name in names.iter().cycle().take(keys) {
        let key = ApiKey::generate(&SystemRandom)?;
        ledger.key(name, &key).await?;
        shown.push(key.reveal());
    }
    ledger.finish().await?;
    Ok(shown)
}

/// A node with its keys.
struct Side {
    home: Home,
    node: Node,
    keys: usize,
    traffic: Arc<Traffic>,
    /// A start without a snapshot on disk, and one with.
    starts: [f64; 2],
    /// KiB at rest after the second start.
    memory: u64,
}

impl Side {
    async fn start(setup: &Setup, tenants: usize, keys: usize) -> Result<Self> {
        let mut home = Home::with(setup, &[("limits.ban_requests", "0")])?.patient(LONG);
        home.start()?.stop()?;
        let shown = fill(&home.data(), tenants, keys).await?;
        let mut starts = [0.0; 2];
        for (number, took) in starts.iter_mut().enumerate() {
            if number == 0 {
                std::fs::remove_file(home.data().join("snapshot.json")).context("the snapshot of the first start")?;
            }
            let node = home.start_on(NODES)?;
            ready(&node, &shown[0]).await?;
            *took = node.started.elapsed().as_secs_f64();
            node.stop()?;
        }
        let node = home.start_on(NODES)?;
        ready(&node, &shown[0]).await?;
        // What reading took and is not needed any longer goes back within some seconds.
        tokio::time::sleep(Duration::from_secs(12)).await;
        let memory = process::anonymous_kib(node.pid())?;
        let all = Arc::new(Keys::new(shown.iter().map(String::as_str))?);
        let traffic = Traffic::own(vec![Call::Keyed(Keyed::get(&format!("{}/v2", node.http), all)?)]);
        Ok(Self { home, node, keys, traffic, starts, memory })
    }

    /// A window of load: what came back, and the microseconds of the node's processor time for each request.
    async fn window(&self, seconds: f64, rate: Option<f64>) -> Result<(Report, f64)> {
        let before = process::cpu_seconds(self.node.pid())?;
        let report = load::run(&self.traffic, Shape { connections: CONNECTIONS, seconds, rate }).await?;
        ensure!(report.errors == 0, "{} requests failed with {} keys", report.errors, self.keys);
        let used = process::cpu_seconds(self.node.pid())? - before;
        Ok((report.clone(), used * 1e6 / report.requests as f64))
    }
}

/// Waits until a key of the ledger is good.
async fn ready(node: &Node, key: &str) -> Result<()> {
    let end = Instant::now() + LONG;
    let target = Target::get_with(&format!("{}/v2", node.http), Some(key))?;
    while Instant::now() < end {
        if status(&target).await? == 200 {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    anyhow::bail!("the node does not know its keys")
}

async fn status(target: &Target) -> Result<u16> {
    Ok(crate::exchange::Connection::open(&target.address).await?.exchange(target).await?.status)
}

/// Windows of both sides in turn.
#[derive(Default)]
struct Windows {
    reports: [Vec<Report>; 2],
    cpu: [Vec<f64>; 2],
}

impl Windows {
    async fn measure(sides: &[Side; 2], seconds: f64, rate: Option<f64>) -> Result<Self> {
        let mut windows = Self::default();
        for number in 0..WINDOWS {
            // A B, B A: what the machine does to one it does to the other.
            for side in if number % 2 == 0 { [0, 1] } else { [1, 0] } {
                let (report, cpu) = sides[side].window(seconds, rate).await?;
                windows.reports[side].push(report);
                windows.cpu[side].push(cpu);
            }
        }
        Ok(windows)
    }

    fn median(&self, side: usize, of: fn(&Report) -> f64) -> f64 {
        median(self.reports[side].iter().map(of))
    }

    /// The median over the windows of a figure of the large side over that of the small one beside it.
    fn ratio(&self, of: fn(&Report) -> f64) -> f64 {
        median(self.reports[1].iter().zip(&self.reports[0]).map(|(many, one)| of(many) / of(one)))
    }
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut all: Vec<f64> = values.collect();
    all.sort_by(f64::total_cmp);
    match all.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => all[n / 2],
        n => f64::midpoint(all[n / 2 - 1], all[n / 2]),
    }
}

/// How soon a change counts, in milliseconds, each from the first byte of the request for it.
struct Change {
    /// Until a new key is good.
    good: Vec<f64>,
    /// Until a deleted one is refused.
    refused: Vec<f64>,
}

async fn changes(node: &Node) -> Result<Change> {
    let client = node.client()?;
    let mut change = Change { good: Vec::new(), refused: Vec::new() };
    for _ in 0..CHANGES {
        let start = Instant::now();
        let wish = wire::NewKey { role: wire::Role::Developer, description: String::new(), expires_at: None, models: Vec::new() };
        let made = client.create_key(&wish).await?;
        let target = Target::get_with(&format!("{}/v2", node.http), Some(&made.secret))?;
        change.good.push(until(&target, 200, start).await?);
        let start = Instant::now();
        client.delete_key(&made.key.id.parse()?).await?;
        change.refused.push(until(&target, 401, start).await?);
    }
    Ok(change)
}

/// Milliseconds until the answer has this status.
async fn until(target: &Target, wanted: u16, start: Instant) -> Result<f64> {
    while status(target).await? != wanted {
        ensure!(start.elapsed() < Duration::from_secs(30), "a change was not seen within 30 s");
    }
    Ok(start.elapsed().as_secs_f64() * 1e3)
}

/// Measures and writes `tenants`.
pub async fn measure(setup: &Setup, seconds: f64, amount: Amount) -> Result<Verdict> {
    let Amount { tenants, keys } = amount;
    let (key, limits) = isolated::measure(&serde_json::from_value::<PlanRecord>(plan())?, tenants, keys)?;
    let sides = [Side::start(setup, 1, 1).await?, Side::start(setup, tenants, keys).await?];
    process::stay_on(GENERATOR)?;
    let window = seconds / 4.0;
    for side in &sides {
        // Every key once, so that each has its cell: what follows is the same for all.
        let known = side.keys as f64 / 20_000.0;
        side.window(known.clamp(window, 60.0), None).await?;
    }
    let closed = Windows::measure(&sides, window, None).await?;
    let open = Windows::measure(&sides, window, Some(RATE)).await?;
    let change = changes(&sides[1].node).await?;
    let alone = changes(&sides[0].node).await?;
    let snapshot = std::fs::metadata(sides[1].home.data().join("snapshot.json"))?.len();

    let [one, many] = &sides;
    let per_key = (many.memory.saturating_sub(one.memory) << 10) as f64 / keys as f64;
    let worst = |times: &[f64]| times.iter().copied().fold(0.0, f64::max);
    let both = |times: &[f64]| format!("{:.0} ms, at most {:.0} ms", median(times.iter().copied()), worst(times));
    let over = |what: &str, ratio: f64| Line::at_least(what, GOAL, Some(ratio), "");
    let name = format!("{tenants} tenants and {keys} keys");
    let lines = [
        over(&format!("requests/s with {name} over one of each"), closed.ratio(|r| r.per_second)),
        over("p50 with one over p50 with many, 10,000 requests/s, open loop", 1.0 / open.ratio(|r| r.p50_us)),
        over("p99, the same", 1.0 / open.ratio(|r| r.p99_us)),
        Line::plain("memory for each key, with its share of its tenant, snapshot and limits", format!("{per_key:.0} bytes")),
        Line::plain(
            "start until a key is good: from the database / from the snapshot",
            format!("{:.1} s / {:.1} s", many.starts[0], many.starts[1]),
        ),
        Line::plain("from asking for a key until it is good", both(&change.good)),
        Line::plain("from deleting a key until it is refused", both(&change.refused)),
        Line::plain("checking a key, alone: one / many", format!("{:.0} ns / {:.0} ns", key.one, key.many)),
        Line::plain("entering and leaving the limits, alone: one / many", format!("{:.0} ns / {:.0} ns", limits.one, limits.many)),
    ];
    let row = |side: usize, name: &str| {
        format!(
            "| {name} | {:.0} | {:.1} | {:.0} / {:.0} | {:.0} / {:.0} | {:.0} |\n",
            closed.median(side, |r| r.per_second),
            median(closed.cpu[side].iter().copied()),
            closed.median(side, |r| r.p50_us),
            closed.median(side, |r| r.p99_us),
            open.median(side, |r| r.p50_us),
            open.median(side, |r| r.p99_us),
            sides[side].memory as f64 / 1024.0,
        )
    };
    let text = format!(
        "| side | requests/s | processor µs a request | p50 / p99 µs | at {RATE:.0}/s: p50 / p99 µs | MiB |\n|---|---:|---:|---:|---:|---:|\n{}{}\n\
         Medians of {WINDOWS} windows. The snapshot of the large side has {} MiB on disk. With one key, a new key is good after {} and a deleted one refused after {}.\n",
        row(0, "1 tenant, 1 key"),
        row(1, &name),
        snapshot >> 20,
        both(&alone.good),
        both(&alone.refused),
    );
    setup.finish(&Part {
        name: "tenants",
        title: "Many tenants and keys beside one",
        how: &format!("{WINDOWS} windows of {window:.1} s on each side in turn, {CONNECTIONS} connections"),
        about: "`GET /v2` with a key, behind a plan with a rate and a concurrency of the tenant and a rate of each user: the lightest request that passes identity and limits. Each request draws \
                its key from all of its side's. The goal is 0.95 and not 1.00 because a window of either side differs by a few percent from the next one of the same side; and what lies in no \
                cache of the processor has to come from memory, once for a key and once for a tenant.",
        lines: &lines,
        text: &text,
        figures: json!({
            "tenants": tenants, "keys": keys, "closed": closed.reports, "open": open.reports, "processor_us": closed.cpu,
            "starts_s": [one.starts, many.starts], "memory_kib": [one.memory, many.memory], "bytes_a_key": per_key,
            "good_ms": change.good, "refused_ms": change.refused,
            "check_ns": [key.one, key.many], "limits_ns": [limits.one, limits.many],
        }),
    })
}
