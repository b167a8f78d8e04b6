//! Partitioners are stable, even within stated bounds, and move as little as they say.

use proptest::prelude::*;

use super::*;

const KEYS: usize = 8000;

fn shares(partitioner: &dyn Partitioner, partitions: u16, prefix: &str) -> Vec<usize> {
    let mut shares = vec![0; usize::from(partitions)];
    for key in 0..KEYS {
        shares[usize::from(partitioner.partition(&format!("{prefix}{key}")))] += 1;
    }
    shares
}

#[test]
fn the_partition_of_a_key_is_the_same_in_every_release() {
    let ring = ConsistentHash::new(16, 64).unwrap();
    let got = |p: &dyn Partitioner| ["", "a", "user-7/item-12", "ü"].map(|key| p.partition(key));
    assert_eq!(got(&Hash::new(16).unwrap()), [14, 12, 9, 6]);
    assert_eq!(got(&ring), [12, 6, 1, 7]);
}

#[test]
fn what_does_not_fit_is_refused() {
    let range = |splits: &[&str]| PartitionerSpec::Range { splits: splits.iter().map(|s| (*s).to_owned()).collect() };
    assert!(PartitionerSpec::Hash.build(0).is_err());
    assert!(range(&["b"]).build(2).is_ok() && range(&[]).build(1).is_ok());
    assert!(range(&["b"]).build(3).is_err() && range(&["b", "a"]).build(3).is_err() && range(&["b", "b"]).build(3).is_err());
    for nodes in [0, 1025] {
        assert!(PartitionerSpec::ConsistentHash { virtual_nodes: nodes }.build(2).is_err());
    }
}

#[test]
fn a_split_belongs_to_the_partition_that_it_begins() {
    let range = Range::new(vec!["b".into(), "d".into()]).unwrap();
    assert_eq!(["", "a", "b", "c", "d", "z"].map(|key| range.partition(key)), [0, 0, 1, 1, 2, 2]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn hashing_is_even_within_six_standard_deviations(partitions in 1u16..=64, prefix in "[a-z/]{0,12}") {
        let mean = KEYS as f64 / f64::from(partitions);
        let bound = 6.0 * mean.sqrt();
        for share in shares(&Hash::new(partitions).unwrap(), partitions, &prefix) {
            prop_assert!((share as f64 - mean).abs() <= bound, "{share} of a mean of {mean}");
        }
    }

    #[test]
    fn ranges_keep_the_order(mut splits in prop::collection::btree_set("[a-m]{1,3}", 0..8), a in "[a-m]{0,4}", b in "[a-m]{0,4}") {
        let range = Range::new(std::mem::take(&mut splits).into_iter().collect()).unwrap();
        let (low, high) = if a <= b { (a, b) } else { (b, a) };
        prop_assert!(range.partition(&low) <= range.partition(&high));
    }

    #[test]
    fn a_ring_is_even_within_half_of_the_mean(partitions in 1u16..=32, prefix in "[a-z/]{0,12}") {
        let mean = KEYS as f64 / f64::from(partitions);
        for share in shares(&ConsistentHash::new(partitions, 256).unwrap(), partitions, &prefix) {
            prop_assert!((0.5 * mean..=1.5 * mean).contains(&(share as f64)), "{share} of a mean of {mean}");
        }
    }

    #[test]
    fn growth_moves_keys_to_the_new_partition_only(partitions in 1u16..=32, prefix in "[a-z/]{0,12}") {
        let (before, after) = (ConsistentHash::new(partitions, 256).unwrap(), ConsistentHash::new(partitions + 1, 256).unwrap());
        let mut moved = 0;
        for key in 0..KEYS {
            let key = format!("{prefix}{key}");
            let (old, new) = (before.partition(&key), after.partition(&key));
            prop_assert!(old == new || new == partitions, "{old} -> {new}");
            moved += usize::from(old != new);
        }
        let fair = KEYS as f64 / f64::from(partitions + 1);
        prop_assert!((0.5 * fair..=1.5 * fair).contains(&(moved as f64)), "{moved} moved, {fair} would be fair");
    }
}
