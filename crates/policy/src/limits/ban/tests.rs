//! Bans over simulated time: who is banned, for how long, and that a flood of addresses stays within its table.

use std::net::{Ipv4Addr, Ipv6Addr};

use proptest::prelude::*;

use super::*;

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn v4(n: u32) -> IpAddr {
    Ipv4Addr::from_bits(0x0a00_0000 + n).into()
}

fn is_banned(verdict: BanVerdict) -> bool {
    verdict != BanVerdict::Pass
}

/// Sends `rate` requests a second for a second, from `from` on; the time of the first refusal.
fn hammer(bans: &Bans, address: IpAddr, from: Duration, rate: u32) -> Option<Duration> {
    (0..rate).map(|n| from + Duration::from_secs(1) * n / rate).find(|at| is_banned(bans.check(address, *at)))
}

#[test]
fn an_abuser_is_out_within_a_second_and_each_time_longer() {
    let bans = Bans::new(BanSettings::default(), 1);
    let mut from = ms(0);
    for seconds in [60, 120, 240, 480, 960, 1920, 3600, 3600] {
        let at = hammer(&bans, v4(1), from, 2000).expect("banned within a second");
        assert!(at - from <= ms(300), "{:?} at four times the threshold", at - from);
        assert_eq!(bans.banned(at), 1);
        assert!(!is_banned(bans.check(v4(2), at)), "nobody else");
        let left = Duration::from_secs(seconds);
        assert_eq!(bans.check(v4(1), at), BanVerdict::Banned { left, begins: false });
        from = at + left;
        assert!(is_banned(bans.check(v4(1), from - Duration::from_nanos(1))) && !is_banned(bans.check(v4(1), from)));
    }
    let later = from + Duration::from_secs(600 * 40);
    let at = hammer(&bans, v4(1), later, 2000).unwrap();
    assert_eq!(bans.check(v4(1), at), BanVerdict::Banned { left: Duration::from_secs(60), begins: false }, "forgiven");
    assert!(bans.lift(v4(1), at) && !bans.lift(v4(1), at));
    assert!(!is_banned(bans.check(v4(1), at)));
}

#[test]
fn the_threshold_itself_is_tolerated() {
    let bans = Bans::new(BanSettings::default(), 1);
    for second in 0..5 {
        assert_eq!(hammer(&bans, v4(1), Duration::from_secs(second), 499), None);
    }
}

#[test]
fn a_subscriber_of_ipv6_is_one_client() {
    let bans = Bans::new(BanSettings { threshold: 10, ..BanSettings::default() }, 1);
    let host = |net: u128, n: u128| IpAddr::from(Ipv6Addr::from_bits((0x2001_0db8 << 96) | (net << 64) | n));
    assert!((0..20).any(|n| is_banned(bans.check(host(1, n * 7919), ms(0)))));
    assert!(!is_banned(bans.check(host(2, 0), ms(0))));
    let mapped = |n: u32| IpAddr::from(Ipv4Addr::from_bits(n).to_ipv6_mapped());
    assert!((0..20).all(|n| !is_banned(bans.check(mapped(n), ms(0)))), "mapped addresses are not one /64");
    for _ in 0..10 {
        bans.check(mapped(1), ms(0));
    }
    assert!(is_banned(bans.check(IpAddr::from(Ipv4Addr::from_bits(1)), ms(0))), "and are the same client as their IPv4 address");
}

#[test]
fn a_flood_of_addresses_pushes_out_the_quiet_only() {
    let bans = Bans::new(BanSettings { capacity: 1024, ..BanSettings::default() }, 1);
    hammer(&bans, v4(1), ms(0), 2000).unwrap();
    let places: usize = bans.shards.iter().map(|shard| lock(shard).len()).sum();
    let mut caught = false;
    // 100,000 addresses in a second, and among them one that sends 1000 requests.
    for n in 0..100_000u32 {
        let at = ms(1000) + Duration::from_micros(10) * n;
        bans.check(v4(100 + n), at);
        if n % 100 == 0 {
            caught |= is_banned(bans.check(v4(2), at));
        }
    }
    assert!(caught, "the loud one is found in the crowd");
    assert!(is_banned(bans.check(v4(1), ms(2000))), "a ban outlives the flood");
    assert_eq!(places, bans.shards.iter().map(|shard| lock(shard).len()).sum::<usize>());
    assert_eq!(places, 1024);
}

proptest! {
    /// Never banned at or below half the threshold in any second, always above twice the threshold.
    #[test]
    fn sliding_within_a_factor(threshold in 5u32..40, gaps in proptest::collection::vec(0u64..200, 1..400)) {
        let bans = Bans::new(BanSettings { threshold, ..BanSettings::default() }, 3);
        let (mut now, mut times) = (0u64, Vec::new());
        for gap in gaps {
            now += gap;
            times.push(now);
            let within = times.iter().filter(|time| **time + 1000 > now).count();
            let recent = times.iter().filter(|time| **time + 2000 > now).count();
            let verdict = bans.check(v4(1), ms(now));
            if is_banned(verdict) {
                prop_assert!(recent > threshold as usize, "{} in two seconds", recent);
                return Ok(());
            }
            prop_assert!(within <= 2 * threshold as usize + 1, "{} in one second", within);
        }
    }

    #[test]
    fn one_client_never_counts_for_another(seed in any::<u64>(), clients in proptest::collection::vec(0u32..3000, 1..400)) {
        let bans = Bans::new(BanSettings { threshold: 5, capacity: 64, ..BanSettings::default() }, seed);
        let mut sent = std::collections::BTreeMap::<u32, u32>::new();
        for client in clients {
            let sent = sent.entry(client).or_default();
            *sent += 1;
            if is_banned(bans.check(v4(client), ms(1))) {
                prop_assert!(*sent > 5);
            }
        }
    }
}
