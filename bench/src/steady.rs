//! A steady stream of clients, and how many of them are served when.
//!
//! Open loop: clients come at a fixed rate whatever happens. Each asks until it is served or its patience is over, with the same short wait
//! each time and no backoff, as impatient clients do. Counted in samples of a fixed length by when a client came, was served, and each of its requests
//! was sent.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Result;
use serde::Serialize;
use tokio::task::JoinSet;

use crate::exchange::{Connection, Target};

/// The length of a sample.
pub const SAMPLE: Duration = Duration::from_millis(250);

/// How clients behave.
#[derive(Debug, Clone, Copy)]
pub struct Manner {
    /// Clients per second.
    pub rate: f64,
    /// For how long a client asks again; zero: once.
    pub patience: Duration,
    /// Between two requests of a client.
    pub wait: Duration,
}

/// One sample.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct Sample {
    pub came: u32,
    /// Of the requests that were sent.
    pub requests: u32,
    pub served: u32,
    /// Requests that were answered with an error of the upstream or of the gateway: 500, 502, 504.
    pub failed: u32,
    /// That were answered with 503: nobody may be asked.
    pub refused: u32,
    /// That got no answer, or another one.
    pub broken: u32,
}

/// Clients that run until this is dropped.
pub struct Steady {
    start: Instant,
    samples: Arc<Mutex<Vec<Sample>>>,
    task: tokio::task::JoinHandle<()>,
}

struct Shared {
    target: Target,
    idle: Mutex<Vec<Connection>>,
    start: Instant,
    samples: Arc<Mutex<Vec<Sample>>>,
}

impl Shared {
    fn count(&self, change: impl FnOnce(&mut Sample)) {
        let at = (self.start.elapsed().as_millis() / SAMPLE.as_millis()) as usize;
        let mut samples = self.samples.lock().unwrap_or_else(PoisonError::into_inner);
        if samples.len() <= at {
            samples.resize(at + 1, Sample::default());
        }
        change(&mut samples[at]);
    }

    /// The status, when there is an answer.
    async fn ask(&self) -> Result<u16> {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut connection = match idle {
            Some(connection) => connection,
            None => Connection::open(&self.target.address).await?,
        };
        let status = connection.exchange(&self.target).await?.status;
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(connection);
        Ok(status)
    }

    async fn client(self: Arc<Self>, manner: Manner) {
        let came = Instant::now();
        self.count(|sample| sample.came += 1);
        loop {
            self.count(|sample| sample.requests += 1);
            let status = self.ask().await;
            self.count(|sample| match status {
                Ok(200) => sample.served += 1,
                Ok(500 | 502 | 504) => sample.failed += 1,
                Ok(503) => sample.refused += 1,
                Ok(_) | Err(_) => sample.broken += 1,
            });
            if matches!(status, Ok(200)) || came.elapsed() + manner.wait > manner.patience {
                return;
            }
            tokio::time::sleep(manner.wait).await;
        }
    }
}

impl Steady {
    /// Clients that ask this from now on.
    pub fn start(target: Target, manner: Manner) -> Self {
        let (start, samples) = (Instant::now(), Arc::new(Mutex::default()));
        let shared = Arc::new(Shared { target, idle: Mutex::default(), start, samples: Arc::clone(&samples) });
        let task = tokio::spawn(async move {
            let mut clients = JoinSet::new();
            for number in 1_u32.. {
                tokio::time::sleep_until((start + Duration::from_secs_f64(f64::from(number) / manner.rate)).into()).await;
                clients.spawn(shared.clone().client(manner));
                while clients.try_join_next().is_some() {}
            }
        });
        Self { start, samples, task }
    }

    /// What was counted from one moment to another, in whole samples.
    pub fn between(&self, from: Instant, to: Instant) -> Vec<Sample> {
        let at = |moment: Instant| moment.saturating_duration_since(self.start).as_millis().div_ceil(SAMPLE.as_millis()) as usize;
        let samples = self.samples.lock().unwrap_or_else(PoisonError::into_inner);
        (at(from)..at(to)).map(|place| samples.get(place).copied().unwrap_or_default()).collect()
    }
}

impl Drop for Steady {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Samples as one.
pub fn sum(samples: &[Sample]) -> Sample {
    samples.iter().fold(Sample::default(), |sum, sample| Sample {
        came: sum.came + sample.came,
        requests: sum.requests + sample.requests,
        served: sum.served + sample.served,
        failed: sum.failed + sample.failed,
        refused: sum.refused + sample.refused,
        broken: sum.broken + sample.broken,
    })
}

/// Clients served per second.
pub fn goodput(samples: &[Sample]) -> f64 {
    f64::from(sum(samples).served) / (samples.len().max(1) as f64 * SAMPLE.as_secs_f64())
}
