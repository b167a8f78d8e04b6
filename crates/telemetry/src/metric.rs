//! Counters and gauges as cheap handles.
//!
//! A clone of a handle counts into the same metric. Invariant: counting allocates nothing, takes no
//! lock and, for counters, touches only this thread's cell.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU32, AtomicU64, Ordering};

use crate::cells::Cells;
use crate::text::{Labels, TextWriter};

/// What every kind of metric can do at a scrape.
pub trait Metric: Clone + Default + Send + Sync {
    /// Its type in the exposition format.
    const KIND: &'static str;

    /// One that counts nothing, if counting is all that it is for; else one that works and nobody sees.
    #[must_use]
    fn off() -> Self {
        Self::default()
    }

    /// Writes its samples.
    fn write(&self, out: &mut TextWriter, name: &str, labels: Labels<'_>);
}

/// A number that only grows.
#[derive(Clone)]
pub struct Counter(Option<Arc<Cells<AtomicU64>>>);

impl Default for Counter {
    fn default() -> Self {
        Self(Some(Arc::default()))
    }
}

impl Counter {
    /// Adds one.
    pub fn inc(&self) {
        self.add(1);
    }

    /// Adds `n`.
    pub fn add(&self, n: u64) {
        if let Some(cells) = &self.0 {
            cells.mine().fetch_add(n, Ordering::Relaxed);
        }
    }

    /// The value, added up over all threads.
    #[must_use]
    pub fn value(&self) -> u64 {
        let cells = self.0.iter().flat_map(|cells| cells.all());
        cells.fold(0, |sum, cell| sum.wrapping_add(cell.load(Ordering::Relaxed)))
    }
}

impl Metric for Counter {
    const KIND: &'static str = "counter";
    fn off() -> Self {
        Self(None)
    }
    fn write(&self, out: &mut TextWriter, name: &str, labels: Labels<'_>) {
        out.whole(name, labels, self.value());
    }
}

/// A number of things that come and go, such as requests in flight.
#[derive(Clone, Default)]
pub struct UpDownCounter(Arc<Cells<AtomicI64>>);

impl UpDownCounter {
    /// Counts one thing until the guard is dropped, on whatever thread.
    #[must_use]
    pub fn hold(&self) -> UpGuard {
        self.0.mine().fetch_add(1, Ordering::Relaxed);
        UpGuard(self.clone())
    }

    /// How many there are. Read while others count, it may be off by those.
    #[must_use]
    pub fn value(&self) -> i64 {
        self.0.all().fold(0, |sum, cell| sum.wrapping_add(cell.load(Ordering::Relaxed)))
    }
}

/// One counted thing.
pub struct UpGuard(UpDownCounter);

impl Drop for UpGuard {
    fn drop(&mut self) {
        self.0.0.mine().fetch_sub(1, Ordering::Relaxed);
    }
}

impl Metric for UpDownCounter {
    const KIND: &'static str = "gauge";
    fn write(&self, out: &mut TextWriter, name: &str, labels: Labels<'_>) {
        // Cells are read one after another; a thing that moved between two of them must not show as -1.
        out.whole(name, labels, u64::try_from(self.value()).unwrap_or(0));
    }
}

/// A number that is set.
#[derive(Clone, Default)]
pub struct Gauge(Arc<AtomicU64>);

impl Gauge {
    /// Sets the value.
    pub fn set(&self, value: f64) {
        self.0.store(value.to_bits(), Ordering::Relaxed);
    }

    /// Sets the value to a whole number; above 2⁵³ it is rounded.
    #[allow(clippy::cast_precision_loss, reason = "samples are doubles in the exposition format")]
    pub fn set_whole(&self, value: u64) {
        self.set(value as f64);
    }

    /// The value.
    #[must_use]
    pub fn value(&self) -> f64 {
        f64::from_bits(self.0.load(Ordering::Relaxed))
    }
}

impl Metric for Gauge {
    const KIND: &'static str = "gauge";
    fn write(&self, out: &mut TextWriter, name: &str, labels: Labels<'_>) {
        out.real(name, labels, self.value());
    }
}

/// The resident memory of another process, read at the scrape.
#[derive(Clone, Default)]
pub struct ResidentMemory(Arc<AtomicU32>);

impl ResidentMemory {
    /// Names the process.
    pub fn watch(&self, pid: u32) {
        self.0.store(pid, Ordering::Relaxed);
    }

    /// What it has now, in bytes; 0 without a process. Reads a file of the kernel's: not for the request path.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        match self.0.load(Ordering::Relaxed) {
            0 => 0,
            pid => crate::process::resident_bytes(&pid.to_string()).unwrap_or(0),
        }
    }

    /// The process has ended; its number may belong to another one soon.
    pub fn forget(&self) {
        self.0.store(0, Ordering::Relaxed);
    }
}

impl Metric for ResidentMemory {
    const KIND: &'static str = "gauge";
    fn write(&self, out: &mut TextWriter, name: &str, labels: Labels<'_>) {
        let pid = self.0.load(Ordering::Relaxed);
        // Without a process there is no sample, rather than a zero.
        if pid != 0
            && let Some(bytes) = crate::process::resident_bytes(&pid.to_string())
        {
            out.whole(name, labels, bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_of_all_threads_are_added_up() {
        let (counter, level) = (Counter::default(), UpDownCounter::default());
        let held: Vec<_> = std::thread::scope(|scope| {
            let work = || {
                (0..1000).for_each(|_| counter.inc());
                level.hold()
            };
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(work)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert_eq!((counter.value(), level.value()), (8000, 8));
        // Given back on another thread than taken.
        drop(held);
        assert_eq!(level.value(), 0);
    }
}
