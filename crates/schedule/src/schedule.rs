//! A schedule: what was written, and the ticks that it means.

use std::fmt;

use plinth_types::Timestamp;

use crate::error::ScheduleError;
use crate::interval::Interval;
use crate::pattern::Pattern;
use crate::ticks::{END, Ticks, last};
use crate::zone::Zone;

/// The most characters of a schedule.
pub const MAX_TEXT: usize = 256;

/// When something fires. See the [crate] for what may be written and for what happens when clocks are changed.
#[derive(Debug, Clone)]
pub struct Schedule {
    text: String,
    zone: Zone,
    rhythm: Rhythm,
}

#[derive(Debug, Clone)]
enum Rhythm {
    Calendar(Box<Pattern>),
    Every(Interval),
}

impl Schedule {
    /// Reads a cron expression or an interval, and the IANA name of a time zone such as `Europe/Berlin` or `UTC`. An interval goes by
    /// elapsed time and is the same in all zones; its zone has to exist nevertheless.
    ///
    /// # Errors
    /// [`ScheduleError`], whose text says what to write instead; [`ScheduleError::Never`] when no moment would ever fit.
    pub fn parse(cron: &str, zone: &str) -> Result<Self, ScheduleError> {
        if cron.len() > MAX_TEXT {
            return Err(ScheduleError::TooLong);
        }
        let printable = |byte: u8| byte.is_ascii_graphic() || byte == b' ' || byte == b'\t';
        if !cron.bytes().all(printable) {
            return Err(ScheduleError::Characters);
        }
        let words: Vec<&str> = cron.split_ascii_whitespace().collect();
        let text = words.join(" ");
        let rhythm = match words.as_slice() {
            [] => return Err(ScheduleError::Empty),
            [first, rest @ ..] if first.eq_ignore_ascii_case("every") || first.eq_ignore_ascii_case("@every") => {
                Rhythm::Every(Interval::parse(&rest.join(" "))?)
            }
            [name] if name.starts_with('@') => Rhythm::Calendar(Box::new(Pattern::parse(nickname(name)?)?)),
            _ => Rhythm::Calendar(Box::new(Pattern::parse(&text)?)),
        };
        Ok(Self { text, zone: Zone::parse(zone)?, rhythm })
    }

    /// What was written, with single spaces.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The name of the zone, as the IANA database writes it.
    #[must_use]
    pub fn zone(&self) -> &str {
        self.zone.name()
    }

    /// The first tick after a moment; `None` when it would be past the year 9999.
    ///
    /// A tick is always at a whole second, so of the moments within a second only the first can be one.
    #[must_use]
    pub fn next_after(&self, moment: Timestamp) -> Option<Timestamp> {
        timestamp(self.ticks_after(second(moment)).next()?)
    }

    /// All ticks after a moment, without end but that of the year 9999.
    pub fn ticks(&self, after: Timestamp) -> impl Iterator<Item = Timestamp> + '_ {
        self.ticks_after(second(after)).map_while(timestamp)
    }

    pub(crate) fn ticks_after(&self, second: i64) -> Box<dyn Iterator<Item = i64> + '_> {
        match &self.rhythm {
            Rhythm::Calendar(pattern) => Box::new(Ticks::after(pattern, &self.zone, second)),
            Rhythm::Every(interval) => {
                let next = |second: i64| Some(interval.after(second)).filter(|tick| *tick <= END);
                Box::new(std::iter::successors(next(second), move |tick| next(*tick)))
            }
        }
    }

    /// The last tick in `(after, until]`.
    pub(crate) fn last(&self, after: i64, until: i64) -> Option<i64> {
        match &self.rhythm {
            Rhythm::Calendar(pattern) => last(pattern, &self.zone, after, until),
            Rhythm::Every(interval) => Some(interval.until(until)).filter(|tick| *tick > after),
        }
    }

    /// How many ticks are in `(after, until]`; no more than `most` are counted.
    pub(crate) fn count(&self, after: i64, until: i64, most: u64) -> u64 {
        match &self.rhythm {
            Rhythm::Every(interval) => interval.count(after, until).min(most),
            Rhythm::Calendar(_) => {
                let most = usize::try_from(most).unwrap_or(usize::MAX);
                self.ticks_after(after).take(most).take_while(|tick| *tick <= until).count() as u64
            }
        }
    }
}

impl fmt::Display for Schedule {
    /// The text and the zone, such as `0 3 * * * (Europe/Berlin)`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.text, self.zone())
    }
}

fn nickname(name: &str) -> Result<&'static str, ScheduleError> {
    Ok(match name.to_ascii_lowercase().as_str() {
        "@hourly" => "0 * * * *",
        "@daily" | "@midnight" => "0 0 * * *",
        "@weekly" => "0 0 * * SUN",
        "@monthly" => "0 0 1 * *",
        "@yearly" | "@annually" => "0 0 1 1 *",
        _ => return Err(ScheduleError::Nickname(name.to_owned())),
    })
}

/// The second that a moment lies in: a tick is at its beginning, so it is after the moment only if it is after the second.
pub(crate) fn second(moment: Timestamp) -> i64 {
    i64::try_from(moment.millis() / 1000).unwrap_or(END)
}

pub(crate) fn timestamp(second: i64) -> Option<Timestamp> {
    Timestamp::from_millis(u64::try_from(second).ok()?.checked_mul(1000)?).ok()
}
