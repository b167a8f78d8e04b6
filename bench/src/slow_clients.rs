//! Are others served while somebody holds ten thousand connections as slowly as he can?
//!
//! A node with the defaults, and ten thousand clients that come again whenever they are thrown out: from many addresses, so that no cap for one of them
//! helps, and from one. Beside them the corpus of hostile heads that the tests of the door have. Meanwhile somebody means well: inference at a
//! fixed rate over connections that stay, and requests that each make a connection of their own. Judged: all of theirs are served, and the most resident
//! memory that the node ever had. What sockets hold in the kernel is not in that.

mod attack;
#[path = "../../crates/net/src/tests/corpus.rs"]
mod corpus;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use hdrhistogram::Histogram;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpSocket;
use tokio::task::JoinSet;

use crate::exchange::{Connection, Target};
use crate::line::{Line, Verdict};
use crate::load::{self, Report, Traffic};
use crate::plinth::{self, Home};
use crate::setup::{Part, Setup};
use crate::{Shape, body, process, scrape};
use attack::{Attack, Attacker, Counts, Figures, Kind, Words};

const CLIENTS: usize = 10_000;
/// Open files that this process and the node each need: theirs, those who mean well, and what there is besides.
const FILES: u64 = 12_000;
/// Addresses from which they come when they come from many, and who mean harm otherwise.
const SOURCES: usize = 20;
const HOSTILE_SOURCE: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 3));
const MEMORY_MIB: f64 = 256.0;
/// Inference over connections that stay.
const GOOD: (f64, usize) = (100.0, 8);
/// Between two requests with connections of their own.
const FRESH: Duration = Duration::from_millis(50);
/// Between two hostile heads.
const HOSTILE: Duration = Duration::from_millis(10);
/// In which the clients come.
const COMING: Duration = Duration::from_secs(5);

/// What was seen of one variant.
struct Outcome {
    name: &'static str,
    quiet: Report,
    good: Result<Report, String>,
    /// Count, errors, p99 and the longest in microseconds.
    fresh: Fresh,
    hostile: (u64, u64),
    kinds: Vec<Figures>,
    peak_mib: f64,
    cpu_share: f64,
    /// As the node counts: open at the end, over a client's cap, over all, given up for others, timed out.
    node: [f64; 5],
}

#[derive(Clone, Copy)]
struct Fresh {
    requests: u64,
    errors: u64,
    p99_us: f64,
    max_us: f64,
}

/// Requests that each make a connection, until a moment.
async fn fresh(target: &Target, end: Instant) -> Result<Fresh> {
    let (mut times, mut errors) = (Histogram::<u64>::new_with_bounds(1_000, 120_000_000_000, 3)?, 0);
    while Instant::now() < end {
        let start = Instant::now();
        let one = async { Ok::<_, anyhow::Error>(Connection::open(&target.address).await?.exchange(target).await?.status) };
        match tokio::time::timeout(Duration::from_secs(10), one).await {
            Ok(Ok(200)) => times.saturating_record(start.elapsed().as_nanos() as u64),
            _ => errors += 1,
        }
        tokio::time::sleep(FRESH).await;
    }
    let us = |nanos: u64| nanos as f64 / 1000.0;
    Ok(Fresh { requests: times.len(), errors, p99_us: us(times.value_at_quantile(0.99)), max_us: us(times.max()) })
}

/// Sends the corpus again and again. Counts heads, and those that were not refused as they should be.
async fn hostile(target: SocketAddr, counts: Arc<(AtomicU64, AtomicU64)>) {
    for (head, _) in corpus::HOSTILE.iter().cycle() {
        tokio::time::sleep(HOSTILE).await;
        let answer = tokio::time::timeout(Duration::from_secs(10), refused(target, head)).await;
        counts.0.fetch_add(1, Relaxed);
        if !matches!(answer, Ok(Ok(true))) {
            counts.1.fetch_add(1, Relaxed);
        }
    }
}

