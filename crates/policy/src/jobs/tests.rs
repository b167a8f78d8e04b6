//! The rules of jobs, by table and by random input.

use std::time::Duration;

use proptest::prelude::*;

use super::*;

#[test]
fn the_documented_pauses() {
    let policy = RetryPolicy::default();
    let pauses: Vec<u64> = (1..=7).map(|attempt| policy.pause(attempt).as_secs()).collect();
    assert_eq!(pauses, [1, 4, 16, 64, 256, 600, 600]);
    let failed = Failure::Retriable { after: None };
    assert_eq!(policy.after(1, failed, 0.0), Next::Retry(Duration::from_secs(1)));
    assert_eq!(policy.after(1, failed, 0.5), Next::Retry(Duration::from_millis(900)));
    assert_eq!(policy.after(4, failed, 0.0), Next::Retry(Duration::from_secs(64)));
    assert_eq!(policy.after(5, failed, 0.0), Next::Dead, "the fifth was the last");
    assert_eq!(policy.after(2, Failure::Died, 0.9), Next::Retry(Duration::ZERO));
    assert_eq!(policy.after(5, Failure::Died, 0.9), Next::Dead, "what kills its worker uses up its attempts");
    assert_eq!(policy.after(1, Failure::Final, 0.0), Next::Dead);
}

#[test]
fn a_longer_wish_of_the_refuser_is_kept_within_the_cap() {
    let policy = RetryPolicy::default();
    let after = |secs| policy.after(1, Failure::Retriable { after: Some(Duration::from_secs(secs)) }, 0.0);
    assert_eq!([after(0), after(30), after(86_400)], [1, 30, 600].map(|s| Next::Retry(Duration::from_secs(s))));
}

#[test]
fn ended_is_ended_but_for_replay() {
    for from in State::ALL {
        for to in State::ALL {
            if from.ended() && from.may_become(to) {
                assert_eq!((from, to), (State::Dead, State::Ready));
            }
        }
        assert_eq!(State::from_code(i64::from(from.code())), Some(from));
        assert_eq!(from.as_str().parse(), Ok(from));
    }
    assert!(State::from_code(7).is_none() && "done".parse::<State>().is_err());
}

#[test]
fn waiting_is_estimated_from_what_ended() {
    let backlog = |ahead, running, ended, mean: u64| Backlog {
        ahead,
        running,
        ended,
        window: Duration::from_mins(1),
        mean_run: Duration::from_secs(mean),
    };
    assert_eq!(estimate_wait(&backlog(0, 0, 0, 0)), Some(Duration::ZERO));
    assert_eq!(estimate_wait(&backlog(5, 0, 0, 0)), None, "nobody has seen one end");
    assert_eq!(estimate_wait(&backlog(599, 2, 600, 0)), Some(Duration::from_mins(1)));
    assert_eq!(estimate_wait(&backlog(9, 2, 1, 100)), Some(Duration::from_secs(500)), "two lanes of 100 s");
    assert_eq!(poll_after(None), Duration::from_secs(5));
    assert_eq!(poll_after(Some(Duration::ZERO)), Duration::from_secs(1));
    assert_eq!(poll_after(Some(Duration::from_mins(10))), Duration::from_mins(1));
}

proptest! {
    #[test]
    fn pauses_grow_and_stay_below_the_cap(base in 1u64..10_000, factor in 0u32..10, cap in 1u64..100_000, jitter in 0.0..1.0f64) {
        let policy = RetryPolicy { max_attempts: 40, base: Duration::from_millis(base), factor, cap: Duration::from_millis(cap) };
        let mut before = Duration::ZERO;
        for attempt in 1..40 {
            let pause = policy.pause(attempt);
            prop_assert!(pause >= before && pause <= policy.cap);
            let Next::Retry(jittered) = policy.after(attempt, Failure::Retriable { after: None }, jitter) else { panic!() };
            prop_assert!(jittered <= pause && jittered >= pause.mul_f64(0.79));
            before = pause;
        }
    }

    #[test]
    fn an_order_puts_everything_after_what_it_waits_for(edges in prop::collection::vec((0usize..12, 0usize..12), 0..20)) {
        let mut waits_for = vec![Vec::new(); 12];
        for (job, on) in &edges {
            waits_for[*job].push(*on);
        }
        // A circle, found the slow way: follow what is waited for from each job.
        let circle = (0..12).any(|start| {
            let (mut seen, mut next) = (std::collections::BTreeSet::new(), waits_for[start].clone());
            while let Some(job) = next.pop() {
                if job == start { return true; }
                if seen.insert(job) { next.extend(&waits_for[job]); }
            }
            false
        });
        match order(&waits_for) {
            Err(Cycle(job)) => prop_assert!(circle && job < 12),
            Ok(sorted) => {
                prop_assert!(!circle);
                let place = |job: usize| sorted.iter().position(|at| *at == job).unwrap();
                prop_assert!(edges.iter().all(|(job, on)| place(*job) > place(*on)));
                prop_assert_eq!(sorted.len(), 12);
            }
        }
    }
}
