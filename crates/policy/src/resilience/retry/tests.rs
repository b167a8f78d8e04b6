//! Retries by table; the budget by random histories.

use proptest::prelude::*;

use super::*;

fn attempt(outcome: Outcome, idempotent: bool) -> Attempt {
    Attempt {
        outcome,
        idempotent,
        first_byte_sent: false,
        attempts: 1,
        deadline_left: Duration::from_secs(3),
        expected: Duration::ZERO,
        push_back: None,
    }
}

#[test]
fn what_is_retried() {
    let policy = RetryPolicy::default();
    for outcome in Outcome::ALL {
        let (twice, once) = match outcome {
            Outcome::Success | Outcome::ClientError | Outcome::Throttled | Outcome::Cancelled => {
                (Err(Refusal::NotAFailure), Err(Refusal::NotAFailure))
            }
            Outcome::ConnectFailed | Outcome::RefusedStream => (Ok(Duration::ZERO), Ok(Duration::ZERO)),
            Outcome::Timeout | Outcome::Reset | Outcome::ServerError | Outcome::BadAnswer => {
                (Ok(Duration::ZERO), Err(Refusal::NotIdempotent))
            }
        };
        assert_eq!(policy.may_retry(&attempt(outcome, true), 0), twice, "{outcome:?}");
        assert_eq!(policy.may_retry(&attempt(outcome, false), 0), once, "{outcome:?}");
    }
}

#[test]
fn the_first_byte_ends_it() {
    let policy = RetryPolicy { most_attempts: 100, ..RetryPolicy::default() };
    for outcome in Outcome::ALL.into_iter().filter(|outcome| outcome.is_failure()) {
        let sent = Attempt { first_byte_sent: true, ..attempt(outcome, true) };
        assert_eq!(policy.may_retry(&sent, 0), Err(Refusal::FirstByteSent));
    }
}

#[test]
fn one_retry_within_the_deadline() {
    let policy = RetryPolicy::default();
    let failed = attempt(Outcome::Timeout, true);
    assert_eq!(policy.may_retry(&Attempt { attempts: 2, ..failed.clone() }, 0), Err(Refusal::AttemptsSpent));
    let late = Attempt { deadline_left: Duration::from_millis(40), expected: Duration::from_millis(30), ..failed.clone() };
    assert!(policy.may_retry(&late, 0).is_ok());
    assert_eq!(policy.may_retry(&late, u64::MAX / 2), Err(Refusal::NoTime), "25 ms and 30 ms are not within 40");
    let pushed = Attempt { push_back: Some(Duration::from_secs(2)), ..failed.clone() };
    assert!(policy.may_retry(&pushed, 5).unwrap() >= Duration::from_secs(2), "push-back first");
    let far = Attempt { push_back: Some(Duration::from_secs(3)), ..failed };
    assert_eq!(policy.may_retry(&far, 0), Err(Refusal::NoTime));
}

#[test]
fn a_quiet_target_has_its_floor() {
    let budget = RetryBudget::new(&BudgetSettings::default());
    budget.requested(Duration::ZERO);
    assert_eq!(budget.left(Duration::ZERO), 10);
    assert_eq!((0..50).filter(|_| budget.withdraw(Duration::ZERO)).count(), 10);
    assert!(!budget.withdraw(Duration::from_secs(9)));
    assert!(budget.withdraw(Duration::from_secs(10)));
}

proptest! {
    #[test]
    fn jitter_is_full_and_bounded(retry in 0u32..40, draw: u64) {
        let backoff = Backoff::default();
        let most = [50, 100, 200, 400].get(retry as usize).copied().unwrap_or(500);
        let delay = backoff.delay(retry, None, draw);
        prop_assert!(delay < Duration::from_millis(most));
        prop_assert!(backoff.delay(retry, None, 0) == Duration::ZERO);
        prop_assert!(backoff.delay(retry, None, u64::MAX) > Duration::from_millis(most - 1));
    }

    /// Everything fails and everybody wants to retry, at whatever pace.
    #[test]
    fn within_no_window_are_there_more_retries_than_earned(
        gaps in proptest::collection::vec(prop_oneof![0u64..3, 0u64..30, 0u64..2_000], 1..3_000),
        floor_per_second in 0u32..3,
    ) {
        let budget = RetryBudget::new(&BudgetSettings { floor_per_second, ..BudgetSettings::default() });
        let (mut now, mut requests, mut retries) = (0_u64, Vec::new(), Vec::new());
        for gap in gaps {
            now += gap;
            let time = Duration::from_millis(now);
            budget.requested(time);
            requests.push(now);
            if budget.withdraw(time) {
                retries.push(now);
                let recent = |times: &[u64]| times.iter().rev().take_while(|at| now / 1_000 - **at / 1_000 < 10).count();
                let (requests, retries) = (recent(&requests), recent(&retries));
                prop_assert!(retries <= (requests / 10).max(10 * floor_per_second as usize), "{retries} for {requests}");
            }
        }
        if floor_per_second == 0 {
            prop_assert!(retries.len() * 10 <= requests.len());
        }
    }

    /// With ten requests a second or more the floor makes no difference: at most 1.1 attempts for each request.
    #[test]
    fn a_busy_target_sees_a_tenth_more(gaps in proptest::collection::vec(1u64..100, 2_000..4_000)) {
        let budget = RetryBudget::new(&BudgetSettings::default());
        let (mut now, mut requests, mut retries) = (0, 0_u64, 0_u64);
        for gap in gaps {
            now += gap;
            budget.requested(Duration::from_millis(now));
            requests += 1;
            retries += u64::from(budget.withdraw(Duration::from_millis(now)));
        }
        // Ten are there before the first window has filled.
        prop_assert!(retries <= requests / 10 + 10, "{retries} for {requests}");
        prop_assert!(retries * 100 >= requests * 8, "and they may be used: {retries} for {requests}");
    }
}
