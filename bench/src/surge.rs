//! What does a node make of five and ten times the load that it can bear?
//!
//! Requests of four classes on a Poisson schedule (open loop), in one run: 80 % of the peak, the peak, five times, 80 %, ten times, 80 %. The
//! node has a processor to itself, with the model's process where it is a model; the generator has the other, with the upstream where it is one.
//!
//! Peak: good answers per second with as many connections as keep it busy, each sending when it was answered. Normal: the run at 80 % of the peak.
//! Good: status 200.

use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use plinth_engine::testing::onnx_model::ModelBuilder;
use plinth_types::{DataType, Dim};
use serde::Serialize;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use crate::Shape;
use crate::body;
use crate::exchange::{Connection, Target};
use crate::line::{Line, Verdict};
use crate::load::{self, Traffic};
use crate::open::{self, Kind, Record, Step, Window};
use crate::plinth::{self, Home, Model, Node};
use crate::rivals::proxies::on_processor;
use crate::setup::{Part, Setup};

/// The node's processor, and that of the generator.
pub const NODE: usize = 0;
pub const OTHERS: usize = 1;

/// The upstream answers so many at a time, each after so long.
const PLACES: usize = 64;
const SERVICE: Duration = Duration::from_millis(32);
const CONNECTIONS: usize = 1024;
const CLASSES: [(&str, f64); 4] = [("critical", 0.15), ("default", 0.55), ("sheddable", 0.2), ("background", 0.1)];
const NORMAL: f64 = 0.8;
/// The pieces in which the end of a surge is looked at.
const PIECE: f64 = 0.25;

const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-type: application/octet-stream\r\ncontent-length: 16\r\n\r\n0123456789abcdef";

/// Serves the same answer to everything, so many at a time and each after so long, and prints where.
pub async fn limited(places: usize, service: Duration) -> Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("{}", listener.local_addr()?);
    let places = Arc::new(Semaphore::new(places));
    let mut tasks = tokio::task::JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        tasks.spawn(answer(stream, places.clone(), service));
        while tasks.try_join_next().is_some() {}
    }
}

async fn answer(mut stream: TcpStream, places: Arc<Semaphore>, service: Duration) -> Result<()> {
    let (mut buffer, mut filled) = (vec![0; 16 << 10], 0);
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
        let place = places.acquire().await?;
        tokio::time::sleep(service).await;
        drop(place);
        stream.write_all(ANSWER).await?;
    }
}

/// The upstream as a process. Dropping it ends it.
pub struct Limited {
    child: Child,
    pub address: String,
}

/// Layers of [`net`], and their width.
const LAYERS: usize = 4;
const WIDTH: usize = 1024;

/// A net of 64 floats in and 10 out whose layers do not fit the nearer caches: one or two milliseconds on one processor.
fn net() -> Vec<u8> {
    let weights = |count: usize| (0..count).flat_map(|i| ((i * 7 % 13) as f32 * 0.001 - 0.006).to_le_bytes()).collect::<Vec<u8>>();
    let mut model = ModelBuilder::new().input("x", DataType::Fp32, &[Dim::Any, Dim::Fixed(64)]).output(
        "y",
        DataType::Fp32,
        &[Dim::Any, Dim::Fixed(10)],
    );
    let (mut from, mut width) = ("x".to_owned(), 64);
    for layer in 0..=LAYERS {
        let (to, weight) = (format!("h{layer}"), format!("w{layer}"));
        model = model.weights(&weight, DataType::Fp32, &[width as i64, WIDTH as i64], weights(width * WIDTH));
        model = model.node("MatMul", &[&from, &weight], &[&to]);
        (from, width) = (to, WIDTH);
    }
    model.weights("last", DataType::Fp32, &[WIDTH as i64, 10], weights(WIDTH * 10)).node("MatMul", &[from.as_str(), "last"], &["y"]).build()
}

impl Limited {
    pub fn start(processor: usize, places: usize, service: Duration) -> Result<Self> {
        let mut command = on_processor(processor, &std::env::current_exe()?);
        command.arg("limited").args([places.to_string(), service.as_micros().to_string()]);
        let mut child = command.stdout(Stdio::piped()).spawn().context("starting the upstream")?;
        let out = child.stdout.take().context("its output is not there")?;
        let mut address = String::new();
        BufReader::new(out).read_line(&mut address)?;
        Ok(Self { child, address: address.trim().to_owned() })
    }
}

