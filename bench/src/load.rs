//! The load generator: prepared bytes over keep-alive connections, a histogram of answers.
//!
//! Every answer must be a 200; any other is counted as an error. Closed loop: each connection sends when it was
//! answered. Open loop: requests leave on a fixed schedule and lateness counts from the schedule, so that a server which
//! stalls cannot hide it (no coordinated omission). What was sent before the end is waited for, and the rate counts over
//! the time that took.

use std::time::{Duration, Instant};

use anyhow::Result;
use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use crate::Shape;
use crate::exchange::{Connection, Target};

/// What came back. Times in microseconds.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Report {
    pub connections: usize,
    pub seconds: f64,
    pub requests: u64,
    pub errors: u64,
    pub per_second: f64,
    pub p50_us: f64,
    pub p95_us: f64,
    pub p99_us: f64,
    pub max_us: f64,
}

/// Sends load of this shape and reports.
pub async fn run(target: &Target, shape: Shape) -> Result<Report> {
    let start = Instant::now() + Duration::from_millis(50);
    let end = start + Duration::from_secs_f64(shape.seconds);
    let mut workers = tokio::task::JoinSet::new();
    for number in 0..shape.connections {
        let target = target.clone();
        let schedule = shape.rate.map(|rate| {
            let gap = Duration::from_secs_f64(shape.connections as f64 / rate);
            (start + gap.mul_f64(number as f64 / shape.connections as f64), gap)
        });
        workers.spawn(async move { connection(&target, start, end, schedule).await });
    }
    let mut times = histogram()?;
    let mut errors = 0;
    while let Some(result) = workers.join_next().await {
        let (own, failed) = result??;
        times.add(own)?;
        errors += failed;
    }
    let seconds = start.elapsed().as_secs_f64();
    let at = |quantile: f64| times.value_at_quantile(quantile) as f64 / 1000.0;
    Ok(Report {
        connections: shape.connections,
        seconds,
        requests: times.len(),
        errors,
        per_second: times.len() as f64 / seconds,
        p50_us: at(0.5),
        p95_us: at(0.95),
        p99_us: at(0.99),
        max_us: times.max() as f64 / 1000.0,
    })
}

fn histogram() -> Result<Histogram<u64>> {
    Ok(Histogram::new_with_bounds(1_000, 60_000_000_000, 3)?)
}

async fn connection(target: &Target, start: Instant, end: Instant, schedule: Option<(Instant, Duration)>) -> Result<(Histogram<u64>, u64)> {
    let mut connection = Connection::open(&target.address).await?;
    let (mut times, mut errors) = (histogram()?, 0);
    tokio::time::sleep_until(start.into()).await;
    let mut due = schedule.map(|(first, _)| first);
    loop {
        if let Some(due) = due {
            tokio::time::sleep_until(due.into()).await;
        }
        let sent = due.unwrap_or_else(Instant::now);
        if sent >= end {
            return Ok((times, errors));
        }
        let status = connection.exchange(target).await?.status;
        let took = u64::try_from(sent.elapsed().as_nanos()).unwrap_or(u64::MAX);
        if status == 200 {
            times.saturating_record(took);
        } else {
            errors += 1;
        }
        due = due.zip(schedule).map(|(due, (_, gap))| due + gap);
    }
}
