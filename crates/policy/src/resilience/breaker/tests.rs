//! The breaker by table, against a naive model, and by random histories that must all heal.

use proptest::prelude::*;

use super::*;

const QUICK: Duration = Duration::from_millis(5);

const fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

const fn s(n: u64) -> Duration {
    Duration::from_secs(n)
}

fn breaker() -> Breaker {
    Breaker::new(Settings::default(), 7)
}

fn call(breaker: &Breaker, now: Duration, outcome: Outcome) -> bool {
    let permit = breaker.permit(now);
    breaker.record(now, permit, outcome, QUICK);
    !matches!(permit, Permit::Refused { .. })
}

fn calls(breaker: &Breaker, now: Duration, outcome: Outcome, n: u32) {
    for _ in 0..n {
        call(breaker, now, outcome);
    }
}

fn open_for(breaker: &Breaker, now: Duration) -> Duration {
    match breaker.permit(now) {
        Permit::Refused { retry_after } => retry_after,
        permit => panic!("{permit:?}"),
    }
}

#[test]
fn shares_of_errors() {
    for (good, bad, state) in [
        (0, 19, State::Closed),
        (0, 20, State::Open),
        (71, 29, State::Closed),
        (70, 30, State::Degraded),
        (51, 49, State::Degraded),
        (50, 50, State::Open),
    ] {
        let breaker = breaker();
        calls(&breaker, s(3), Outcome::Success, good);
        calls(&breaker, s(3), Outcome::ServerError, bad);
        assert_eq!(breaker.state(s(3)), state, "{good} good, {bad} bad");
        let weight = if state == State::Closed { 1.0 } else { 0.25 };
        assert_eq!(breaker.weight(s(3)), weight);
        assert_eq!(state.takes_extra(), state == State::Closed);
    }
}

#[test]
fn what_counts() {
    for outcome in Outcome::ALL {
        let breaker = breaker();
        calls(&breaker, s(1), outcome, 100);
        let expected = match outcome {
            Outcome::Success | Outcome::ClientError | Outcome::Throttled | Outcome::Cancelled => State::Closed,
            _ => State::Open,
        };
        assert_eq!(breaker.state(s(1)), expected, "{outcome:?}");
    }
}

#[test]
fn bad_requests_do_not_hide_a_bad_endpoint() {
    let breaker = breaker();
    calls(&breaker, s(1), Outcome::ClientError, 500);
    calls(&breaker, s(1), Outcome::ServerError, 20);
    assert_eq!(breaker.state(s(1)), State::Open);
}

#[test]
fn old_calls_are_forgotten() {
    let breaker = breaker();
    calls(&breaker, s(3), Outcome::Success, 60);
    calls(&breaker, s(3), Outcome::Reset, 30);
    assert_eq!(breaker.state(s(12)), State::Degraded);
    assert_eq!(breaker.state(s(13)), State::Closed, "also when nobody calls");
    assert!(call(&breaker, s(13), Outcome::Reset));
    assert_eq!(breaker.state(s(13)), State::Closed);
}

#[test]
fn slow_calls_open_it_also_when_clients_give_up() {
    for outcome in [Outcome::Success, Outcome::Cancelled] {
        let breaker = Breaker::new(Settings { slow: Some(ms(500)), ..Settings::default() }, 1);
        for n in 0..20 {
            let permit = breaker.permit(s(1));
            assert!(matches!(permit, Permit::Go(_)), "{n}");
            breaker.record(s(1), permit, outcome, ms(500));
        }
        assert_eq!(breaker.state(s(1)), State::Open);
    }
}

#[test]
fn openings_double_with_jitter_up_to_a_minute_and_are_forgiven() {
    let breaker = breaker();
    let mut now = s(1);
    calls(&breaker, now, Outcome::Timeout, 20);
    for (n, full) in [5, 10, 20, 40, 60, 60].into_iter().enumerate() {
        let open = open_for(&breaker, now);
        assert!(open <= s(full) && open >= s(full).mul_f64(0.8), "opening {n}: {open:?}");
        assert!(!breaker.allows(now + open - ms(1)));
        now += open;
        assert!(breaker.allows(now) && breaker.wants_probe(now));
        assert_eq!(breaker.state(now), State::HalfOpen);
        assert!(call(&breaker, now, Outcome::Timeout), "one probe that fails opens it again");
    }
    now += open_for(&breaker, now);
    calls(&breaker, now, Outcome::Success, 5);
    assert_eq!(breaker.state(now), State::Closed);
    calls(&breaker, now + s(59), Outcome::Timeout, 20);
    assert!(open_for(&breaker, now + s(59)) > s(40), "not forgiven yet");
    now += s(200);
    calls(&breaker, now, Outcome::Success, 5);
    assert_eq!(breaker.state(now), State::Closed);
    now += s(60);
    calls(&breaker, now, Outcome::Timeout, 20);
    assert!(open_for(&breaker, now) <= s(5), "a healthy minute");
}

