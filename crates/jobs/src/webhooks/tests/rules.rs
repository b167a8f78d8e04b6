//! What an answer means, when to try again, and how many at a time.

use http::StatusCode;
use plinth_types::Timestamp;
use proptest::prelude::*;

use super::super::hosts::Hosts;
use super::*;

fn judged(status: u16, retry_after: &[&str]) -> Outcome {
    let mut headers = HeaderMap::new();
    for value in retry_after {
        headers.append("retry-after", HeaderValue::from_str(value).unwrap());
    }
    let now: Timestamp = "2026-11-20T12:00:00Z".parse().unwrap();
    judge(StatusCode::from_u16(status).unwrap(), &headers, now)
}

#[test]
fn only_2xx_delivers_and_only_410_ends() {
    for status in 100..=999 {
        let expected = match status {
            200..=299 => Outcome::Delivered,
            410 => Outcome::Gone,
            _ => Outcome::Retry { after: None },
        };
        assert_eq!(judged(status, &[]), expected, "{status}");
    }
}

#[test]
fn a_receiver_s_wish_is_bounded() {
    for (values, seconds) in [
        (&["30"][..], Some(30)),
        (&[" 30 "], Some(30)),
        (&["0"], None),
        (&["3600"], Some(3600)),
        (&["3601"], Some(3600)),
        (&["99999999999999999999999999"], Some(3600)),
        (&["Fri, 20 Nov 2026 12:02:00 GMT"], Some(120)),
        (&["Fri, 20 Nov 2026 11:00:00 GMT"], None),
        (&["Fri, 31 Dec 9999 23:59:59 GMT"], Some(3600)),
        (&["-1"], None),
        (&["1.5"], None),
        (&["+5"], None),
        (&["soon"], None),
        (&[""], None),
        (&["30", "40"], None),
    ] {
        for status in [503, 429, 500, 302] {
            assert_eq!(judged(status, values), Outcome::Retry { after: seconds.map(Duration::from_secs) }, "{values:?}");
        }
    }
    assert_eq!(judged(204, &["30"]), Outcome::Delivered);
}

#[test]
fn waits_grow_fourfold_up_to_an_hour() {
    let most: Vec<_> = (0..9).map(|retry| next_wait(retry, Duration::ZERO, None, u64::MAX).unwrap().as_secs_f64().round()).collect();
    assert_eq!(most, [1.0, 4.0, 16.0, 64.0, 256.0, 1024.0, 3600.0, 3600.0, 3600.0]);
    assert_eq!(next_wait(5, Duration::ZERO, None, 0), Some(Duration::ZERO));
    assert_eq!(next_wait(2, Duration::ZERO, None, u64::MAX / 2), Some(Duration::from_millis(7999)));
    assert_eq!(next_wait(0, Duration::ZERO, Some(Duration::from_secs(90)), 0), Some(Duration::from_secs(90)));
}

proptest! {
    #[test]
    fn a_wait_is_bounded_and_trying_ends(
        retry in any::<u32>(), since in 0..200_000_u64, wish in prop::option::of(0..100_000_u64), draw in any::<u64>(),
    ) {
        let since = Duration::from_secs(since);
        let wait = next_wait(retry, since, wish.map(Duration::from_secs), draw);
        if let Some(wait) = wait {
            prop_assert!(wait <= LONGEST_WISH + LONGEST_WAIT && since + wait <= GIVE_UP);
            prop_assert!(wish.is_none_or(|wish| wait >= Duration::from_secs(wish).min(LONGEST_WISH)));
        } else {
            prop_assert!(since + LONGEST_WISH + LONGEST_WAIT > GIVE_UP);
        }
        prop_assert_eq!(wait, next_wait(retry, since, wish.map(Duration::from_secs), draw));
    }

    #[test]
    fn a_receiver_that_never_answers_is_tried_for_a_day(draws in prop::collection::vec(any::<u64>(), 400)) {
        let (mut since, mut attempts) = (Duration::ZERO, 1_u32);
        while let Some(wait) = next_wait(attempts - 1, since, None, draws[attempts as usize % draws.len()]) {
            since += wait + TOTAL;
            attempts += 1;
        }
        prop_assert!(since > GIVE_UP - LONGEST_WAIT, "{since:?}");
        prop_assert!((20..200).contains(&attempts), "{attempts}");
    }
}

#[test]
fn a_host_has_two_and_is_forgotten() {
    let hosts = Hosts::default();
    let first = hosts.take("a").unwrap();
    let second = hosts.take("a").unwrap();
    assert!(hosts.take("a").is_none());
    let other = hosts.take("b").unwrap();
    assert_eq!(hosts.len(), 2);
    drop(first);
    let third = hosts.take("a").unwrap();
    assert!(hosts.take("a").is_none());
    drop((second, third, other));
    assert_eq!(hosts.len(), 0);
}

#[test]
fn a_record_is_small_and_reads_back() {
    let at: Timestamp = "2026-11-20T12:00:00Z".parse().unwrap();
    for (ended, word) in [(Ended::Status(503), "503"), (Ended::Failure(Failure::Unreachable), "\"unreachable\"")] {
        let attempt = Attempt { at, ended, duration_ms: 12, bytes: 3 };
        let text = serde_json::to_string(&attempt).unwrap();
        assert_eq!(text, format!(r#"{{"at":"2026-11-20T12:00:00.000Z","ended":{word},"duration_ms":12,"bytes":3}}"#));
        assert_eq!(serde_json::from_str::<Attempt>(&text).unwrap(), attempt);
    }
}
