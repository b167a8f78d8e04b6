//! The table: every model × encoding × number of connections, both servers in each row.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use serde::Serialize;

use crate::Shape;
use crate::bare::Bare;
use crate::body;
use crate::exchange::Target;
use crate::load::{self, Report, Traffic};
use crate::plinth::{self, Home};
use crate::process;
use crate::setup::Setup;

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

/// How long both sides run before they are measured.
const WARM_UP_SECONDS: f64 = 0.3;

#[derive(Serialize)]
struct Row {
    model: &'static str,
    encoding: &'static str,
    plinth: Report,
    bare: Report,
    ratio: f64,
}

#[derive(Serialize)]
struct Figures<'a> {
    commit: &'a str,
    date: &'a str,
    rows: &'a [Row],
    resident_kib: u64,
}

/// Measures everything and writes the table.
pub async fn measure(setup: &Setup, cell: Duration) -> Result<()> {
    let directory = tempfile::tempdir()?;
    let mut home = Home::new(setup)?;
    let node = home.start()?;
    let mut rows = Vec::new();
    print!("{}", head());
    for case in &CASES {
        let model = directory.path().join(case.model);
        match case.model {
            "digits" => plinth::digits(setup, "2", case.model, &model)?,
            _ => plinth::identity(case.shape[1], &model)?,
        }
        node.push(case.model, &model, true)?;
        let bare = Bare::start(&model.join("model.onnx"), &setup.onnxruntime)?;
        for (encoding, body) in [("JSON", body::json(case.input, &case.shape)), ("binary", body::binary(case.input, &case.shape))] {
            let target = |url: &str, key| Ok::<_, anyhow::Error>(Traffic::http(&Target::post(url, &body.bytes, body.header_length, key)?));
            let (ours, theirs) = (target(&node.infer_url(case.model), Some(&node.key))?, target(&bare.url(), None)?);
            for connections in CONNECTIONS {
                let (plinth, bare) = both(&ours, &theirs, connections, cell).await?;
                let ratio = plinth.per_second / bare.per_second;
                let row = Row { model: case.model, encoding, plinth, bare, ratio };
                println!("{}", line(&row));
                rows.push(row);
            }
        }
    }
    write(setup, cell, &rows, process::resident_kib(node.pid())?)
}

/// Both servers for the same time, in two halves each, so that a machine that slows down hurts both.
pub async fn both(ours: &Arc<Traffic>, theirs: &Arc<Traffic>, connections: usize, cell: Duration) -> Result<(Report, Report)> {
    let shape = |seconds| Shape { connections, seconds, rate: None };
    for target in [ours, theirs] {
        load::run(target, shape(WARM_UP_SECONDS)).await?;
    }
    let half = cell.as_secs_f64() / 2.0;
    let (ours_1, theirs_1) = (load::run(ours, shape(half)).await?, load::run(theirs, shape(half)).await?);
    let (theirs_2, ours_2) = (load::run(theirs, shape(half)).await?, load::run(ours, shape(half)).await?);
    Ok((ours_1.merge(&ours_2)?, theirs_1.merge(&theirs_2)?))
}

fn head() -> String {
    "| model | body | connections | Plinth req/s | bare req/s | ratio | Plinth p50 / p99 µs | bare p50 / p99 µs | errors |\n\
     |---|---|---:|---:|---:|---:|---:|---:|---:|\n"
        .to_owned()
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

fn write(setup: &Setup, cell: Duration, rows: &[Row], resident_kib: u64) -> Result<()> {
    let how = format!("{:.1} s for each cell and server, closed loop", cell.as_secs_f64());
    let mut text = format!("# Plinth beside a bare HTTP server with ONNX Runtime\n\n{}\n\n", setup.heading(&how));
    text.push_str(
        "The bare server is one process with two sessions: no checks, no keys, no metrics, no isolation. Plinth asks for a key, checks \
         the request against the model, counts, and runs the model in a child process.\n\n",
    );
    text.push_str(&head());
    for row in rows {
        writeln!(text, "{}", line(row))?;
    }
    writeln!(text, "\nResident memory of the node process after the run: {:.1} MiB.", resident_kib as f64 / 1024.0)?;
    setup.write("table", &text, &Figures { commit: &setup.commit, date: &setup.date, rows, resident_kib })
}
