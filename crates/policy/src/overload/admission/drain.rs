//! How fast requests leave: a count that fades with a time constant of 5 s.
//!
//! Invariant: the rate is finite and not negative, and right from the first seconds on, since the time for which something was
//! counted at all is taken into account.

/// Nanoseconds in which a departure fades to 1/e.
const FADES: f64 = 5e9;

#[derive(Debug, Default)]
pub(super) struct Drain {
    count: f64,
    last: u64,
    since: Option<u64>,
}

impl Drain {
    /// Somebody has left.
    pub(super) fn left(&mut self, now: u64) {
        self.count = self.faded(now) + 1.0;
        self.last = self.last.max(now);
        self.since = self.since.or(Some(now));
    }

    /// Departures in a second.
    pub(super) fn rate(&self, now: u64) -> f64 {
        let Some(since) = self.since else { return 0.0 };
        let counted = 1.0 - (-(now.saturating_sub(since).max(100_000_000) as f64) / FADES).exp();
        self.faded(now) / (FADES / 1e9 * counted)
    }

    fn faded(&self, now: u64) -> f64 {
        self.count * (-(now.saturating_sub(self.last) as f64) / FADES).exp()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn learns_the_rate_and_forgets_it() {
        let mut drain = Drain::default();
        assert_eq!(drain.rate(0), 0.0);
        for n in 1..=2000u64 {
            drain.left(n * 10_000_000);
            if n > 100 {
                assert!((90.0..115.0).contains(&drain.rate(n * 10_000_000)), "{} after {n}", drain.rate(n * 10_000_000));
            }
        }
        assert!(drain.rate(60_000_000_000) < 0.1);
    }
}
