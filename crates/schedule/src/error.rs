//! Why a schedule is refused, and what to write instead.
//!
//! Invariant: the text may be shown to whoever wrote the schedule. It repeats of it only printable ASCII, and no more than the
//! longest schedule.

use plinth_types::{Error, Reason};

/// Why a schedule is refused. The text says what to write instead.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ScheduleError {
    /// Nothing was written.
    #[error("the schedule is empty: write five fields such as `0 3 * * *`, a name such as `@daily`, or an interval such as `every 5m`")]
    Empty,
    /// More characters than [`MAX_TEXT`](crate::MAX_TEXT).
    #[error("the schedule is too long: write at most {} characters", crate::MAX_TEXT)]
    TooLong,
    /// Something that is not printable ASCII.
    #[error("the schedule may hold only letters, digits and the signs `* , - / # ? + @`")]
    Characters,
    /// Neither five nor six fields.
    #[error(
        "the schedule has {found} fields: write five (minute, hour, day of the month, month, day of the week), such as `0 3 * * *`, or \
         six with the second before them"
    )]
    Fields {
        /// How many there are.
        found: usize,
    },
    /// A field that is not understood.
    #[error("the {field} `{text}` is not understood: write {want}")]
    Field {
        /// Which one.
        field: &'static str,
        /// What it holds.
        text: String,
        /// What it may hold.
        want: &'static str,
    },
    /// A step that is longer than its field, which would not do what it seems to say.
    #[error(
        "the step in the {field} `{text}` is longer than the field, and would begin anew each time: write an interval such as `every 90m`"
    )]
    Step {
        /// Which one.
        field: &'static str,
        /// What it holds.
        text: String,
    },
    /// No moment will ever fit.
    #[error("the schedule never fires: no such day exists in any year; look at the day of the month and the month")]
    Never,
    /// `@` with another word behind it.
    #[error("the name `{0}` is not known: write @hourly, @daily, @weekly, @monthly or @yearly, or an interval such as `every 5m`")]
    Nickname(String),
    /// An interval that is not understood.
    #[error(
        "the interval `{0}` is not understood: write a number and a unit, such as `every 30s`, `every 5m`, `every 1h30m` or `every 1d`"
    )]
    Interval(String),
    /// An interval that is too short or too long.
    #[error("the interval `{0}` is out of bounds: write at least 1s and at most 366d")]
    IntervalBounds(String),
    /// A time zone that nobody knows.
    #[error("the time zone `{name}` is not known: write a name of the IANA database, such as {}", .instead.as_deref().unwrap_or("Europe/Berlin or UTC"))]
    Zone {
        /// What was written, without what cannot be shown.
        name: String,
        /// What may have been meant.
        instead: Option<String>,
    },
}

impl From<ScheduleError> for Error {
    /// Names the field of the request that is wrong: `zone` or `cron`.
    fn from(error: ScheduleError) -> Self {
        let field = if matches!(error, ScheduleError::Zone { .. }) { "zone" } else { "cron" };
        Self::new(Reason::InvalidSchedule, error.to_string()).field(field)
    }
}
