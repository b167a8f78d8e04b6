//! A histogram of latencies that is filled without a lock.
//!
//! Buckets are an eighth of a power of two wide, from a microsecond to an hour: a percentile is at most 12.5 % too high and never too low.

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::Duration;

/// Eight buckets for each power of two up to 2³² µs.
const BUCKETS: usize = 30 * 8;

#[derive(Debug)]
pub(super) struct Histogram {
    counts: [AtomicU32; BUCKETS],
}

impl Default for Histogram {
    fn default() -> Self {
        Self { counts: std::array::from_fn(|_| AtomicU32::new(0)) }
    }
}

impl Histogram {
    pub(super) fn add(&self, latency: Duration) {
        if let Some(count) = self.counts.get(bucket(latency)) {
            count.fetch_add(1, Relaxed);
        }
    }

    /// Empties it: how many there were, and below what so many percent of them were.
    pub(super) fn take(&self, percent: u32) -> (u64, Duration) {
        let mut counts = [0_u32; BUCKETS];
        for (count, cell) in counts.iter_mut().zip(&self.counts) {
            *count = cell.swap(0, Relaxed);
        }
        let all: u64 = counts.iter().map(|count| u64::from(*count)).sum();
        let rank = (all * u64::from(percent.min(100))).div_ceil(100);
        let mut below = 0;
        let found = counts.iter().position(|count| {
            below += u64::from(*count);
            below >= rank
        });
        (all, end(found.unwrap_or_default()))
    }
}

/// Below 8 µs a bucket for each microsecond, above by the position of the highest bit and the three after it.
fn bucket(latency: Duration) -> usize {
    let micros = u32::try_from(latency.as_micros()).unwrap_or(u32::MAX);
    if micros < 8 {
        return micros as usize;
    }
    let power = micros.ilog2();
    (((power - 2) << 3) | ((micros >> (power - 3)) & 7)) as usize
}

/// Where a bucket ends.
fn end(bucket: usize) -> Duration {
    let (power, eighth) = (bucket >> 3, (bucket & 7) as u64);
    let micros = if power == 0 { eighth + 1 } else { (8 + eighth + 1) << (power - 1) };
    Duration::from_micros(micros)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_latency_has_a_bucket_that_holds_it(micros in (0u32..32).prop_flat_map(|bits| 0..=(u32::MAX >> bits))) {
            let n = bucket(Duration::from_micros(micros.into()));
            prop_assert!(n < BUCKETS);
            let (start, end) = (n.checked_sub(1).map_or(Duration::ZERO, end), end(n));
            let latency = Duration::from_micros(micros.into());
            prop_assert!(start <= latency && latency < end, "{start:?} {latency:?} {end:?}");
            prop_assert!(micros < 8 || end.as_secs_f64() <= latency.as_secs_f64() * 1.126);
        }

        #[test]
        fn a_percentile_is_close(mut latencies in proptest::collection::vec(1u64..5_000_000, 1..200)) {
            let histogram = Histogram::default();
            for latency in &latencies {
                histogram.add(Duration::from_micros(*latency));
            }
            latencies.sort_unstable();
            let exact = latencies[(latencies.len() * 95).div_ceil(100) - 1] as f64;
            let (all, found) = histogram.take(95);
            let found = found.as_micros() as f64;
            prop_assert_eq!(all, latencies.len() as u64);
            prop_assert!(found > exact && found <= (exact + 1.0) * 1.126, "{found} for {exact}");
            prop_assert_eq!(histogram.take(95).0, 0);
        }
    }
}
