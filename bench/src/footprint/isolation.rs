//! What does a process of its own for each model cost one caller who waits?
//!
//! 1 KiB through an identity model in binary, one connection: nearly all of the time is the way there and back.

use std::time::Duration;

use anyhow::Result;
use serde_json::json;

use super::{Line, Part};
use crate::bare::Bare;
use crate::body;
use crate::exchange::Target;
use crate::load::Traffic;
use crate::plinth::{self, Home};
use crate::setup::Setup;
use crate::table;

const COLUMNS: usize = 256;

pub async fn measure(setup: &Setup, time: Duration) -> Result<Part> {
    let directory = tempfile::tempdir()?;
    plinth::identity(COLUMNS, directory.path())?;
    let mut home = Home::new(setup)?;
    let node = home.start()?;
    node.push("identity", directory.path(), true)?;
    let bare = Bare::start(&directory.path().join("model.onnx"), &setup.onnxruntime)?;
    let body = body::binary("x", &[1, COLUMNS]);
    let target = |url: &str, key| Target::post(url, &body.bytes, body.header_length, key);
    let (ours, theirs) = (target(&node.infer_url("identity"), Some(&node.key))?, target(&bare.url(), None)?);
    let (plinth, bare) = table::both(&Traffic::http(&ours), &Traffic::http(&theirs), 1, time).await?;
    let cost = plinth.p50_us - bare.p50_us;
    Ok(Part {
        name: "isolation",
        lines: vec![Line::plain(
            "median latency of 1 KiB, binary, one connection: Plinth, bare server, difference",
            format!("{:.0} µs, {:.0} µs, {cost:.0} µs", plinth.p50_us, bare.p50_us),
        )],
        figures: json!({ "plinth": plinth, "bare": bare }),
    })
}
