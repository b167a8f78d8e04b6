//! A rate: so many units in each period, and how many of them may come at once.
//!
//! A [`Rate`] that exists is valid: its arithmetic cannot overflow and its rounding errs on the strict side. It holds no state;
//! that is [`Cell`](super::Cell)'s.

use std::fmt;
use std::num::NonZeroU64;
use std::str::FromStr;
use std::time::Duration;

use super::nanos;

/// The shortest interval between two units, in nanoseconds: ten million units a second. Rounding an interval up to whole nanoseconds
/// then costs at most one part in a hundred of the rate, and at a thousand units a second one in a million.
const SHORTEST_INTERVAL: u64 = 100;
/// No period and no burst is longer than this.
const LONGEST: Duration = Duration::from_secs(366 * 86_400);

/// Units per period with a burst.
///
/// The emission interval is `period / units`, rounded up to whole nanoseconds; the tolerance is `burst` such intervals. So `burst`
/// units may come at once, and over any time `t` at most `burst + t / interval`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    units: NonZeroU64,
    period: Duration,
    burst: NonZeroU64,
    interval: u64,
    tolerance: u64,
}

/// Why something is not a rate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RateError {
    /// Not of the form `units/period`.
    #[error("a rate is written as units and period, as in `10/s`, `600/minute` or `5000/day`")]
    Text,
    /// No units, or no burst: nothing could ever pass.
    #[error("a rate and its burst are at least 1")]
    Zero,
    /// The period is zero or longer than a year.
    #[error("the period of a rate is between a millisecond and 366 days")]
    Period,
    /// More than ten million units a second.
    #[error("a rate is at most 10000000 units a second")]
    TooFast,
    /// The burst takes longer than a year to earn.
    #[error("the burst of a rate is at most what it allows in 366 days")]
    Burst,
}

impl Rate {
    /// `units` in each `period`, of which `burst` may come at once.
    ///
    /// # Errors
    ///
    /// [`RateError`], when the numbers are out of their range.
    pub fn new(units: NonZeroU64, period: Duration, burst: NonZeroU64) -> Result<Self, RateError> {
        if period < Duration::from_millis(1) || period > LONGEST {
            return Err(RateError::Period);
        }
        if nanos(period) / SHORTEST_INTERVAL < units.get() {
            return Err(RateError::TooFast);
        }
        let interval = nanos(period).div_ceil(units.get());
        let tolerance = interval.checked_mul(burst.get()).filter(|tolerance| *tolerance <= nanos(LONGEST)).ok_or(RateError::Burst)?;
        Ok(Self { units, period, burst, interval, tolerance })
    }

    /// Reads `10/s`, `10/minute`, `600/m`, `1000/hour`, `5000/day`, also `100/10s`. Without a `burst` it is the units of a period.
    ///
    /// # Errors
    ///
    /// [`RateError`]: the text is not a rate, or its numbers are out of their range.
    pub fn parse(text: &str, burst: Option<u64>) -> Result<Self, RateError> {
        let (units, period) = text.split_once('/').ok_or(RateError::Text)?;
        let units = number(units.trim())?;
        let period = period.trim();
        let digits = period.find(|c: char| !c.is_ascii_digit()).ok_or(RateError::Text)?;
        let (count, unit) = period.split_at(digits);
        let count = if count.is_empty() { 1 } else { number(count)? };
        let seconds = match unit.trim() {
            "s" | "sec" | "second" | "seconds" => 1,
            "m" | "min" | "minute" | "minutes" => 60,
            "h" | "hour" | "hours" => 3600,
            "d" | "day" | "days" => 86_400,
            _ => return Err(RateError::Text),
        };
        let period = Duration::from_secs(count.checked_mul(seconds).ok_or(RateError::Period)?);
        let units = NonZeroU64::new(units).ok_or(RateError::Zero)?;
        let burst = NonZeroU64::new(burst.unwrap_or(units.get())).ok_or(RateError::Zero)?;
        Self::new(units, period, burst)
    }

    /// The units of one period.
    #[must_use]
    pub const fn units(&self) -> u64 {
        self.units.get()
    }

