//! Whether a body arrives fast enough.
//!
//! Invariant: in every window but a last, shorter one, at least `min_rate × window` bytes arrive. Windows
//! rather than an average, so that a fast start does not buy a long silence.

use std::time::Duration;

use plinth_types::ByteSize;
use tokio::time::Instant;

#[derive(Debug)]
pub struct Pace {
    window: Duration,
    wanted: u64,
    received: u64,
    end: Instant,
}

impl Pace {
    /// From now on.
    pub fn start(min_rate: ByteSize, window: Duration) -> Self {
        let wanted = u128::from(min_rate.0).saturating_mul(window.as_millis()) / 1000;
        let wanted = u64::try_from(wanted).unwrap_or(u64::MAX);
        Self { window, wanted, received: 0, end: Instant::now() + window }
    }

    /// Bytes arrived.
    pub fn received(&mut self, bytes: usize) {
        self.received = self.received.saturating_add(bytes as u64);
    }

    /// For this long nobody waited for bytes, so it does not count.
    pub fn skip(&mut self, time: Duration) {
        self.end += time;
    }

    /// When it is to be judged next.
    pub const fn judged_at(&self) -> Instant {
        self.end
    }

    /// Judges a window that is over and begins the next; `false` when too little arrived.
    pub fn judge(&mut self) -> bool {
        let now = Instant::now();
        if now < self.end {
            return true;
        }
        let enough = self.received >= self.wanted;
        self.received = 0;
        self.end = now + self.window;
        enough
    }
}
