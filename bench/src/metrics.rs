//! What do counting, timing and tracing requests cost?
//!
//! Two nodes with the same model: one as it is by default, scraped in every window and with traces of the level
//! TIMESTAMPS at the default rate; one that counts nothing (`testing.metrics = false`) and traces nothing. Windows in the
//! order A B B A, several times, JSON and binary. On a machine that is never quite quiet throughput wanders by more than
//! what is looked for, so the judged figure is the processor time of node and runner for each request, and the ratio of
//! the throughputs stands beside it with its spread.

use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use serde_json::json;

use crate::Shape;
use crate::body;
use crate::exchange::{Connection, Target};
use crate::line::{Line, Verdict};
use crate::load::{self, Traffic};
use crate::plinth::{self, Home, Node};
use crate::process;
use crate::setup::{Part, Setup};

const GOAL: f64 = 1.02;
const CONNECTIONS: usize = 16;
const SHAPE: [usize; 2] = [1, 64];
/// Rounds of A B B A, for each body.
const ROUNDS: usize = 8;

/// One window: requests per second, and microseconds of processor time for each request.
#[derive(Clone, Copy, serde::Serialize)]
struct Window {
    per_second: f64,
    cpu_us: f64,
}

struct Contender {
    node: Node,
    runner: u32,
    bodies: [Arc<Traffic>; 2],
    /// What is asked for once in each window.
    scrape: Option<Target>,
    // Last: the node ends before its directory goes.
    _home: Home,
}

impl Contender {
    async fn start(setup: &Setup, on: bool, digits: &std::path::Path) -> Result<Self> {
        let silent = [("testing.metrics", "false")];
        let mut home = if on { Home::new(setup)? } else { Home::with(setup, &silent)? };
        let node = home.start()?;
        node.push("digits", digits, true)?;
        let traffic = |body: body::Body| {
            let target = Target::post(&node.infer_url("digits"), &body.bytes, body.header_length, Some(&node.key))?;
            Ok::<_, anyhow::Error>(Traffic::http(&target))
        };
        let bodies = [traffic(body::json("image", &SHAPE))?, traffic(body::binary("image", &SHAPE))?];
        let scrape = if on {
            let setting =
                Target::post(&format!("{}/v2/trace/setting", node.http), br#"{"trace_level":["TIMESTAMPS"]}"#, None, Some(&node.key))?;
            exchange(&setting).await.context("switching traces on")?;
            Some(Target::get(&format!("{}/metrics", home.metrics(&node)?))?)
        } else {
            None
        };
        let runner = node.runner("digits").await?;
        Ok(Self { node, runner, bodies, scrape, _home: home })
    }

    fn cpu_seconds(&self) -> Result<f64> {
        Ok(process::cpu_seconds(self.node.pid())? + process::cpu_seconds(self.runner)?)
    }

    async fn window(&self, body: usize, seconds: f64) -> Result<Window> {
        let before = self.cpu_seconds()?;
        let shape = Shape { connections: CONNECTIONS, seconds, rate: None };
        let scrape = async {
            match &self.scrape {
                Some(target) => exchange(target).await,
                None => Ok(()),
            }
        };
        let (report, scraped) = tokio::join!(load::run(&self.bodies[body], shape), scrape);
        scraped.context("a scrape")?;
        let report = report?;
        ensure!(report.errors == 0 && report.requests > 0, "{} requests failed", report.errors);
        Ok(Window { per_second: report.per_second, cpu_us: (self.cpu_seconds()? - before) * 1e6 / report.requests as f64 })
    }
}

async fn exchange(target: &Target) -> Result<()> {
    let mut connection = Connection::open(&target.address).await?;
    let answer = connection.exchange(target).await?;
    ensure!(answer.status == 200, "answered with {}", answer.status);
    Ok(())
}

/// The mean of some figures, and the half width of its 95 % interval as if they were normal.
fn mean(figures: &[f64]) -> (f64, f64) {
    let n = figures.len() as f64;
    let mean = figures.iter().sum::<f64>() / n;
    let variance = figures.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / (n - 1.0).max(1.0);
    (mean, 1.96 * (variance / n).sqrt())
}

/// Measures and writes `metrics`. `seconds` is the length of a window.
pub async fn measure(setup: &Setup, seconds: f64) -> Result<Verdict> {
    let directory = tempfile::tempdir()?;
    plinth::digits(setup, "2", "digits", directory.path())?;
    let on = Contender::start(setup, true, directory.path()).await?;
    let off = Contender::start(setup, false, directory.path()).await?;
    let (mut lines, mut text, mut figures) = (Vec::new(), String::new(), Vec::new());
    text.push_str("| body | side | requests/s | µs of processor time for each request |\n|---|---|---:|---:|\n");
    for (body, name) in ["JSON", "binary"].into_iter().enumerate() {
        for side in [&on, &off] {
            side.window(body, seconds.min(1.0)).await?;
        }
        // Each round is two windows of each side, so that a machine that slows down steadily hurts both alike.
        let (mut cpu, mut rate, mut windows) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            let mut round = Vec::new();
            for side in [&on, &off, &off, &on] {
                round.push(side.window(body, seconds).await?);
            }
            let [a, b, c, d] = round[..] else { anyhow::bail!("a round has four windows") };
            cpu.push((a.cpu_us + d.cpu_us) / (b.cpu_us + c.cpu_us));
            rate.push((a.per_second + d.per_second) / (b.per_second + c.per_second));
            windows.push([a, b, c, d]);
        }
        let ((cpu, cpu_spread), (rate, rate_spread)) = (mean(&cpu), mean(&rate));
        let what = format!("{name}: processor time for each request, on over off (mean of {ROUNDS} rounds, ± its 95 % interval)");
        lines.push(Line::judged(what, format!("≤ {GOAL:.2} ×"), format!("{cpu:.3} ± {cpu_spread:.3} ×"), cpu <= GOAL));
        lines.push(Line::plain(format!("{name}: throughput, on over off"), format!("{rate:.3} ± {rate_spread:.3} ×")));
        for (side, places) in [("on", [0, 3]), ("off", [1, 2])] {
            let of = |figure: fn(&Window) -> f64| {
                mean(&windows.iter().flat_map(|w| places.map(|place| figure(&w[place]))).collect::<Vec<_>>()).0
            };
            text.push_str(&format!("| {name} | {side} | {:.0} | {:.2} |\n", of(|w| w.per_second), of(|w| w.cpu_us)));
        }
        figures.push(json!({ "body": name, "windows": windows, "cpu": [cpu, cpu_spread], "throughput": [rate, rate_spread] }));
    }
    setup.finish(&Part {
        name: "metrics",
        title: "Metrics and traces, on against off",
        how: &format!("{ROUNDS} rounds of four windows of {seconds:.1} s for each body, {CONNECTIONS} connections, closed loop"),
        about: "Digits on two nodes in turn, in the order A B B A. On: as it is by default, with `/metrics` read once in each window and traces switched on (TIMESTAMPS, every thousandth request). Off: the \
                same binary with `testing.metrics = false`, which counts and times no request. What the node itself goes by (how many requests a version holds) and Triton's statistics are counted on both \
                sides. The processor time is the node's and the runner's, as the kernel counts it.",
        lines: &lines,
        text: &text,
        figures: json!(figures),
    })
}
