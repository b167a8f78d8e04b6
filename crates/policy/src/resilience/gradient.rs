//! Adaptive concurrency: how many requests an endpoint may have in flight, learned from how its latency moves.
//!
//! Netflix's Gradient2: when recent latency rises above the long average, the limit falls in proportion; otherwise it grows by a few. Feed it the
//! time to the first byte (of language models: less the expected prefill) or the time per token, never the total time: that grows with the answer.
//!
//! Samples are gathered into windows of [`Settings::window`], because the averages count samples and at thousands of them a second an average over 600
//! would be over in an instant. Invariants: the limit stays within [`Settings::least`] and [`Settings::most`]; no more are let in than it says;
//! it does not grow while fewer than three quarters of it are in use, nor fall while fewer than half are. Where latencies are alike by themselves,
//! a small rise is believed to be a queue, where they differ only a large one. Entering is one atomic write; leaving takes one short lock that only this
//! endpoint's answers share. Queueing what was not let in is the gateway's.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::Duration;

use super::lock;

#[cfg(test)]
mod tests;

/// How to move the limit.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// The limit at first.
    pub initial: u32,
    /// Never below.
    pub least: u32,
    /// Never above.
    pub most: u32,
    /// What may wait at the endpoint without harm; the limit grows by a part of this for each window.
    pub queue: f64,
    /// The part of the way to a new limit that is gone at once.
    pub smoothing: f64,
    /// How far recent latency may be above the long average before the limit falls, where latencies differ much by themselves.
    pub tolerance: f64,
    /// The same where they are all alike: then a rise is a queue, and the limit need not let everybody become slower to see it.
    pub least_tolerance: f64,
    /// Over how many windows the long average goes.
    pub long_windows: u32,
    /// How long samples are gathered.
    pub window: Duration,
    /// … and at least so many.
    pub least_samples: u32,
    /// From this share of overload signs in a window on the limit falls as fast as it may, in percent.
    pub overload_percent: u32,
}

impl Default for Settings {
    /// Gradient2's numbers, on windows of 100 ms (Envoy's).
    fn default() -> Self {
        Self {
            initial: 20,
            least: 20,
            most: 200,
            queue: 4.0,
            smoothing: 0.2,
            tolerance: 1.5,
            least_tolerance: 1.1,
            long_windows: 600,
            window: Duration::from_millis(100),
            least_samples: 10,
            overload_percent: 10,
        }
    }
}

/// What a finished request says about the endpoint's load.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sample {
    /// It took so long.
    Latency(Duration),
    /// It timed out, or was refused for lack of room.
    Overload,
    /// Nothing: cancelled, or failed for another reason.
    Nothing,
}

/// The limit of one endpoint, and what is in flight under it.
#[derive(Debug)]
pub struct Gradient {
    settings: Settings,
    limit: AtomicU32,
    in_flight: AtomicU32,
    book: Mutex<Book>,
}

#[derive(Debug, Default)]
struct Book {
    limit: f64,
    /// The long average in seconds, over so many windows.
    long: f64,
    windows: u32,
    began: Duration,
    sum: f64,
    squares: f64,
    samples: u32,
    overloads: u32,
    peak: u32,
}

impl Gradient {
    /// An empty endpoint. A range that is none is read as its lower end.
    #[must_use]
    pub fn new(mut settings: Settings) -> Self {
        settings.least = settings.least.max(1);
        settings.most = settings.most.max(settings.least);
        settings.initial = settings.initial.clamp(settings.least, settings.most);
        let book = Book { limit: settings.initial.into(), ..Book::default() };
        Self { limit: AtomicU32::new(settings.initial), in_flight: AtomicU32::new(0), book: Mutex::new(book), settings }
    }

    /// Lets one in, if there is room. Each that was let in must [`leave`](Self::leave).
    #[must_use]
    pub fn enter(&self) -> bool {
        let limit = self.limit();
        self.in_flight.try_update(Relaxed, Relaxed, |in_flight| (in_flight < limit).then_some(in_flight + 1)).is_ok()
    }