impl Drop for Limited {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Applies resources on a node.
pub async fn apply(node: &Node, resources: Value) -> Result<()> {
    let body = json!({ "resources": resources }).to_string();
    let target = Target::post(&format!("{}/v1/apply", node.http), body.as_bytes(), None, Some(&node.key))?;
    let mut connection = Connection::open(&target.address).await?;
    let answer = connection.exchange(&target).await?;
    if answer.status != 200 {
        bail!("the resources were refused with {}: {}", answer.status, String::from_utf8_lossy(answer.body));
    }
    Ok(())
}

/// Makes the request of a class.
type Ask = Box<dyn Fn(&str) -> Result<Target>>;

/// What is measured.
struct Subject {
    name: &'static str,
    ask: Ask,
    /// Connections that keep it busy.
    busy: usize,
}

/// What came of a subject.
#[derive(Serialize)]
struct Found {
    subject: &'static str,
    peak: f64,
    steps: Vec<(&'static str, Step, Window)>,
    /// The second second and on of 5 × and 10 ×.
    settled: [Window; 2],
    /// Seconds until all was as before.
    back: [Option<f64>; 2],
}

/// The steps, with their names, for a time unit.
fn steps(peak: f64, unit: f64) -> Vec<(&'static str, Step)> {
    let step = |name, times: f64, seconds| (name, Step { seconds, rate: peak * times });
    vec![
        step("to warm up", NORMAL, 1.5),
        step("normal (0.8 ×)", NORMAL, unit * 1.5),
        step("1 ×", 1.0, unit),
        step("0.8 × after 1 ×", NORMAL, 2.0),
        step("5 ×", 5.0, unit),
        step("0.8 × after 5 ×", NORMAL, unit),
        step("10 ×", 10.0, unit),
        step("0.8 × after 10 ×", NORMAL, unit),
    ]
}

async fn measure_one(subject: &Subject, unit: f64) -> Result<Found> {
    let busy = Traffic::http(&(subject.ask)("critical")?);
    let shape = |seconds| Shape { connections: subject.busy, seconds, rate: None };
    load::run(&busy, shape(1.0)).await?;
    let peak = load::run(&busy, shape(unit)).await?.per_second;
    let plan = steps(peak, unit);
    let kinds = CLASSES.iter().map(|(class, share)| Ok(Kind { target: (subject.ask)(class)?, share: *share })).collect::<Result<_>>()?;
    let all: Vec<Step> = plan.iter().map(|(_, step)| *step).collect();
    let record = open::offer(kinds, &all, CONNECTIONS, 0x5eed).await?;
    let (mut from, mut found) = (0.0, Vec::new());
    for (name, step) in plan {
        found.push((name, step, from, record.window(from, from + step.seconds)));
        from += step.seconds;
    }
    let start = |name: &str| found.iter().find(|(other, ..)| *other == name).map(|(_, step, from, _)| (*from, from + step.seconds));
    let normal = &found[1].3;
    let settled = ["5 ×", "10 ×"].map(|name| start(name).map(|(from, to)| record.window(from + 1.0, to)));
    let back = ["0.8 × after 5 ×", "0.8 × after 10 ×"].map(|name| start(name).and_then(|span| back(&record, span, normal)));
    let [Some(five), Some(ten)] = settled else { bail!("a step is missing") };
    let steps = found.iter().map(|(name, step, _, window)| (*name, *step, window.clone())).collect();
    Ok(Found { subject: subject.name, peak, steps, settled: [five, ten], back })
}

/// After how many seconds everything was as before and stayed so; `None`: not before the end.
fn back(record: &Record, (from, to): (f64, f64), normal: &Window) -> Option<f64> {
    let usual = normal.good as f64 / normal.offered.max(1) as f64;
    let pieces = ((to - from) / PIECE) as usize;
    let is_as_before = |piece: usize| {
        let at = from + piece as f64 * PIECE;
        let window = record.window(at, at + PIECE);
        let slow = record
            .answers
            .iter()
            .filter(|answer| (at..at + PIECE).contains(&answer.due) && answer.status == 200 && answer.took_us > 1.25 * normal.p99_us);
        // A piece is short: one in twenty may be slower than what one in a hundred is otherwise.
        window.good as f64 >= (usual - 0.02) * window.offered as f64 && slow.count() * 20 <= window.good
    };
    let last_bad = (0..pieces).rev().find(|piece| !is_as_before(*piece));
    let back = last_bad.map_or(0.0, |piece| (piece + 1) as f64 * PIECE);
    (back < to - from - PIECE / 2.0).then_some(back)
}

/// The judged lines of a subject.
fn lines(found: &Result<Found, String>, name: &str) -> Vec<Line> {
    let mut lines = Vec::new();
    for (at, (times, share)) in [("5 ×", 0.95), ("10 ×", 0.9)].into_iter().enumerate() {
        let what = |what: &str| format!("{name}, {times} the peak: {what}");
        let of = |step: &str| found.as_ref().ok()?.steps.iter().find(|(name, ..)| *name == step).map(|(_, _, window)| window);
        let window = of(times);
        let trouble = match (found, window) {
            (Err(why), _) => Some(why.clone()),
            (Ok(_), Some(window)) => window.trouble(),
            (Ok(_), None) => Some("the step is missing".to_owned()),
        };
        let why = trouble.clone().unwrap_or_default();
        let judged = found.as_ref().ok().filter(|_| trouble.is_none()).zip(window).zip(of("normal (0.8 ×)"));
        let goodput = judged.map(|((found, window), _)| window.goodput / found.peak);
        lines.push(Line::at_least(what("goodput over the peak"), share, goodput, &why));
        let p99 = judged.map(|((found, _), normal)| found.settled[at].p99_us / normal.p99_us);
        lines.push(Line::at_most(what("p99 of those let in, from the second second on, over normal"), 1.25, p99, &why));
        let (refusals, bar) = (what("99 % of the refusals are answered"), "within 5 ms");
        lines.push(match judged {
            Some(((_, window), _)) => {
                let ms = window.refusal_p99_us / 1000.0;
                Line::judged(refusals, bar, format!("{ms:.1} ms"), ms <= 5.0)
            }
            None => Line::missing(refusals, bar, &why),
        });
        let (normal_again, bar) = (what("normal again after the surge"), "within 3 s");
        lines.push(match (judged, found) {
            (Some(_), Ok(found)) => match found.back[at] {
                Some(seconds) => Line::judged(normal_again, bar, format!("{seconds:.2} s"), seconds <= 3.0),
                None => Line::judged(normal_again, bar, "not before the next step", false),
            },
            _ => Line::missing(normal_again, bar, &why),
        });
        if let Some(window) = window {
            lines.push(Line::plain(what("failed otherwise (no answer, other statuses)"), window.failed.to_string()));
        }
    }
    lines
}

fn table(found: &Found) -> String {
    let mut text = format!("\n{}: the peak is {:.0} requests/s.\n\n", found.subject, found.peak);
    text.push_str("| step | offered/s | good/s | refused/s | failed | p50 ms | p99 ms | p99 of refusals ms | good of each class: critical, default, sheddable, background | the generator's own p99 lateness ms |\n");
    text.push_str("|---|---:|---:|---:|---:|---:|---:|---:|---|---:|\n");
    let row = |name: &str, window: &Window| {
        let per_second = |count: usize| count as f64 / window.seconds;
        let classes: Vec<String> =
            window.kinds.iter().map(|(good, offered)| format!("{:.0} %", 100.0 * *good as f64 / (*offered).max(1) as f64)).collect();
        format!(
            "| {name} | {:.0} | {:.0} | {:.0} | {} | {:.1} | {:.1} | {:.1} | {} | {:.2} |\n",
            per_second(window.offered),
            window.goodput,
            per_second(window.refused),
            window.failed,
            window.p50_us / 1000.0,
            window.p99_us / 1000.0,
            window.refusal_p99_us / 1000.0,
            classes.join(", "),
            window.late_p99_us / 1000.0
        )
    };
    for (name, _, window) in &found.steps {
        text.push_str(&row(name, window));
    }
    for (name, window) in ["5 × from the second second on", "10 × from the second second on"].iter().zip(&found.settled) {
        text.push_str(&row(name, window));
    }
    text
}

/// The node with an upstream of a fixed service time.
async fn upstream(setup: &Setup, unit: f64) -> Result<Found> {
    let limited = Limited::start(OTHERS, PLACES, SERVICE)?;
    let mut home = Home::with(setup, &[("limits.ban_requests", "0")])?;
    let node = home.start_on(NODE)?;
    let resources = json!([
        {"kind": "upstream", "name": "limited", "spec": {"endpoints": [{"url": format!("http://{}", limited.address)}], "allow_networks": ["127.0.0.0/8"]}},
        {"kind": "route", "name": "limited", "spec": {"matches": {"path": {"prefix": "/limited"}}, "targets": [{"to": {"upstream": "limited"}}]}},
    ]);
    apply(&node, resources).await?;
    let (url, key) = (format!("{}/limited", node.http), node.key.clone());
    let ask = move |class: &str| Target::post_with(&url, &[b'x'; 128], None, Some(&key), &[("X-Plinth-Criticality", class)]);
    measure_one(&Subject { name: "upstream", ask: Box::new(ask), busy: PLACES }, unit).await
}

/// The node with a model that keeps its processor busy. Each request is executed by itself, and what its queue holds is bounded as its
/// configuration can say.
async fn model(setup: &Setup, unit: f64) -> Result<Found> {
    let directory = tempfile::tempdir()?;
    let onnx = net();
    let net = Model { name: "net", onnx: &onnx, max_batch: 1, input: ("x", &[64]), outputs: &[("y", "FP32", &[10])] };
    let policy = "dynamic_batching { default_queue_policy { timeout_action: REJECT max_queue_size: 6 } }";
    plinth::batched(&net, policy, directory.path())?;
    let mut home = Home::with(setup, &[("limits.ban_requests", "0")])?;
    let node = home.start_on(NODE)?;
    node.push("net", directory.path(), true)?;
    let body = body::binary("x", &[1, 64]);
    let (url, key) = (node.infer_url("net"), node.key.clone());
    let ask = move |class: &str| Target::post_with(&url, &body.bytes, body.header_length, Some(&key), &[("X-Plinth-Criticality", class)]);
    measure_one(&Subject { name: "model", ask: Box::new(ask), busy: 4 }, unit).await
}

/// Measures and writes `surge`.
pub async fn measure(setup: &Setup, seconds: f64) -> Result<Verdict> {
    let stay = open::Stay::on(OTHERS)?;
    let unit = seconds.max(1.0);
    let text_of = |error: anyhow::Error| format!("{error:#}");
    let upstream = upstream(setup, unit).await.map_err(text_of);
    let model = model(setup, unit).await.map_err(text_of);
    drop(stay);
    let mut all = lines(&upstream, "upstream");
    all.extend(lines(&model, "model"));
    let text: String = [&upstream, &model].into_iter().filter_map(|found| found.as_ref().ok()).map(table).collect();
    setup.finish(&Part {
        name: "surge",
        title: "A surge: five and ten times the peak",
        how: &format!("open loop, Poisson arrivals, up to {CONNECTIONS} connections, {unit:.1} s for each step"),
        about: &format!(
            "15 % of the requests are critical, 55 % default, 20 % sheddable, 10 % background. Upstream: a service that answers {PLACES} at a time, each after {} ms; the node has learned \
             nothing of it beforehand. Model: a net of four layers of {WIDTH} × {WIDTH} on the node itself, 64 floats in binary, executed one by one, with a queue of at most 6 requests. \
             The node has one processor, and the model's process shares it; the generator and the upstream have the other. Times count from when a request was due. Normal is 80 % of the peak. A step that the generator could not \
             offer is not judged. The digits model is not here: a request of it costs about 35 µs of the node's processor and a refusal about half of that (reading the request and \
             answering it in the kernel, most of all), so nothing that answers its refusals could keep 95 % of the peak at five times of it.",
            SERVICE.as_millis()
        ),
        lines: &all,
        text: &text,
        figures: json!({ "upstream": upstream, "model": model }),
    })
}
