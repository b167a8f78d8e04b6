//! Hedging: when an answer is late, a second copy to another endpoint, and the first answer counts.
//!
//! Late means later than 95 % of a recent period's first bytes, so by itself about one request in twenty would be hedged; the budget keeps it
//! at one in fifty. Invariants: hedges are at most [`Settings::percent`] of the requests of a window, with no floor; without enough samples in the last
//! whole period nothing is hedged. Nothing is locked. Cancelling the copy that lost, and charging once, are the gateway's.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use self::histogram::Histogram;
use super::breaker::State;
use super::nanos;
use super::window::Window;

mod histogram;
#[cfg(test)]
mod tests;

/// What is late, and how much is extra.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// Later than this part of the answers is late, in percent.
    pub percentile: u32,
    /// Hedges for each hundred requests.
    pub percent: u32,
    /// Over how long requests and hedges are counted.
    pub window: Duration,
    /// How long a histogram is filled before it is used.
    pub period: Duration,
    /// With fewer samples than this in a period it is not used.
    pub least_samples: u64,
    /// Never earlier than this.
    pub least_delay: Duration,
}

impl Default for Settings {
    /// p95, a fiftieth, over ten seconds; from a half minute with a hundred samples; not within a millisecond.
    fn default() -> Self {
        Self {
            percentile: 95,
            percent: 2,
            window: Duration::from_secs(10),
            period: Duration::from_secs(30),
            least_samples: 100,
            least_delay: Duration::from_millis(1),
        }
    }
}

/// The hedging of one target. About 4 KiB.
#[derive(Debug)]
pub struct Hedge {
    settings: Settings,
    window: Window,
    /// The number of the period that is being filled.
    period: AtomicU64,
    /// By the parity of the period's number. The one that is not being filled is empty.
    histograms: [Histogram; 2],
    /// The percentile of the last whole period, in nanoseconds; 0 when unknown.
    late: AtomicU64,
}

impl Hedge {
    /// One that has seen nothing.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        let window = Window::new(settings.window);
        Self {
            settings,
            window,
            period: AtomicU64::new(0),
            histograms: [Histogram::default(), Histogram::default()],
            late: AtomicU64::new(0),
        }
    }

    /// A request came in. Once for each.
    pub fn requested(&self, now: Duration) {
        self.window.came(now);
    }

    /// A first byte came so long after its attempt began.
    pub fn observe(&self, now: Duration, latency: Duration) {
        let period = self.rotate(now);
        if let Some(histogram) = self.histograms.get((period & 1) as usize) {
            histogram.add(latency);
        }
    }

    /// After what time without a first byte to ask [`withdraw`](Self::withdraw) for a hedge; `None`: do not hedge this one. Only what may be carried out
    /// twice, and only while the endpoint that has it is well: what a sick one is late with is its breaker's affair.
    #[must_use]
    pub fn delay(&self, now: Duration, idempotent: bool, endpoint: State) -> Option<Duration> {
        if !idempotent || !endpoint.takes_extra() {
            return None;
        }
        self.rotate(now);
        let late = self.late.load(Relaxed);
        (late > 0).then(|| Duration::from_nanos(late).max(self.settings.least_delay))
    }

    /// The time has passed: takes a hedge, if there is one left.
    #[must_use]
    pub fn withdraw(&self, now: Duration) -> bool {
        self.window.take(now, |requests| requests.saturating_mul(self.settings.percent.into()) / 100)
    }

    /// Ends the period when it is over, and returns the one to fill. Of threads that come at once one does the work; the few samples
    /// that others add to the old histogram meanwhile are lost or counted late.
    fn rotate(&self, now: Duration) -> u64 {
        let period = nanos(now) / nanos(self.settings.period).max(1);
        let filled = self.period.load(Relaxed);
        if period <= filled || self.period.compare_exchange(filled, period, Relaxed, Relaxed).is_err() {
            return filled.max(period);
        }
        let Some(histogram) = self.histograms.get((filled & 1) as usize) else { return period };
        let (samples, late) = histogram.take(self.settings.percentile);
        let known = period == filled + 1 && samples >= self.settings.least_samples.max(1);
        self.late.store(if known { nanos(late) } else { 0 }, Relaxed);
        period
    }
}
