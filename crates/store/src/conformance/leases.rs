//! Every store of leases, against the rule itself, question by question.

use std::sync::Arc;
use std::time::Duration;

use plinth_policy::limits::Rate;
use plinth_policy::limits::lease::LeaseRequest;
use plinth_policy::limits::lease::central::{CapState, CentralCap, CentralRate, RateState};
use plinth_runtime::{Clock, ManualClock, Random, SeededRandom};
use plinth_types::Timestamp;

use crate::limits::{Central, LeaseStore};

/// Runs the suite. `make` opens a store in which no counter stands and which follows the given clock.
///
/// # Panics
/// At the first promise that is not kept.
pub async fn leases<F: AsyncFn(Arc<dyn Clock>) -> Arc<dyn LeaseStore>>(make: F) {
    let start = Timestamp::from_millis(20_000 * 86_400_000 + 86_000_000).unwrap();
    let random = SeededRandom::new(11);
    for (text, burst) in [("10/s", 20), ("7/3s", 5), ("1000/hour", 1), ("999983/s", 1_000_000), ("10/minute", 10), ("1/day", 3)] {
        let rate = Rate::parse(text, Some(burst)).unwrap();
        let (rule, mut state) = (CentralRate::new(&rate, Duration::from_secs(5)), RateState::default());
        let clock = Arc::new(ManualClock::new(start));
        let store = make(clock.clone()).await;
        for step in 0..60 {
            let ask = any(&random, burst * 3 / 2, &rate);
            let expected = rule.lease(&mut state, &ask, clock.now().millis() * 1000);
            let answer = store.lease("rate", &Central::Rate(rule), &ask).await.unwrap();
            assert_eq!(answer, expected, "{text}, burst {burst}, question {step}: {ask:?}");
            clock.advance(Duration::from_millis(random.next_u64() % 3 * (random.next_u64() % 2000)));
        }
    }
    let (rule, mut state) = (CentralCap { cap: 500, life: Duration::from_secs(5) }, CapState::default());
    let clock = Arc::new(ManualClock::new(start));
    let store = make(clock.clone()).await;
    for step in 0..120 {
        let mut ask = any(&random, 40, &Rate::parse("500/day", None).unwrap());
        ask.window = state.day - random.next_u64() % 2 * state.day.min(1);
        let expected = rule.lease(&mut state, &ask, clock.now().millis() * 1000);
        let answer = store.lease("cap", &Central::Cap(rule), &ask).await.unwrap();
        assert_eq!(answer, expected, "cap, question {step}: {ask:?}");
        clock.advance(Duration::from_millis(random.next_u64() % 10_000));
    }
    assert!(state.day == 20_001, "midnight was passed");
}

fn any(random: &SeededRandom, most: u64, rate: &Rate) -> LeaseRequest {
    let one_in = |n: u64| random.next_u64().is_multiple_of(n);
    let unused = if one_in(3) { random.next_u64() % most.max(1) } else { 0 };
    let lost_for = match random.next_u64() % 8 {
        0 => Duration::from_micros(random.next_u64() % 5_000_000),
        1 => Duration::MAX,
        _ => Duration::ZERO,
    };
    let spent = if one_in(6) { random.next_u64() % 30 } else { 0 };
    let want = if one_in(10) { 0 } else { random.next_u64() % most.max(2).max(rate.burst() / 4) };
    LeaseRequest { want, unused, window: 0, lost_for, spent, sent: Duration::ZERO }
}
