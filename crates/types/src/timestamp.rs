//! A moment on the wall clock, in milliseconds since 1970 (UTC).
//!
//! Text form: RFC 3339 with milliseconds, always `Z`. Durations between moments of one process
//! are measured with a monotonic clock instead (`runtime::Clock::monotonic`); this type is for what
//! is written down.

use std::fmt;
use std::str::FromStr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// Milliseconds since the beginning of 1970, UTC; from year 1970 to 9999.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Timestamp(u64);

/// Why a text or number is not a moment.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a time: want RFC 3339, such as 2026-01-31T12:00:00.000Z")]
pub struct ParseTimestampError;

/// The last millisecond of the year 9999.
const MAX: u64 = 253_402_300_799_999;

impl Timestamp {
    /// From milliseconds since 1970.
    ///
    /// # Errors
    /// When the year would be past 9999.
    pub const fn from_millis(millis: u64) -> Result<Self, ParseTimestampError> {
        if millis > MAX { Err(ParseTimestampError) } else { Ok(Self(millis)) }
    }

    /// Milliseconds since 1970.
    #[must_use]
    pub const fn millis(self) -> u64 {
        self.0
    }

    /// Later by `duration`; stops at the end of the year 9999.
    #[must_use]
    pub fn plus(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)).min(MAX))
    }

    /// How long ago `earlier` was; zero when it lies in the future.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

impl From<SystemTime> for Timestamp {
    fn from(time: SystemTime) -> Self {
        let millis = time.duration_since(UNIX_EPOCH).map_or(0, |d| u64::try_from(d.as_millis()).unwrap_or(MAX));
        Self(millis.min(MAX))
    }
}

impl FromStr for Timestamp {
    type Err = ParseTimestampError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parsed = OffsetDateTime::parse(text, &Rfc3339).map_err(|_| ParseTimestampError)?;
        let millis = parsed.unix_timestamp_nanos() / 1_000_000;
        u64::try_from(millis).map_err(|_| ParseTimestampError).and_then(Self::from_millis)
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (seconds, millis) = (self.0 / 1000, self.0 % 1000);
        let t = i64::try_from(seconds).ok().and_then(|s| OffsetDateTime::from_unix_timestamp(s).ok()).ok_or(fmt::Error)?;
        let (h, m, s) = t.to_hms();
        write!(f, "{:04}-{:02}-{:02}T{h:02}:{m:02}:{s:02}.{millis:03}Z", t.year(), u8::from(t.month()), t.day())
    }
}

impl Serialize for Timestamp {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        std::borrow::Cow::<'de, str>::deserialize(d)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_round_trips() {
        for text in ["1970-01-01T00:00:00.000Z", "2026-11-20T07:46:01.234Z", "9999-12-31T23:59:59.999Z"] {
            assert_eq!(text.parse::<Timestamp>().unwrap().to_string(), text);
        }
        assert_eq!("2026-01-01T01:00:00+01:00".parse::<Timestamp>().unwrap().to_string(), "2026-01-01T00:00:00.000Z");
        for bad in ["", "now", "2026-01-01", "1969-12-31T23:59:59Z"] {
            assert!(bad.parse::<Timestamp>().is_err());
        }
    }
}
