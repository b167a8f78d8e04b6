//! Does a change or a restart fail a request?
//!
//! Two nodes with TLS on one ledger, behind a client that does what a load balancer does (`reloads/balancer`), under a steady load of inferences,
//! proxied requests and long answers over HTTP/1.1 and HTTP/2. Meanwhile plans, routes, upstreams, keys and certificates change, and the nodes
//! are restarted in turn, as an operator does it: SIGTERM, wait for the end, start, wait until it is ready.

mod authority;
mod balancer;
mod changes;
mod pair;
mod upstream;
mod wire;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use bytes::Bytes;
use http::Method;
use serde_json::json;

use self::balancer::{Balancer, Kind};
use self::changes::{ALL, Changes, What};
use self::pair::Pair;
use crate::body;
use crate::line::{Line, Verdict};
use crate::setup::{Part, Setup};

/// Between two requests of one caller.
const PAUSE: Duration = Duration::from_millis(10);
/// Between a change or restart that is in force and the next.
const REST: Duration = Duration::from_millis(300);
const READY: Duration = Duration::from_secs(60);

/// How many of what.
#[derive(clap::Args, Clone, Copy)]
pub struct Amount {
    /// Changes.
    #[arg(long, default_value_t = 100)]
    pub reloads: u32,
    /// Restarts, of the nodes in turn.
    #[arg(long, default_value_t = 20)]
    pub restarts: u32,
}

impl Default for Amount {
    fn default() -> Self {
        Self { reloads: 100, restarts: 20 }
    }
}

/// The load: kinds of requests, each by so many callers over HTTP/1.1 and over HTTP/2.
fn load() -> Result<Vec<(Kind, usize, usize)>> {
    let infer = Bytes::from(body::json("image", &[1, 64]).bytes);
    let get = |name, path, holds, length| Kind { name, method: Method::GET, path, body: Bytes::new(), holds, length, long: length > 1_000 };
    Ok(vec![
        (
            Kind {
                name: "infer",
                method: Method::POST,
                path: "/v2/models/digits/infer",
                body: infer,
                holds: "outputs",
                length: 20,
                long: false,
            },
            6,
            4,
        ),
        (get("route", "/shop", "upstream", 10), 4, 4),
        (get("long answer", "/long/stream", "x", upstream::PIECES * upstream::PIECE), 3, 3),
    ])
}

/// Stops a node, waits for its end, starts it, and waits until the balancer sends it requests again; seconds without it.
async fn restart(pair: &mut Pair, number: usize, balancer: &Balancer) -> Result<f64> {
    let start = Instant::now();
    let status = pair.members[number].stop().await?;
    ensure!(status.success(), "the node ended with {status}; it said:\n{}", pair.members[number].log());
    pair.members[number].start()?;
    pair.members[number].listening().await?;
    ready(balancer, number).await?;
    Ok(start.elapsed().as_secs_f64())
}

