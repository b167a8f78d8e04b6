//! What is the response cache worth, and what does a hit cost?
//!
//! A model of 20 ms (it sleeps, so that only waiting is saved and no core is freed) with and without the cache, the
//! same requests to both: two in three repeat an earlier one, and which is drawn by Zipf's law. Then hits alone on the
//! digits model, beside the bare server that computes each time.

use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;

use anyhow::Result;
use serde_json::json;

use crate::bare::Bare;
use crate::body;
use crate::exchange::Target;
use crate::line::{Line, Verdict};
use crate::load::{Call, Traffic};
use crate::plinth::{self, Home, Node};
use crate::setup::{Part, Setup};
use crate::sides::{Outcome, Side, Times, interleave, ratio};

const CALLERS: usize = 16;
/// Requests that are prepared; more than any run sends.
const PREPARED: u32 = 30_000;
/// Of 100 requests, so many repeat an earlier one.
const REPEATS: u32 = 67;
const COLUMNS: usize = 16;
const CACHED: &str = "response_cache { enable: true }\n";

const SLOW: &str = "cost = \"20ms\"\n[[inputs]]\nname = \"x\"\ndatatype = \"FP32\"\nshape = [1, 16]\n[[outputs]]\nname = \"x\"\ndatatype = \"FP32\"\nshape = [1, 16]\n";

/// Which input each request has: new ones evenly among repeats, so that every stretch of it is like the whole. Repeats are
/// drawn by Zipf's law with exponent 1 from those seen, the first seen the most frequent.
fn order() -> (Vec<u32>, u32) {
    let mut random = 0x2545_f491_4f6c_dd1d_u64;
    let mut uniform = move || {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        (random >> 11) as f64 / (1_u64 << 53) as f64
    };
    let (mut order, mut seen) = (Vec::new(), 0_u32);
    for number in 0..PREPARED {
        let fresh = |n: u32| n * (100 - REPEATS) / 100;
        if seen == 0 || fresh(number + 1) > fresh(number) {
            order.push(seen);
            seen += 1;
        } else {
            // The inverse of the distribution function of 1/x on 1..=seen.
            let rank = (f64::from(seen) + 1.0).powf(uniform()) - 1.0;
            order.push((rank as u32).min(seen - 1));
        }
    }
    (order, seen)
}

fn slow(node: &Node, name: &str) -> Result<Arc<Traffic>> {
    let (order, distinct) = order();
    let calls = (0..distinct).map(|number| {
        let mut values = [1.0; COLUMNS];
        values[0] = number as f32;
        let body = body::json_of("x", &[1, COLUMNS], &values);
        Ok(Call::Http(Target::post(&node.infer_url(name), &body.bytes, None, Some(&node.key))?))
    });
    Ok(Traffic::sequence(calls.collect::<Result<_>>()?, order))
}

fn push_slow(node: &Node, name: &str, config: &str, to: &Path) -> Result<()> {
    std::fs::create_dir_all(to)?;
    std::fs::write(to.join("villain.toml"), SLOW)?;
    std::fs::write(to.join("config.pbtxt"), config)?;
    node.push(name, to, true)
}

