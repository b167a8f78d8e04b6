//! Ticks against a slow reading of the rule, for many schedules, zones and moments.

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::tz::TimeZoneDatabase;
use proptest::prelude::*;

use super::*;
use crate::CatchUp;

const ZONES: [&str; 9] = [
    "UTC",
    "Europe/Berlin",
    "America/New_York",
    "Australia/Lord_Howe",
    "America/Havana",
    "Asia/Kathmandu",
    "Pacific/Apia",
    "Africa/Casablanca",
    "America/St_Johns",
];

/// From 1970 to 2100, in seconds.
const TIME: std::ops::Range<u64> = 0..4_102_444_800;

/// A field, of values in `0..=most`.
fn field(least: u32, most: u32) -> impl Strategy<Value = String> {
    prop_oneof![
        3 => Just("*".to_owned()),
        2 => (least..=most).prop_map(|value| value.to_string()),
        1 => (1..=most).prop_map(|step| format!("*/{step}")),
        1 => (least..=most, least..=most).prop_map(|(a, b)| format!("{}-{}", a.min(b), a.max(b))),
        1 => (least..=most, least..=most).prop_map(|(a, b)| format!("{a},{b}")),
    ]
}

fn cron() -> impl Strategy<Value = String> {
    let day = prop_oneof![4 => Just("*".to_owned()), 1 => field(1, 28), 1 => Just("L".to_owned())];
    let weekday = prop_oneof![4 => Just("*".to_owned()), 1 => field(0, 7), 1 => Just("SUN".to_owned())];
    // The hours at which clocks are set.
    let hour = prop_oneof![2 => field(0, 23), 1 => field(0, 4)];
    let month = prop_oneof![4 => Just("*".to_owned()), 1 => field(1, 12)];
    (field(0, 59), hour, day, month, weekday).prop_map(|(m, h, d, mo, w)| format!("{m} {h} {d} {mo} {w}"))
}

/// A moment, at best near a change of clocks.
fn moment(zone: &str, any: u64, near: i64) -> u64 {
    let zone = TimeZoneDatabase::bundled().get(zone).unwrap();
    let from = jiff::Timestamp::from_second(any as i64).unwrap();
    let change = zone.following(from).next().map(|change| change.timestamp().as_second());
    change.filter(|change| TIME.contains(&(*change as u64))).map_or(any, |change| change.saturating_add(near).max(0) as u64)
}

/// The rule, read slowly: each minute of a stretch, with what its wall clock shows.
fn slowly(cron: &str, zone: &str, from: u64, minutes: u64) -> Vec<u64> {
    use croner::parser::{CronParser, Seconds};
    let pattern = CronParser::builder().seconds(Seconds::Disallowed).build().parse(cron).unwrap();
    let tz = TimeZoneDatabase::bundled().get(zone).unwrap();
    let shown = |second: u64| tz.to_datetime(jiff::Timestamp::from_second(second as i64).unwrap());
    let matches = |shown: &jiff::civil::DateTime| pattern.is_time_matching(shown).unwrap();
    let every_hour = pattern.pattern.hours.values().len() == 24;
    let mut ticks = Vec::new();
    // The latest that the wall clock ever showed; long enough before for what may be repeated.
    let mut latest = shown(from.saturating_sub(86_400));
    for minute in (from.saturating_sub(86_400) / 60)..=(from / 60 + minutes) {
        let now = shown(minute * 60);
        let fires = if every_hour {
            matches(&now)
        } else {
            // Every time up to now that it has not shown before, whether it shows it or has jumped past.
            let mut time = latest;
            let mut fires = false;
            while time < now {
                time = time.saturating_add(Duration::from_secs(60));
                fires |= matches(&time);
            }
            fires
        };
        latest = latest.max(now);
        if fires && minute * 60 > from {
            ticks.push(minute * 60);
        }
    }
    ticks
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn ticks_are_those_of_the_rule(cron in cron(), zone in 0..ZONES.len(), any in 315_532_800_u64..4_000_000_000, near in -15_000_i64..15_000) {
        let zone = ZONES[zone];
        let from = moment(zone, any, near) / 60 * 60;
        let schedule = schedule(&cron, zone);
        let until = from + 720 * 60;
        let after = Timestamp::from_millis(from * 1000).unwrap();
        let ticks: Vec<u64> = schedule.ticks(after).map(|tick| tick.millis() / 1000).take_while(|tick| *tick <= until).collect();
        prop_assert_eq!(ticks, slowly(&cron, zone, from, 720));
    }

    #[test]
    fn ticks_strictly_increase_and_are_the_same_from_both_sides(
        cron in cron(), zone in 0..ZONES.len(), any in TIME, near in -90_000_i64..90_000, millis in 0_u64..1000,
    ) {
        let schedule = schedule(&cron, ZONES[zone]);
        let start = Timestamp::from_millis(moment(ZONES[zone], any, near) * 1000 + millis).unwrap();
        let forwards: Vec<_> = schedule.ticks(start).take(60).collect();
        prop_assert!(forwards.first().is_none_or(|first| *first > start));
        prop_assert!(forwards.is_sorted_by(|a, b| a < b));
        // One at a time, from anywhere between two ticks.
        for pair in forwards.windows(2) {
            prop_assert_eq!(schedule.next_after(pair[0]), Some(pair[1]));
            let between = Timestamp::from_millis(pair[1].millis() - 1).unwrap();
            prop_assert_eq!(schedule.next_after(between), Some(pair[1]));
        }
        let end = *forwards.last().unwrap();
        let backwards = schedule.due(start, end, CatchUp::All { at_most: 60 });
        prop_assert_eq!((backwards.ticks, backwards.missed), (forwards, 0));
    }

    #[test]
    fn any_partition_of_time_fires_the_same_and_nothing_twice(
        cron in prop_oneof![cron(), Just("every 7m".to_owned())], zone in 0..ZONES.len(), any in TIME, near in -9000_i64..9000,
        steps in prop::collection::vec(-3_000_000_i64..9_000_000, 1..24),
    ) {
        let schedule = schedule(&cron, ZONES[zone]);
        let start = moment(ZONES[zone], any, near) * 1000;
        let (mut last, mut now) = (Timestamp::from_millis(start).unwrap(), start);
        let all = CatchUp::All { at_most: 1000 };
        let mut fired = Vec::new();
        for step in steps {
            now = now.saturating_add_signed(step);
            let due = schedule.due(last, Timestamp::from_millis(now).unwrap(), all);
            prop_assert_eq!(due.missed, 0);
            prop_assert_eq!(due.next, schedule.next_after(due.through));
            fired.extend(due.ticks);
            last = due.through;
        }
        let whole = schedule.due(Timestamp::from_millis(start).unwrap(), last, CatchUp::All { at_most: 1000 });
        let distinct: BTreeSet<_> = fired.iter().copied().collect();
        prop_assert_eq!(distinct.len(), fired.len());
        let newest = fired.len().saturating_sub(1000);
        prop_assert_eq!((&whole.ticks[..], whole.missed), (&fired[newest..], newest as u64));
    }

    #[test]
    fn nothing_that_is_written_breaks_anything(cron in "[ -~]{0,40}", more in "[0-9*/,LW#?+ -]{9,30}", zone in "[A-Za-z/_+-]{0,20}") {
        for text in [&cron, &more] {
            if let Ok(schedule) = Schedule::parse(text, "Europe/Berlin") {
                prop_assert!(schedule.next_after(Timestamp::from_millis(0).unwrap()).is_some());
            }
        }
        let _ = Schedule::parse("@daily", &zone);
    }
}
