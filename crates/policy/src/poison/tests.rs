//! The search always ends, calls nobody poison who did not crash alone, and keeps to the crashes that it may cost.

use super::*;
use proptest::prelude::*;

struct Search {
    answered: Vec<u32>,
    poison: Vec<u32>,
    crashes: u32,
    runs: u32,
    crashed_alone: Vec<u32>,
}

fn search(parts: u32, bad: &[u32], crashes: u32) -> Search {
    let mut suspects = Suspects::after_crash((0..parts).collect(), crashes);
    let mut found = Search { answered: Vec::new(), poison: Vec::new(), crashes: 0, runs: 0, crashed_alone: Vec::new() };
    while let Some(set) = suspects.trial().map(<[u32]>::to_vec) {
        found.runs += 1;
        assert!(found.runs < 10_000, "the search ends");
        if set.iter().any(|part| bad.contains(part)) {
            found.crashes += 1;
            if let [alone] = set.as_slice() {
                found.crashed_alone.push(*alone);
            }
            if let Finding::Poison(part) = suspects.crashed() {
                found.poison.push(part);
            }
        } else {
            suspects.answered();
            found.answered.extend(set);
        }
    }
    assert!(suspects.is_over());
    found
}

#[test]
fn one_crash_allowed_runs_each_alone() {
    let found = search(64, &[17], 1);
    assert_eq!((found.crashes, found.runs, found.poison), (1, 64, vec![17]));
    assert_eq!(found.answered.len(), 63);
}

#[test]
fn two_crashes_make_eights_of_64() {
    let found = search(64, &[17], 2);
    assert!(found.crashes <= 2 && found.runs <= 16, "{} crashes, {} runs", found.crashes, found.runs);
    assert_eq!(found.poison, [17]);
}

#[test]
fn halves_when_crashes_are_cheap() {
    for bad in 0..64 {
        let found = search(64, &[bad], 6);
        assert!(found.crashes <= 6 && found.runs <= 12, "{bad}: {} crashes, {} runs", found.crashes, found.runs);
        assert_eq!(found.poison, [bad]);
    }
}

#[test]
fn an_item_that_was_alone_is_tried_once_more() {
    let mut suspects = Suspects::after_crash(vec!["a"], 3);
    assert_eq!(suspects.trial(), Some(["a"].as_slice()));
    assert_eq!(suspects.crashed(), Finding::Poison("a"));
    assert!(suspects.is_over());
    let mut suspects = Suspects::after_crash(vec!["a"], 3);
    assert_eq!(suspects.trial(), Some(["a"].as_slice()));
    suspects.answered();
    assert!(suspects.is_over());
}

#[test]
fn who_is_given_up_is_not_run() {
    let mut suspects = Suspects::after_crash(vec![1, 2, 3], 1);
    suspects.give_up(&2);
    let mut ran = Vec::new();
    while let Some(set) = suspects.trial().map(<[i32]>::to_vec) {
        ran.extend(set);
        suspects.answered();
    }
    assert_eq!(ran, [1, 3]);
    assert_eq!(suspects.crashed(), Finding::Nothing);
    assert!(Suspects::<i32>::after_crash(Vec::new(), 1).is_over());
}

#[test]
fn the_list_is_bounded_and_forgets() {
    let digest = |n: u8| Digest::of(&[n]);
    let s = Duration::from_secs;
    let mut list = PoisonList::new(2, s(60));
    assert!(list.is_empty());
    list.add(digest(1), s(0));
    list.add(digest(2), s(1));
    assert_eq!(list.check(&digest(1), s(59)), Some(s(1)));
    assert_eq!(list.check(&digest(1), s(60)), None);
    list.add(digest(3), s(2));
    assert_eq!(list.check(&digest(1), s(3)), None, "the oldest went");
    assert!(list.check(&digest(2), s(3)).is_some() && list.check(&digest(3), s(3)).is_some());
    list.add(digest(2), s(50));
    assert_eq!(list.check(&digest(2), s(100)), Some(s(10)), "a new crash renews it");
    list.forget(s(200));
    assert!(list.is_empty());
    for n in 0..200 {
        list.add(digest(1), s(300) + Duration::from_millis(n));
        assert!(list.order.len() <= 4 && list.until.len() <= 2);
    }
    assert!(list.check(&digest(1), s(301)).is_some());
}

proptest! {
    #[test]
    fn everyone_gets_a_result(parts in 1u32..100, bad in proptest::collection::btree_set(0u32..100, 0..5), crashes in 0u32..8) {
        let bad: Vec<u32> = bad.into_iter().filter(|part| *part < parts).collect();
        let found = search(parts, &bad, crashes);
        let mut all: Vec<u32> = found.answered.iter().chain(&found.poison).copied().collect();
        all.sort_unstable();
        prop_assert_eq!(all, (0..parts).collect::<Vec<_>>(), "each has exactly one result");
        prop_assert_eq!(&found.poison, &found.crashed_alone);
        let mut poison = found.poison.clone();
        poison.sort_unstable();
        prop_assert_eq!(&poison, &bad);
        prop_assert!(found.crashes <= crashes.max(1) * bad.len() as u32, "{} crashes for {} of {}", found.crashes, bad.len(), parts);
    }
}
