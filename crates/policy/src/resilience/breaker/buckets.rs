//! Calls, errors and slow calls within a sliding time, in ten buckets.
//!
//! Invariant: the sum is that of the buckets, so reading it costs nothing. The lock around it is the breaker's.

use std::time::Duration;

use crate::resilience::nanos;

const BUCKETS: usize = 10;

/// What was counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) calls: u32,
    pub(super) failed: u32,
    pub(super) slow: u32,
}

impl Counts {
    /// Whether `part` is at least so many percent of all calls. Of no calls nothing is.
    pub(super) fn share(self, part: u32, percent: u32) -> bool {
        part > 0 && u64::from(part) * 100 >= u64::from(self.calls) * u64::from(percent)
    }
}

#[derive(Debug)]
pub(super) struct Buckets {
    width: u64,
    /// The number of the newest bucket, counted from time 0.
    newest: u64,
    ring: [Counts; BUCKETS],
    sum: Counts,
}

impl Buckets {
    pub(super) fn new(window: Duration) -> Self {
        Self { width: (nanos(window) / BUCKETS as u64).max(1), newest: 0, ring: [Counts::default(); BUCKETS], sum: Counts::default() }
    }

    /// Adds to the newest bucket and returns the sum. A `now` that is a little behind counts as the newest.
    pub(super) fn add(&mut self, now: Duration, counts: Counts) -> Counts {
        self.advance(now);
        let newest = (self.newest % BUCKETS as u64) as usize;
        if let Some(bucket) = self.ring.get_mut(newest)
            && self.sum.calls < u32::MAX
        {
            for sum in [bucket, &mut self.sum] {
                sum.calls += counts.calls;
                sum.failed += counts.failed;
                sum.slow += counts.slow;
            }
        }
        self.sum
    }

    pub(super) fn sum(&mut self, now: Duration) -> Counts {
        self.advance(now);
        self.sum
    }

    pub(super) fn clear(&mut self) {
        self.ring = [Counts::default(); BUCKETS];
        self.sum = Counts::default();
    }

    fn advance(&mut self, now: Duration) {
        let number = nanos(now) / self.width;
        let passed = number.saturating_sub(self.newest);
        if passed == 0 {
            return;
        }
        if passed >= BUCKETS as u64 {
            self.clear();
        } else {
            for n in 1..=passed {
                let Some(bucket) = self.ring.get_mut(((self.newest + n) % BUCKETS as u64) as usize) else { continue };
                let old = std::mem::take(bucket);
                self.sum.calls -= old.calls;
                self.sum.failed -= old.failed;
                self.sum.slow -= old.slow;
            }
        }
        self.newest = number;
    }
}