/// Whether a head is refused, and what comes behind it not answered.
async fn refused(target: SocketAddr, head: &str) -> Result<bool> {
    let socket = TcpSocket::new_v4()?;
    socket.bind(SocketAddr::new(HOSTILE_SOURCE, 0))?;
    let mut stream = socket.connect(target).await?;
    stream.write_all(format!("{head}GET /v2/health/live HTTP/1.1\r\nhost: localhost\r\n\r\n").as_bytes()).await?;
    let mut all = Vec::new();
    let mut piece = [0; 2048];
    while let Ok(read @ 1..) = stream.read(&mut piece).await {
        all.extend_from_slice(&piece[..read]);
    }
    let text = String::from_utf8_lossy(&all);
    Ok(text.starts_with("HTTP/1.1 400 ") && !text.contains("HTTP/1.1 200"))
}

async fn variant(setup: &Setup, name: &'static str, sources: usize, length: Duration) -> Result<Outcome> {
    let directory = tempfile::tempdir()?;
    plinth::digits(setup, "2", "digits", directory.path())?;
    let mut home = Home::new(setup)?;
    let node = home.start()?;
    let metrics = home.metrics(&node)?;
    node.push("digits", directory.path(), true)?;
    let target: SocketAddr = node.http.strip_prefix("http://").context("not http")?.parse()?;
    let body = body::json("image", &[1, 64]);
    let infer = Target::post(&node.infer_url("digits"), &body.bytes, None, Some(&node.key))?;
    let good = Traffic::http(&infer);
    let shape = |seconds: f64| Shape { connections: GOOD.1, seconds, rate: Some(GOOD.0) };
    let quiet = load::run(&good, shape(length.as_secs_f64().min(5.0))).await?;

    let counts: Arc<[Counts; 4]> = Arc::default();
    let words = Arc::new(Words::new(&node.key));
    let attacker = |number: usize| {
        let source = if sources == 1 { Ipv4Addr::new(127, 0, 0, 2) } else { Ipv4Addr::new(127, 0, 1, (1 + number / 10 % sources) as u8) };
        let attacker = Attacker { kind: Kind::of(number), source: source.into(), target, words: words.clone(), counts: counts.clone() };
        (COMING.mul_f64(number as f64 / CLIENTS as f64), attacker)
    };
    let attack = Attack::start((0..CLIENTS).map(attacker).collect())?;
    let heads = Arc::new((AtomicU64::new(0), AtomicU64::new(0)));
    let mut others = JoinSet::new();
    others.spawn(hostile(target, heads.clone()));
    let (began, cpu) = (Instant::now(), process::cpu_seconds(node.pid())?);
    let (good, fresh) = tokio::join!(load::run(&good, shape(length.as_secs_f64())), fresh(&infer, began + length));
    let cpu_share = (process::cpu_seconds(node.pid())? - cpu) / began.elapsed().as_secs_f64();
    let kinds = Kind::ALL.iter().map(|kind| counts[*kind as usize].figures(*kind)).collect();
    let scrape = scrape::read(&metrics).await?;
    let of = |name: &str| scrape.sum(name, &["listener=\"http\""]);
    let node_counts =
        ["_open", "_over_client_cap_total", "_refused_total", "_given_up_total"].map(|end| of(&format!("plinth_http_connections{end}")));
    let [open, over, refused, given_up] = node_counts;
    let peak_mib = process::peak_kib(node.pid())? as f64 / 1024.0;
    drop((attack, others));
    Ok(Outcome {
        name,
        quiet,
        good: good.map_err(|error| format!("{error:#}")),
        fresh: fresh?,
        hostile: (heads.0.load(Relaxed), heads.1.load(Relaxed)),
        kinds,
        peak_mib,
        cpu_share,
        node: [open, over, refused, given_up, of("plinth_http_connection_timeouts_total")],
    })
}

