//! The limit against a simulated endpoint, and its bounds by random histories.

use proptest::prelude::*;

use super::*;
use crate::balance::hash;

const fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// An endpoint with `slots` workers at 20 ms each. `clients` keep as many requests in flight as they may, for `seconds`.
fn drive(gradient: &Gradient, start: Duration, clients: u32, slots: u32, seconds: u64) -> Duration {
    let end = start + Duration::from_secs(seconds);
    let mut now = start;
    // When each worker is free, and when each request in flight is done.
    let mut workers = vec![now; slots as usize];
    let mut ends: std::collections::BinaryHeap<std::cmp::Reverse<(Duration, Duration)>> = std::collections::BinaryHeap::new();
    let mut draw = 1;
    while now < end {
        while (ends.len() as u32) < clients && gradient.enter() {
            draw = hash::mix(draw, 1);
            let worker = workers.iter_mut().min().unwrap();
            *worker = now.max(*worker) + Duration::from_micros(18_000 + draw % 4_000);
            ends.push(std::cmp::Reverse((*worker, now)));
        }
        let Some(std::cmp::Reverse((done, began))) = ends.pop() else { panic!("nothing was let in") };
        now = done;
        gradient.leave(now, Sample::Latency(now - began));
    }
    ends.drain().for_each(|_| gradient.leave(now, Sample::Nothing));
    assert_eq!(gradient.in_flight(), 0);
    now
}

#[test]
fn grows_when_there_is_room_and_no_further_than_it_pays() {
    let gradient = Gradient::new(Settings { most: 1_000, ..Settings::default() });
    let now = drive(&gradient, ms(0), 60, 100, 20);
    assert!((60..=130).contains(&gradient.limit()), "60 clients use half of it at least: {}", gradient.limit());
    drive(&gradient, now, 1_000, 100, 20);
    assert!((90..=300).contains(&gradient.limit()), "100 workers: {}", gradient.limit());
}

#[test]
fn falls_when_the_endpoint_slows_down_and_comes_back() {
    let gradient = Gradient::new(Settings::default());
    let now = drive(&gradient, ms(0), 150, 150, 20);
    let before = gradient.limit();
    assert!(before >= 140, "{before}");
    let now = drive(&gradient, now, 150, 25, 10);
    let during = gradient.limit();
    assert!(during <= before / 2, "{before} then {during}");
    drive(&gradient, now, 150, 150, 30);
    assert!(gradient.limit() >= 120, "{}", gradient.limit());
}

#[test]
fn an_idle_limit_does_not_grow() {
    let gradient = Gradient::new(Settings::default());
    drive(&gradient, ms(0), 9, 100, 30);
    assert_eq!(gradient.limit(), 20);
    drive(&gradient, Duration::from_secs(40), 12, 100, 30);
    assert!((20..=25).contains(&gradient.limit()), "{}", gradient.limit());
}

#[test]
fn a_few_overloads_are_noise_and_many_halve_it_within_a_second() {
    let gradient = Gradient::new(Settings { initial: 200, ..Settings::default() });
    let mut now = ms(0);
    let mut window = |overloads: u32| {
        for n in 0..100 {
            assert!(gradient.enter());
            now += ms(2);
            gradient.leave(now, if n < overloads { Sample::Overload } else { Sample::Latency(ms(20)) });
        }
        gradient.limit()
    };
    assert_eq!((0..20).map(|_| window(1)).last(), Some(200));
    assert!((0..10).map(|_| window(50)).last() < Some(100));
}

proptest! {
    #[test]
    fn bounds_hold(
        steps in proptest::collection::vec((any::<bool>(), 0u64..200, prop_oneof![1u64..50, 1u64..20_000], 0u8..10), 1..600),
        least in 0u32..30, most in 0u32..60, initial in 0u32..80,
    ) {
        let gradient = Gradient::new(Settings { least, most, initial, ..Settings::default() });
        let (least, most) = (least.max(1), most.max(least.max(1)));
        let (mut now, mut in_flight) = (ms(0), 0_u32);
        for (enters, gap, latency, kind) in steps {
            now += ms(gap);
            if enters {
                let room = in_flight < gradient.limit();
                prop_assert_eq!(gradient.has_room(), room);
                prop_assert_eq!(gradient.enter(), room);
                in_flight += u32::from(room);
            } else if in_flight > 0 {
                let before = gradient.limit();
                gradient.leave(now, match kind {
                    0 => Sample::Overload,
                    1 => Sample::Nothing,
                    _ => Sample::Latency(ms(latency)),
                });
                in_flight -= 1;
                prop_assert!(gradient.limit() <= before + 1, "slowly up");
            }
            prop_assert!((least..=most).contains(&gradient.limit()));
            prop_assert_eq!(gradient.in_flight(), in_flight);
        }
    }
}
