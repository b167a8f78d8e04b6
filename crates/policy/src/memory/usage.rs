//! How much something was used of late.
//!
//! A count that decays: what was done one half-life ago counts half. Fed with a total that only grows, at whatever moments.

use std::time::Duration;

/// After this time a use counts half.
const HALF_LIFE: Duration = Duration::from_secs(60);

/// Recent use, and when the last was seen.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Usage {
    recent: f64,
    at: Duration,
    total: u64,
    last: Duration,
}

impl Usage {
    /// Nothing used yet; `now` counts as the last use.
    #[must_use]
    pub const fn new(now: Duration) -> Self {
        Self { recent: 0.0, at: now, total: 0, last: now }
    }

    /// Takes in the total so far. One lower than before means that the counting has begun again.
    #[allow(clippy::cast_precision_loss, reason = "counts of requests are far below 2^53")]
    pub fn observe(&mut self, total: u64, now: Duration) {
        let new = if total >= self.total { total - self.total } else { total };
        self.recent = self.recent(now) + new as f64;
        (self.at, self.total) = (now, total);
        if new > 0 {
            self.last = now;
        }
    }

    /// Something is in use right now.
    pub fn touch(&mut self, now: Duration) {
        self.last = self.last.max(now);
    }

    /// The counting begins again at 0, as after a load; what was used before still counts.
    pub fn restart(&mut self, now: Duration) {
        self.total = 0;
        self.touch(now);
    }

    /// The decayed count at `now`.
    #[must_use]
    pub fn recent(&self, now: Duration) -> f64 {
        let halvings = now.saturating_sub(self.at).as_secs_f64() / HALF_LIFE.as_secs_f64();
        self.recent * 0.5f64.powf(halvings)
    }

    /// When the last use was seen.
    #[must_use]
    pub const fn last(&self) -> Duration {
        self.last
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_use_counts_less_and_a_restart_loses_nothing() {
        let s = Duration::from_secs;
        let mut usage = Usage::new(s(0));
        usage.observe(100, s(10));
        assert_eq!((usage.recent(s(10)), usage.last()), (100.0, s(10)));
        assert!((usage.recent(s(70)) - 50.0).abs() < 1e-9);
        usage.observe(100, s(70));
        assert_eq!(usage.last(), s(10), "nothing new was done");
        usage.restart(s(130));
        usage.observe(3, s(130));
        assert!((usage.recent(s(130)) - 28.0).abs() < 1e-9);
        // A total that fell by itself is a new count too.
        usage.observe(1, s(130));
        assert!((usage.recent(s(130)) - 29.0).abs() < 1e-9);
    }
}
