//! Ids of jobs: UUIDs of version 7 (RFC 9562), so that they sort by the time of their making.
//!
//! Invariant: ids of one [`JobIds`] strictly increase, also within a millisecond and when the clock goes back; with 62 random bits
//! in each first id of a millisecond, those of two processes do not meet.

use std::fmt;
use std::str::FromStr;
use std::sync::{Mutex, PoisonError};

use plinth_runtime::World;
use serde::{Deserialize, Serialize};

/// Names a job.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct JobId([u8; 16]);

/// A text that is no id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the id of a job looks like 0199f1c2-7b3a-7000-8000-0123456789ab")]
pub struct ParseJobIdError;

impl JobId {
    /// From the bytes that a database kept.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// The bytes that a database keeps.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }

    /// The id of the job that tells of the end of `of`, which had `epoch` then: made twice, it is the same.
    pub(crate) fn of_end(wall: i64, of: Self, epoch: u64) -> Self {
        let mut parts = [0; 24];
        parts[..16].copy_from_slice(&of.0);
        parts[16..].copy_from_slice(&epoch.to_be_bytes());
        let digest = plinth_types::Digest::of(&parts);
        let random = digest.as_bytes().first_chunk::<16>().map_or(0, |bytes| u128::from_be_bytes(*bytes));
        Self(at(wall.unsigned_abs(), random).to_be_bytes())
    }

    /// From bytes of any length.
    pub(crate) fn from_slice(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }
}

impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, byte) in self.0.iter().enumerate() {
            if matches!(at, 4 | 6 | 8 | 10) {
                f.write_str("-")?;
            }
            write!(f, "{byte:02x}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for JobId {
    type Err = ParseJobIdError;
    fn from_str(text: &str) -> Result<Self, ParseJobIdError> {
        let bytes = text.as_bytes();
        let dashes = bytes.len() == 36 && [8, 13, 18, 23].iter().all(|at| bytes.get(*at) == Some(&b'-'));
        if !dashes {
            return Err(ParseJobIdError);
        }
        let digit = |byte: u8| (byte as char).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
        let mut digits = bytes.iter().enumerate().filter(|(at, _)| !matches!(at, 8 | 13 | 18 | 23)).map(|(_, byte)| digit(*byte));
        let mut id = [0; 16];
        for byte in &mut id {
            let (Some(Some(high)), Some(Some(low))) = (digits.next(), digits.next()) else { return Err(ParseJobIdError) };
            *byte = high << 4 | low;
        }
        Ok(Self(id))
    }
}

impl Serialize for JobId {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for JobId {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        std::borrow::Cow::<'de, str>::deserialize(d)?.parse().map_err(serde::de::Error::custom)
    }
}

/// Makes ids.
pub struct JobIds {
    world: World,
    last: Mutex<u128>,
}

impl JobIds {
    /// With the world's clock and randomness.
    #[must_use]
    pub const fn new(world: World) -> Self {
        Self { world, last: Mutex::new(0) }
    }

    /// The next id.
    #[must_use]
    pub fn next(&self) -> JobId {
        let mut random = [0; 16];
        self.world.random.fill(&mut random);
        let fresh = at(self.world.clock.now().millis(), u128::from_be_bytes(random));
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        // A step that is odd and small leaves the fixed bits alone until the lower 62 overflow, which no process lives to see.
        *last = if fresh > *last { fresh } else { *last + 1 };
        JobId(last.to_be_bytes())
    }
}

/// An id of this moment with these random bits.
const fn at(millis: u64, random: u128) -> u128 {
    ((random & ((1 << 80) - 1)) | ((millis as u128) << 80)) & !VERSION_MASK | VERSION
}

/// The four bits of the version and the two of the variant.
const VERSION_MASK: u128 = 0xf << 76 | 0b11 << 62;
const VERSION: u128 = 7 << 76 | 0b10 << 62;

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use plinth_runtime::{CrashPoints, ManualClock, SeededRandom};
    use plinth_types::Timestamp;

    use super::*;

    #[test]
    fn ids_increase_and_are_read_back() {
        let clock = Arc::new(ManualClock::new(Timestamp::from_millis(1_700_000_000_000).unwrap()));
        let world = World { clock: clock.clone(), random: Arc::new(SeededRandom::new(1)), crash: CrashPoints::none() };
        let ids = JobIds::new(world);
        let mut before = ids.next();
        for step in 0..10_000 {
            if step % 100 == 0 {
                clock.advance(std::time::Duration::from_millis(1));
            }
            let id = ids.next();
            assert!(id > before && id.to_string() > before.to_string());
            assert_eq!(id.to_string().parse(), Ok(id));
            assert_eq!((id.0[6] >> 4, id.0[8] >> 6), (7, 2));
            before = id;
        }
        for bad in [
            "",
            "0199f1c2-7b3a-7000-8000-0123456789a",
            "0199f1c2-7b3a-7000-8000-0123456789ag",
            "0199f1c27b3a-7000-8000-0123456789abcd",
            "é",
        ] {
            assert!(bad.parse::<JobId>().is_err(), "{bad}");
        }
    }
}
