//! Reading the time, behind a trait.
//!
//! Sleeping is tokio's (`tokio::time`), which tests pause and advance by themselves; this trait is
//! about *reading*. Invariant: `monotonic` never goes back; `now` may, when somebody sets the clock.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use plinth_types::Timestamp;

/// A source of time.
pub trait Clock: Send + Sync {
    /// The wall clock: for what is written down.
    fn now(&self) -> Timestamp;

    /// The time since some fixed moment of this process: for measuring how long something took.
    fn monotonic(&self) -> Duration;
}

/// The clocks of the machine.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

/// The moment from which [`SystemClock::monotonic`] counts: its first reading.
fn origin() -> Instant {
    static ORIGIN: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
    #[allow(clippy::disallowed_methods, reason = "this is the one place that reads the machine's clock")]
    *ORIGIN.get_or_init(Instant::now)
}

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        #[allow(clippy::disallowed_methods, reason = "this is the one place that reads the machine's clock")]
        SystemTime::now().into()
    }

    fn monotonic(&self) -> Duration {
        origin().elapsed()
    }
}

/// A clock that stands still until a test moves it.
#[derive(Debug)]
pub struct ManualClock {
    start: Timestamp,
    elapsed_nanos: AtomicU64,
}

impl ManualClock {
    /// A clock that shows `start`.
    #[must_use]
    pub const fn new(start: Timestamp) -> Self {
        Self { start, elapsed_nanos: AtomicU64::new(0) }
    }

    /// Moves both clocks forward.
    pub fn advance(&self, by: Duration) {
        self.elapsed_nanos.fetch_add(u64::try_from(by.as_nanos()).unwrap_or(u64::MAX), Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        self.start.plus(self.monotonic())
    }

    fn monotonic(&self) -> Duration {
        Duration::from_nanos(self.elapsed_nanos.load(Ordering::SeqCst))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manual_clock_moves_only_when_told() {
        let clock = ManualClock::new(Timestamp::from_millis(1000).unwrap());
        assert_eq!(clock.now().millis(), 1000);
        clock.advance(Duration::from_millis(5));
        assert_eq!((clock.now().millis(), clock.monotonic()), (1005, Duration::from_millis(5)));
    }

    #[test]
    fn the_system_clock_does_not_go_back() {
        let first = SystemClock.monotonic();
        assert!(SystemClock.monotonic() >= first);
        assert!(SystemClock.now().millis() > 1_700_000_000_000);
    }
}
