//! The table: every model × encoding × number of connections, both servers in each row.

use std::fmt::Write as _;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};
use plinth_engine::testing::onnx_model;
use plinth_types::{DataType, Dim};
use serde::Serialize;

use crate::Shape;
use crate::body::{self, Body};
use crate::load::{self, Report, Target};
use crate::plinth::Node;

/// What to measure with.
pub struct Plan {
    pub plinth: PathBuf,
    pub onnxruntime: PathBuf,
    pub digits: PathBuf,
    pub out: PathBuf,
    pub cell: Duration,
    pub commit: String,
    pub date: String,
}

struct Case {
    model: &'static str,
    input: &'static str,
    shape: [usize; 2],
}

const CASES: [Case; 3] = [
    Case { model: "digits", input: "image", shape: [1, 64] },
    Case { model: "identity_1k", input: "x", shape: [1, 256] },
    Case { model: "identity_1m", input: "x", shape: [1, 262_144] },
];
const CONNECTIONS: [usize; 3] = [1, 16, 64];

#[derive(Serialize)]
struct Row {
    model: &'static str,
    encoding: &'static str,
    plinth: Report,
    bare: Report,
    ratio: f64,
}

struct Bare(Child, String);

impl Drop for Bare {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Bare {
    fn start(model: &Path, library: &Path) -> Result<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .arg("bare")
            .arg(model)
            .arg("--onnxruntime")
            .arg(library)
            .stdout(Stdio::piped())
            .spawn()
            .context("starting the bare server")?;
        let mut line = String::new();
        BufReader::new(child.stdout.take().context("no output")?).read_line(&mut line)?;
        Ok(Self(child, line.trim().to_owned()))
    }
}

/// Measures everything and writes the table.
pub async fn measure(plan: &Plan) -> Result<()> {
    let directory = tempfile::tempdir()?;
    let node = Node::start(&plan.plinth, &plan.onnxruntime)?;
    let mut rows = Vec::new();
    for case in &CASES {
        let model = directory.path().join(case.model);
        prepare(case, plan, &model)?;
        node.push(case.model, &model)?;
        let bare = Bare::start(&model.join("model.onnx"), &plan.onnxruntime)?;
        for (encoding, body) in [("json", body::json(case.input, case.shape)), ("binary", body::binary(case.input, case.shape))] {
            let ours = target(&format!("{}/v2/models/{}/infer", node.http, case.model), &body, Some(&node.key))?;
            let theirs = target(&format!("http://{}/", bare.1), &body, None)?;
            for connections in CONNECTIONS {
                rows.push(row(case.model, encoding, &ours, &theirs, connections, plan.cell).await?);
                if let Some(row) = rows.last() {
                    println!("{}", line(row));
                }
            }
        }
    }
    write(plan, &rows, node.resident_mib()?)
}

fn prepare(case: &Case, plan: &Plan, to: &Path) -> Result<()> {
    std::fs::create_dir_all(to)?;
    if case.model == "digits" {
        for file in ["model.onnx", "config.pbtxt"] {
            std::fs::copy(plan.digits.join(file), to.join(file)).with_context(|| format!("copying {file}"))?;
        }
        return Ok(());
    }
    let shape = [Dim::Any, Dim::Fixed(case.shape[1] as u64)];
    std::fs::write(to.join("model.onnx"), onnx_model::identity(DataType::Fp32, &shape))?;
    Ok(())
}

fn target(url: &str, body: &Body, key: Option<&str>) -> Result<Target> {
    Target::new(url, &body.bytes, body.header_length, key)
}

/// Both servers for the same time, in two halves each, so that a machine that slows down hurts both.
async fn row(
    model: &'static str,
    encoding: &'static str,
    ours: &Target,
    theirs: &Target,
    connections: usize,
    cell: Duration,
) -> Result<Row> {
    let shape = |seconds| Shape { connections, seconds, rate: None };
    for target in [ours, theirs] {
        load::run(target, shape(0.3)).await?;
    }
    let half = cell.as_secs_f64() / 2.0;
    let (a1, b1) = (load::run(ours, shape(half)).await?, load::run(theirs, shape(half)).await?);
    let (b2, a2) = (load::run(theirs, shape(half)).await?, load::run(ours, shape(half)).await?);
    let (plinth, bare) = (merge(a1, a2), merge(b1, b2));
    let ratio = plinth.per_second / bare.per_second;
    Ok(Row { model, encoding, plinth, bare, ratio })
}

/// Two halves as one: counts add up, the worse of two latencies stands.
fn merge(a: Report, b: Report) -> Report {
    let seconds = a.seconds + b.seconds;
    let requests = a.requests + b.requests;
    Report {
        connections: a.connections,
        seconds,
        requests,
        errors: a.errors + b.errors,
        per_second: requests as f64 / seconds,
        p50_us: f64::midpoint(a.p50_us, b.p50_us),
        p95_us: a.p95_us.max(b.p95_us),
        p99_us: a.p99_us.max(b.p99_us),
        max_us: a.max_us.max(b.max_us),
    }
}

fn line(row: &Row) -> String {
    format!(
        "| {} | {} | {} | {:.0} | {:.0} | {:.2} | {:.0} / {:.0} | {:.0} / {:.0} | {} / {} |",
        row.model,
        row.encoding,
        row.plinth.connections,
        row.plinth.per_second,
        row.bare.per_second,
        row.ratio,
        row.plinth.p50_us,
        row.plinth.p99_us,
        row.bare.p50_us,
        row.bare.p99_us,
        row.plinth.errors,
        row.bare.errors,
    )
}

fn write(plan: &Plan, rows: &[Row], resident_mib: f64) -> Result<()> {
    let mut text = String::from("# Plinth beside a bare HTTP server with ONNX Runtime\n\n");
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    writeln!(
        text,
        "Commit {} · {} · {cores} cores, load generator on the same machine · {:.1} s a cell and server, closed loop · `make bench`\n",
        plan.commit,
        plan.date,
        plan.cell.as_secs_f64()
    )?;
    writeln!(
        text,
        "The bare server has one process, two sessions, no checks, no isolation. Plinth runs the model in a child process and asks for a key.\n"
    )?;
    writeln!(
        text,
        "| model | body | connections | Plinth req/s | bare req/s | ratio | Plinth p50 / p99 µs | bare p50 / p99 µs | errors |"
    )?;
    writeln!(text, "|---|---|---|---|---|---|---|---|---|")?;
    for row in rows {
        writeln!(text, "{}", line(row))?;
    }
    writeln!(text, "\nResident memory of the node process after the run: {resident_mib:.1} MiB.")?;
    if let Some(parent) = plan.out.parent() {
        std::fs::create_dir_all(parent)?;
    }
    std::fs::write(plan.out.with_extension("md"), text)?;
    std::fs::write(plan.out.with_extension("json"), serde_json::to_string_pretty(rows)?)?;
    Ok(())
}
