//! A split by weight, for canaries: each key always goes to the same target, and changing a weight moves as few keys as can be.
//!
//! Weighted rendezvous hashing (Schindelhauer and Schomaker 2005): each target scores `weight ÷ −ln(hash)`, the highest score wins, so a target's share is its part of
//! the sum. Invariants: raising a weight only moves keys to that target, lowering it only moves keys away; the order of the targets does
//! not matter; a target of weight 0 gets nothing. Without a key, a random draw serves as well. One hash and one logarithm for each target.

use std::fmt;

use super::hash;

/// Targets and their shares.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Split {
    targets: Box<[(u64, u32)]>,
}

/// No target has any weight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NoWeight;

impl fmt::Display for NoWeight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the weights of a split add up to nothing")
    }
}

impl std::error::Error for NoWeight {}

impl Split {
    /// Of targets by an id that stays the same when others come and go ([`hash::key`] of its name), and its weight.
    ///
    /// # Errors
    /// [`NoWeight`] when the weights add up to zero, as they do of no targets.
    pub fn new(targets: impl IntoIterator<Item = (u64, u32)>) -> Result<Self, NoWeight> {
        let targets: Box<[_]> = targets.into_iter().collect();
        if targets.iter().all(|(_, weight)| *weight == 0) { Err(NoWeight) } else { Ok(Self { targets }) }
    }

    /// The place of the target that a key (or a draw) goes to.
    #[must_use]
    pub fn pick(&self, key: u64) -> usize {
        let scores = self.targets.iter().enumerate().filter(|(_, (_, weight))| *weight > 0);
        let best = scores
            .map(|(place, (id, weight))| (score(key, *id, *weight), *id, place))
            .max_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
        best.map_or(0, |(_, _, place)| place)
    }

    /// The share of a target, between 0 and 1.
    #[must_use]
    pub fn share(&self, place: usize) -> f64 {
        let sum: f64 = self.targets.iter().map(|(_, weight)| f64::from(*weight)).sum();
        self.targets.get(place).map_or(0.0, |(_, weight)| f64::from(*weight) / sum)
    }
}

fn score(key: u64, id: u64, weight: u32) -> f64 {
    // Never 0 nor 1: half a step is added.
    let unit = hash::unit(hash::mix(key, id)) + f64::EPSILON / 4.0;
    f64::from(weight) / -unit.ln()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn keys() -> impl Iterator<Item = u64> {
        (0..2_000).map(|n| hash::mix(n, 99))
    }

    #[test]
    fn nothing_to_choose_from_is_an_error() {
        assert_eq!(Split::new([]), Err(NoWeight));
        assert_eq!(Split::new([(1, 0), (2, 0)]), Err(NoWeight));
    }

    #[test]
    fn extreme_draws_have_a_target() {
        let split = Split::new([(1, 1), (2, u32::MAX)]).unwrap();
        for key in [0, 1, u64::MAX] {
            assert!(split.pick(key) < 2);
        }
        assert!(score(0, 0, 1).is_finite() && (1.0 - f64::EPSILON / 2.0 + f64::EPSILON / 4.0).ln() <= 0.0);
    }

    #[test]
    fn a_canary_of_five_percent_gets_five_percent() {
        let split = Split::new([(hash::key(b"stable"), 95), (hash::key(b"canary"), 5)]).unwrap();
        let canary = (0..100_000).filter(|n| split.pick(hash::mix(*n, 3)) == 1).count();
        assert!((4_750..5_250).contains(&canary), "{canary}");
        assert!((split.share(1) - 0.05).abs() < 1e-12);
    }

    #[test]
    fn a_canary_that_grows_keeps_its_users() {
        let at = |weight| Split::new([(hash::key(b"stable"), 100 - weight), (hash::key(b"canary"), weight)]).unwrap();
        for (before, after) in [(1, 5), (5, 25), (25, 50), (50, 100)] {
            let (before, after) = (at(before), at(after));
            assert!(keys().all(|key| before.pick(key) == 0 || after.pick(key) == 1));
        }
    }

    proptest! {
        #[test]
        fn changing_one_weight_moves_only_to_or_from_it(
            weights in proptest::collection::vec(0u32..50, 2..6), which in 0usize..6, new in 0u32..50,
        ) {
            let which = which % weights.len();
            let split = |weights: &[u32]| Split::new(weights.iter().enumerate().map(|(n, weight)| (hash::mix(n as u64, 7), *weight)));
            let mut changed = weights.clone();
            changed[which] = new;
            let (Ok(before), Ok(after)) = (split(&weights), split(&changed)) else { return Ok(()) };
            for key in keys() {
                let (from, to) = (before.pick(key), after.pick(key));
                prop_assert!(weights[from] > 0 && changed[to] > 0);
                if from != to {
                    prop_assert_eq!(if new > weights[which] { to } else { from }, which);
                }
            }
        }

        #[test]
        fn shares_are_as_the_weights(weights in proptest::collection::vec(0u32..50, 2..5)) {
            let Ok(split) = Split::new(weights.iter().enumerate().map(|(n, weight)| (hash::mix(n as u64, 8), *weight))) else { return Ok(()) };
            let mut counts = vec![0_u32; weights.len()];
            keys().for_each(|key| counts[split.pick(key)] += 1);
            for (place, count) in counts.iter().enumerate() {
                // Five standard deviations of 2,000 draws.
                let share = split.share(place);
                let off = (f64::from(*count) - 2_000.0 * share).abs();
                prop_assert!(off <= 5.0 * (2_000.0 * share * (1.0 - share)).sqrt() + 1.0, "{counts:?} for {weights:?}");
            }
        }
    }
}
