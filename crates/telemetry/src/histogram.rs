//! Latencies in fixed buckets.
//!
//! Invariant: the count is the sum of the buckets, so that a scrape in the middle of an observation
//! is still a well-formed histogram. The sum of the observed times is kept in nanoseconds and may be
//! ahead of or behind the count by what is being observed at that moment.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::cells::Cells;
use crate::metric::Metric;
use crate::text::{Labels, TextWriter};

/// The upper bounds of the buckets in nanoseconds, 100 µs to 60 s; a last bucket takes the rest.
pub const BOUNDS_NANOS: [u64; 18] = [
    100_000,
    250_000,
    500_000,
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    25_000_000,
    50_000_000,
    100_000_000,
    250_000_000,
    500_000_000,
    1_000_000_000,
    2_500_000_000,
    5_000_000_000,
    10_000_000_000,
    30_000_000_000,
    60_000_000_000,
];

const BUCKETS: usize = BOUNDS_NANOS.len() + 1;

#[derive(Default)]
struct Cell {
    buckets: [AtomicU64; BUCKETS],
    sum_nanos: AtomicU64,
}

/// A histogram of durations.
#[derive(Clone)]
pub struct Histogram(Option<Arc<Cells<Cell>>>);

impl Default for Histogram {
    fn default() -> Self {
        Self(Some(Arc::default()))
    }
}

impl Histogram {
    /// Notes one duration.
    pub fn observe(&self, duration: Duration) {
        let Some(cells) = &self.0 else { return };
        let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        let bucket = BOUNDS_NANOS.partition_point(|bound| *bound < nanos);
        let cell = cells.mine();
        cell.buckets[bucket].fetch_add(1, Ordering::Relaxed);
        cell.sum_nanos.fetch_add(nanos, Ordering::Relaxed);
    }

    /// How many durations were noted.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.buckets().iter().sum()
    }

    /// Whether anything is noted.
    pub(crate) const fn is_on(&self) -> bool {
        self.0.is_some()
    }

    fn cells(&self) -> impl Iterator<Item = &Cell> {
        self.0.iter().flat_map(|cells| cells.all())
    }

    fn buckets(&self) -> [u64; BUCKETS] {
        let mut sums = [0u64; BUCKETS];
        for cell in self.cells() {
            for (sum, bucket) in sums.iter_mut().zip(&cell.buckets) {
                *sum = sum.wrapping_add(bucket.load(Ordering::Relaxed));
            }
        }
        sums
    }
}

#[allow(clippy::cast_precision_loss, reason = "samples are doubles in the exposition format")]
fn seconds(nanos: u64) -> f64 {
    nanos as f64 / 1e9
}

impl Metric for Histogram {
    const KIND: &'static str = "histogram";
    fn off() -> Self {
        Self(None)
    }
    fn write(&self, out: &mut TextWriter, name: &str, labels: Labels<'_>) {
        let buckets = self.buckets();
        let bucket_name = format!("{name}_bucket");
        let mut count = 0u64;
        for (index, in_bucket) in buckets.iter().enumerate() {
            count = count.wrapping_add(*in_bucket);
            let bound = BOUNDS_NANOS.get(index).map_or_else(|| "+Inf".to_owned(), |nanos| seconds(*nanos).to_string());
            out.whole(&bucket_name, labels.and("le", &bound), count);
        }
        let sum = self.cells().fold(0u64, |sum, cell| sum.wrapping_add(cell.sum_nanos.load(Ordering::Relaxed)));
        out.real(&format!("{name}_sum"), labels, seconds(sum));
        out.whole(&format!("{name}_count"), labels, count);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_fall_into_their_buckets() {
        let histogram = Histogram::default();
        // A bound belongs to its bucket; beyond the last bound is the bucket for the rest.
        for micros in [0, 100, 101, 60_000_000, 60_000_001] {
            histogram.observe(Duration::from_micros(micros));
        }
        let buckets = histogram.buckets();
        assert_eq!((buckets[0], buckets[1], buckets[BUCKETS - 2], buckets[BUCKETS - 1]), (2, 1, 1, 1));
        assert_eq!(histogram.count(), 5);
    }
}
