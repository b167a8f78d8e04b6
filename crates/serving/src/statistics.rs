//! What a version has done since it was loaded, counted as Triton counts it (statistics extension).
//!
//! Counted once for each batch or request with relaxed atomics; read by summing. Invariants: `executions` counts batches,
//! `inferences` counts rows (a request for a batch of 4 counts 4, one for a model without a batch dimension 1); an answer
//! from the cache counts as success and as a hit and not as an execution.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use plinth_types::{ModelName, Timestamp, VersionNumber};

/// How often something happened and how long it took altogether.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Total {
    /// How often.
    pub count: u64,
    /// Nanoseconds, summed.
    pub ns: u64,
}

/// The times of batches of one size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct BatchTotals {
    /// Taking the inputs over.
    pub input: Total,
    /// Executing.
    pub infer: Total,
    /// Handing the outputs over.
    pub output: Total,
}

/// One version's statistics at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelStatistics {
    /// The model.
    pub model: ModelName,
    /// The version.
    pub version: VersionNumber,
    /// When the last request ended; `None` before the first.
    pub last_inference: Option<Timestamp>,
    /// Rows that were answered, from the cache too.
    pub inferences: u64,
    /// Batches that were executed.
    pub executions: u64,
    /// Requests with an answer, from arrival to answer.
    pub success: Total,
    /// Requests with an error.
    pub fail: Total,
    /// Waiting for execution, by request.
    pub queue: Total,
    /// Taking the inputs over, by request.
    pub compute_input: Total,
    /// Executing, by request.
    pub compute_infer: Total,
    /// Handing the outputs over, by request.
    pub compute_output: Total,
    /// Answers from the cache.
    pub cache_hit: Total,
    /// Requests that were looked for in the cache in vain.
    pub cache_miss: Total,
    /// By rows in the batch.
    pub batches: BTreeMap<u32, BatchTotals>,
    /// The resident memory of what executes it, in bytes.
    pub memory: u64,
}

#[derive(Default)]
struct Cell {
    count: AtomicU64,
    ns: AtomicU64,
}

impl Cell {
    fn add(&self, took: Duration) {
        self.add_many(1, took);
    }

    fn add_many(&self, count: u64, took: Duration) {
        self.count.fetch_add(count, Ordering::Relaxed);
        self.ns.fetch_add(nanos(took).saturating_mul(count), Ordering::Relaxed);
    }

    fn read(&self) -> Total {
        Total { count: self.count.load(Ordering::Relaxed), ns: self.ns.load(Ordering::Relaxed) }
    }
}

fn nanos(took: Duration) -> u64 {
    u64::try_from(took.as_nanos()).unwrap_or(u64::MAX)
}

/// The times of one executed batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct BatchTimes {
    pub input: Duration,
    pub infer: Duration,
    pub output: Duration,
}

/// Where one loaded version counts.
#[derive(Default)]
pub(crate) struct Statistics {
    inferences: AtomicU64,
    executions: AtomicU64,
    /// Milliseconds since 1970; 0 before the first.
    last: AtomicU64,
    success: Cell,
    fail: Cell,
    queue: Cell,
    compute: [Cell; 3],
    cache_hit: Cell,
    cache_miss: Cell,
    /// Touched once for each batch, by the task that receives it.
    batches: Mutex<BTreeMap<u32, BatchTotals>>,
}

impl Statistics {
    /// A request ended with an answer of so many rows.
    pub fn succeeded(&self, rows: u32, took: Duration, now: Timestamp) {
        self.success.add(took);
        self.inferences.fetch_add(u64::from(rows), Ordering::Relaxed);
        self.last.store(now.millis(), Ordering::Relaxed);
    }

    /// A request ended with an error.
    pub fn failed(&self, took: Duration, now: Timestamp) {
        self.fail.add(took);
        self.last.store(now.millis(), Ordering::Relaxed);
    }

    /// A request began to be executed after it had waited so long.
    pub fn waited(&self, took: Duration) {
        self.queue.add(took);
    }

    /// A batch of so many requests and rows was executed.
    pub fn executed(&self, requests: u64, rows: u32, times: BatchTimes) {
        self.executions.fetch_add(1, Ordering::Relaxed);
        for (cell, took) in self.compute.iter().zip([times.input, times.infer, times.output]) {
            cell.add_many(requests, took);
        }
        let mut batches = self.batches.lock().unwrap_or_else(PoisonError::into_inner);
        let of_size = batches.entry(rows).or_default();
        for (total, took) in [(&mut of_size.input, times.input), (&mut of_size.infer, times.infer), (&mut of_size.output, times.output)] {
            total.count += 1;
            total.ns = total.ns.saturating_add(nanos(took));
        }
    }

    /// An answer was found in the cache; looking took so long.
    pub fn cache_hit(&self, took: Duration) {
        self.cache_hit.add(took);
    }

    /// An answer was not in the cache; looking and storing took so long.
    pub fn cache_miss(&self, took: Duration) {
        self.cache_miss.add(took);
    }

    /// When the last request ended; `None` before the first.
    pub fn last_inference(&self) -> Option<Timestamp> {
        match self.last.load(Ordering::Relaxed) {
            0 => None,
            millis => Timestamp::from_millis(millis).ok(),
        }
    }

    pub fn read(&self, model: &ModelName, version: VersionNumber, memory: u64) -> ModelStatistics {
        let [input, infer, output] = &self.compute;
        ModelStatistics {
            model: model.clone(),
            version,
            last_inference: self.last_inference(),
            inferences: self.inferences.load(Ordering::Relaxed),
            executions: self.executions.load(Ordering::Relaxed),
            success: self.success.read(),
            fail: self.fail.read(),
            queue: self.queue.read(),
            compute_input: input.read(),
            compute_infer: infer.read(),
            compute_output: output.read(),
            cache_hit: self.cache_hit.read(),
            cache_miss: self.cache_miss.read(),
            batches: self.batches.lock().unwrap_or_else(PoisonError::into_inner).clone(),
            memory,
        }
    }
}
