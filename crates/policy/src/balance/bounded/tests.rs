//! Stickiness, the bound, and what moves when endpoints come and go.

use proptest::prelude::*;

use super::*;

fn nodes(in_flight: &[u32]) -> Vec<Node> {
    let node = |(n, in_flight): (usize, &u32)| Node { id: hash::mix(n as u64, 11), in_flight: *in_flight, weight: 4 };
    in_flight.iter().enumerate().map(node).collect()
}

fn choose(key: u64, nodes: &[Node]) -> Option<usize> {
    pick(key, nodes.len(), LOAD_PERCENT, |place| Some(nodes[place]))
}

#[test]
fn capacity_is_as_published() {
    let all = |in_flight, n: u64| Capacity { load_percent: 125, in_flight, weight: 4 * n };
    let node = Node { id: 0, in_flight: 0, weight: 4 };
    // ⌈1.25 × (in flight + 1) ÷ n⌉
    for (in_flight, n, capacity) in [(0, 1, 2), (0, 8, 1), (7, 8, 2), (31, 8, 5), (99, 4, 32), (1_000_000, 3, 416_668)] {
        assert_eq!(all(in_flight, n).of(node), capacity, "{in_flight} on {n}");
    }
    assert_eq!(all(31, 8).of(Node { weight: 1, ..node }), 2, "a quarter of five");
}

#[test]
fn one_hot_key_is_spread() {
    let mut nodes = nodes(&[0; 8]);
    for n in 1..=800_u64 {
        let chosen = choose(42, &nodes).unwrap();
        nodes[chosen].in_flight += 1;
        let most = nodes.iter().map(|node| u64::from(node.in_flight)).max().unwrap();
        assert!(most <= (n * 125).div_ceil(800), "{most} after {n}");
    }
    // To the same successors each time: as many as are needed, and no others.
    let mut again = self::nodes(&[0; 8]);
    for _ in 0..100 {
        let chosen = choose(42, &again).unwrap();
        again[chosen].in_flight += 1;
    }
    let same = |a: usize, b: usize| (nodes[a].in_flight > nodes[b].in_flight) == (again[a].in_flight > again[b].in_flight);
    let first = (0..8).max_by_key(|place| nodes[*place].in_flight).unwrap();
    let last = (0..8).min_by_key(|place| nodes[*place].in_flight).unwrap();
    assert!(nodes[first].in_flight >= 2 * nodes[last].in_flight && same(first, last));
}

#[test]
fn keys_are_spread() {
    let nodes = nodes(&[0; 8]);
    let mut counts = [0; 8];
    (0..8_000).for_each(|n| counts[choose(hash::mix(n, 5), &nodes).unwrap()] += 1);
    assert!(counts.iter().all(|count| (850..1_150).contains(count)), "{counts:?}");
}

proptest! {
    #[test]
    fn the_bound_holds_and_somebody_is_found(
        in_flight in proptest::collection::vec(0u32..200, 1..20),
        ready in proptest::collection::vec(any::<bool>(), 20),
        weights in proptest::collection::vec(1u32..=4, 20),
        key: u64,
    ) {
        let mut nodes = nodes(&in_flight);
        nodes.iter_mut().zip(&weights).for_each(|(node, weight)| node.weight = *weight);
        let chosen = pick(key, nodes.len(), LOAD_PERCENT, |place| ready[place].then_some(nodes[place]));
        let all: Vec<_> = nodes.iter().enumerate().filter(|(place, _)| ready[*place]).collect();
        let Some(place) = chosen else {
            prop_assert!(all.is_empty());
            return Ok(());
        };
        prop_assert!(ready[place]);
        let total: u64 = all.iter().map(|(_, node)| u64::from(node.in_flight)).sum();
        let weight: u64 = all.iter().map(|(_, node)| u64::from(node.weight)).sum();
        let capacity = (125 * (total + 1) * u64::from(nodes[place].weight)).div_ceil(100 * weight);
        prop_assert!(u64::from(nodes[place].in_flight) < capacity);
        // Nobody before it in the key's order has room.
        let rank = |place: usize| hash::mix(key, nodes[place].id);
        for (other, node) in all {
            let full = u64::from(node.in_flight) >= (125 * (total + 1) * u64::from(node.weight)).div_ceil(100 * weight);
            prop_assert!(full || rank(other) <= rank(place));
        }
    }

    /// Unloaded, only the leaver's keys move, and back again when it returns.
    #[test]
    fn only_the_leavers_keys_move(n in 2usize..12, leaver in 0usize..12) {
        let leaver = leaver % n;
        let nodes = nodes(&vec![0; n]);
        for key in (0..500).map(|key| hash::mix(key, 1)) {
            let before = choose(key, &nodes).unwrap();
            let after = pick(key, n, LOAD_PERCENT, |place| (place != leaver).then_some(nodes[place])).unwrap();
            prop_assert!(before == after || before == leaver);
        }
    }

    /// The order in which a gateway lists the endpoints does not matter.
    #[test]
    fn every_gateway_agrees(in_flight in proptest::collection::vec(0u32..50, 1..12), turn in 0usize..12, key: u64) {
        let nodes = nodes(&in_flight);
        let mut turned = nodes.clone();
        turned.rotate_left(turn % nodes.len());
        let (one, other) = (choose(key, &nodes).unwrap(), choose(key, &turned).unwrap());
        prop_assert_eq!(nodes[one].id, turned[other].id);
    }
}
