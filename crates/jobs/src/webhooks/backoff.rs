//! When to try again.
//!
//! Invariant: the waits of a delivery that never succeeds end: no attempt begins later than [`GIVE_UP`] after the first.

use std::time::Duration;

/// The most before the first retry; four times as much before each further one.
const BASE: Duration = Duration::from_secs(1);
/// The most before any retry, but for the receiver's wish.
pub const LONGEST_WAIT: Duration = Duration::from_secs(3600);
/// How long a delivery is tried for.
pub const GIVE_UP: Duration = Duration::from_secs(24 * 3600);

/// The wait before retry number `retry`, counted from 0: exponential with full jitter, `random(0, min(1 h, 1 s × 4ⁿ))`, and before
/// that as long as the receiver wished. `since_first` is the time since the first attempt, `draw` any random number. `None`: give up,
/// because the attempt would begin more than [`GIVE_UP`] after the first.
#[must_use]
pub fn next_wait(retry: u32, since_first: Duration, wish: Option<Duration>, draw: u64) -> Option<Duration> {
    let most = BASE.saturating_mul(4_u32.saturating_pow(retry)).min(LONGEST_WAIT);
    // The high half of the product is evenly spread below `most`, in milliseconds.
    let jitter = (u128::from(draw) * most.as_millis()) >> 64;
    let jitter = Duration::from_millis(u64::try_from(jitter).unwrap_or(u64::MAX));
    let wait = wish.unwrap_or_default().min(super::LONGEST_WISH) + jitter;
    (since_first.saturating_add(wait) <= GIVE_UP).then_some(wait)
}
