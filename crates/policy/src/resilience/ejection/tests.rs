//! Ejection by table and by random histories.

use std::sync::Arc;

use proptest::prelude::*;

use super::*;

const fn s(n: u64) -> Duration {
    Duration::from_secs(n)
}

fn pool(n: usize) -> Vec<Arc<Record>> {
    (0..n).map(|_| Arc::default()).collect()
}

fn fail(ejection: &Ejection, now: Duration, pool: &[Arc<Record>], host: usize, n: usize) -> Option<Ejected> {
    (0..n).filter_map(|_| end(ejection, now, pool, host, Outcome::ServerError)).last()
}

/// A call that began and ended now, in a pool in which nothing else is wrong.
fn end(ejection: &Ejection, now: Duration, pool: &[Arc<Record>], host: usize, outcome: Outcome) -> Option<Ejected> {
    ejection.record(now, pool, Call { host, outcome, began: now }, |_| true)
}

fn answers(ejection: &Ejection, now: Duration, pool: &[Arc<Record>], host: usize, good: u32, bad: u32) {
    // One failure after each success, so that there are none in a row.
    for n in 0..good.max(bad) {
        for (outcome, is) in [(Outcome::ServerError, n < bad), (Outcome::Success, n < good)] {
            if is {
                end(ejection, now, pool, host, outcome);
            }
        }
    }
}

fn ejected(pool: &[Arc<Record>], now: Duration) -> usize {
    pool.iter().filter(|record| record.is_ejected(now)).count()
}

#[test]
fn five_failures_in_a_row() {
    let (ejection, pool) = (Ejection::new(Settings::default()), pool(4));
    assert_eq!(fail(&ejection, s(1), &pool, 2, 4), None);
    end(&ejection, s(1), &pool, 2, Outcome::ClientError);
    assert_eq!(fail(&ejection, s(1), &pool, 2, 4), None, "a 4xx is an answer");
    end(&ejection, s(1), &pool, 2, Outcome::Cancelled);
    assert_eq!(fail(&ejection, s(1), &pool, 2, 1), Some(Ejected { host: 2, cause: Cause::Consecutive, lasts: s(30) }));
    assert!(pool[2].is_ejected(s(30)) && !pool[2].is_ejected(s(31)));
}

#[test]
fn no_more_than_half_but_one_and_never_the_only_one() {
    for (n, most) in [(1, 0), (2, 1), (3, 1), (4, 2), (5, 2), (8, 4)] {
        let (ejection, pool) = (Ejection::new(Settings::default()), pool(n));
        for host in 0..n {
            fail(&ejection, s(1), &pool, host, 50);
        }
        assert_eq!(ejected(&pool, s(1)), most, "of {n}");
        ejection.interval(s(1), &pool, |_| true);
        assert_eq!(ejected(&pool, s(1)), most, "of {n}");
    }
}

#[test]
fn a_pool_is_never_empty() {
    for n in 1..=8 {
        for ready in 0..=n {
            let routing = route(ready, n, 50);
            assert_eq!(routing == Routing::Panic, ready * 2 < n, "{ready} of {n}");
            assert!(routing == Routing::Panic || ready > 0);
        }
    }
    assert_eq!(route(0, 3, 0), Routing::Panic, "also when panic is switched off");
    assert_eq!(route(1, 3, 0), Routing::Ready);
}

#[test]
fn an_ejection_is_never_what_leaves_too_few() {
    let (ejection, pool) = (Ejection::new(Settings::default()), pool(4));
    // The breakers of 2 and 3 are open: without 0 there would be one of four.
    let call = Call { host: 0, outcome: Outcome::ServerError, began: s(1) };
    for _ in 0..50 {
        assert_eq!(ejection.record(s(1), &pool, call, |other| !Arc::ptr_eq(other, &pool[2]) && !Arc::ptr_eq(other, &pool[3])), None);
    }
    assert_eq!(ejection.interval(s(10), &pool, |other| Arc::ptr_eq(other, &pool[1])), [], "nor by an interval");
    // Only 3 is out: without 0 there are two of four.
    let found = ejection.record(s(11), &pool, Call { began: s(11), ..call }, |other| !Arc::ptr_eq(other, &pool[3]));
    assert_eq!(found.map(|ejected| ejected.host), Some(0));
}

#[test]
fn in_panic_all_come_back_as_if_they_had_not_been_ejected() {
    let (ejection, pool) = (Ejection::new(Settings::default()), pool(4));
    for host in [0, 2] {
        fail(&ejection, s(1), &pool, host, 5);
    }
    assert_eq!((ejected(&pool, s(2)), ejection.annul(s(2), &pool), ejected(&pool, s(2))), (2, 2, 0));
    assert_eq!(ejection.annul(s(2), &pool), 0);
    let stuck = Call { host: 0, outcome: Outcome::Timeout, began: s(1) };
    assert!((0..20).all(|_| ejection.record(s(3), &pool, stuck, |_| true).is_none()), "what began before says nothing");
    assert_eq!(fail(&ejection, s(3), &pool, 0, 5).map(|ejected| ejected.lasts), Some(s(30)), "the first time does not count");
}

