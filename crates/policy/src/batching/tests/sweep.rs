//! One setting of ours against the fixed delay that is best for the whole sweep. The margins hold with room to spare; the full table is
//! printed by `cargo run --release -p plinth-policy --example batching_sweep`.

use crate::batching::simulation::{Point, Sweep, scenarios};

fn sweep() -> Sweep {
    Sweep {
        loads: vec![0.1, 0.3, 0.5, 0.7, 0.9, 1.0, 1.2],
        delays: vec![0.0, 0.5, 2.0, 5.0, 10.0],
        preferred: vec![vec![], vec![8]],
        margins: vec![0.0, 1.05],
        requests: 6_000,
        seed: 11,
    }
}

/// Goodput at least `more` above, mean latency at most `share` of the best fixed delay's; each rival is tuned for what it is judged by.
fn beats(name: &str, more: f64, share: f64) {
    let sweep = sweep();
    let scenario = scenarios().into_iter().find(|known| known.name == name).expect("a scenario of the table");
    let points: Vec<Point> = sweep.run(&scenario);
    let (good, mean) = (sweep.best_goodput(&points, false).value, sweep.best_mean(&points, false).value);
    let tuned = sweep.best_goodput(&points, true).value;
    let (ours, our_mean) = (Sweep::goodput(&points), Sweep::mean(&points));
    assert!(ours >= good + more, "{name}: goodput {ours:.4} against {good:.4}");
    assert!(our_mean <= mean * share, "{name}: mean {:.3} ms against {:.3} ms, {:.3}", our_mean / 1e6, mean / 1e6, our_mean / mean);
    // Even who knows the cost of a batch beforehand and sets the queue time-out by it serves hardly more.
    assert!(ours >= tuned - 0.03, "{name}: goodput {ours:.4} against {tuned:.4} with a tuned time-out");
    // Up to 70 % of capacity nobody is given up.
    let calm = name.contains("Poisson") || name.contains("closed");
    for point in points.iter().filter(|point| calm && point.load <= 0.7) {
        assert!(point.learned.goodput > 0.999, "{name}: {:.4} at {}", point.learned.goodput, point.load);
    }
}

macro_rules! sweeps {
    ($($test:ident: $name:literal, $more:literal, $share:literal;)*) => {$(
        #[test]
        fn $test() {
            beats($name, $more, $share);
        }
    )*};
}

sweeps! {
    linear_poisson: "linear, Poisson, 1 lane", 0.05, 1.0;
    linear_bursty: "linear, bursty, 1 lane", 0.03, 1.0;
    linear_closed: "linear, closed loop, 1 lane", 0.0, 1.0;
    linear_poisson_four_lanes: "linear, Poisson, 4 lanes", 0.05, 1.0;
    dear_rows_bursty: "dear rows, bursty, 1 lane", 0.03, 1.02;
    fixed_heavy_poisson: "fixed-heavy, Poisson, 1 lane", 0.05, 1.0;
    fixed_heavy_bursty_two_lanes: "fixed-heavy, bursty, 2 lanes", 0.03, 1.02;
    fixed_heavy_closed: "fixed-heavy, closed loop, 1 lane", 0.0, 0.8;
    fixed_heavy_closed_two_lanes: "fixed-heavy, closed loop, 2 lanes", 0.0, 0.95;
    stepped_poisson: "stepped, Poisson, 1 lane", 0.05, 1.0;
    stepped_bursty_three_lanes: "stepped, bursty, 3 lanes", 0.03, 1.03;
    noisy_poisson: "noisy, Poisson, 1 lane", 0.05, 1.03;
    noisy_bursty_four_lanes: "noisy, bursty, 4 lanes", 0.02, 1.02;
}
