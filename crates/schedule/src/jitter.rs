//! A delay that is always the same for the same schedule.
//!
//! Invariant: the delay is shorter than the window. With a window no longer than the time between two ticks, ticks keep their order.

use std::time::Duration;

/// By how much to delay the ticks of a schedule, so that not all that say `0 * * * *` begin at once: evenly spread over whole
/// milliseconds of `[0, window)`, and the same for the same seed on every node and after every start.
#[must_use]
pub fn jitter(seed: u64, window: Duration) -> Duration {
    let millis = u64::try_from(window.as_millis()).unwrap_or(u64::MAX);
    // The high half of the product is below `millis` for every hash (Lemire 2019, "Fast random integer generation in an interval").
    let scaled = (u128::from(mix(seed)) * u128::from(millis)) >> 64;
    Duration::from_millis(u64::try_from(scaled).unwrap_or(0))
}

/// A seed from what names a schedule: FNV-1a of the parts, each closed by a byte that UTF-8 never has, so that `("a", "bc")` and
/// `("ab", "c")` differ.
#[must_use]
pub fn seed(parts: &[&str]) -> u64 {
    let bytes = parts.iter().flat_map(|part| part.bytes().chain([0xff]));
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

/// The finaliser of SplitMix64 (Steele, Lea, Flood 2014): neighbours of a seed are not neighbours afterwards.
const fn mix(seed: u64) -> u64 {
    let z = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_repeats_stays_inside_and_spreads() {
        let window = Duration::from_secs(60);
        let mut buckets = [0_u32; 6];
        for n in 0..6000_u64 {
            let delay = jitter(n, window);
            assert!(delay < window);
            assert_eq!(delay, jitter(n, window));
            buckets[usize::try_from(delay.as_secs() / 10).unwrap()] += 1;
        }
        assert!(buckets.iter().all(|count| (850..1150).contains(count)), "{buckets:?}");
        assert_eq!((jitter(7, Duration::ZERO), jitter(7, Duration::from_millis(1))), (Duration::ZERO, Duration::ZERO));
        assert!(jitter(u64::MAX, Duration::MAX) < Duration::MAX);
    }

    #[test]
    fn parts_do_not_run_together() {
        assert_ne!(seed(&["a", "bc"]), seed(&["ab", "c"]));
        assert_eq!(seed(&["a", "bc"]), seed(&["a", "bc"]));
    }
}