impl Outcome {
    fn lines(&self) -> Vec<Line> {
        let name = self.name;
        let (errors, p99) = match &self.good {
            Ok(report) => (report.errors, format!("{:.0} µs, {:.0} µs without them", report.p99_us, self.quiet.p99_us)),
            Err(why) => (1, format!("not measured: {why}")),
        };
        let failed = errors + self.fresh.errors;
        vec![
            Line::judged(format!("{name}: failed requests of those who mean well"), "0", failed.to_string(), failed == 0),
            Line::plain(format!("{name}: p99 of inference over connections that stay"), p99),
            Line::plain(
                format!("{name}: p99 of requests with a connection of their own"),
                format!("{:.0} µs, the longest {:.0} µs", self.fresh.p99_us, self.fresh.max_us),
            ),
            Line::judged(
                format!("{name}: hostile heads that were not refused"),
                "0",
                format!("{} of {}", self.hostile.1, self.hostile.0),
                self.hostile.1 == 0 && self.hostile.0 as usize >= corpus::HOSTILE.len(),
            ),
            Line::judged(
                format!("{name}: peak resident memory of the node"),
                format!("≤ {MEMORY_MIB:.0} MiB"),
                format!("{:.1} MiB", self.peak_mib),
                self.peak_mib <= MEMORY_MIB,
            ),
        ]
    }

    fn rows(&self) -> String {
        let row = |kind: &Figures| {
            format!(
                "| {} | {} | {} | {} | {} | {} | {:.1} |\n",
                self.name, kind.kind, kind.open, kind.opened, kind.refused, kind.cut, kind.held_seconds
            )
        };
        self.kinds.iter().map(row).collect()
    }

    fn node_row(&self) -> String {
        let [open, over, refused, given_up, timeouts] = self.node;
        format!("| {} | {open} | {over} | {refused} | {given_up} | {timeouts} | {:.0} |\n", self.name, self.cpu_share * 100.0)
    }

    fn figures(&self) -> Value {
        json!({
            "name": self.name, "quiet": self.quiet, "good": self.good.as_ref().ok(), "fresh": [self.fresh.requests as f64, self.fresh.errors as f64, self.fresh.p99_us, self.fresh.max_us],
            "hostile": self.hostile, "kinds": self.kinds, "peak_mib": self.peak_mib, "cpu_share": self.cpu_share, "node": self.node,
        })
    }
}

/// Measures and writes `slow_clients`. `seconds` is the length of each variant.
pub async fn measure(setup: &Setup, seconds: f64) -> Result<Verdict> {
    process::need_files(FILES)?;
    let length = Duration::from_secs_f64(seconds);
    ensure!(length > COMING, "a variant lasts longer than the {} s in which they come", COMING.as_secs());
    let outcomes = [variant(setup, "many addresses", SOURCES, length).await?, variant(setup, "one address", 1, length).await?];
    let lines: Vec<Line> = outcomes.iter().flat_map(Outcome::lines).collect();
    let mut text =
        "| variant | kind | held at the end | opened | refused | cut | held s, those cut |\n|---|---|---:|---:|---:|---:|---:|\n"
            .to_owned();
    outcomes.iter().for_each(|outcome| text.push_str(&outcome.rows()));
    text.push_str("\n| as the node counts | open | over a client's cap | over all | given up for others | timed out | processor % |\n|---|---:|---:|---:|---:|---:|---:|\n");
    outcomes.iter().for_each(|outcome| text.push_str(&outcome.node_row()));
    setup.finish(&Part {
        name: "slow_clients",
        title: "Ten thousand slow clients, and hostile heads",
        how: &format!("{seconds:.0} s for each variant, {CLIENTS} slow clients that come within {} s and come again", COMING.as_secs()),
        about: &format!(
            "A node as `plinth up` starts it: 10,000 connections at most, 2,048 of one client, 10 s for a head, 1 KiB/s for a body, 30 s without taking bytes. Slow clients send a byte each two seconds (heads; bodies of a \
             megabyte, with a key), read one as slowly of thousands of answers that they asked for at once, or speak HTTP/2 with a window that stays shut. Many addresses: {SOURCES} of the loopback; one address: all from one. \
             Meanwhile {:.0} inferences a second over {} connections, one request with a connection of its own each {} ms, and {} hostile heads again and again. The load generator is on the same \
             cores, which the times of the others feel.",
            GOOD.0,
            GOOD.1,
            FRESH.as_millis(),
            corpus::HOSTILE.len()
        ),
        lines: &lines,
        text: &text,
        figures: json!(outcomes.iter().map(Outcome::figures).collect::<Vec<_>>()),
    })
}
