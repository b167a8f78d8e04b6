//! How many requests per second does each server answer for a small real model, the same bytes to all in one run?
//!
//! Plinth as `plinth up` starts it, with keys and metrics on; the bare server; Triton; MLServer. JSON, binary HTTP, gRPC.

use std::fmt::Write as _;
use std::sync::Arc;

use anyhow::Result;
use plinth_engine::testing::onnx_model::ModelBuilder;
use plinth_types::{DataType, Dim};
use serde_json::json;

use crate::bare::Bare;
use crate::body::{self, Body};
use crate::exchange::Target;
use crate::grpc;
use crate::line::{Line, Verdict};
use crate::load::Traffic;
use crate::plinth::{self, Home, Model};
use crate::rivals::mlserver::{self, MlServer};
use crate::rivals::optional;
use crate::rivals::triton::{Deployed, Triton};
use crate::setup::{Part, Setup};
use crate::sides::{Outcome, Side, Times, interleave, ratio};

const CONNECTIONS: [usize; 2] = [16, 64];
const SHAPE: [usize; 2] = [1, 64];
/// What image models take.
const PICTURE: [usize; 4] = [1, 3, 224, 224];

/// The digits model under another name, for servers other than Plinth.
pub fn model<'a>(name: &'a str, onnx: &'a [u8]) -> Model<'a> {
    Model { name, onnx, max_batch: 64, input: ("image", &[64]), outputs: &[("probabilities", "FP32", &[10]), ("label", "INT64", &[1])] }
}

fn http(url: &str, body: &Body, key: Option<&str>) -> Result<Arc<Traffic>> {
    Ok(Traffic::http(&Target::post(url, &body.bytes, body.header_length, key)?))
}

/// The better of several variants of a rival in a quick look, so that it is measured at its best.
async fn better(variants: Vec<Side>, half: f64) -> Option<String> {
    let outcomes = interleave(&variants, 16, Times { warm_up: half, half }).await;
    let good = outcomes.iter().filter_map(|outcome| Some((outcome.good()?.per_second, &outcome.side)));
    good.max_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, name)| name.clone())
}

/// A model that returns the first ten values of its input: what it takes and hardly computes.
fn first_of(shape: &[usize]) -> Vec<u8> {
    let dims: Vec<Dim> = shape.iter().map(|size| Dim::Fixed(*size as u64)).collect();
    let number = |n: i64| n.to_le_bytes().to_vec();
    ModelBuilder::new()
        .input("x", DataType::Fp32, &dims)
        .output("y", DataType::Fp32, &[Dim::Fixed(10)])
        .weights("flat", DataType::Int64, &[1], number(-1))
        .weights("from", DataType::Int64, &[1], number(0))
        .weights("to", DataType::Int64, &[1], number(10))
        .node("Reshape", &["x", "flat"], &["all"])
        .node("Slice", &["all", "from", "to"], &["y"])
        .build()
}