    /// The period.
    #[must_use]
    pub const fn period(&self) -> Duration {
        self.period
    }

    /// How many units may come at once.
    #[must_use]
    pub const fn burst(&self) -> u64 {
        self.burst.get()
    }

    /// Nanoseconds between two units.
    #[must_use]
    pub const fn interval(&self) -> u64 {
        self.interval
    }

    /// Nanoseconds in which the burst is earned.
    #[must_use]
    pub const fn tolerance(&self) -> u64 {
        self.tolerance
    }
}

/// Digits only: no sign, no spaces, at most 18 of them.
fn number(text: &str) -> Result<u64, RateError> {
    let digits = !text.is_empty() && text.len() <= 18 && text.bytes().all(|byte| byte.is_ascii_digit());
    if digits { text.parse().map_err(|_| RateError::Text) } else { Err(RateError::Text) }
}

impl FromStr for Rate {
    type Err = RateError;

    fn from_str(text: &str) -> Result<Self, RateError> {
        Self::parse(text, None)
    }
}

/// As [`Rate::parse`] reads it; the burst is not part of the text.
impl fmt::Display for Rate {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.period.as_secs();
        match seconds {
            _ if self.period.subsec_nanos() > 0 => write!(to, "{}/{:?}", self.units, self.period),
            1 => write!(to, "{}/s", self.units),
            60 => write!(to, "{}/minute", self.units),
            3600 => write!(to, "{}/hour", self.units),
            86_400 => write!(to, "{}/day", self.units),
            _ => write!(to, "{}/{seconds}s", self.units),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn reads_what_operators_write() {
        for (text, units, seconds) in [
            ("10/s", 10, 1),
            ("10/minute", 10, 60),
            ("600/m", 600, 60),
            ("1000/hour", 1000, 3600),
            ("5000/day", 5000, 86_400),
            ("100/10s", 100, 10),
            (" 7 / 2 min ", 7, 120),
        ] {
            let rate = Rate::parse(text, None).unwrap();
            assert_eq!((rate.units(), rate.period(), rate.burst()), (units, Duration::from_secs(seconds), units), "{text}");
        }
        let rate = Rate::parse("10/s", Some(20)).unwrap();
        assert_eq!((rate.burst(), rate.interval(), rate.tolerance()), (20, 100_000_000, 2_000_000_000));
    }

    #[test]
    fn refuses_what_is_no_rate() {
        for text in ["", "10", "10/", "/s", "-1/s", "+1/s", "1.5/s", "10/fortnight", "10/s/s", "10/10", "1e3/s", "1234567890123456789/s"] {
            assert_eq!(Rate::parse(text, None), Err(RateError::Text), "{text}");
        }
        assert_eq!(Rate::parse("0/s", None), Err(RateError::Zero));
        assert_eq!(Rate::parse("1/s", Some(0)), Err(RateError::Zero));
        assert_eq!(Rate::parse("1/0s", None), Err(RateError::Period));
        assert_eq!(Rate::parse("1/367d", None), Err(RateError::Period));
        assert_eq!(Rate::parse("1/999999999999999999d", None), Err(RateError::Period));
        assert_eq!(Rate::parse("10000001/s", None), Err(RateError::TooFast));
        assert_eq!(Rate::parse("1/day", Some(u64::MAX)), Err(RateError::Burst));
    }

    proptest! {
        #[test]
        fn text_and_rate_agree(units in 1u64..10_000_000, seconds in 1u64..31_000_000) {
            let Ok(rate) = Rate::parse(&format!("{units}/{seconds}s"), Some(1)) else { return Ok(()) };
            prop_assert_eq!(Rate::parse(&rate.to_string(), Some(1)), Ok(rate));
            prop_assert!(u128::from(rate.interval()) * u128::from(units) >= rate.period().as_nanos(), "never faster than stated");
            prop_assert!((rate.interval() - 1) as f64 * (units as f64) < rate.period().as_nanos() as f64 * (1.0 + 1e-9));
        }

        #[test]
        fn no_text_breaks_it(text in ".{0,24}", burst in any::<Option<u64>>()) {
            let _ = Rate::parse(&text, burst);
        }
    }
}
