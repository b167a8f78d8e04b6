//! When a schedule fires: cron expressions and intervals, in a time zone.
//!
//! Invariants: a schedule that was accepted fires again and again, its ticks strictly increase, and which they are depends on
//! nothing but the schedule: no clock is read, and the rules of the time zones are inside the program (the IANA database that
//! [`jiff`] bundles), not on the machine. Every question is answered with bounded work, also after years of standstill.
//! Keeping what fired last, waiting and doing the work are left to the caller.
//!
//! # What may be written
//!
//! | text | fires |
//! |---|---|
//! | `30 2 * * MON-FRI` | minute, hour, day of the month, month, day of the week: at 2:30 on working days |
//! | `*/10 * * * * *` | with a field for the second before the others: each ten seconds |
//! | `@hourly` `@daily` `@midnight` `@weekly` `@monthly` `@yearly` `@annually` | at the beginning of each |
//! | `every 90s`, `every 5m`, `every 1h30m`, `@every 2h`, `every 15 minutes` | by elapsed time, counted from 1970-01-01 00:00 UTC, the same in all zones |
//!
//! A field holds `*`, numbers, names (`JAN`, `MON`; Sunday is 0 or 7), lists, ranges and steps of `*` or of a range. The day of
//! the month also takes `L` (the last), `LW` (the last working day) and `15W` (the working day nearest to the 15th); the day of
//! the week `5L` (the last Friday) and `MON#2` (the second Monday). `?` is `*`. When both days are restricted a day that either
//! names counts, as in Vixie's cron; a `+` before the day of the week asks for both.
//!
//! # When clocks are changed
//!
//! A schedule that names hours (`30 2 * * *`, `*/5 8-17 * * *`) fires **at the first moment at which the wall clock of the zone
//! shows the time, or jumps past it**. So a time that does not exist on that day fires at the end of the gap (2:30 at 3:00), once,
//! however many such times the gap swallows; and a time that comes twice fires the first time only.
//!
//! A schedule of every hour (`*/5 * * * *`, `0 * * * *`) is an interval in disguise and goes **by what the wall clock shows**:
//! nothing is added after a gap, and both passes of a repeated hour have their ticks. Otherwise "each five minutes" would pause for
//! an hour once a year. This is the distinction that Vixie's cron makes.
#![warn(missing_docs)]

mod due;
mod error;
mod field;
mod interval;
mod jitter;
mod pattern;
mod schedule;
mod ticks;
mod zone;

pub use due::{CatchUp, Due, MAX_AT_ONCE, MAX_COUNTED, ON_TIME};
pub use error::ScheduleError;
pub use jitter::{jitter, seed};
pub use schedule::{MAX_TEXT, Schedule};

#[cfg(test)]
mod tests;
