//! Does the learning batcher beat the best hand-tuned fixed delay? `cargo run --release -p plinth-policy --example batching_sweep`
//!
//! **Question.** One batcher without any setting but `max_batch_size`, against a first-in, first-out queue with the fixed delay and the
//! preferred sizes that are best for the sweep as a whole, and against one whose queue time-out was tuned as well. **Unit.** Goodput: share of the offered requests answered by their
//! deadline. Latency: milliseconds from arrival to answer, with a request that was given up counted as its whole time to the deadline.
//! **How.** A seeded simulation, the same arrivals for both sides. Prints markdown. An argument selects scenarios whose names contain it.
#![allow(clippy::print_stdout, reason = "the table is what this program is for")]

use plinth_policy::batching::simulation::{Outcome, Point, Sweep, scenarios};

fn main() {
    let sweep = Sweep {
        loads: (1..=12).map(|tenths| f64::from(tenths) / 10.0).collect(),
        delays: vec![0.0, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0],
        preferred: vec![vec![], vec![4], vec![8], vec![16], vec![4, 8, 16, 32]],
        margins: vec![0.0, 1.05, 1.5],
        requests: 20_000,
        seed: 42,
    };
    let grid = sweep.grid();
    let setting = |at: usize| format!("{} ms {:?} {}", grid[at].delay, grid[at].preferred, grid[at].margin);
    println!("# Batching: learned against the best fixed delay\n");
    println!("Simulated: {} requests at each load of 10 %, 20 % … 120 % of capacity, seed {}.\n", sweep.requests, sweep.seed);
    println!("- *Goodput*: share of the offered requests that were answered by their deadline, averaged over the loads.");
    println!(
        "- *Latency*: mean milliseconds from arrival to answer; a request that was given up counts as its whole time to the deadline."
    );
    println!("  The geometric mean over the loads, so that each load counts alike.");
    println!("- *Learned*: one setting for everything, `max_batch_size` 32.");
    println!("- *Fixed*: the delay (of {:?} ms) and the preferred sizes (of {:?})", sweep.delays, sweep.preferred);
    println!("  that are best for the whole sweep, chosen for goodput and for latency separately.");
    println!(
        "- *Fixed, time-out tuned*: the same, and the best queue time-out for the whole sweep too: the deadline less {:?}",
        sweep.margins
    );
    println!("  largest batches. Its setting is given as delay, sizes, batches.\n");
    println!(
        "| scenario | goodput: learned | fixed | time-out tuned | its setting | latency: learned | fixed | time-out tuned | its setting |"
    );
    println!("|---|---|---|---|---|---|---|---|---|");
    let mut details = Vec::new();
    let wanted = std::env::args().nth(1).unwrap_or_default();
    for scenario in scenarios().into_iter().filter(|scenario| scenario.name.contains(&wanted)) {
        let points = sweep.run(&scenario);
        let (good, mean) = (sweep.best_goodput(&points, false), sweep.best_mean(&points, false));
        let (tuned_good, tuned_mean) = (sweep.best_goodput(&points, true), sweep.best_mean(&points, true));
        println!(
            "| {} | {:.2} % | {:.2} % | {:.2} % | {} | {:.2} | {:.2} | {:.2} | {} |",
            scenario.name,
            100.0 * Sweep::goodput(&points),
            100.0 * good.value,
            100.0 * tuned_good.value,
            setting(tuned_good.at),
            Sweep::mean(&points) / 1e6,
            mean.value / 1e6,
            tuned_mean.value / 1e6,
            setting(tuned_mean.at)
        );
        details.push((scenario, points, good.at, mean.at));
    }
    println!("\n## Load by load\n");
    println!(
        "*Tuned here* is the best of the grid, time-outs included, at this one load alone, which nobody can set for all loads at once."
    );
    for (scenario, points, good, mean) in &details {
        println!("\n### {}\n", scenario.name);
        println!("| load | goodput | fixed | tuned here | mean | fixed | tuned here | p99 | fixed | rows in a batch |");
        println!("|---|---|---|---|---|---|---|---|---|---|");
        for point in points {
            line(point, *good, *mean);
        }
    }
}

fn line(point: &Point, good: usize, mean: usize) {
    let tuned = |figure: fn(&Outcome) -> f64| point.rivals.iter().map(figure).fold(f64::INFINITY, f64::min);
    println!(
        "| {:.0} % | {:.2} % | {:.2} % | {:.2} % | {:.2} | {:.2} | {:.2} | {:.2} | {:.2} | {:.1} |",
        100.0 * point.load,
        100.0 * point.learned.goodput,
        100.0 * point.rivals[good].goodput,
        -100.0 * tuned(|outcome| -outcome.goodput),
        point.learned.mean / 1e6,
        point.rivals[mean].mean / 1e6,
        tuned(|outcome| outcome.mean) / 1e6,
        point.learned.p99 / 1e6,
        point.rivals[mean].p99 / 1e6,
        point.learned.batch,
    );
}
