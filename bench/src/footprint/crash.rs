//! How long does a model not answer when its runner is killed?
//!
//! A model for each kill: a version that crashes again within a minute is started later, by intent.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use rustix::process::Signal;
use serde_json::json;

use super::{Line, Part, Spread, image, ms, succeed};
use crate::exchange::Connection;
use crate::plinth::{self, Home, Node};
use crate::process;
use crate::setup::Setup;

const BAR_MS: f64 = 2000.0;

pub async fn measure(setup: &Setup, kills: usize) -> Result<Part> {
    let directory = tempfile::tempdir()?;
    let mut home = Home::new(setup)?;
    let node = home.start()?;
    let models: Vec<String> = (0..kills).map(|k| format!("digits_{k}")).collect();
    for model in &models {
        let path = directory.path().join(model);
        plinth::digits(setup, "2", model, &path)?;
        node.push(model, &path, true)?;
    }
    let mut times = Vec::new();
    for model in &models {
        times.push(kill(&node, model).await?);
    }
    let times = Spread::of(times)?;
    Ok(Part {
        name: "crash",
        lines: vec![Line::judged(
            format!("kill -9 of a runner to the model's next answer (min / median / max of {kills})"),
            "< 2 s",
            times.show("ms"),
            times.max < BAR_MS,
        )],
        figures: json!({ "recovered_ms": times }),
    })
}

async fn kill(node: &Node, model: &str) -> Result<f64> {
    let target = image(node, model)?;
    let mut connection = Connection::open(&target.address).await?;
    succeed(&mut connection, &target).await?;
    let runner = node.runner(model).await?;
    let start = Instant::now();
    process::send(runner, Signal::KILL)?;
    // Whoever was killed answers no more, so a 200 comes from its successor.
    while connection.exchange(&target).await.map_or(true, |answer| answer.status != 200) {
        if start.elapsed() > Duration::from_secs(30) {
            bail!("{model} does not answer 30 s after its runner was killed");
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
        // A refusal may end the connection.
        connection = Connection::open(&target.address).await?;
    }
    let took = ms(start.elapsed());
    anyhow::ensure!(node.runner(model).await? != runner, "the runner of {model} survived");
    Ok(took)
}
