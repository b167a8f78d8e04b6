//! Seeds that must hold, and broken rules that must be found.

use super::*;

/// Runs these seeds and fails with the first history that breaks a rule.
fn holds(seeds: std::ops::Range<u64>) {
    let mut simulation = Simulation::new().unwrap();
    let mut total = Report::default();
    for seed in seeds {
        match simulation.run(seed, None) {
            Ok(report) => {
                (total.calls, total.jobs, total.millis) =
                    (total.calls + report.calls, total.jobs + report.jobs, total.millis + report.millis);
            }
            Err(failure) => panic!("{failure}"),
        }
    }
    println!("{} calls, {} jobs, {} s of simulated time", total.calls, total.jobs, total.millis / 1000);
}

macro_rules! seeds {
    ($($name:ident: $range:expr;)*) => { $(#[test] fn $name() { holds($range); })* };
}

seeds! {
    seeds_0_to_499: 0..500;
    seeds_500_to_999: 500..1000;
    seeds_1000_to_1499: 1000..1500;
    seeds_1500_to_1999: 1500..2000;
}

#[test]
fn a_seed_repeats() {
    let mut first = Simulation::new().unwrap();
    let mut second = Simulation::new().unwrap();
    for seed in 0..20 {
        let report = first.run(seed, None);
        assert!(report.as_ref().is_ok_and(|report| report.calls > 10), "{report:?}");
        // One has run others before it, the other only this.
        assert_eq!(report, second.run(seed, None));
        second = Simulation::new().unwrap();
    }
}

#[test]
fn each_broken_rule_is_found() {
    let mut simulation = Simulation::new().unwrap();
    for mutation in Mutation::ALL {
        let found = (0..200).find_map(|seed| simulation.run(seed, Some(mutation)).err());
        match found {
            Some(failure) => println!("{mutation:?}: seed {}: {}", failure.seed, failure.broken),
            None => panic!("200 seeds did not find {mutation:?}"),
        }
    }
}
