//! What may be written, and what is said when something else is.

use super::*;
use crate::ScheduleError;

#[test]
fn expressions_mean_what_they_say() {
    // A Thursday.
    let after = "2026-01-01T00:00:00Z";
    for (cron, expected) in [
        ("* * * * *", ["2026-01-01T00:01:00Z", "2026-01-01T00:02:00Z"]),
        ("*/20 * * * * *", ["2026-01-01T00:00:20Z", "2026-01-01T00:00:40Z"]),
        ("*/7 9-17 * * MON-FRI", ["2026-01-01T09:00:00Z", "2026-01-01T09:07:00Z"]),
        ("  0\t0  1,15 JAN-feb * ", ["2026-01-15T00:00:00Z", "2026-02-01T00:00:00Z"]),
        ("0 0 * * 7", ["2026-01-04T00:00:00Z", "2026-01-11T00:00:00Z"]),
        ("0 0 * * 0", ["2026-01-04T00:00:00Z", "2026-01-11T00:00:00Z"]),
        ("0 0 13 * FRI", ["2026-01-02T00:00:00Z", "2026-01-09T00:00:00Z"]),
        ("0 0 13 * +FRI", ["2026-02-13T00:00:00Z", "2026-03-13T00:00:00Z"]),
        ("0 0 L * ?", ["2026-01-31T00:00:00Z", "2026-02-28T00:00:00Z"]),
        ("0 0 LW * *", ["2026-01-30T00:00:00Z", "2026-02-27T00:00:00Z"]),
        ("0 0 15W 2,3,8 *", ["2026-02-16T00:00:00Z", "2026-03-16T00:00:00Z"]),
        ("0 0 * * 5L", ["2026-01-30T00:00:00Z", "2026-02-27T00:00:00Z"]),
        ("0 0 * * MON#2", ["2026-01-12T00:00:00Z", "2026-02-09T00:00:00Z"]),
        ("0 0 31 * *", ["2026-01-31T00:00:00Z", "2026-03-31T00:00:00Z"]),
        ("@hourly", ["2026-01-01T01:00:00Z", "2026-01-01T02:00:00Z"]),
        ("@Daily", ["2026-01-02T00:00:00Z", "2026-01-03T00:00:00Z"]),
        ("@midnight", ["2026-01-02T00:00:00Z", "2026-01-03T00:00:00Z"]),
        ("@weekly", ["2026-01-04T00:00:00Z", "2026-01-11T00:00:00Z"]),
        ("@monthly", ["2026-02-01T00:00:00Z", "2026-03-01T00:00:00Z"]),
        ("@yearly", ["2027-01-01T00:00:00Z", "2028-01-01T00:00:00Z"]),
        ("@annually", ["2027-01-01T00:00:00Z", "2028-01-01T00:00:00Z"]),
        ("every 90s", ["2026-01-01T00:01:30Z", "2026-01-01T00:03:00Z"]),
        ("@every 1h30m", ["2026-01-01T01:30:00Z", "2026-01-01T03:00:00Z"]),
        ("Every  15  Minutes", ["2026-01-01T00:15:00Z", "2026-01-01T00:30:00Z"]),
        ("every day", ["2026-01-02T00:00:00Z", "2026-01-03T00:00:00Z"]),
    ] {
        assert_eq!(next(cron, "UTC", after, 2), expected, "{cron}");
    }
}

#[test]
fn leap_days_and_far_years() {
    let leap = next("0 12 29 2 *", "UTC", "2026-01-01T00:00:00Z", 2);
    assert_eq!(leap, ["2028-02-29T12:00:00Z", "2032-02-29T12:00:00Z"]);
    // 2100 has none.
    assert_eq!(next("0 12 29 2 *", "UTC", "2096-03-01T00:00:00Z", 1), ["2104-02-29T12:00:00Z"]);
    assert_eq!(next("0 0 29 2 +MON", "UTC", "2044-03-01T00:00:00Z", 2), ["2072-02-29T00:00:00Z", "2112-02-29T00:00:00Z"]);
    // Where 32 bits of seconds end.
    assert_eq!(next("14 3 * * *", "UTC", "2038-01-19T03:14:00Z", 1), ["2038-01-20T03:14:00Z"]);
    assert_eq!(next("* * * * * *", "UTC", "2038-01-19T03:14:07.999Z", 1), ["2038-01-19T03:14:08Z"]);
    assert_eq!(next("30 2 * * *", "Europe/Berlin", "2106-02-07T06:28:15Z", 1), ["2106-02-08T01:30:00Z"]);
    // Past the year in which the library stops to search.
    assert_eq!(next("0 0 29 2 +MON", "UTC", "7777-01-01T00:00:00Z", 1), ["7796-02-29T00:00:00Z"]);
    for (cron, last) in
        [("59 23 31 12 *", "9999-12-31T23:59:00Z"), ("@hourly", "9999-12-31T23:00:00Z"), ("every 1s", "9999-12-31T23:59:59Z")]
    {
        let schedule = schedule(cron, "UTC");
        assert_eq!(schedule.next_after(at(last)), None, "{cron}");
        let before = Timestamp::from_millis(at(last).millis() - 1).unwrap();
        assert_eq!(schedule.next_after(before), Some(at(last)), "{cron}");
    }
    let kiritimati = schedule("0 0 1 1 *", "Pacific/Kiritimati");
    assert_eq!(kiritimati.next_after(at("9998-12-31T10:00:00Z")), Some(at("9999-12-31T10:00:00Z")));
    assert_eq!(kiritimati.next_after(at("9999-12-31T10:00:00Z")), None);
    assert_eq!(next("0 0 1 1 *", "Pacific/Kiritimati", "1970-01-01T00:00:00Z", 1), ["1970-01-01T10:40:00Z"]);
    assert_eq!(next("@hourly", "UTC", "1970-01-01T00:00:00Z", 1), ["1970-01-01T01:00:00Z"]);
}

