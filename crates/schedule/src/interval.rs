//! Intervals: `every 5m`.
//!
//! Invariant: between one second and 366 days, in whole seconds; the ticks are the multiples since 1970-01-01 00:00 UTC, so they are
//! the same on every node, and do not move when a schedule is stored anew.

use crate::error::ScheduleError;

/// The longest interval, in seconds.
const MAX: u64 = 366 * 86_400;

/// A number of seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Interval(i64);

impl Interval {
    /// Reads what follows `every`: numbers with units, one after another. A unit alone is one of it.
    pub fn parse(text: &str) -> Result<Self, ScheduleError> {
        let not_understood = || ScheduleError::Interval(text.to_owned());
        let mut rest = text.trim();
        let mut seconds = 0_u64;
        let mut first = true;
        while !rest.is_empty() {
            let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
            let (number, after) = rest.split_at(digits);
            let after = after.trim_start();
            let letters = after.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(after.len());
            let (unit, after) = after.split_at(letters);
            let unit = unit_seconds(unit).ok_or_else(not_understood)?;
            let alone = first && after.is_empty();
            let number = match number {
                "" if alone => 1,
                // Ten digits are more than any bound.
                number if number.len() > 10 => return Err(ScheduleError::IntervalBounds(text.to_owned())),
                number => number.parse().map_err(|_| not_understood())?,
            };
            seconds = seconds.saturating_add(unit.saturating_mul(number));
            rest = after.trim_start();
            first = false;
        }
        if first {
            return Err(not_understood());
        }
        let bounded = Some(seconds).filter(|seconds| (1..=MAX).contains(seconds)).and_then(|seconds| i64::try_from(seconds).ok());
        bounded.map(Self).ok_or_else(|| ScheduleError::IntervalBounds(text.to_owned()))
    }

    /// The first tick after a moment, both in seconds since 1970.
    pub const fn after(self, second: i64) -> i64 {
        self.until(second).saturating_add(self.0)
    }

    /// The last tick at or before a moment.
    pub const fn until(self, second: i64) -> i64 {
        second - second.rem_euclid(self.0)
    }

    /// How many ticks are in `(after, until]`.
    pub const fn count(self, after: i64, until: i64) -> u64 {
        (until.div_euclid(self.0) - after.div_euclid(self.0)).unsigned_abs()
    }
}

/// How long a unit is. In upper or lower case: there are no months here that `M` could mean.
fn unit_seconds(unit: &str) -> Option<u64> {
    Some(match unit.to_ascii_lowercase().as_str() {
        "s" | "sec" | "secs" | "second" | "seconds" => 1,
        "m" | "min" | "mins" | "minute" | "minutes" => 60,
        "h" | "hr" | "hrs" | "hour" | "hours" => 3600,
        "d" | "day" | "days" => 86_400,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_read() {
        for (text, seconds) in [
            ("1s", 1),
            ("90s", 90),
            ("5m", 300),
            ("5 minutes", 300),
            ("1h30m", 5400),
            ("1h 30m 5s", 5405),
            ("hour", 3600),
            ("DAY", 86_400),
            ("366d", 366 * 86_400),
            ("0h5m", 300),
        ] {
            assert_eq!(Interval::parse(text), Ok(Interval(seconds)), "{text}");
        }
        for text in ["", "5", "m5", "5x", "-5m", "5.5m", "1h30", "5m,", "h m", "1e3s"] {
            assert_eq!(Interval::parse(text), Err(ScheduleError::Interval(text.into())), "{text}");
        }
        for text in ["0s", "0m", "367d", "99999999999s", "9999999999d", "366d1s"] {
            assert_eq!(Interval::parse(text), Err(ScheduleError::IntervalBounds(text.into())), "{text}");
        }
    }

    #[test]
    fn ticks_are_multiples() {
        let five = Interval(300);
        assert_eq!((five.after(0), five.after(299), five.after(300)), (300, 300, 600));
        assert_eq!((five.until(0), five.until(299), five.until(300)), (0, 0, 300));
        assert_eq!((five.count(0, 300), five.count(0, 299), five.count(-1, 900)), (1, 0, 4));
    }
}
