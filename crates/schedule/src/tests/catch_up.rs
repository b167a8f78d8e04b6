//! What fires after a standstill, and how much work that is.

use std::time::Duration;

use super::*;
use crate::{CatchUp, Due, MAX_AT_ONCE, MAX_COUNTED};

fn texts(due: &Due) -> Vec<String> {
    due.ticks.iter().map(|tick| tick.to_string().replace(":00.000Z", "")).collect()
}

#[test]
fn each_rule_does_what_it_says() {
    let schedule = schedule("@hourly", "UTC");
    let (last, now) = (at("2026-05-01T08:00:00Z"), at("2026-05-01T12:30:00Z"));
    for (rule, ticks, missed) in [
        (CatchUp::Skip, vec![], 4),
        (CatchUp::Once, vec!["2026-05-01T12:00"], 3),
        (CatchUp::All { at_most: 100 }, vec!["2026-05-01T09:00", "2026-05-01T10:00", "2026-05-01T11:00", "2026-05-01T12:00"], 0),
        (CatchUp::All { at_most: 2 }, vec!["2026-05-01T11:00", "2026-05-01T12:00"], 2),
        (CatchUp::All { at_most: 0 }, vec![], 4),
    ] {
        let due = schedule.due(last, now, rule);
        assert_eq!((texts(&due), due.missed), (ticks.into_iter().map(String::from).collect(), missed), "{rule:?}");
        assert_eq!((due.next, due.through), (Some(at("2026-05-01T13:00:00Z")), now));
    }
}

#[test]
fn who_looks_often_sees_each_tick_under_every_rule() {
    let schedule = schedule("*/2 * * * *", "UTC");
    for rule in [CatchUp::Skip, CatchUp::Once, CatchUp::All { at_most: 1 }] {
        let (mut last, mut fired, mut missed) = (at("2026-05-01T08:00:00.500Z"), 0, 0);
        for _ in 0..400 {
            let due = schedule.due(last, last.plus(Duration::from_millis(1700)), rule);
            (last, fired, missed) = (due.through, fired + due.ticks.len(), missed + due.missed);
        }
        // 680 s.
        assert_eq!((fired, missed), (5, 0), "{rule:?}");
    }
}

#[test]
fn a_late_look_is_on_time_for_a_minute() {
    let schedule = schedule("0 3 * * *", "UTC");
    let last = at("2026-05-01T00:00:00Z");
    for (now, fires) in [("2026-05-01T03:00:00Z", 1), ("2026-05-01T03:01:00Z", 1), ("2026-05-01T03:01:00.001Z", 0)] {
        let due = schedule.due(last, at(now), CatchUp::Skip);
        assert_eq!((due.ticks.len(), due.missed), (fires, 1 - fires as u64), "{now}");
    }
}

#[test]
fn a_clock_that_goes_back_fires_nothing_again() {
    let schedule = schedule("@hourly", "UTC");
    let (last, now) = (at("2026-05-01T12:30:00Z"), at("2026-05-01T08:15:00Z"));
    let due = schedule.due(last, now, CatchUp::All { at_most: 100 });
    assert_eq!(due, Due { ticks: vec![], next: Some(at("2026-05-01T13:00:00Z")), missed: 0, through: last });
    // A moment within the second of a tick that has fired.
    let due = schedule.due(at("2026-05-01T12:00:00.000Z"), at("2026-05-01T12:00:00.900Z"), CatchUp::All { at_most: 100 });
    assert_eq!((due.ticks.len(), due.missed), (0, 0));
}

#[test]
fn decades_of_standstill_are_bounded_work() {
    let (last, now) = (at("1970-01-01T00:00:00Z"), at("2026-05-01T12:00:00Z"));
    for cron in ["* * * * * *", "every 1s", "* * 2 * * *"] {
        let due = schedule(cron, "America/New_York").due(last, now, CatchUp::All { at_most: u32::MAX });
        assert_eq!((due.ticks.len(), due.missed), (MAX_AT_ONCE as usize, MAX_COUNTED), "{cron}");
        assert!(due.ticks.is_sorted_by(|a, b| a < b) && due.ticks.iter().all(|tick| *tick <= now));
        let once = schedule(cron, "America/New_York").due(last, now, CatchUp::Once);
        assert_eq!(once.ticks, due.ticks[MAX_AT_ONCE as usize - 1..], "{cron}");
    }
    let yearly = schedule("@yearly", "UTC").due(last, now, CatchUp::All { at_most: 10 });
    assert_eq!((texts(&yearly)[9].as_str(), yearly.missed), ("2026-01-01T00:00", 46));
    let end = at("9999-12-31T23:59:59.999Z");
    let rare = schedule("0 * 29 2 +MON", "Europe/Berlin").due(last, end, CatchUp::All { at_most: 1 });
    assert_eq!((rare.ticks.len(), rare.next, rare.missed > 6000), (1, None, true));
}
