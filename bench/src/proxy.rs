//! What does it cost to have a gateway in front of a service, beside Envoy and HAProxy in the same place?
//!
//! An echo server and the load generator on one processor, the proxy on another. Plinth: a key, a plan with limits, metrics, breaker,
//! ejection and adaptive concurrency, as they are by default. Envoy: the router filter. HAProxy: one backend. One thread each.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::Shape;
use crate::exchange::Target;
use crate::line::{Line, Verdict};
use crate::load::{self, Traffic};
use crate::plinth::Home;
use crate::rivals::optional;
use crate::rivals::proxies::{Proxy, on_processor};
use crate::setup::{Part, Setup};
use crate::sides::{Side, Times, interleave};

const CONNECTIONS: usize = 32;
const RATE: f64 = 10_000.0;
const ROUNDS: usize = 3;
/// The processor of the proxies, and that of the echo server and the generator.
const PROXY: usize = 0;
const OTHERS: usize = 1;

const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-type: application/octet-stream\r\ncontent-length: 128\r\n\r\n\
    0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

/// Serves the same answer to everything, in this process, and prints where.
pub async fn echo() -> Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("{}", listener.local_addr()?);
    let mut tasks = tokio::task::JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        tasks.spawn(answer(stream));
        while tasks.try_join_next().is_some() {}
    }
}

/// Answers each head; bodies are as long as they say and are thrown away.
async fn answer(mut stream: TcpStream) -> Result<()> {
    let (mut buffer, mut filled) = (vec![0; 64 << 10], 0);
    loop {
        let end = loop {
            if let Some(at) = memchr::memmem::find(&buffer[..filled], b"\r\n\r\n") {
                break at + 4;
            }
            match stream.read(&mut buffer[filled..]).await? {
                0 => return Ok(()),
                n => filled += n,
            }
        };
        let head = String::from_utf8_lossy(&buffer[..end]).to_ascii_lowercase();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse::<usize>().ok()).unwrap_or(0);
        while filled < end + length {
            match stream.read(&mut buffer[filled..]).await? {
                0 => return Ok(()),
                n => filled += n,
            }
        }
        buffer.copy_within(end + length..filled, 0);
        filled -= end + length;
        stream.write_all(ANSWER).await?;
    }
}

/// The echo server as a process. Dropping it ends it.
struct Echo {
    child: Child,
    address: String,
}

