//! Several servers measured in turn, so that a machine that slows down hurts all of them.
//!
//! Each side warms up, then all run once in order and once in the opposite order; the halves of a side are one result. A
//! side that fails has no figures but its reason; the others go on.

use std::sync::Arc;

use serde::Serialize;

use crate::Shape;
use crate::load::{self, Report, Traffic};

/// A server and what it is asked.
pub struct Side {
    pub name: String,
    pub traffic: Arc<Traffic>,
}

impl Side {
    pub fn new(name: impl Into<String>, traffic: Arc<Traffic>) -> Self {
        Self { name: name.into(), traffic }
    }
}

/// What came of a side.
#[derive(Debug, Clone, Serialize)]
pub struct Outcome {
    pub side: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub report: Option<Report>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
}

impl Outcome {
    /// The figures, if every request succeeded and there was one.
    pub fn good(&self) -> Option<&Report> {
        self.report.as_ref().filter(|report| report.errors == 0 && report.requests > 0)
    }

    /// Why there are no good figures.
    pub fn trouble(&self) -> Option<String> {
        match (&self.failure, &self.report) {
            (Some(failure), _) => Some(failure.clone()),
            (None, Some(report)) if report.errors > 0 => {
                Some(format!("{} of {} requests failed", report.errors, report.errors + report.requests))
            }
            (None, Some(report)) if report.requests == 0 => Some("no request was answered".to_owned()),
            (None, Some(_)) => None,
            (None, None) => Some("was not measured".to_owned()),
        }
    }

    /// `rate`, or what went wrong.
    pub fn rate(&self) -> String {
        self.good().map_or_else(|| "failed".to_owned(), |report| format!("{:.0}", report.per_second))
    }

    /// `p50 / p99` in microseconds.
    pub fn latency(&self) -> String {
        self.good().map_or_else(|| "failed".to_owned(), |report| format!("{:.0} / {:.0}", report.p50_us, report.p99_us))
    }
}

/// How long each side runs, in two halves, and what comes before.
#[derive(Clone, Copy)]
pub struct Times {
    pub warm_up: f64,
    pub half: f64,
}

/// Measures all sides with so many connections; the outcomes are in the order of the sides.
pub async fn interleave(sides: &[Side], connections: usize, times: Times) -> Vec<Outcome> {
    let mut outcomes: Vec<Outcome> = sides.iter().map(|side| Outcome { side: side.name.clone(), report: None, failure: None }).collect();
    let forward = 0..sides.len();
    for (pass, order) in [forward.clone().collect::<Vec<_>>(), forward.clone().collect(), forward.rev().collect()].iter().enumerate() {
        for &number in order {
            let (side, outcome) = (&sides[number], &mut outcomes[number]);
            let seconds = if pass == 0 { times.warm_up } else { times.half };
            if outcome.failure.is_some() || seconds <= 0.0 {
                continue;
            }
            match load::run(&side.traffic, Shape { connections, seconds, rate: None }).await {
                Ok(_) if pass == 0 => {}
                Ok(report) => {
                    outcome.report = Some(outcome.report.as_ref().and_then(|before| before.merge(&report).ok()).unwrap_or(report))
                }
                Err(error) => {
                    eprintln!("{}: {error:#}", side.name);
                    outcome.report = None;
                    outcome.failure = Some(format!("{error:#}"));
                }
            }
        }
    }
    outcomes
}

/// How many times faster the first is, if both are good.
pub fn ratio(ours: Option<&Outcome>, theirs: Option<&Outcome>) -> Option<f64> {
    Some(ours?.good()?.per_second / theirs?.good()?.per_second)
}
