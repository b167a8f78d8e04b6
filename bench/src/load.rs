//! The load generator: prepared bytes over connections that stay open, a histogram of answers.
//!
//! Every answer must be a success; any other is counted as an error. Closed loop: each connection sends when it was
//! answered. Open loop: requests leave on a fixed schedule and lateness counts from the schedule, so that a server which
//! stalls cannot hide it (no coordinated omission); whichever connection is free takes the next. The schedule is kept by a
//! thread of its own, because tokio's timers are a millisecond coarse. What was sent before the end is waited for, and the
//! rate counts over the time that took; who waits in vain is an error and not a hang.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use hdrhistogram::Histogram;
use serde::Serialize;
use tokio::sync::{Mutex, mpsc};

use crate::Shape;
use crate::{exchange, http2};

/// How long what was sent before the end may take.
const PATIENCE: Duration = Duration::from_secs(90);
/// Requests that are due and that no connection takes; more are errors.
const BACKLOG: usize = 65_536;

/// A prepared request.
pub enum Call {
    Http(exchange::Target),
    Keyed(exchange::Keyed),
    Grpc(http2::Target),
}

impl Call {
    fn address(&self) -> &str {
        match self {
            Self::Http(target) => &target.address,
            Self::Keyed(keyed) => &keyed.address,
            Self::Grpc(target) => &target.address,
        }
    }
}

/// What the connections send.
pub struct Traffic {
    calls: Vec<Call>,
    /// Without one, each connection repeats its own call. With one, they take from it in turn; it is never begun again.
    order: Option<Vec<u32>>,
    position: AtomicUsize,
}

impl Traffic {
    /// One HTTP request again and again.
    pub fn http(target: &exchange::Target) -> Arc<Self> {
        Self::own(vec![Call::Http(target.clone())])
    }

    /// One gRPC call again and again.
    pub fn grpc(target: &http2::Target) -> Arc<Self> {
        Self::own(vec![Call::Grpc(target.clone())])
    }

    /// Each connection repeats its own call; they are dealt out in turn.
    pub fn own(calls: Vec<Call>) -> Arc<Self> {
        Arc::new(Self { calls, order: None, position: AtomicUsize::new(0) })
    }

    /// Calls by their numbers in this order, shared by all connections and continued from run to run.
    pub fn sequence(calls: Vec<Call>, order: Vec<u32>) -> Arc<Self> {
        Arc::new(Self { calls, order: Some(order), position: AtomicUsize::new(0) })
    }

    /// How much of the order was sent.
    pub fn sent(&self) -> usize {
        self.position.load(Ordering::Relaxed)
    }

    fn next(&self, connection: usize) -> Result<&Call> {
        let number = match &self.order {
            None => connection % self.calls.len().max(1),
            Some(order) => *order.get(self.position.fetch_add(1, Ordering::Relaxed)).context("the prepared requests are used up")? as usize,
        };
        self.calls.get(number).context("no call was prepared")
    }
}

/// What came back. Times in microseconds.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    pub connections: usize,
    pub seconds: f64,
    pub requests: u64,
    pub errors: u64,
    pub per_second: f64,
    pub mean_us: f64,
    pub p50_us: f64,
    pub p95_us: f64,
    pub p99_us: f64,
    pub max_us: f64,
    #[serde(skip)]
    times: Histogram<u64>,
}

impl Report {
    fn of(connections: usize, seconds: f64, errors: u64, times: Histogram<u64>) -> Self {
        let at = |quantile: f64| times.value_at_quantile(quantile) as f64 / 1000.0;
        Self {
            connections,
            seconds,
            requests: times.len(),
            errors,
            per_second: times.len() as f64 / seconds,
            mean_us: times.mean() / 1000.0,
            p50_us: at(0.5),
            p95_us: at(0.95),
            p99_us: at(0.99),
            max_us: times.max() as f64 / 1000.0,
            times,
        }
    }

    /// Two runs as one: every answer of both counts the same.
    pub fn merge(&self, other: &Self) -> Result<Self> {
        let mut times = self.times.clone();
        times.add(&other.times)?;
        Ok(Self::of(self.connections, self.seconds + other.seconds, self.errors + other.errors, times))
    }
}

/// Sends load of this shape and reports.
pub async fn run(traffic: &Arc<Traffic>, shape: Shape) -> Result<Report> {
    let limit = Duration::from_secs_f64(shape.seconds) + PATIENCE;
    tokio::time::timeout(limit, measure(traffic, shape)).await.context("answers did not come in time")?
}