impl Echo {
    fn start() -> Result<Self> {
        let mut command = on_processor(OTHERS, &std::env::current_exe()?);
        let mut child = command.arg("echo").stdout(Stdio::piped()).spawn().context("starting the echo server")?;
        let out = child.stdout.take().context("its output is not there")?;
        let mut address = String::new();
        BufReader::new(out).read_line(&mut address)?;
        Ok(Self { child, address: address.trim().to_owned() })
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

async fn route(node: &crate::plinth::Node, upstream: &str) -> Result<()> {
    let body = json!({"resources": [
        {"kind": "plan", "name": "bench", "spec": {"limits": [{"name": "requests", "rate": "1000000/s", "burst": 1_000_000}, {"name": "mine", "scope": "user", "rate": "1000000/s", "burst": 1_000_000}], "concurrency": 10_000}},
        {"kind": "tenant", "name": "default", "spec": {"plan": "bench"}},
        {"kind": "upstream", "name": "echo", "spec": {"endpoints": [{"url": format!("http://{upstream}")}], "allow_networks": ["127.0.0.0/8"]}},
        {"kind": "route", "name": "echo", "spec": {"matches": {"path": {"prefix": "/echo"}}, "targets": [{"to": {"upstream": "echo"}}]}},
    ]});
    let target = Target::post(&format!("{}/v1/apply", node.http), body.to_string().as_bytes(), None, Some(&node.key))?;
    let mut connection = crate::exchange::Connection::open(&target.address).await?;
    let answer = connection.exchange(&target).await?;
    if answer.status != 200 {
        bail!("the route was refused with {}: {}", answer.status, String::from_utf8_lossy(answer.body));
    }
    Ok(())
}

/// Puts this process, with the threads that it has already, on its processor.
fn stay() -> Result<()> {
    let status = Command::new("taskset")
        .args(["-a", "-p", "-c", &OTHERS.to_string(), &std::process::id().to_string()])
        .stdout(Stdio::null())
        .status()?;
    if status.success() { Ok(()) } else { bail!("taskset failed: this part needs two processors") }
}

/// Measures and writes `proxy`.
pub async fn measure(setup: &Setup, seconds: f64) -> Result<Verdict> {
    stay()?;
    let echo = Echo::start()?;
    let mut home = Home::with(setup, &[("limits.ban_requests", "0")])?;
    let node = home.start_on(PROXY)?;
    route(&node, &echo.address).await?;
    let envoy = optional("Envoy", Proxy::envoy(setup, &echo.address, PROXY).await);
    let haproxy = optional("HAProxy", Proxy::haproxy(setup, &echo.address, PROXY).await);

    let post = |url: &str, key: Option<&str>| Ok::<_, anyhow::Error>(Traffic::http(&Target::post(url, &[b'x'; 128], None, key)?));
    let direct = post(&format!("http://{}/echo", echo.address), None)?;
    let plinth = post(&format!("{}/echo", node.http), Some(&node.key))?;
    let mut sides = vec![Side::new("Plinth", plinth.clone())];
    for (name, proxy) in [("Envoy", &envoy), ("HAProxy", &haproxy)] {
        if let Ok(proxy) = proxy {
            sides.push(Side::new(name, post(&format!("{}/echo", proxy.url), None)?));
        }
    }
    sides.push(Side::new("direct", direct.clone()));
    let half = seconds / 2.0;
    let outcomes = interleave(&sides, CONNECTIONS, Times { warm_up: 0.5_f64.min(half), half }).await;
    let rate = |name: &str| outcomes.iter().find(|outcome| outcome.side == name).and_then(|outcome| Some(outcome.good()?.per_second));
    let over = |name: &str| rate("Plinth").zip(rate(name)).map(|(ours, theirs)| ours / theirs);

    // Open loop, in turn, so that the machine's moods hit all.
    let shape = Shape { connections: CONNECTIONS, seconds: half, rate: Some(RATE) };
    let (mut late_direct, mut late_plinth) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        late_direct.push(load::run(&direct, shape).await?);
        late_plinth.push(load::run(&plinth, shape).await?);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let median = |reports: &[load::Report]| {
        let mut all: Vec<f64> = reports.iter().map(|report| report.p99_us).collect();
        all.sort_by(f64::total_cmp);
        all[all.len() / 2]
    };
    let errors: u64 = late_direct.iter().chain(&late_plinth).map(|report| report.errors).sum();
    let added = median(&late_plinth) - median(&late_direct);

    let why = |result: &Result<Proxy, String>| result.as_ref().err().cloned().unwrap_or_else(|| "a side failed".to_owned());
    let lines = [
        Line::at_least(
            "proxied echo, key, limits, metrics and breaker on, over Envoy with the router filter alone",
            1.3,
            over("Envoy"),
            &why(&envoy),
        ),
        Line::at_least("the same over HAProxy", 0.8, over("HAProxy"), &why(&haproxy)),
        Line::at_most(
            "p99 added at 10,000 requests/s, open loop, in ms",
            0.5,
            (errors == 0).then_some(added / 1000.0),
            &format!("{errors} requests failed"),
        ),
    ];
    let mut text = "| side | requests/s | p50 µs | p99 µs | errors |\n|---|---:|---:|---:|---:|\n".to_owned();
    for outcome in &outcomes {
        if let Some(report) = outcome.good() {
            text.push_str(&format!(
                "| {} | {:.0} | {:.0} | {:.0} | {} |\n",
                outcome.side, report.per_second, report.p50_us, report.p99_us, report.errors
            ));
        }
    }
    text.push_str(&format!(
        "\nAt {RATE:.0} requests/s, medians of {ROUNDS} windows: p99 {:.0} µs direct, {:.0} µs through Plinth.\n",
        median(&late_direct),
        median(&late_plinth)
    ));
    setup.finish(&Part {
        name: "proxy",
        title: "A proxied echo beside Envoy and HAProxy",
        how: &format!("{seconds:.1} s for each side in two halves, closed loop over {CONNECTIONS} connections"),
        about: "128 bytes there, 128 bytes back. The proxy has a processor to itself; the echo server and the load generator share the other. Plinth looks at a key, counts against two rates and a \
                concurrency cap, records metrics, and asks breaker, ejection, balancer and adaptive concurrency; Envoy runs its router filter and HAProxy one backend, one thread each. What the other \
                processor can offer (`direct`) bounds all of them.",
        lines: &lines,
        text: &text,
        figures: json!({ "closed": outcomes.iter().map(|o| json!({"side": o.side, "report": o.good()})).collect::<Vec<_>>(),
                         "open_direct": late_direct, "open_plinth": late_plinth }),
    })
}