#[test]
fn two_breakers_do_not_probe_at_the_same_time() {
    let open: std::collections::BTreeSet<_> = (0..50)
        .map(|seed| {
            let breaker = Breaker::new(Settings::default(), seed);
            calls(&breaker, s(1), Outcome::Timeout, 20);
            open_for(&breaker, s(1)).as_millis()
        })
        .collect();
    assert!(open.len() > 40);
}

fn half_open() -> (Breaker, Duration) {
    let breaker = breaker();
    calls(&breaker, s(1), Outcome::Timeout, 20);
    let now = s(1) + open_for(&breaker, s(1));
    (breaker, now)
}

#[test]
fn five_probes_and_no_more() {
    let (breaker, now) = half_open();
    let probes: Vec<_> = (0..5).map(|_| breaker.permit(now)).collect();
    assert!(probes.iter().all(|probe| matches!(probe, Permit::Probe(_))));
    assert!(matches!(breaker.permit(now), Permit::Refused { .. }));
    assert!(!breaker.allows(now) && !breaker.wants_probe(now));
    for (n, probe) in probes.into_iter().enumerate() {
        assert_eq!(breaker.state(now), State::HalfOpen, "{n} answered");
        breaker.record(now, probe, Outcome::Success, QUICK);
    }
    assert_eq!(breaker.state(now), State::Closed);
}

#[test]
fn lost_probes_do_not_wedge_it() {
    let (breaker, mut now) = half_open();
    // Cancelled ones give their place back at once.
    for _ in 0..50 {
        assert!(call(&breaker, now, Outcome::Cancelled));
    }
    // Of these nobody hears again.
    for _ in 0..5 {
        assert!(matches!(breaker.permit(now), Permit::Probe(_)));
    }
    let wait = open_for(&breaker, now);
    assert!(wait <= Settings::default().patience);
    now += wait;
    calls(&breaker, now, Outcome::Success, 5);
    assert_eq!(breaker.state(now), State::Closed);
}

#[test]
fn answers_of_another_era_change_nothing() {
    let breaker = breaker();
    let early: Vec<_> = (0..40).map(|_| breaker.permit(s(1))).collect();
    calls(&breaker, s(1), Outcome::Timeout, 20);
    let mut now = s(1) + open_for(&breaker, s(1));
    let probe = breaker.permit(now);
    for permit in &early[..20] {
        breaker.record(now, *permit, Outcome::Success, QUICK);
    }
    assert_eq!(breaker.state(now), State::HalfOpen);
    breaker.record(now, probe, Outcome::Success, QUICK);
    calls(&breaker, now, Outcome::Success, 4);
    now += s(1);
    for permit in &early[20..] {
        breaker.record(now, *permit, Outcome::Timeout, s(6));
    }
    assert_eq!(breaker.state(now), State::Closed, "calls that hung since before do not open it again");
}

#[test]
fn it_is_probed_sooner_where_nobody_else_can_take_over_and_lets_nothing_else_through() {
    let breaker = breaker();
    let mut now = s(1);
    calls(&breaker, now, Outcome::Timeout, 20);
    // Its third opening in a row would last up to 20 s.
    for _ in 0..2 {
        now += open_for(&breaker, now);
        assert!(call(&breaker, now, Outcome::Timeout));
    }
    assert!(open_for(&breaker, now) > s(10));
    breaker.hasten(now);
    let open = open_for(&breaker, now);
    assert!(open >= s(4) && open <= s(5), "{open:?}");
    assert_eq!(breaker.refused_for(now), Some(open));
    now += open - ms(1);
    breaker.hasten(now);
    assert!(!breaker.allows(now) && !call(&breaker, now, Outcome::Success), "not before");
    now += ms(1);
    calls(&breaker, now, Outcome::Success, 5);
    assert_eq!((breaker.state(now), breaker.refused_for(now)), (State::Closed, None));
}

#[test]
fn probes_that_hang_do_not_draw_out_the_outage_of_the_only_one() {
    let (breaker, now) = half_open();
    let hanging: Vec<_> = (0..5).map(|_| breaker.permit(now)).collect();
    assert!(!breaker.allows(now) && breaker.refused_for(now).is_some());
    breaker.hasten(now + s(4));
    assert!(!breaker.allows(now + s(4)));
    breaker.hasten(now + s(5));
    assert!(breaker.allows(now + s(5)));
    calls(&breaker, now + s(5), Outcome::Success, 5);
    assert_eq!(breaker.state(now + s(5)), State::Closed);
    for probe in hanging {
        breaker.record(now + s(9), probe, Outcome::Timeout, s(9));
    }
    assert_eq!(breaker.state(now + s(9)), State::Closed, "what hung since before says nothing any more");
}

#[test]
fn a_passing_check_lets_probes_through() {
    let breaker = breaker();
    calls(&breaker, s(1), Outcome::Timeout, 20);
    breaker.check_passed(s(2));
    assert_eq!(breaker.state(s(2)), State::HalfOpen);
    calls(&breaker, s(2), Outcome::Success, 5);
    assert_eq!(breaker.state(s(2)), State::Closed);
}