async fn measure(traffic: &Arc<Traffic>, shape: Shape) -> Result<Report> {
    let start = Instant::now() + Duration::from_millis(50);
    let end = start + Duration::from_secs_f64(shape.seconds);
    let (schedule, missed) = match shape.rate {
        Some(rate) => {
            let (due, schedule) = mpsc::channel(BACKLOG);
            let keeper = std::thread::Builder::new().name("schedule".to_owned());
            (Some(Arc::new(Mutex::new(schedule))), Some(keeper.spawn(move || keep_schedule(start, end, rate, &due))?))
        }
        None => (None, None),
    };
    // Every worker ends with this future: a JoinSet that is dropped ends its tasks.
    let mut workers = tokio::task::JoinSet::new();
    for number in 0..shape.connections {
        let pace = schedule.clone().map_or(Pace::Closed { start, end }, Pace::Open);
        let traffic = traffic.clone();
        workers.spawn(async move { connection(&traffic, number, pace).await });
    }
    drop(schedule);
    let mut times = histogram()?;
    let mut errors = 0;
    while let Some(result) = workers.join_next().await {
        let (own, failed) = result??;
        times.add(own)?;
        errors += failed;
    }
    if let Some(missed) = missed {
        errors += missed.join().map_err(|_| anyhow::anyhow!("the schedule was not kept"))?;
    }
    Ok(Report::of(shape.connections, start.elapsed().as_secs_f64(), errors, times))
}

fn histogram() -> Result<Histogram<u64>> {
    Ok(Histogram::new_with_bounds(1_000, 120_000_000_000, 3)?)
}

/// Says when each request is due, at a constant rate; returns how many found no room.
fn keep_schedule(start: Instant, end: Instant, rate: f64, due: &mpsc::Sender<Instant>) -> u64 {
    let mut missed = 0;
    for number in 0_u32.. {
        let at = start + Duration::from_secs_f64(f64::from(number) / rate);
        if at >= end {
            break;
        }
        std::thread::sleep(at.saturating_duration_since(Instant::now()));
        if due.try_send(at).is_err() {
            missed += 1;
        }
    }
    missed
}

enum Pace {
    Closed { start: Instant, end: Instant },
    Open(Arc<Mutex<mpsc::Receiver<Instant>>>),
}

impl Pace {
    /// When the next request counts as sent; `None` at the end.
    async fn next(&self) -> Option<Instant> {
        match self {
            Self::Closed { end, .. } => Some(Instant::now()).filter(|now| now < end),
            Self::Open(schedule) => schedule.lock().await.recv().await,
        }
    }
}

async fn connection(traffic: &Traffic, number: usize, pace: Pace) -> Result<(Histogram<u64>, u64)> {
    let first = traffic.calls.get(number % traffic.calls.len().max(1)).context("no call was prepared")?;
    let mut wire = Wire::open(first).await?;
    let (mut times, mut errors) = (histogram()?, 0);
    if let Pace::Closed { start, .. } = &pace {
        tokio::time::sleep_until((*start).into()).await;
    }
    while let Some(sent) = pace.next().await {
        let good = wire.exchange(traffic.next(number)?).await?;
        let took = u64::try_from(sent.elapsed().as_nanos()).unwrap_or(u64::MAX);
        if good {
            times.saturating_record(took);
        } else {
            errors += 1;
        }
    }
    Ok((times, errors))
}

enum Wire {
    Http(exchange::Connection),
    Grpc(Box<http2::Connection>),
}

impl Wire {
    async fn open(call: &Call) -> Result<Self> {
        Ok(match call {
            Call::Http(_) | Call::Keyed(_) => Self::Http(exchange::Connection::open(call.address()).await?),
            Call::Grpc(_) => Self::Grpc(Box::new(http2::Connection::open(call.address()).await?)),
        })
    }

    async fn exchange(&mut self, call: &Call) -> Result<bool> {
        match (self, call) {
            (Self::Http(connection), Call::Http(target)) => Ok(connection.exchange(target).await?.status == 200),
            (Self::Http(connection), Call::Keyed(keyed)) => Ok(connection.exchange_keyed(keyed).await?.status == 200),
            (Self::Grpc(connection), Call::Grpc(target)) => connection.exchange(target).await,
            _ => bail!("a connection speaks one protocol"),
        }
    }
}
