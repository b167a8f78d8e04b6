//! The table that nobody publishes: one element and 16 MB through a model that does nothing, by every way in.
//!
//! HTTP with JSON, HTTP with bytes, gRPC, and system shared memory named over each; one caller and 16. Plinth and Triton in
//! turn within each cell. Placing a tensor in shared memory and reading it there is the client's work, and is not counted.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Result, ensure};
use plinth_engine::testing::onnx_model;
use plinth_types::{DataType, Dim};
use serde_json::json;

use crate::body;
use crate::exchange::{Connection, Target};
use crate::grpc;
use crate::line::{Line, Verdict};
use crate::load::{Call, Traffic};
use crate::plinth::{self, Home, Model};
use crate::rivals::optional;
use crate::rivals::triton::{Deployed, Triton};
use crate::setup::{Part, Setup};
use crate::sides::{Outcome, Side, Times, interleave};

struct Size {
    name: &'static str,
    model: &'static str,
    columns: usize,
    max_batch: usize,
}

/// 16 MB: 4,194,304 floats.
const SIZES: [Size; 2] = [
    Size { name: "1 element", model: "identity_1", columns: 1, max_batch: 64 },
    Size { name: "16 MB", model: "identity_16m", columns: 1 << 22, max_batch: 1 },
];
const CLIENTS: [usize; 2] = [1, 16];
const WAYS: [Way; 5] = [Way::Json, Way::Binary, Way::Grpc, Way::SharedHttp, Way::SharedGrpc];

#[derive(Clone, Copy, PartialEq)]
enum Way {
    Json,
    Binary,
    Grpc,
    SharedHttp,
    SharedGrpc,
}

impl Way {
    const fn name(self) -> &'static str {
        match self {
            Self::Json => "HTTP JSON",
            Self::Binary => "HTTP binary",
            Self::Grpc => "gRPC",
            Self::SharedHttp => "shared memory over HTTP",
            Self::SharedGrpc => "shared memory over gRPC",
        }
    }
}

/// Where a server is, and with which key.
struct Door<'a> {
    name: &'static str,
    http: &'a str,
    grpc: &'a str,
    key: Option<&'a str>,
}

/// The regions of the clients: POSIX shared memory, deleted with this.
struct Regions(Vec<PathBuf>);

impl Regions {
    fn name(size: &Size, client: usize) -> String {
        format!("plinth-bench-{}-{}-{client}", std::process::id(), size.model)
    }

