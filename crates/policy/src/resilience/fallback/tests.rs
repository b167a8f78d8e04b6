//! The ramp away and back, by table and by random histories; chains.

use proptest::prelude::*;

use super::*;

const fn s(n: u64) -> Duration {
    Duration::from_secs(n)
}

#[test]
fn away_in_steps_and_back_in_steps() {
    let ramp = Ramp::new(&Settings::default());
    assert_eq!(ramp.share(s(9)), 0);
    ramp.out(s(10));
    for (at, share) in [(10, 10), (14, 10), (15, 25), (20, 50), (25, 100), (500, 100)] {
        ramp.out(s(at)); // Said at each request.
        assert_eq!(ramp.share(s(at)), share, "at {at} s");
    }
    ramp.well(s(500));
    for (at, share) in [(500, 90), (505, 75), (510, 50), (515, 0), (900, 0)] {
        ramp.well(s(at));
        assert_eq!(ramp.share(s(at)), share, "at {at} s");
    }
    ramp.out(s(900));
    assert_eq!(ramp.share(s(900)), 10);
}

#[test]
fn a_relapse_keeps_what_the_fallback_has() {
    let ramp = Ramp::new(&Settings::default());
    ramp.out(s(0));
    ramp.well(s(30));
    assert_eq!(ramp.share(s(36)), 75);
    ramp.out(s(36));
    assert_eq!(ramp.share(s(36)), 100);
    ramp.well(s(37));
    ramp.well(s(48));
    assert_eq!(ramp.share(s(48)), 50);
    ramp.out(s(48));
    assert_eq!(ramp.share(s(48)), 50);
    // Out and in again before it has begun to carry: never more than it had.
    let ramp = Ramp::new(&Settings::default());
    ramp.out(s(0));
    ramp.well(s(1));
    assert_eq!(ramp.share(s(1)), 10);
}

#[test]
fn a_full_fallback_gets_less() {
    let ramp = Ramp::new(&Settings::default());
    ramp.out(s(0));
    assert_eq!(ramp.share(s(12)), 50);
    ramp.too_much(s(12));
    assert_eq!(ramp.share(s(12)), 25);
    assert_eq!(ramp.share(s(17)), 50);
    (0..9).for_each(|_| ramp.too_much(s(17)));
    assert_eq!(ramp.share(s(17)), 10, "never nothing");
}

#[test]
fn requests_go_by_share() {
    let ramp = Ramp::new(&Settings::default());
    let count = |now, wanted: fn(&Route) -> bool| (0..10_000).map(|n| ramp.route(now, hash::mix(n, 4))).filter(wanted).count();
    assert_eq!(count(s(0), |route| *route == Route::Home), 10_000);
    ramp.out(s(10));
    let moved = count(s(16), |route| *route == Route::Fallback);
    assert!((2_350..2_650).contains(&moved), "{moved}");
    assert_eq!(moved + count(s(16), |route| *route == Route::Refused { retry_after: s(4) }), 10_000);
    assert_eq!(count(s(25), |route| *route == Route::Fallback), 10_000);
    ramp.well(s(30));
    let home = count(s(30), |route| *route == Route::Home);
    assert!((900..1_100).contains(&home), "{home}");
}

#[test]
fn a_chain_takes_the_first_that_can() {
    let chain = Chain::new(3, &Settings::default());
    let routes = |now, usable: [bool; 3]| {
        let mut counts = [0; 4];
        for n in 0..1_000 {
            counts[chain.route(now, hash::mix(n, 9), |target| usable[target]).unwrap_or(3)] += 1;
        }
        counts
    };
    assert_eq!(routes(s(0), [true, true, true]), [1_000, 0, 0, 0]);
    let [home, first, second, refused] = routes(s(1), [false, true, true]);
    assert!(home == 0 && second == 0 && (70..130).contains(&first) && first + refused == 1_000);
    assert_eq!(routes(s(30), [false, true, true]), [0, 1_000, 0, 0]);
    let [_, first, second, _] = routes(s(31), [false, false, true]);
    assert!(first == 0 && (70..130).contains(&second), "the next ramp begins at its own start");
    assert_eq!(routes(s(60), [false, false, true]), [0, 0, 1_000, 0]);
    assert_eq!(routes(s(60), [false, false, false]), [0, 0, 0, 1_000]);
    // Back at once, though not with all of it; and with all of it if the fallback goes too.
    let [home, .., refused] = routes(s(61), [true, false, true]);
    assert!((70..130).contains(&home) && refused == 0);
    assert_eq!(routes(s(61), [true, false, false]), [1_000, 0, 0, 0]);
}

#[test]
fn a_target_without_fallbacks_serves_or_refuses() {
    let chain = Chain::new(1, &Settings::default());
    assert_eq!(chain.route(s(1), 1, |_| true), Ok(0));
    assert_eq!(chain.route(s(1), 1, |_| false), Err(Refused { retry_after: None }));
    assert_eq!(Chain::new(0, &Settings::default()).route(s(1), 1, |_| false), Err(Refused { retry_after: None }));
}

proptest! {
    /// Whatever flaps: what the fallback is sent rises by a step at a time.
    #[test]
    fn never_past_a_step(steps in proptest::collection::vec((0u64..8_000, 0u8..4), 1..200)) {
        let ramp = Ramp::new(&Settings::default());
        let (mut now, mut before) = (Duration::ZERO, 0_u64);
        for (gap, event) in steps {
            // A look at least each second, as requests would.
            for _ in 0..gap / 1_000 {
                now += s(1);
                let share = ramp.share(now);
                let next = [10, 25, 50, 100].into_iter().find(|step| *step > before).unwrap_or(100);
                prop_assert!(share <= next, "from {before} to {share}");
                before = share;
            }
            match event {
                0 => ramp.out(now),
                1 => ramp.well(now),
                2 => ramp.too_much(now),
                _ => {}
            }
            let share = ramp.share(now);
            let next = [10, 25, 50, 100].into_iter().find(|step| *step > before).unwrap_or(100);
            prop_assert!(share <= next, "from {before} to {share} by {event}");
            before = share;
        }
        ramp.well(now);
        prop_assert_eq!(ramp.share(now + s(15)), 0);
        ramp.out(now + s(15));
        prop_assert_eq!(ramp.share(now + s(35)), 100);
    }
}
