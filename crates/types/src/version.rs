//! The number of a model's version.
//!
//! Invariant: never zero, and at most `i64::MAX` so that every database and Triton's own integer
//! versions can hold it. Numbers are handed out by the registry, one after another, and never
//! again; what a version *is* stands in its digest.

use std::fmt;
use std::num::NonZeroU64;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The number of a version of a model: 1, 2, 3, …
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(transparent)]
pub struct VersionNumber(NonZeroU64);

/// Why a text or a number is not a version number.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a version is a whole number from 1 to 9223372036854775807")]
pub struct ParseVersionError;

impl VersionNumber {
    /// The first version of any model.
    pub const FIRST: Self = Self(NonZeroU64::MIN);

    /// The number as an integer.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0.get()
    }

    /// The number after this one.
    ///
    /// # Errors
    /// When this is the last number that exists.
    pub fn next(self) -> Result<Self, ParseVersionError> {
        Self::try_from(self.get() + 1)
    }
}

impl TryFrom<u64> for VersionNumber {
    type Error = ParseVersionError;
    fn try_from(number: u64) -> Result<Self, ParseVersionError> {
        if i64::try_from(number).is_err() {
            return Err(ParseVersionError);
        }
        NonZeroU64::new(number).map(Self).ok_or(ParseVersionError)
    }
}

impl FromStr for VersionNumber {
    type Err = ParseVersionError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        // `+7` and `007` name the same number but not the same URL: one spelling only.
        let digits = text.bytes().all(|b| b.is_ascii_digit()) && !text.starts_with('0');
        let number = if digits { text.parse::<u64>().ok() } else { None };
        Self::try_from(number.ok_or(ParseVersionError)?)
    }
}

impl fmt::Display for VersionNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl<'de> Deserialize<'de> for VersionNumber {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        Self::try_from(u64::deserialize(d)?).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_spelling_only() {
        assert_eq!("17".parse::<VersionNumber>().unwrap().get(), 17);
        for bad in ["", "0", "-1", "+1", "01", "1.0", " 1", "9223372036854775808", "99999999999999999999999"] {
            assert!(bad.parse::<VersionNumber>().is_err(), "{bad:?}");
        }
        assert!(VersionNumber::try_from(i64::MAX as u64).unwrap().next().is_err());
    }
}