    /// Makes them, each with an input at its beginning and room for the output, and registers them.
    async fn make(size: &Size, doors: &[Door<'_>]) -> Result<Self> {
        let mut regions = Self(Vec::new());
        let input = body::raw(&[1, size.columns]);
        for client in 0..CLIENTS[1] {
            let name = Self::name(size, client);
            let path = PathBuf::from("/dev/shm").join(&name);
            regions.0.push(path.clone());
            std::fs::write(&path, [&input[..], &vec![0; input.len()]].concat())?;
            for door in doors {
                let call = json!({ "key": format!("/{name}"), "offset": 0, "byte_size": input.len() * 2 }).to_string();
                let url = format!("{}/v2/systemsharedmemory/region/{name}/register", door.http);
                let target = Target::post(&url, call.as_bytes(), None, door.key)?;
                let mut connection = Connection::open(&target.address).await?;
                let answer = connection.exchange(&target).await?;
                ensure!(answer.status == 200, "{} does not register shared memory: {}", door.name, String::from_utf8_lossy(answer.body));
            }
        }
        Ok(regions)
    }
}

impl Drop for Regions {
    fn drop(&mut self) {
        for path in &self.0 {
            let _ = std::fs::remove_file(path);
        }
    }
}

fn traffic(door: &Door<'_>, size: &Size, way: Way) -> Result<Arc<Traffic>> {
    let shape = [1, size.columns];
    let url = format!("{}/v2/models/{}/infer", door.http, size.model);
    let http = |body: &body::Body| Target::post(&url, &body.bytes, body.header_length, door.key);
    let each = |call: &dyn Fn(&str) -> Result<Call>| -> Result<Arc<Traffic>> {
        Ok(Traffic::own((0..CLIENTS[1]).map(|client| call(&Regions::name(size, client))).collect::<Result<_>>()?))
    };
    match way {
        Way::Json => Ok(Traffic::http(&http(&body::json("x", &shape))?)),
        Way::Binary => Ok(Traffic::http(&http(&body::binary("x", &shape))?)),
        Way::Grpc => Ok(Traffic::grpc(&grpc::infer(door.grpc, door.key, size.model, "x", &shape)?)),
        Way::SharedHttp => each(&|region| Ok(Call::Http(http(&body::shared("x", "y", &shape, region))?))),
        Way::SharedGrpc => each(&|region| Ok(Call::Grpc(grpc::infer_shared(door.grpc, door.key, size.model, ("x", "y"), &shape, region)?))),
    }
}

struct Cell {
    size: &'static Size,
    way: Way,
    clients: usize,
    outcomes: Vec<Outcome>,
}

/// Measures and writes `sizes`.
pub async fn measure(setup: &Setup, seconds: f64) -> Result<Verdict> {
    let limits = [
        ("http.max_body", "\"128MiB\""),
        ("http.body_memory", "\"4GiB\""),
        ("grpc.max_message", "\"128MiB\""),
        ("engine.max_queue_bytes", "\"2GiB\""),
        ("engine.shared_memory", "\"2GiB\""),
        ("shared_memory.enabled", "true"),
        ("shared_memory.prefix", "\"plinth-bench-\""),
    ];
    let directory = tempfile::tempdir()?;
    let mut home = Home::with(setup, &limits)?;
    let node = home.start()?;
    let onnx: Vec<Vec<u8>> =
        SIZES.iter().map(|s| onnx_model::identity(DataType::Fp32, &[Dim::Any, Dim::Fixed(s.columns as u64)])).collect();
    let columns: Vec<[usize; 1]> = SIZES.iter().map(|size| [size.columns]).collect();
    let outputs: Vec<[(&str, &str, &[usize]); 1]> = columns.iter().map(|shape| [("y", "FP32", &shape[..])]).collect();
    let model = |i: usize| Model {
        name: SIZES[i].model,
        onnx: &onnx[i],
        max_batch: SIZES[i].max_batch,
        input: ("x", &columns[i]),
        outputs: &outputs[i],
    };
    for (i, size) in SIZES.iter().enumerate() {
        let to = directory.path().join(size.model);
        plinth::batched(&model(i), "dynamic_batching { }", &to)?;
        node.push(size.model, &to, true)?;
    }
    let deployed = [Deployed { model: model(0), instances: 1 }, Deployed { model: model(1), instances: 2 }];
    let triton = optional("Triton", Triton::start(setup, &deployed).await);
    let mut doors = vec![Door { name: "Plinth", http: &node.http, grpc: &node.grpc, key: Some(&node.key) }];
    if let Ok(triton) = &triton {
        doors.push(Door { name: "Triton", http: triton.http(), grpc: &triton.grpc, key: None });
    }

    let (mut cells, mut lines) = (Vec::new(), Vec::new());
    for size in &SIZES {
        let regions = optional("shared memory", Regions::make(size, &doors).await);
        for way in WAYS {
            if let (Err(why), Way::SharedHttp | Way::SharedGrpc) = (&regions, way) {
                lines.push(Line::missing(format!("{}, {}", size.name, way.name()), "measured", why));
                continue;
            }
            let sides: Vec<Side> = doors.iter().map(|d| Ok(Side::new(d.name, traffic(d, size, way)?))).collect::<Result<_>>()?;
            for clients in CLIENTS {
                let times = Times { warm_up: seconds.min(0.2), half: seconds / 2.0 };
                let outcomes = interleave(&sides, clients, times).await;
                for outcome in outcomes.iter().filter(|outcome| outcome.side == "Plinth") {
                    if let Some(trouble) = outcome.trouble() {
                        lines.push(Line::missing(format!("{}, {}, {clients} clients", size.name, way.name()), "measured", &trouble));
                    }
                }
                cells.push(Cell { size, way, clients, outcomes });
            }
        }
        // The regions go before the next size makes its own.
        drop(regions);
    }
    let mut text = table(&cells)?;
    if let Err(why) = &triton {
        writeln!(text, "\nTriton was not measured: {why}.")?;
    }
    let figures = cells.iter().map(|cell| {
        json!({ "size": cell.size.name, "elements": cell.size.columns, "way": cell.way.name(), "clients": cell.clients, "sides": cell.outcomes })
    });
    setup.finish(&Part {
        name: "sizes",
        title: "One element and 16 MB by every way in",
        how: &format!("{seconds:.1} s for each cell and server, in two halves, closed loop"),
        about: "An identity model, so that what is measured is the way there and back. MB/s counts the tensor's bytes, in and out, whatever they look like on the wire (1 MB is 10⁶ bytes; \
                \"16 MB\" is 4,194,304 floats, 16.8 MB). With shared memory the client's own writing and reading is not counted. Limits on bodies and messages are raised by configuration. Triton: \
                Python backend calling ONNX Runtime.",
        lines: &lines,
        text: &text,
        figures: json!({ "cells": figures.collect::<Vec<_>>() }),
    })
}

fn table(cells: &[Cell]) -> Result<String> {
    let mut text =
        "| tensor | way | clients | server | requests/s | MB/s | p50 µs | p99 µs | trouble |\n|---|---|---:|---|---:|---:|---:|---:|---|\n"
            .to_owned();
    for Cell { size, way, clients, outcomes } in cells {
        for outcome in outcomes {
            let (name, way, server) = (size.name, way.name(), &outcome.side);
            match outcome.good() {
                Some(report) => {
                    let megabytes = report.per_second * size.columns as f64 * 8.0 / 1e6;
                    let rate =
                        if report.per_second < 100.0 { format!("{:.1}", report.per_second) } else { format!("{:.0}", report.per_second) };
                    writeln!(
                        text,
                        "| {name} | {way} | {clients} | {server} | {rate} | {megabytes:.1} | {:.0} | {:.0} | |",
                        report.p50_us, report.p99_us
                    )?;
                }
                None => {
                    writeln!(text, "| {name} | {way} | {clients} | {server} | – | – | – | – | {} |", outcome.trouble().unwrap_or_default())?
                }
            }
        }
    }
    Ok(text)
}
