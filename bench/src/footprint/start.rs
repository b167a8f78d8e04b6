//! How long from executing `plinth up`, with one model deployed, until the node is ready and has answered?
//!
//! The library's own loading, which the bar leaves out, is measured in a process that does nothing else.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::json;

use super::{Line, Part, Spread, image, ms, succeed};
use crate::exchange::{Connection, Target};
use crate::plinth::{self, Home};
use crate::setup::Setup;

const BAR_MS: f64 = 500.0;

struct Start {
    listening: f64,
    ready: f64,
    answered: f64,
    ended: f64,
}

pub async fn measure(setup: &Setup, starts: usize) -> Result<Part> {
    let directory = tempfile::tempdir()?;
    plinth::digits(setup, "2", "digits", directory.path())?;
    let mut home = Home::new(setup)?;
    let node = home.start()?;
    node.push("digits", directory.path(), true)?;
    node.stop()?;

    let (mut times, mut library) = (Vec::new(), Vec::new());
    for _ in 0..starts {
        times.push(start(&mut home).await?);
        library.push(open_library(setup)?);
    }
    let spread = |pick: fn(&Start) -> f64| Spread::of(times.iter().map(pick).collect());
    let (listening, ready, answered, ended) =
        (spread(|t| t.listening)?, spread(|t| t.ready)?, spread(|t| t.answered)?, spread(|t| t.ended)?);
    let library = Spread::of(library)?;
    let after = ready.median - library.median;
    let of = "min / median / max";
    Ok(Part {
        name: "start",
        lines: vec![
            Line::judged("start to ready, one model, without the library's loading", "≤ 500 ms", format!("{after:.0} ms"), after <= BAR_MS),
            Line::plain(format!("… to listening ({of} of {starts})"), listening.show("ms")),
            Line::plain("… to ready, everything included", ready.show("ms")),
            Line::plain("… to the first answer", answered.show("ms")),
            Line::plain("ONNX Runtime's library alone", library.show("ms")),
            Line::plain("SIGTERM to the end of the process", ended.show("ms")),
        ],
        figures: json!({ "listening_ms": listening, "ready_ms": ready, "answered_ms": answered, "library_ms": library, "ended_ms": ended }),
    })
}

async fn start(home: &mut Home) -> Result<Start> {
    let node = home.start()?;
    let listening = node.started.elapsed();
    let health = Target::get(&format!("{}/v2/health/ready", node.http))?;
    let infer = image(&node, "digits")?;
    let mut connection = Connection::open(&health.address).await?;
    while connection.exchange(&health).await?.status != 200 {
        if node.started.elapsed() > Duration::from_secs(30) {
            bail!("the node is not ready after 30 s");
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let ready = node.started.elapsed();
    succeed(&mut connection, &infer).await?;
    let answered = node.started.elapsed();
    drop(connection);
    let end = std::time::Instant::now();
    node.stop()?;
    Ok(Start { listening: ms(listening), ready: ms(ready), answered: ms(answered), ended: ms(end.elapsed()) })
}

fn open_library(setup: &Setup) -> Result<f64> {
    let output = Command::new(std::env::current_exe()?).arg("library").arg(&setup.onnxruntime).output()?;
    let micros: f64 = String::from_utf8(output.stdout)?.trim().parse().context("the library could not be opened")?;
    Ok(micros / 1000.0)
}