#[derive(Debug, Clone)]
enum Step {
    Pass(u64),
    Call(Outcome, u64),
    Begin,
    End(usize, Outcome),
    Hasten,
    Check,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let outcome =
        || prop_oneof![3 => Just(Outcome::Success), 3 => Just(Outcome::Timeout), 1 => proptest::sample::select(&Outcome::ALL[..])];
    let step = prop_oneof![
        4 => prop_oneof![0u64..50, 0u64..3_000, 0u64..40_000].prop_map(Step::Pass),
        20 => (outcome(), prop_oneof![Just(5u64), Just(900)]).prop_map(|(outcome, latency)| Step::Call(outcome, latency)),
        4 => Just(Step::Begin),
        4 => (any::<usize>(), outcome()).prop_map(|(which, outcome)| Step::End(which, outcome)),
        1 => Just(Step::Hasten),
        1 => Just(Step::Check),
    ];
    proptest::collection::vec(step, 1..400)
}

proptest! {
    /// Faults of every kind, lost probes included; then all is well for a while.
    #[test]
    fn every_history_heals(steps in steps(), seed: u64) {
        let settings = Settings { slow: Some(ms(800)), ..Settings::default() };
        let breaker = Breaker::new(settings.clone(), seed);
        let (mut now, mut begun) = (s(1), Vec::new());
        // Probes of this half-open time that have not ended, and when the last was let through.
        let (mut era, mut out, mut last) = (None, 0_u32, now);
        for step in steps {
            match step {
                Step::Pass(millis) => now += ms(millis),
                Step::Call(outcome, latency) => {
                    let permit = breaker.permit(now);
                    breaker.record(now, permit, outcome, ms(latency));
                }
                Step::Begin => {
                    let permit = breaker.permit(now);
                    if let Permit::Probe(this) = permit {
                        if era != Some(this) || now - last >= settings.patience {
                            (era, out) = (Some(this), 0);
                        }
                        (out, last) = (out + 1, now);
                        prop_assert!(out <= settings.probes);
                    }
                    begun.push(permit);
                }
                Step::End(which, outcome) if !begun.is_empty() => {
                    let permit = begun.swap_remove(which % begun.len());
                    breaker.record(now, permit, outcome, QUICK);
                    out = out.saturating_sub(u32::from(matches!(permit, Permit::Probe(this) if Some(this) == era)));
                }
                Step::End(..) => {}
                Step::Hasten => {
                    breaker.hasten(now);
                    if now - last >= settings.first_open {
                        out = 0;
                    }
                    prop_assert!(breaker.refused_for(now).is_none_or(|left| left <= settings.first_open));
                }
                Step::Check => breaker.check_passed(now),
            }
            let allows = breaker.allows(now);
            match breaker.state(now) {
                State::Closed | State::Degraded => prop_assert!(allows),
                State::Open => {
                    prop_assert!(!allows);
                    prop_assert!(open_for(&breaker, now) <= settings.longest_open);
                }
                State::HalfOpen => prop_assert_eq!(allows, breaker.wants_probe(now)),
            }
        }
        // Healed within the longest opening, and patience with what was lost.
        let end = now + settings.longest_open + settings.patience + s(1);
        while now < end {
            call(&breaker, now, Outcome::Success);
            now += ms(500);
        }
        prop_assert_eq!(breaker.state(now + settings.window), State::Closed);
    }

    /// Until it first opens it judges as one would who keeps a list of all calls.
    #[test]
    fn judges_as_a_list_would(history in proptest::collection::vec((0u64..1_500, any::<bool>(), 0u32..10), 1..200), share in 0u32..10) {
        let settings = Settings { slow: Some(ms(800)), ..Settings::default() };
        let (breaker, mut list, mut now) = (Breaker::new(settings, 3), Vec::new(), 0_u64);
        for (gap, slow, draw) in history {
            now += gap / 4;
            let failed = draw < share;
            let permit = breaker.permit(ms(now));
            breaker.record(ms(now), permit, if failed { Outcome::Reset } else { Outcome::Success }, ms(if slow { 900 } else { 1 }));
            list.push((now, failed, slow));
            let recent: Vec<_> = list.iter().filter(|(at, ..)| now / 1_000 - at / 1_000 < 10).collect();
            let of = |n: usize, percent: usize| recent.len() >= 20 && n * 100 >= recent.len() * percent;
            let (failed, slow) = (recent.iter().filter(|call| call.1).count(), recent.iter().filter(|call| call.2).count());
            let state = breaker.state(ms(now));
            if of(failed, 50) || of(slow, 80) {
                prop_assert_eq!(state, State::Open);
                return Ok(());
            }
            prop_assert_eq!(state, if of(failed, 30) { State::Degraded } else { State::Closed });
        }
    }
}