async fn ready(balancer: &Balancer, number: usize) -> Result<()> {
    let end = Instant::now() + READY;
    while !balancer.backends[number].is_ready() {
        ensure!(Instant::now() < end, "node {number} does not become ready");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    Ok(())
}

/// What was done, and how long each took.
#[derive(Default)]
struct Done {
    /// Milliseconds until both nodes acted on it.
    changes: BTreeMap<What, Vec<f64>>,
    /// Seconds.
    restarts: Vec<f64>,
}

/// Changes with restarts between them.
async fn disturb(
    setup: &Setup,
    pair: &mut Pair,
    balancer: &Balancer,
    amount: Amount,
    upstreams: [(&'static str, String); 2],
) -> Result<Done> {
    let (mut done, mut made, mut keys) = (Done::default(), 0, Vec::new());
    {
        let changes = Changes { setup, pair, balancer, upstreams: upstreams.clone(), made, keys: Vec::new() };
        changes.first().await?;
    }
    let steps = amount.reloads.max(amount.restarts);
    let due = |of: u32, step: u32| (step + 1) * of / steps > step * of / steps;
    for step in 0..steps {
        if due(amount.reloads, step) {
            let what = ALL[made as usize % ALL.len()];
            let mut changes = Changes { setup, pair, balancer, upstreams: upstreams.clone(), made, keys };
            let took = changes.next(what).await?;
            (made, keys) = (changes.made, changes.keys);
            done.changes.entry(what).or_default().push(took);
        }
        if due(amount.restarts, step) {
            let number = done.restarts.len() % pair.members.len();
            let took = restart(pair, number, balancer).await?;
            done.restarts.push(took);
        }
        tokio::time::sleep(REST).await;
    }
    Ok(done)
}

fn middle(times: &mut [f64]) -> (f64, f64) {
    times.sort_by(f64::total_cmp);
    (times.get(times.len() / 2).copied().unwrap_or(f64::NAN), times.last().copied().unwrap_or(f64::NAN))
}

/// Measures and writes `reloads`.
pub async fn measure(setup: &Setup, amount: Amount) -> Result<Verdict> {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut pair = Pair::new(setup).await?;
    let addresses: Vec<_> = pair.members.iter().map(|member| member.address).collect();
    let balancer = Balancer::new(&addresses);
    for (backend, key) in balancer.backends.iter().zip(&pair.keys) {
        backend.show(key);
    }
    let (one, two) = (pair.authority.client(b"http/1.1")?, pair.authority.client(b"h2")?);
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..addresses.len() {
        tasks.spawn(balancer.clone().check(number, one.clone()));
        ready(&balancer, number).await?;
    }
    let upstreams = [("first", upstream::start("first").await?.to_string()), ("second", upstream::start("second").await?.to_string())];
    // The routes are there before anybody asks for them.
    let prepared = Changes { setup, pair: &pair, balancer: &balancer, upstreams: upstreams.clone(), made: 0, keys: Vec::new() };
    prepared.first().await?;
    for (kind, over_one, over_two) in load()? {
        let kind = Arc::new(kind);
        let callers = std::iter::repeat_n(&one, over_one).chain(std::iter::repeat_n(&two, over_two));
        for tls in callers {
            tasks.spawn(balancer.clone().work(kind.clone(), tls.clone(), PAUSE));
        }
    }
    let start = Instant::now();
    let done = disturb(setup, &mut pair, &balancer, amount, upstreams).await;
    tokio::time::sleep(REST).await;
    let seconds = start.elapsed().as_secs_f64();
    balancer.end.store(true, Ordering::SeqCst);
    while tasks.join_next().await.is_some() {}
    report(setup, &pair, &balancer, done?, seconds)
}

fn report(setup: &Setup, pair: &Pair, balancer: &Balancer, mut done: Done, seconds: f64) -> Result<Verdict> {
    let counts = &balancer.counts;
    let count = |of: &std::sync::atomic::AtomicU64| of.load(Ordering::Relaxed);
    let failed = count(&counts.failed);
    let failures = counts.failures.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let mut times: Vec<f64> = counts.times.lock().unwrap_or_else(PoisonError::into_inner).iter().map(|time| f64::from(*time)).collect();
    times.sort_by(f64::total_cmp);
    let at = |share: f64| times.get((times.len() as f64 * share) as usize).copied().unwrap_or(f64::NAN) / 1e3;
    let changes: usize = done.changes.values().map(Vec::len).sum();
    let (restart, longest) = middle(&mut done.restarts);
    let lines = [
        Line::judged(
            format!("requests that failed, of {}, during {changes} changes and {} restarts", count(&counts.requests), done.restarts.len()),
            "0",
            failed.to_string(),
            failed == 0,
        ),
        Line::plain("from SIGTERM until the node takes requests again", format!("{restart:.1} s, at most {longest:.1} s")),
        Line::plain("p50 / p99 / longest of the short answers", format!("{:.1} / {:.1} / {:.0} ms", at(0.5), at(0.99), at(1.0 - 1e-9))),
        Line::plain(
            "connections made; that could not be made, and were made to the other node",
            format!("{}; {}", count(&counts.connections), count(&counts.unreachable)),
        ),
        Line::plain(
            "requests whose connection ended before they were sent or begun with, and that took another",
            count(&counts.moved).to_string(),
        ),
    ];
    let mut text = "| change | times | until both nodes act on it, median | longest |\n|---|---:|---:|---:|\n".to_owned();
    for (what, times) in &mut done.changes {
        let number = times.len();
        let (median, longest) = middle(times);
        text.push_str(&format!("| {} | {number} | {median:.0} ms | {longest:.0} ms |\n", what.text()));
    }
    let ledger =
        if pair.shared { "one ledger in PostgreSQL" } else { "a ledger of each, told the same (no PostgreSQL answers on the loopback)" };
    text.push_str(&format!("\nThe nodes had {ledger}.\n"));
    if !failures.is_empty() {
        text.push_str(&format!("\nWhat failed:\n\n```text\n{}\n```\n", failures.join("\n")));
    }
    setup.finish(&Part {
        name: "reloads",
        title: "Changes and restarts under load",
        how: &format!("{seconds:.0} s, a steady load of 24 callers"),
        about: "Inferences, proxied requests and answers that take 300 ms, over TLS, HTTP/1.1 and HTTP/2, 10 ms between a caller's requests. What the client does: it asks each node for its readiness every \
                100 ms, keeps connections and uses them again, sends to the nodes that are ready in turn, takes the other node when a connection cannot be made, and another connection when one ended before \
                anything of the request was sent, or when an HTTP/2 node says that it has not begun with it. It sends nothing twice: what was sent and is not answered with 200 and a whole body has failed. The nodes \
                report themselves not ready a second before they stop taking connections (`shutdown.lame_duck`). Every tenth change is followed by one that is partly wrong and refused whole.",
        lines: &lines,
        text: &text,
        figures: json!({
            "requests": count(&counts.requests), "failed": failed, "failures": failures, "restarts_s": done.restarts,
            "changes_ms": done.changes.iter().map(|(what, times)| (what.text(), times)).collect::<BTreeMap<_, _>>(),
            "shared_ledger": pair.shared, "moved": count(&counts.moved), "unreachable": count(&counts.unreachable),
        }),
    })
}
