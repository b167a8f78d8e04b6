//! The gate of an upstream that asked for peace: 429 or 503 with `Retry-After`.
//!
//! Being throttled is no failure: the breaker hears nothing of it. Invariants: a gate is closed no longer than [`Throttle::MOST`] after
//! the last answer that asked for it, whatever that answer said; a later answer never shortens it. Reading the header, and adding
//! jitter so that not everybody comes back at once, are the caller's.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use super::nanos;

/// "Throttled until", for one endpoint or one credential. One atomic word.
#[derive(Debug, Default)]
pub struct Throttle {
    until: AtomicU64,
}

impl Throttle {
    /// However long an upstream asks for.
    pub const MOST: Duration = Duration::from_secs(300);

    /// An answer asked for peace for `retry_after`.
    pub fn hold(&self, now: Duration, retry_after: Duration) {
        self.until.fetch_max(nanos(now.saturating_add(retry_after.min(Self::MOST))), Relaxed);
    }

    /// How long still; `None` when it may be asked.
    #[must_use]
    pub fn remaining(&self, now: Duration) -> Option<Duration> {
        let left = self.until.load(Relaxed).saturating_sub(nanos(now));
        (left > 0).then(|| Duration::from_nanos(left))
    }

    /// Somebody knows better, for example after the quota was raised.
    pub fn release(&self) {
        self.until.store(0, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_day_is_five_minutes() {
        let throttle = Throttle::default();
        let now = Duration::from_secs(7);
        assert_eq!(throttle.remaining(now), None);
        throttle.hold(now, Duration::from_secs(86_400));
        assert_eq!(throttle.remaining(now), Some(Throttle::MOST));
        throttle.release();
        assert_eq!(throttle.remaining(now), None);
    }

    proptest! {
        #[test]
        fn closed_until_the_latest_bounded_request(holds in proptest::collection::vec((0u64..1_000, 0u64..1_000), 1..20), after in 0u64..1_000) {
            let throttle = Throttle::default();
            let (mut now, mut until) = (0, 0);
            for (gap, wait) in holds {
                now += gap;
                throttle.hold(Duration::from_secs(now), Duration::from_secs(wait));
                until = until.max(now + wait.min(300));
            }
            now += after;
            let left = until.saturating_sub(now);
            prop_assert_eq!(throttle.remaining(Duration::from_secs(now)), (left > 0).then(|| Duration::from_secs(left)));
        }
    }
}
