//! Hashes and draws that are the same on every node and in every release.
//!
//! Several gateways must send a key to the same endpoint without talking to each other, so the standard library's hasher, which may
//! change, is not enough. Invariant: the values never change (a test holds some). They are no protection against keys that somebody chose on
//! purpose; the bound on load is.

/// Hashes bytes: FNV-1a with 64 bits (Fowler, Noll, Vo), then [`mix`] because FNV alone leaves the high bits of short keys alike.
#[must_use]
pub fn key(bytes: &[u8]) -> u64 {
    let fnv = bytes.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3));
    mix(fnv, 0)
}

/// Two numbers to one, by the finaliser of SplitMix64 (Steele, Lea, Flood 2014) twice. Also a next draw from a draw.
#[must_use]
pub const fn mix(a: u64, b: u64) -> u64 {
    finalise(finalise(a).wrapping_add(b.wrapping_mul(GOLDEN)))
}

/// 2⁶⁴ divided by the golden ratio.
const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

const fn finalise(word: u64) -> u64 {
    let word = word.wrapping_add(GOLDEN);
    let word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}

/// A draw as a number from 0 up to but not including 1.
#[must_use]
pub fn unit(draw: u64) -> f64 {
    (draw >> 11) as f64 / (1_u64 << 53) as f64
}

/// A draw as one of `n`; `None` when `n` is 0.
#[must_use]
pub fn index(draw: u64, n: usize) -> Option<usize> {
    // The high half of a product instead of a remainder: no division, and even to one part in 2⁶⁴ ÷ n.
    (n > 0).then(|| ((u128::from(draw) * n as u128) >> 64) as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_never_change() {
        assert_eq!(mix(0, 0), 0xa706_dd2f_4d19_7e6f);
        assert_eq!(key(b"plinth"), 0xde32_9959_506a_162e);
    }

    #[test]
    fn draws_stay_in_range() {
        assert_eq!(index(u64::MAX, 3), Some(2));
        assert_eq!(index(0, 3), Some(0));
        assert_eq!(index(7, 0), None);
        assert!(unit(u64::MAX) < 1.0);
        assert_eq!(unit(0), 0.0);
    }

    #[test]
    fn short_keys_spread() {
        let mut counts = [0_u32; 16];
        for n in 0..16_000_u32 {
            counts[index(key(format!("user-{n}").as_bytes()), 16).unwrap()] += 1;
        }
        assert!(counts.iter().all(|count| (850..1_150).contains(count)), "{counts:?}");
    }
}
