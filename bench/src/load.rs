//! The load generator: prepared bytes over keep-alive connections, a histogram of answers.
//!
//! It writes the same bytes again and again and reads just enough of each answer to know where it
//! ends, so that it costs little beside the server on the same cores. Every answer must be a 200; any
//! other is counted as an error. Closed loop: each connection sends when it was answered. Open loop:
//! requests leave on a fixed schedule and lateness counts from the schedule, so that a server which
//! stalls cannot hide it (no coordinated omission).

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::Shape;

/// Where to send what.
#[derive(Clone)]
pub struct Target {
    address: String,
    request: Vec<u8>,
}

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

impl Target {
    /// Prepares the bytes of a POST.
    pub fn new(url: &str, body: &[u8], header_length: Option<usize>, key: Option<&str>) -> Result<Self> {
        let rest = url.strip_prefix("http://").context("only http:// URLs")?;
        let (address, path) = rest.split_once('/').unwrap_or((rest, ""));
        let kind = if header_length.is_some() { "application/octet-stream" } else { "application/json" };
        let mut head = format!("POST /{path} HTTP/1.1\r\nHost: {address}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n", body.len());
        if let Some(length) = header_length {
            head.push_str(&format!("Inference-Header-Content-Length: {length}\r\n"));
        }
        if let Some(key) = key {
            head.push_str(&format!("Authorization: Bearer {key}\r\n"));
        }
        head.push_str("\r\n");
        let mut request = head.into_bytes();
        request.extend_from_slice(body);
        Ok(Self { address: address.to_owned(), request })
    }
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
    let at = |quantile: f64| times.value_at_quantile(quantile) as f64 / 1000.0;
    Ok(Report {
        connections: shape.connections,
        seconds: shape.seconds,
        requests: times.len(),
        errors,
        per_second: times.len() as f64 / shape.seconds,
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
    let mut stream = TcpStream::connect(&target.address).await.context("connecting")?;
    stream.set_nodelay(true)?;
    let (mut times, mut errors) = (histogram()?, 0);
    let mut buffer = vec![0; 256 * 1024];
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
        stream.write_all(&target.request).await?;
        let status = read_answer(&mut stream, &mut buffer).await?;
        let took = u64::try_from(sent.elapsed().as_nanos()).unwrap_or(u64::MAX);
        if status == 200 {
            times.saturating_record(took)
        } else {
            errors += 1
        }
        due = due.zip(schedule).map(|(due, (_, gap))| due + gap);
    }
}

/// Reads one answer to its end; its status.
async fn read_answer(stream: &mut TcpStream, buffer: &mut [u8]) -> Result<u16> {
    let mut filled = 0;
    let head_end = loop {
        let n = stream.read(&mut buffer[filled..]).await?;
        if n == 0 {
            bail!("the server closed the connection");
        }
        filled += n;
        if let Some(at) = buffer[..filled].windows(4).position(|w| w == b"\r\n\r\n") {
            break at + 4;
        }
        if filled == buffer.len() {
            bail!("the answer's head is too long");
        }
    };
    let head = std::str::from_utf8(&buffer[..head_end])?;
    let status = head.get(9..12).and_then(|s| s.parse().ok()).context("no status")?;
    let length: usize = head
        .lines()
        .find_map(|line| line.split_once(':').filter(|(name, _)| name.eq_ignore_ascii_case("content-length")))
        .and_then(|(_, value)| value.trim().parse().ok())
        .context("the answer has no Content-Length")?;
    let mut left = (head_end + length).checked_sub(filled).context("more bytes than announced")?;
    while left > 0 {
        let room = left.min(buffer.len());
        let n = stream.read(&mut buffer[..room]).await?;
        if n == 0 {
            bail!("the server closed the connection within a body");
        }
        left -= n;
    }
    Ok(status)
}
