//! One field of a cron expression: what may stand in it, and how to say that it may not.
//!
//! Invariant: what passes is read by the library as it is meant. The library is lenient in places (a name of a day as an hour,
//! an empty entry of a list, a step past the end of its field), and what it takes there is refused here.

use croner::parser::{CronParser, Seconds, Year};

use crate::error::ScheduleError;

/// A field.
#[derive(Debug)]
pub(crate) struct Field {
    name: &'static str,
    /// Its largest number.
    most: u32,
    /// What it may hold besides digits and `* , - /`, in upper case.
    letters: &'static [u8],
    /// Words instead of numbers.
    names: &'static [&'static str],
    want: &'static str,
}

const MONTHS: [&str; 12] = ["JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC"];
const DAYS: [&str; 7] = ["SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"];

/// All fields in their order; the second may be left out.
pub(crate) const FIELDS: [Field; 6] = [
    Field {
        name: "second",
        most: 59,
        letters: b"",
        names: &[],
        want: "0 to 59, `*`, a list such as `0,30`, a range such as `0-10`, or a step such as `*/10`",
    },
    Field {
        name: "minute",
        most: 59,
        letters: b"",
        names: &[],
        want: "0 to 59, `*`, a list such as `0,30`, a range such as `0-10`, or a step such as `*/10` or `5-59/10`",
    },
    Field {
        name: "hour",
        most: 23,
        letters: b"",
        names: &[],
        want: "0 to 23, `*`, a list such as `8,20`, a range such as `8-17` (over midnight `22-23,0-4`), or a step such as `*/2`",
    },
    Field {
        name: "day of the month",
        most: 31,
        letters: b"LW?",
        names: &[],
        want: "1 to 31, `*`, a list such as `1,15`, a range such as `1-7`, a step such as `*/2`, `L` for the last, or `15W` for the \
               working day nearest to the 15th",
    },
    Field {
        name: "month",
        most: 12,
        letters: b"",
        names: &MONTHS,
        want: "1 to 12 or JAN to DEC, `*`, a list such as `1,7`, a range such as `JUN-AUG`, or a step such as `*/3`",
    },
    Field {
        name: "day of the week",
        most: 7,
        letters: b"L#?+",
        names: &DAYS,
        want: "0 to 7 or SUN to SAT, `*`, a list such as `TUE,THU`, a range such as `MON-FRI` (over Sunday `FRI,SAT,SUN,MON`), `5L` for \
               the last Friday, or `MON#2` for the second Monday",
    },
];

/// How expressions are read: five fields, or six with the second; no year.
pub(crate) fn parser() -> CronParser {
    CronParser::builder().seconds(Seconds::Optional).year(Year::Disallowed).build()
}

impl Field {
    /// Checks a field by itself. `text` is printable ASCII in upper case.
    pub fn check(&self, text: &str) -> Result<(), ScheduleError> {
        let not_understood = || ScheduleError::Field { field: self.name, text: text.to_owned(), want: self.want };
        let mut plain = text.to_owned();
        for name in self.names {
            plain = plain.replace(name, "1");
        }
        let known = |byte: u8| byte.is_ascii_digit() || b"*,-/".contains(&byte) || self.letters.contains(&byte);
        if plain.is_empty() || !plain.bytes().all(known) || plain.split(',').any(str::is_empty) {
            return Err(not_understood());
        }
        for (_, step) in plain.split(',').filter_map(|entry| entry.split_once('/')) {
            let step: u32 = step.parse().map_err(|_| not_understood())?;
            if step > self.most {
                return Err(ScheduleError::Step { field: self.name, text: text.to_owned() });
            }
        }
        let alone = FIELDS.iter().map(|field| if field.name == self.name { text } else { "*" }).collect::<Vec<_>>().join(" ");
        parser().parse(&alone).map(drop).map_err(|_| not_understood())
    }
}