#[test]
fn times_in_a_row_lengthen_it_and_healthy_intervals_shorten_it() {
    let (ejection, pool) = (Ejection::new(Settings::default()), pool(4));
    let mut now = s(1);
    for lasts in [30, 60, 90, 120, 150, 180, 210, 240, 270, 300, 300] {
        assert_eq!(fail(&ejection, now, &pool, 0, 5).map(|ejected| ejected.lasts), Some(s(lasts)));
        now += s(lasts);
        ejection.interval(now, &pool, |_| true);
    }
    for _ in 0..9 {
        now += s(10);
        ejection.interval(now, &pool, |_| true);
    }
    assert_eq!(fail(&ejection, now, &pool, 0, 5).map(|ejected| ejected.lasts), Some(s(90)), "eleven times, less nine");
}

#[test]
fn a_passing_check_readmits() {
    let (ejection, pool) = (Ejection::new(Settings::default()), pool(2));
    fail(&ejection, s(1), &pool, 0, 5);
    pool[0].readmit(s(2));
    assert!(!pool[0].is_ejected(s(2)));
    assert_eq!(fail(&ejection, s(3), &pool, 0, 5).map(|ejected| ejected.lasts), Some(s(60)), "but is not forgiven");
}

#[test]
fn calls_from_before_do_not_eject_again() {
    let (ejection, pool) = (Ejection::new(Settings::default()), pool(2));
    fail(&ejection, s(1), &pool, 0, 5);
    for _ in 0..20 {
        let stuck = Call { host: 0, outcome: Outcome::Timeout, began: s(2) };
        assert_eq!(ejection.record(s(32), &pool, stuck, |_| true), None);
    }
    assert_eq!(ejected(&pool, s(32)), 0);
}

#[test]
fn share_of_failures() {
    for (calls, bad, is_ejected) in [(9, 9, false), (10, 9, true), (100, 84, false), (100, 85, true)] {
        let (ejection, pool) = (Ejection::new(Settings { consecutive: 0, ..Settings::default() }), pool(2));
        answers(&ejection, s(1), &pool, 1, calls - bad, bad);
        let found = ejection.interval(s(10), &pool, |_| true);
        let expected = Ejected { host: 1, cause: Cause::FailurePercentage, lasts: s(30) };
        assert_eq!(found, if is_ejected { vec![expected] } else { vec![] }, "{bad} of {calls}");
    }
}

#[test]
fn success_rate_needs_five_hosts_of_a_hundred_calls() {
    for (hosts, volume, found) in [(5, 100, 1), (4, 100, 0), (5, 99, 0)] {
        let settings = Settings { consecutive: 0, success_deviations: 1.5, ..Settings::default() };
        let (ejection, pool) = (Ejection::new(settings), pool(hosts));
        (0..hosts).for_each(|host| answers(&ejection, s(1), &pool, host, volume, 0));
        // One does half as well, with the same number of calls.
        ejection.interval(s(5), &pool, |_| true);
        (1..hosts).for_each(|host| answers(&ejection, s(6), &pool, host, volume, 0));
        answers(&ejection, s(6), &pool, 0, volume / 2, volume - volume / 2);
        let outliers = ejection.interval(s(10), &pool, |_| true);
        assert_eq!(outliers.len(), found, "{hosts} hosts, {volume} calls");
        assert!(outliers.iter().all(|outlier| outlier.host == 0 && outlier.cause == Cause::SuccessRate));
    }
}

#[test]
fn the_worst_go_first() {
    let settings = Settings { consecutive: 0, ..Settings::default() };
    let (ejection, pool) = (Ejection::new(settings), pool(4));
    for (host, bad) in [(0, 90), (1, 100), (2, 88), (3, 95)] {
        answers(&ejection, s(1), &pool, host, 100 - bad, bad);
    }
    let hosts: Vec<_> = ejection.interval(s(10), &pool, |_| true).iter().map(|ejected| ejected.host).collect();
    assert_eq!(hosts, [1, 3]);
}

proptest! {
    #[test]
    fn bounds_hold_and_everybody_comes_back(
        n in 1usize..12,
        steps in proptest::collection::vec((0usize..12, 0u64..4_000, 0u32..10), 1..600),
        bad in proptest::collection::vec(0u32..=10, 12),
    ) {
        let (ejection, mut pool) = (Ejection::new(Settings::default()), pool(n));
        let (mut now, mut next) = (s(1), s(10));
        for (host, gap, draw) in steps {
            now += Duration::from_millis(gap);
            while next <= now {
                ejection.interval(next.max(now), &pool, |_| true);
                next += s(10);
            }
            let host = host % n;
            let before = pool[host].is_ejected(now);
            let outcome = if draw < bad[host] { Outcome::Reset } else { Outcome::Success };
            if let Some(found) = end(&ejection, now, &pool, host, outcome) {
                prop_assert!(!before && pool[host].is_ejected(now) && found.lasts <= s(300));
            }
            prop_assert!(ejected(&pool, now) <= (n / 2).max(1));
        }
        // Endpoints leave; what is left is a pool all the same.
        pool.truncate(n.div_ceil(2));
        for host in 0..pool.len() {
            fail(&ejection, now, &pool, host, 5);
        }
        let ready = pool.len() - ejected(&pool, now);
        prop_assert!(ready > 0 || ejection.route(ready, pool.len()) == Routing::Panic);
        prop_assert_eq!(ejected(&pool, now + s(300)), 0);
    }
}
