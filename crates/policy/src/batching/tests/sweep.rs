//! One setting of ours against the fixed delay that is best for the whole sweep. The margins hold with room to spare; the full table is
//! printed by `cargo run --release -p plinth-policy --example batching_sweep`.

use crate::batching::simulation::{Point, Sweep, scenarios};

fn sweep(scenario: &str) -> Vec<Point> {
    let sweep = Sweep {
        loads: vec![0.1, 0.3, 0.5, 0.7, 0.8, 0.9, 1.0, 1.1, 1.2],
        delays: vec![0.0, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0],
        margins: vec![0.0, 1.05],
        preferred: vec![vec![], vec![8], vec![8, 16, 32]],
        requests: 4_000,
        seed: 11,
    };
    let scenario = scenarios().into_iter().find(|known| known.name == scenario).expect("a scenario of the table");
    sweep.run(&scenario)
}

/// Goodput at least `more` above, mean latency at most `share` of the best fixed delay's; each rival was tuned for what it is judged by.
fn beats(scenario: &str, more: f64, share: f64) {
    let points = sweep(scenario);
    let (good, mean) = (Sweep::best_goodput(&points).value, Sweep::best_mean(&points).value);
    let (ours, our_mean) = (Sweep::goodput(&points), Sweep::mean(&points));
    assert!(ours >= good + more, "{scenario}: goodput {ours:.4} against {good:.4}");
    assert!(our_mean <= mean * share, "{scenario}: mean {:.3} ms against {:.3} ms", our_mean / 1e6, mean / 1e6);
    // Up to 70 % of capacity nobody is given up.
    let calm = scenario.contains("Poisson") || scenario.contains("closed");
    for point in points.iter().filter(|point| calm && point.load <= 0.7) {
        assert!(point.learned.goodput > 0.999, "{scenario}: {:.4} at {}", point.learned.goodput, point.load);
    }
}

#[test]
fn linear() {
    beats("linear, Poisson, 1 lane", 0.0, 1.0);
}
