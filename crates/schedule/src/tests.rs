//! Schedules against the calendar, against clocks that are changed, and against a slow reading of the rule.

mod catch_up;
mod changes;
mod parse;
mod properties;

use plinth_types::Timestamp;

use crate::Schedule;

fn at(text: &str) -> Timestamp {
    text.parse().unwrap_or_else(|_| panic!("{text}"))
}

fn schedule(cron: &str, zone: &str) -> Schedule {
    Schedule::parse(cron, zone).unwrap_or_else(|error| panic!("{cron}: {error}"))
}

/// The next ticks as text, without milliseconds.
fn next(cron: &str, zone: &str, after: &str, count: usize) -> Vec<String> {
    let schedule = schedule(cron, zone);
    let ticks: Vec<_> = schedule.ticks(at(after)).take(count).collect();
    assert_eq!(ticks.first().copied(), schedule.next_after(at(after)));
    ticks.iter().map(|tick| tick.to_string().replace(".000Z", "Z")).collect()
}
