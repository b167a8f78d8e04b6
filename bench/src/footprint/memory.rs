//! How much memory does a node hold that has one model and nothing to do, and how much does the model's runner?

use std::time::Duration;

use anyhow::Result;
use serde_json::json;

use super::{Line, Part, image, mib, succeed};
use crate::exchange::Connection;
use crate::plinth::{self, Home};
use crate::process;
use crate::setup::Setup;

const BAR_MIB: f64 = 60.0;

pub async fn measure(setup: &Setup, idle: Duration) -> Result<Part> {
    let directory = tempfile::tempdir()?;
    plinth::digits(setup, "2", "digits", directory.path())?;
    let mut home = Home::new(setup)?;
    let node = home.start()?;
    node.push("digits", directory.path(), true)?;
    let target = image(&node, "digits")?;
    succeed(&mut Connection::open(&target.address).await?, &target).await?;
    let runner = node.runner("digits").await?;
    tokio::time::sleep(idle).await;

    let (kib, own) = (process::resident_kib(node.pid())?, process::anonymous_kib(node.pid())?);
    let (runner_kib, runner_own) = (process::resident_kib(runner)?, process::anonymous_kib(runner)?);
    let show = |all, own| format!("{:.1} MiB, {:.1} of it not files'", mib(all), mib(own));
    let what = format!("node, one model, idle for {} s: resident memory", idle.as_secs_f64());
    Ok(Part {
        name: "memory",
        lines: vec![
            Line::judged(what, "≤ 60 MiB", show(kib, own), mib(kib) <= BAR_MIB),
            Line::plain("its runner (most of it is ONNX Runtime)", show(runner_kib, runner_own)),
        ],
        figures: json!({ "node_kib": kib, "node_anonymous_kib": own, "runner_kib": runner_kib, "runner_anonymous_kib": runner_own }),
    })
}
