//! Clocks that are set forward and back.

use super::*;

#[test]
fn a_time_that_does_not_exist_fires_at_the_end_of_the_gap() {
    // Berlin, 29 March 2026: after 01:59:59 (00:59:59Z) comes 03:00 (01:00Z).
    let day_before = "2026-03-28T12:00:00Z";
    assert_eq!(
        next("30 2 * * *", "Europe/Berlin", day_before, 3),
        ["2026-03-29T01:00:00Z", "2026-03-30T00:30:00Z", "2026-03-31T00:30:00Z"]
    );
    // Twelve swallowed times and the one that is there are one tick.
    assert_eq!(
        next("*/5 2-3 * * *", "Europe/Berlin", day_before, 3),
        ["2026-03-29T01:00:00Z", "2026-03-29T01:05:00Z", "2026-03-29T01:10:00Z"]
    );
    // The hours before and after are not touched.
    assert_eq!(next("30 1 * * *", "Europe/Berlin", day_before, 2), ["2026-03-29T00:30:00Z", "2026-03-29T23:30:00Z"]);
    assert_eq!(next("0 3 * * *", "Europe/Berlin", day_before, 2), ["2026-03-29T01:00:00Z", "2026-03-30T01:00:00Z"]);
    // Midnight does not exist in Beirut on that day; a day is missing in Apia.
    assert_eq!(next("0 0 * * *", "Asia/Beirut", day_before, 2), ["2026-03-28T22:00:00Z", "2026-03-29T21:00:00Z"]);
    assert_eq!(
        next("0 12 * * *", "Pacific/Apia", "2011-12-29T00:00:00Z", 3),
        ["2011-12-29T22:00:00Z", "2011-12-30T10:00:00Z", "2011-12-30T22:00:00Z"]
    );
    // Half an hour in Lord Howe.
    assert_eq!(next("15 2 * * *", "Australia/Lord_Howe", "2026-10-03T00:00:00Z", 2), ["2026-10-03T15:30:00Z", "2026-10-04T15:15:00Z"]);
}

#[test]
fn a_time_that_comes_twice_fires_the_first_time() {
    // Berlin, 25 October 2026: after 02:59:59 (00:59:59Z) comes 02:00 (01:00Z).
    assert_eq!(next("30 2 * * *", "Europe/Berlin", "2026-10-24T12:00:00Z", 2), ["2026-10-25T00:30:00Z", "2026-10-26T01:30:00Z"]);
    assert_eq!(
        next("*/30 1-3 * * *", "Europe/Berlin", "2026-10-24T23:30:00Z", 4),
        ["2026-10-25T00:00:00Z", "2026-10-25T00:30:00Z", "2026-10-25T02:00:00Z", "2026-10-25T02:30:00Z"]
    );
    // Also when it is asked in the middle of the second time.
    assert_eq!(next("30 2 * * *", "Europe/Berlin", "2026-10-25T01:10:00Z", 1), ["2026-10-26T01:30:00Z"]);
    assert_eq!(next("* * 2,4 * * *", "Europe/Berlin", "2026-10-25T01:10:00Z", 1), ["2026-10-25T03:00:00Z"]);
    // Over midnight: 00:00 comes twice in Havana's first of November, 23:30 twice the day before in the Azores.
    assert_eq!(next("30 0 * * *", "America/Havana", "2026-10-31T12:00:00Z", 2), ["2026-11-01T04:30:00Z", "2026-11-02T05:30:00Z"]);
    assert_eq!(next("30 0 1 11 *", "America/Havana", "2026-10-31T12:00:00Z", 2), ["2026-11-01T04:30:00Z", "2027-11-01T04:30:00Z"]);
}

#[test]
fn a_schedule_of_every_hour_goes_on_without_pause_and_without_extra() {
    assert_eq!(
        next("*/30 * * * *", "Europe/Berlin", "2026-10-25T00:00:00Z", 4),
        ["2026-10-25T00:30:00Z", "2026-10-25T01:00:00Z", "2026-10-25T01:30:00Z", "2026-10-25T02:00:00Z"]
    );
    assert_eq!(
        next("17 * * * *", "Europe/Berlin", "2026-03-29T00:00:00Z", 3),
        ["2026-03-29T00:17:00Z", "2026-03-29T01:17:00Z", "2026-03-29T02:17:00Z"]
    );
    // 0-23 is every hour, and so is 0-11 with 12-23.
    for hours in ["0-23", "*/1", "0-11,12-23"] {
        let ticks = next(&format!("30 {hours} * * *"), "America/New_York", "2026-11-01T05:00:00Z", 2);
        assert_eq!(ticks, ["2026-11-01T05:30:00Z", "2026-11-01T06:30:00Z"], "{hours}");
    }
    // On one day of the year, which ends with a repeated hour in the Azores.
    let day = next("0 * 25 10 *", "Atlantic/Azores", "2026-10-24T12:00:00Z", 26);
    assert_eq!(
        (day[0].as_str(), day[1].as_str(), day[2].as_str()),
        ("2026-10-25T00:00:00Z", "2026-10-25T01:00:00Z", "2026-10-25T02:00:00Z")
    );
    assert_eq!((day[24].as_str(), day[25].as_str()), ("2026-10-26T00:00:00Z", "2027-10-25T00:00:00Z"));
}

#[test]
fn an_interval_does_not_know_of_clocks() {
    for (from, to) in [("2026-03-28T20:00:00Z", "2026-03-29T20:00:00Z"), ("2026-10-24T20:00:00Z", "2026-10-25T20:00:00Z")] {
        let schedule = schedule("every 20m", "Europe/Berlin");
        let ticks: Vec<_> = schedule.ticks(at(from)).take_while(|tick| *tick <= at(to)).collect();
        assert_eq!(ticks.len(), 72);
        assert!(ticks.windows(2).all(|pair| pair[1].millis() - pair[0].millis() == 1_200_000));
    }
}
