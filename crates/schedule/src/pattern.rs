//! A cron expression on the wall clock, where every day has 24 hours.
//!
//! Invariants: a [`Pattern`] matches again and again, in both directions; it knows nothing of zones. The calendar repeats after
//! 400 years (146,097 days, which are whole weeks), and so does every pattern without a year: questions are moved by whole
//! repetitions to where the library's search ends soonest (it gives up at the year 5000), so an answer exists for every year.

use croner::Cron;
use jiff::civil::DateTime;
use jiff::tz::Offset;

use crate::error::ScheduleError;
use crate::field::{FIELDS, parser};

/// The seconds of 400 years.
const CYCLE: i64 = 146_097 * 86_400;
/// The first local second of the year 4520. The rarest day, a 29th of February on one day of the week, comes at least each 40
/// years, so 400 years later there is still one before the search gives up.
const BASE: i64 = 80_470_195_200;

/// A cron expression.
#[derive(Debug, Clone)]
pub(crate) struct Pattern {
    cron: Cron,
    every_hour: bool,
}

impl Pattern {
    /// Reads five fields, or six. `text` is printable ASCII.
    pub fn parse(text: &str) -> Result<Self, ScheduleError> {
        let text = text.to_ascii_uppercase();
        let fields: Vec<&str> = text.split_ascii_whitespace().collect();
        let expected = match fields.len() {
            0 => return Err(ScheduleError::Empty),
            5 => &FIELDS[1..],
            6 => &FIELDS[..],
            found => return Err(ScheduleError::Fields { found }),
        };
        for (field, text) in expected.iter().zip(&fields) {
            field.check(text)?;
        }
        // Each field was read by itself, so nothing but their number could be wrong.
        let cron = parser().parse(&fields.join(" ")).map_err(|_| ScheduleError::Fields { found: fields.len() })?;
        let every_hour = cron.pattern.hours.values().len() == 24;
        let pattern = Self { cron, every_hour };
        // One whole repetition is searched.
        pattern.next(BASE).map(|_| pattern).ok_or(ScheduleError::Never)
    }

    /// Whether it goes on around the clock, and so is an interval in disguise.
    pub const fn is_every_hour(&self) -> bool {
        self.every_hour
    }

    /// The first match at or after a local second.
    pub fn next(&self, from: i64) -> Option<i64> {
        let (at, moved) = canonical(from)?;
        Some(seconds(self.cron.find_next_occurrence(&at, true).ok()?)? + moved)
    }

    /// The last match at or before a local second.
    pub fn previous(&self, from: i64) -> Option<i64> {
        let (at, moved) = canonical(from)?;
        Some(seconds(self.cron.find_previous_occurrence(&at, true).ok()?)? + moved)
    }
}

/// The same moment of the calendar in the 400 years from [`BASE`], and how far it was moved.
fn canonical(local: i64) -> Option<(DateTime, i64)> {
    let at = BASE + local.checked_sub(BASE)?.rem_euclid(CYCLE);
    let moment = jiff::Timestamp::from_second(at).ok()?;
    Some((Offset::UTC.to_datetime(moment), local - at))
}

fn seconds(at: DateTime) -> Option<i64> {
    Some(Offset::UTC.to_timestamp(at).ok()?.as_second())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_base_is_where_it_should_be() {
        assert_eq!(Offset::UTC.to_datetime(jiff::Timestamp::from_second(BASE).unwrap()), jiff::civil::date(4520, 1, 1).at(0, 0, 0, 0));
        let days = jiff::civil::date(2400, 1, 1).since(jiff::civil::date(2000, 1, 1)).unwrap().get_days();
        assert_eq!((i64::from(days) * 86_400, days % 7), (CYCLE, 0));
    }

    #[test]
    fn the_rarest_days_are_found_from_everywhere() {
        for text in ["0 0 29 2 +1", "0 0 29 2 +0", "0 0 29 2 +SAT", "0 0 * 2 MON#5", "0 0 29 2 *", "0 0 LW 2 *"] {
            let pattern = Pattern::parse(text).unwrap();
            let mut at = BASE;
            let mut most = 0;
            while at < BASE + CYCLE {
                let next = pattern.next(at + 1).unwrap();
                assert_eq!(pattern.previous(next), Some(next), "{text}");
                assert!(pattern.previous(next - 1).unwrap() <= at, "{text}");
                most = most.max(next - at);
                at = next;
            }
            assert!(most <= 41 * 366 * 86_400, "{text}: {} days", most / 86_400);
        }
    }
}