/// Measures and writes `cache`.
pub async fn measure(setup: &Setup, seconds: f64) -> Result<Verdict> {
    let directory = tempfile::tempdir()?;
    let at = |name: &str| directory.path().join(name);
    let mut home = Home::with(setup, &[("engine.backends", "[\"onnx\", \"villain\"]")])?;
    let node = home.start()?;
    push_slow(&node, "slow_cached", CACHED, &at("slow_cached"))?;
    push_slow(&node, "slow_plain", "", &at("slow_plain"))?;
    plinth::digits(setup, "2", "digits", &at("digits"))?;
    let config = std::fs::read_to_string(at("digits").join("config.pbtxt"))?;
    std::fs::write(at("digits").join("config.pbtxt"), config + CACHED)?;
    node.push("digits", &at("digits"), true)?;
    let bare = Bare::start(&at("digits").join("model.onnx"), &setup.onnxruntime)?;

    let sides = [Side::new("with the cache", slow(&node, "slow_cached")?), Side::new("without", slow(&node, "slow_plain")?)];
    let times = Times { warm_up: 0.2, half: seconds };
    let slow = interleave(&sides, CALLERS, times).await;
    let sent = sides[0].traffic.sent();

    let body = body::json("image", &[1, 64]);
    let http = |url: &str, key| Ok::<_, anyhow::Error>(Traffic::http(&Target::post(url, &body.bytes, None, key)?));
    let sides = [Side::new("hits", http(&node.infer_url("digits"), Some(&node.key))?), Side::new("bare server", http(&bare.url(), None)?)];
    let mut hits = Vec::new();
    for connections in [16, 64] {
        hits.push((connections, interleave(&sides, connections, Times { warm_up: 0.3, half: seconds / 2.0 }).await));
    }

    let why = |outcomes: &[Outcome]| outcomes.iter().find_map(Outcome::trouble).unwrap_or_default();
    let mean = |outcome: &Outcome| outcome.good().map(|report| report.mean_us);
    let latency = mean(&slow[0]).zip(mean(&slow[1])).map(|(with, without)| with / without);
    let mut lines = vec![
        Line::at_most("20 ms model, mean latency: with the cache over without", 1.0 / 3.0, latency, &why(&slow)),
        Line::at_least("20 ms model, requests/s: with the cache over without", 3.0, ratio(slow.first(), slow.get(1)), &why(&slow)),
    ];
    for (connections, outcomes) in &hits {
        let what = format!("digits, JSON, {connections} connections: hits over the bare server");
        lines.push(Line::at_least(what, 0.8, ratio(outcomes.first(), outcomes.get(1)), &why(outcomes)));
    }
    let mut text = "| what | connections | side | requests/s | mean µs | p50 / p99 µs |\n|---|---:|---|---:|---:|---:|\n".to_owned();
    let slow_cell = [(CALLERS, slow.clone())];
    for (what, (connections, outcomes)) in
        slow_cell.iter().map(|cell| ("20 ms model", cell)).chain(hits.iter().map(|cell| ("digits", cell)))
    {
        for outcome in outcomes {
            let mean = mean(outcome).map_or_else(|| "failed".to_owned(), |mean| format!("{mean:.0}"));
            writeln!(text, "| {what} | {connections} | {} | {} | {mean} | {} |", outcome.side, outcome.rate(), outcome.latency())?;
        }
    }
    setup.finish(&Part {
        name: "cache",
        title: "The response cache",
        how: &format!("{seconds:.1} s for each half, closed loop"),
        about: &format!(
            "A model that takes 20 ms for each request and does one at a time, {CALLERS} callers, the same sequence of requests with the cache and without: {REPEATS} % repeat an earlier \
             one (Zipf's law, exponent 1), evenly spread, so the most that a cache can reach is {:.2} ×. {sent} of them were sent to the cached side. Then one request again and again on the \
             digits model, which is always a hit, beside the bare server, which computes it.",
            100.0 / f64::from(100 - REPEATS)
        ),
        lines: &lines,
        text: &text,
        figures: json!({ "slow": slow, "hits": hits.iter().map(|(connections, outcomes)| json!({ "connections": connections, "sides": outcomes })).collect::<Vec<_>>() }),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_stretch_repeats_as_often_as_the_whole() {
        let (order, distinct) = order();
        let mut seen = std::collections::HashSet::new();
        let fresh: Vec<bool> = order.iter().map(|number| seen.insert(*number)).collect();
        assert_eq!(seen.len(), distinct as usize);
        for stretch in fresh.chunks(1_000) {
            let new = stretch.iter().filter(|new| **new).count();
            assert!((329..=332).contains(&new), "{new}");
        }
    }
}
