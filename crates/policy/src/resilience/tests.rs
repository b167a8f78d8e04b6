//! All parts together in a simulation: a pool of which some fail, and outages with impatient clients.

mod world;

use std::time::Duration;

use self::world::{Client, Fault, Setting, World};

const fn s(n: u64) -> Duration {
    Duration::from_secs(n)
}

/// Of eight endpoints `k` fail from second 10 to 40.
#[test]
fn k_of_eight_fail() {
    for k in 0..=8 {
        let mut world = World::new(Setting { endpoints: 8, per_second: 240, client: Client::Gone, ..Setting::default() });
        world.run_until(s(10));
        (0..k).for_each(|endpoint| world.fault(endpoint, Fault::Fails));
        world.run_until(s(39));
        let left_out: Vec<_> = (0..8).filter(|endpoint| !world.is_ready(*endpoint)).collect();
        if k <= 4 {
            assert_eq!(left_out, (0..k).collect::<Vec<_>>(), "k = {k}: those that fail and no others are left out");
        }
        world.run_until(s(40));
        (0..k).for_each(|endpoint| world.fault(endpoint, Fault::None));
        world.run_until(s(130));
        let report = world.report();
        let during = report.success(13, 39);
        let least = match k {
            0 => 1.0,
            1..=4 => 0.99,
            // All are used; those that fail are still avoided by their cost.
            5..=7 => f64::from(8 - k as u32) / 8.0,
            _ => 0.0,
        };
        assert!(during >= least, "k = {k}: {during}");
        assert_eq!(report.nobody, 0, "k = {k}: somebody was always there to be asked");
        assert!(report.most_ejected <= 4, "k = {k}");
        assert!(report.success(45, 129) >= 0.999, "k = {k}: afterwards {}", report.success(45, 129));
        assert!((0..8).all(|endpoint| world.is_ready(endpoint)), "k = {k}: all are back");
        let shares: Vec<_> = (0..8).map(|endpoint| world.answered(endpoint)).collect();
        assert!(shares.iter().all(|answers| *answers > 0), "k = {k}: {shares:?}");
    }
}

/// One that hangs instead of failing is left out as well, and before long nobody notices.
#[test]
fn one_of_eight_hangs() {
    let mut world = World::new(Setting { endpoints: 8, per_second: 400, client: Client::Gone, ..Setting::default() });
    world.run_until(s(10));
    world.fault(3, Fault::Hangs);
    world.run_until(s(40));
    assert!(!world.is_ready(3));
    let report = world.report();
    assert!(report.success(10, 39) >= 0.99, "{}", report.success(10, 39));
    assert!(report.success(15, 39) >= 0.999, "{}", report.success(15, 39));
}

#[test]
fn a_target_that_always_fails_sees_a_tenth_more() {
    for fault in [Fault::Fails, Fault::Hangs] {
        for endpoints in [1, 4] {
            let mut world = World::new(Setting { endpoints, per_second: 100, client: Client::Gone, ..Setting::default() });
            (0..endpoints).for_each(|endpoint| world.fault(endpoint, fault));
            world.run_until(s(60));
            let report = world.report();
            assert!(report.requests > 5_900);
            let factor = report.attempts as f64 / report.requests as f64;
            assert!(factor <= 1.1, "{factor} with {endpoints}, {fault:?}");
            assert!(report.attempts > 0 && report.nobody == 0);
        }
    }
}

/// Three quarters of capacity are asked for; for a minute nothing works, and clients come back at once until their time is over.
#[test]
fn an_outage_does_not_outlast_itself() {
    for fault in [Fault::Fails, Fault::Hangs] {
        for (endpoints, checks) in [(4, false), (1, false), (1, true)] {
            let client = Client::AtOnce { patience: s(3) };
            let mut world = World::new(Setting { endpoints, per_second: 60 * endpoints as u64, client, checks, ..Setting::default() });
            world.run_until(s(20));
            let (requests, attempts) = (world.report().requests, world.report().attempts);
            (0..endpoints).for_each(|endpoint| world.fault(endpoint, fault));
            world.run_until(s(80));
            let report = world.report();
            let factor = (report.attempts - attempts) as f64 / (report.requests - requests) as f64;
            assert!(factor <= 1.1, "{factor} with {endpoints}, {fault:?}");
            (0..endpoints).for_each(|endpoint| world.fault(endpoint, Fault::None));
            world.run_until(s(110));
            let report = world.report();
            let goodput: Vec<_> = [85, 90, 95, 100].into_iter().map(|second| report.goodput(second, second + 5)).collect();
            assert!(report.success(0, 19) > 0.999);
            assert!(goodput[1..].iter().all(|good| *good >= 0.9), "{endpoints} endpoints, {fault:?}: {goodput:?}");
            assert!(report.success(90, 109) > 0.99, "{endpoints} endpoints, {fault:?}: {}", report.success(90, 109));
        }
    }
}
