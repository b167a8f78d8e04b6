//! How long a job will wait, as far as one can know.

use std::time::Duration;

/// What is known of a kind's queue.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Backlog {
    /// How many are to begin before this one.
    pub ahead: u64,
    /// How many are running.
    pub running: u64,
    /// How many ended within [`Backlog::window`].
    pub ended: u64,
    /// The time over which `ended` was counted.
    pub window: Duration,
    /// The mean time that one ran; zero when none has ended.
    pub mean_run: Duration,
}

/// Until the job begins. `None` when nothing is known: nothing of this kind has run lately.
///
/// The queue drains as fast as it did within the window. Where fewer ended than are running (long jobs), what runs is taken to be as many
/// lanes, each as fast as the mean.
#[must_use]
pub fn estimate_wait(backlog: &Backlog) -> Option<Duration> {
    if backlog.ahead == 0 && backlog.running == 0 {
        return Some(Duration::ZERO);
    }
    let before = (backlog.ahead + 1) as f64;
    let seen = backlog.ended as f64 / backlog.window.as_secs_f64().max(1e-3);
    let lanes = if backlog.mean_run.is_zero() { 0.0 } else { backlog.running as f64 / backlog.mean_run.as_secs_f64() };
    let rate = if backlog.ended > backlog.running { seen } else { seen.max(lanes) };
    (rate > 0.0).then(|| Duration::try_from_secs_f64(before / rate).unwrap_or(Duration::MAX))
}

/// When a client should ask again that was told to expect the end after `expected`: a fifth of it, within 1 and 60 s. Whoever follows this asks
/// rarely while much is missing and is at most a fifth late.
#[must_use]
pub fn poll_after(expected: Option<Duration>) -> Duration {
    expected.map_or(Duration::from_secs(5), |left| left / 5).clamp(Duration::from_secs(1), Duration::from_mins(1))
}