/// Measures and writes `digits`.
pub async fn measure(setup: &Setup, seconds: f64) -> Result<Verdict> {
    let half = seconds / 2.0;
    let directory = tempfile::tempdir()?;
    plinth::digits(setup, "2", "digits", directory.path())?;
    let file = directory.path().join("model.onnx");
    let onnx = std::fs::read(&file)?;
    let mut home = Home::new(setup)?;
    let node = home.start()?;
    node.push("digits", directory.path(), true)?;
    let bare = Bare::start(&file, &setup.onnxruntime)?;
    let both = [1, 2].map(|instances| Deployed { model: model(["digits_1", "digits_2"][instances - 1], &onnx), instances });
    let triton = optional("Triton", Triton::start(setup, &both).await);
    let mlserver = optional("MLServer", MlServer::start(setup, &onnx).await);

    let (json, binary) = (body::json("image", &SHAPE), body::binary("image", &SHAPE));
    let key = Some(node.key.as_str());
    let look = half.min(1.0);
    let triton_model = match &triton {
        Ok(triton) => {
            let side = |name: &str| Ok::<_, anyhow::Error>(Side::new(name, http(&triton.infer_url(name), &json, None)?));
            better(vec![side("digits_1")?, side("digits_2")?], look).await
        }
        Err(_) => None,
    };
    let ml_model = match &mlserver {
        Ok(server) => {
            let sides = mlserver::VARIANTS.iter().map(|name| Ok(Side::new(*name, http(&server.infer_url(name), &json, None)?)));
            better(sides.collect::<Result<_>>()?, look).await
        }
        Err(_) => None,
    };

    let mut sides = Vec::new();
    for (name, body) in [("JSON", &json), ("binary", &binary)] {
        sides.push(Side::new(format!("Plinth {name}"), http(&node.infer_url("digits"), body, key)?));
        sides.push(Side::new(format!("bare {name}"), http(&bare.url(), body, None)?));
        if let (Ok(triton), Some(model)) = (&triton, &triton_model) {
            sides.push(Side::new(format!("Triton {name}"), http(&triton.infer_url(model), body, None)?));
        }
    }
    if let (Ok(server), Some(model)) = (&mlserver, &ml_model) {
        sides.push(Side::new("MLServer JSON", http(&server.infer_url(model), &json, None)?));
    }
    sides.push(Side::new("Plinth gRPC", Traffic::grpc(&grpc::infer(&node.grpc, key, "digits", "image", &SHAPE)?)));
    if let (Ok(triton), Some(model)) = (&triton, &triton_model) {
        sides.push(Side::new("Triton gRPC", Traffic::grpc(&grpc::infer(&triton.grpc, None, model, "image", &SHAPE)?)));
    }

    let mut all = Vec::new();
    for connections in CONNECTIONS {
        all.push((connections, interleave(&sides, connections, Times { warm_up: 0.5_f64.min(half), half }).await));
    }
    // What a binary body saves grows with the tensor: one picture as image models take it, over the same connections.
    let large_at = directory.path().join("picture");
    std::fs::create_dir_all(&large_at)?;
    std::fs::write(large_at.join("model.onnx"), first_of(&PICTURE))?;
    node.push("picture", &large_at, true)?;
    let (json, binary) = (body::json("x", &PICTURE), body::binary("x", &PICTURE));
    let side = |name: &str, body: &Body| Ok::<_, anyhow::Error>(Side::new(name, http(&node.infer_url("picture"), body, key)?));
    let pictures = [side("Plinth JSON, 3 × 224 × 224 floats", &json)?, side("Plinth binary, 3 × 224 × 224 floats", &binary)?];
    let pictures = interleave(&pictures, CONNECTIONS[0], Times { warm_up: 0.5_f64.min(half), half }).await;

    let why = |result: &Result<(), String>| result.clone().err().unwrap_or_else(|| "a side failed".to_owned());
    let mut lines =
        judge(&all, &why(&triton.as_ref().map(|_| ()).map_err(Clone::clone)), &why(&mlserver.as_ref().map(|_| ()).map_err(Clone::clone)));
    let what = "Plinth: binary HTTP over JSON with 3 × 224 × 224 floats in and 10 out, 16 connections";
    let trouble = pictures.iter().find_map(Outcome::trouble).unwrap_or_default();
    lines.push(match ratio(pictures.last(), pictures.first()) {
        Some(ratio) => Line::plain(what, format!("{ratio:.2} ×")),
        None => Line::plain(what, format!("not measured: {trouble}")),
    });
    for (connections, outcomes) in &all {
        let of = |wanted: &str| outcomes.iter().find(|outcome| outcome.side == wanted);
        if let Some(ratio) = ratio(of("bare binary"), of("bare JSON")) {
            lines.push(Line::plain(format!("bare server: binary HTTP over JSON, {connections} connections"), format!("{ratio:.2} ×")));
        }
    }
    let mut shown = all.clone();
    shown.push((CONNECTIONS[0], pictures.clone()));
    let chosen = format!(
        "Triton's variant: {}. MLServer's variant: {}.",
        triton_model.as_deref().unwrap_or("none, it is not there"),
        ml_model.as_deref().unwrap_or("none, it is not there")
    );
    let text = format!("{}\n{chosen}\n", table(&shown)?);
    setup.finish(&Part {
        name: "digits",
        title: "The digits model beside other servers",
        how: &format!("{seconds:.1} s for each cell, in two halves, closed loop"),
        about: "The same request (64 floats in, 10 floats and a label out, a few µs of compute) to each server on this machine, by our own load generator over as many \
                connections as the row says, the servers in turn and then in the opposite order. Plinth: keys, checks, metrics and a process of its own for the model. Bare: hyper and \
                ONNX Runtime in one process, nothing else. Triton: the `tritonserver` of `nvidia-pytriton`, its Python backend calling ONNX Runtime with dynamic batching, one or two instances, whichever was \
                faster. MLServer: a custom runtime calling ONNX Runtime, with or without adaptive batching, whichever was faster.",
        lines: &lines,
        text: &text,
        figures: json!({ "cells": all.iter().map(|(connections, outcomes)| json!({ "connections": connections, "sides": outcomes })).collect::<Vec<_>>(),
                         "pictures": pictures, "triton_variant": triton_model, "mlserver_variant": ml_model }),
    })
}

fn judge(all: &[(usize, Vec<Outcome>)], no_triton: &str, no_mlserver: &str) -> Vec<Line> {
    let mut lines = Vec::new();
    for (connections, outcomes) in all {
        let of = |name: &str| outcomes.iter().find(|outcome| outcome.side == name);
        let mut line = |what: &str, goal, ours: &str, theirs: &str, why: &str| {
            let trouble = of(ours).and_then(Outcome::trouble).or_else(|| of(theirs).and_then(Outcome::trouble));
            let why = trouble.unwrap_or_else(|| why.to_owned());
            lines.push(Line::at_least(format!("{what}, {connections} connections"), goal, ratio(of(ours), of(theirs)), &why));
        };
        line("JSON: Plinth over the bare server", 0.70, "Plinth JSON", "bare JSON", "");
        line("JSON: Plinth over Triton", 2.5, "Plinth JSON", "Triton JSON", no_triton);
        line("JSON: Plinth over MLServer", 25.0, "Plinth JSON", "MLServer JSON", no_mlserver);
        line("Plinth: binary HTTP over JSON", 1.3, "Plinth binary", "Plinth JSON", "");
        line("gRPC: Plinth over Triton", 2.0, "Plinth gRPC", "Triton gRPC", no_triton);
    }
    lines
}

fn table(all: &[(usize, Vec<Outcome>)]) -> Result<String> {
    let mut text = "| connections | side | requests/s | p50 / p99 µs | errors |\n|---:|---|---:|---:|---:|\n".to_owned();
    for (connections, outcomes) in all {
        for outcome in outcomes {
            let errors = outcome.trouble().unwrap_or_else(|| "0".to_owned());
            writeln!(text, "| {connections} | {} | {} | {} | {errors} |", outcome.side, outcome.rate(), outcome.latency())?;
        }
    }
    Ok(text)
}