#[test]
fn what_never_fires_is_refused() {
    for cron in ["0 0 30 2 *", "* * * 30 2 *", "0 0 31 4,6,9,11 *", "0 0 30W 2 *", "0 0 31 2 +MON", "* * * 31 FEB ?"] {
        assert_eq!(Schedule::parse(cron, "UTC").unwrap_err(), ScheduleError::Never, "{cron}");
    }
    // Either day counts, and there are Mondays in February.
    assert!(Schedule::parse("0 0 30 2 MON", "UTC").is_ok());
}

#[test]
fn an_error_says_which_field_and_what_to_write() {
    for (cron, field, say) in [
        ("60 * * * *", "minute", "0 to 59"),
        ("* 24 * * *", "hour", "0 to 23"),
        ("* 22-4 * * *", "hour", "`22-23,0-4`"),
        ("* MON * * *", "hour", "0 to 23"),
        ("* * 0 * *", "day of the month", "1 to 31"),
        ("* * 32 * *", "day of the month", "1 to 31"),
        ("* * JAN * *", "day of the month", "1 to 31"),
        ("* * * 13 *", "month", "JAN to DEC"),
        ("* * * JANUARY *", "month", "JAN to DEC"),
        ("* * * MON *", "month", "JAN to DEC"),
        ("* * * * 8", "day of the week", "SUN to SAT"),
        ("* * * * FRI-MON", "day of the week", "over Sunday"),
        ("* * * * MON#6", "day of the week", "`MON#2`"),
        ("61 * * * * *", "second", "0 to 59"),
        ("5/10 * * * *", "minute", "`5-59/10`"),
        ("*/0 * * * *", "minute", "`*/10`"),
        ("1,,2 * * * *", "minute", "a list"),
        ("1, * * * *", "minute", "a list"),
        ("- * * * *", "minute", "0 to 59"),
        ("*/ * * * *", "minute", "0 to 59"),
        ("1-2-3 * * * *", "minute", "0 to 59"),
        ("99999999999999999999 * * * *", "minute", "0 to 59"),
        ("? * * * *", "minute", "0 to 59"),
    ] {
        let error = Schedule::parse(cron, "UTC").expect_err(cron);
        let text = error.to_string();
        assert!(text.starts_with(&format!("the {field} `")) && text.contains(say), "{cron}: {text}");
    }
    for (cron, say) in [
        ("", "`0 3 * * *`"),
        (" \t ", "`@daily`"),
        ("* * * *", "4 fields"),
        ("* * * * * * *", "7 fields"),
        ("hello", "1 fields"),
        ("@reboot", "@hourly"),
        ("@every", "`every 5m`"),
        ("every 5x", "a number and a unit"),
        ("every 0s", "at least 1s"),
        ("*/90 * * * *", "`every 90m`"),
        ("0 */36 * * *", "an interval"),
        ("0 3 * * *\n", "letters, digits"),
        ("0 3 * * \u{1f980}", "letters, digits"),
        ("0\u{a0}3 * * *", "letters, digits"),
        (&"*".repeat(257), "at most 256"),
    ] {
        let text = Schedule::parse(cron, "UTC").expect_err(cron).to_string();
        assert!(text.contains(say), "{cron}: {text}");
    }
    let text = Schedule::parse("0 3 * * *", "Berlin").unwrap_err().to_string();
    assert_eq!(text, "the time zone `Berlin` is not known: write a name of the IANA database, such as Europe/Berlin");
    for (cron, zone, field) in [("@daily", "Berlin", "zone"), ("@dayly", "Berlin", "cron"), ("0 0 30 2 *", "UTC", "cron")] {
        let error = plinth_types::Error::from(Schedule::parse(cron, zone).unwrap_err());
        assert_eq!((error.reason(), error.field_name()), (plinth_types::Reason::InvalidSchedule, Some(field)), "{cron} {zone}");
    }
}

#[test]
fn a_schedule_is_shown_as_it_was_written() {
    let schedule = schedule(" 0  3 * *   mon ", "europe/berlin");
    assert_eq!((schedule.text(), schedule.zone()), ("0 3 * * mon", "Europe/Berlin"));
    assert_eq!(schedule.to_string(), "0 3 * * mon (Europe/Berlin)");
}