    /// One is done.
    pub fn leave(&self, now: Duration, sample: Sample) {
        let in_flight = self.in_flight.try_update(Relaxed, Relaxed, |in_flight| in_flight.checked_sub(1)).unwrap_or(1);
        if sample == Sample::Nothing {
            return;
        }
        let mut book = lock(&self.book);
        book.take(now, sample, in_flight);
        if book.is_full(now, &self.settings) {
            book.close(now, &self.settings);
            self.limit.store(book.limit as u32, Relaxed);
        }
    }

    /// How many may be in flight.
    #[must_use]
    pub fn limit(&self) -> u32 {
        self.limit.load(Relaxed)
    }

    /// How many are.
    #[must_use]
    pub fn in_flight(&self) -> u32 {
        self.in_flight.load(Relaxed)
    }

    /// Whether [`enter`](Self::enter) would let one in.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.in_flight() < self.limit()
    }
}

impl Book {
    fn take(&mut self, now: Duration, sample: Sample, in_flight: u32) {
        if self.samples == 0 && self.overloads == 0 {
            (self.began, self.peak) = (now, 0);
        }
        self.peak = self.peak.max(in_flight);
        match sample {
            Sample::Latency(latency) => {
                self.sum += latency.as_secs_f64();
                self.squares += latency.as_secs_f64().powi(2);
                self.samples = self.samples.saturating_add(1);
            }
            Sample::Overload => self.overloads = self.overloads.saturating_add(1),
            Sample::Nothing => {}
        }
    }

    fn is_full(&self, now: Duration, settings: &Settings) -> bool {
        self.samples.saturating_add(self.overloads) >= settings.least_samples && now.saturating_sub(self.began) >= settings.window
    }

    fn close(&mut self, now: Duration, settings: &Settings) {
        let overloaded = self.overloads > 0
            && u64::from(self.overloads) * 100
                >= (u64::from(self.overloads) + u64::from(self.samples)) * u64::from(settings.overload_percent);
        let gradient = if self.samples > 0 { self.gradient(settings) } else { 1.0 };
        let (used, wanted) = (f64::from(self.peak) / self.limit, self.limit * gradient + settings.queue);
        // More than background requests alone may use: those hold back a fifth.
        let is_tried = used >= 0.75 || (used >= 0.5 && wanted < self.limit);
        if overloaded {
            self.toward(self.limit * 0.5, settings);
        } else if is_tried && self.samples > 0 {
            self.toward(wanted, settings);
        }
        (self.began, self.sum, self.squares, self.samples, self.overloads, self.peak) = (now, 0.0, 0.0, 0, 0, 0);
    }

    /// By what the limit should shrink; also takes the window into the long average.
    fn gradient(&mut self, settings: &Settings) -> f64 {
        /// The first windows are simply averaged.
        const WARM_UP: u32 = 10;
        let short = (self.sum / f64::from(self.samples)).max(1e-9);
        self.windows = self.windows.saturating_add(1);
        let part =
            if self.windows <= WARM_UP { 1.0 / f64::from(self.windows) } else { 2.0 / f64::from(settings.long_windows.saturating_add(1)) };
        self.long += (short - self.long) * part.min(1.0);
        // After a time of overload the long average is far too high, and would not come down in time by itself.
        if self.long / short > 2.0 {
            self.long *= 0.9;
        }
        // Half of what latencies differ by, as a part of their mean, comes on top of the least.
        let deviation = (self.squares / f64::from(self.samples) - short * short).max(0.0).sqrt() / short;
        let tolerance = (settings.least_tolerance + 0.5 * deviation).min(settings.tolerance.max(settings.least_tolerance));
        (tolerance * self.long / short).clamp(0.5, 1.0)
    }

    fn toward(&mut self, limit: f64, settings: &Settings) {
        let limit = self.limit * (1.0 - settings.smoothing) + limit * settings.smoothing;
        self.limit = limit.clamp(settings.least.into(), settings.most.into());
    }
}
