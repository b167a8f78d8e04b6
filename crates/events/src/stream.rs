//! A stream: its name, and the settings that it was made with.
//!
//! Invariant: the partitions, the partitioner and the mode of a stream never change, so a key stays in its partition and a retry finds what
//! it repeats. Only the retention may be set anew.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use plinth_types::name::ParseNameError;
use plinth_types::{AliasName, TenantName};
use serde::{Deserialize, Serialize};

use crate::error::EventsError;
use crate::partition::{Partitioner, PartitionerSpec};

/// The most partitions of a stream.
pub const MOST_PARTITIONS: u16 = 256;

/// The name of a stream, by the rule of all names ([`plinth_types::name`]).
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StreamName(Arc<str>);

impl StreamName {
    /// As text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for StreamName {
    type Err = ParseNameError;
    fn from_str(text: &str) -> Result<Self, ParseNameError> {
        text.parse::<AliasName>()?;
        Ok(Self(text.into()))
    }
}

impl fmt::Debug for StreamName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

/// Which stream.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Stream {
    /// Whose.
    pub tenant: TenantName,
    /// Its name; another tenant may use the same.
    pub name: StreamName,
}

/// What a stream keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// All events, until they are too old or too many.
    Log,
    /// A row for each key: what was appended last. A tombstone ends the row. What came before is kept as a log, as long as the retention
    /// says, which is also how long a retry is known.
    Latest,
}

/// When an event may be forgotten: at the first of the bounds. What is forgotten is no longer known by its id.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Retention {
    /// Milliseconds after it was stored.
    pub age_millis: Option<u64>,
    /// When so many newer ones are in its partition.
    pub count: Option<u64>,
}

impl Retention {
    /// Forgets after `age`.
    #[must_use]
    pub fn of_age(age: Duration) -> Self {
        Self { age_millis: Some(u64::try_from(age.as_millis()).unwrap_or(u64::MAX)), count: None }
    }

    /// Whether an event may go that stands `behind` places behind the newest and was stored `age_millis` ago.
    pub(crate) fn over(self, behind: u64, age_millis: u64) -> bool {
        self.count.is_some_and(|most| behind >= most) || self.age_millis.is_some_and(|most| age_millis > most)
    }
}

/// How a stream is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// How many partitions, 1 to [`MOST_PARTITIONS`].
    pub partitions: u16,
    /// Which partition a key is in.
    pub partitioner: PartitionerSpec,
    /// What is kept.
    pub mode: Mode,
    /// How long it is kept. Current rows of [`Mode::Latest`] are kept for ever.
    pub retention: Retention,
}

impl Settings {
    /// A log of 8 partitions by hash that is kept for ever.
    #[must_use]
    pub const fn log() -> Self {
        let retention = Retention { age_millis: None, count: None };
        Self { partitions: 8, partitioner: PartitionerSpec::Hash, mode: Mode::Log, retention }
    }

    /// As [`Settings::log`], with a row for each key.
    #[must_use]
    pub fn latest() -> Self {
        Self { mode: Mode::Latest, ..Self::log() }
    }

    /// Whether nothing differs but the retention.
    pub(crate) fn same_shape(&self, other: &Self) -> bool {
        self.partitions == other.partitions && self.partitioner == other.partitioner && self.mode == other.mode
    }

    /// The partitioner; fails for settings that do not fit together.
    pub(crate) fn build(&self) -> Result<Box<dyn Partitioner>, EventsError> {
        if !(1..=MOST_PARTITIONS).contains(&self.partitions) {
            return Err(EventsError::Invalid("a stream has 1 to 256 partitions"));
        }
        self.partitioner.build(self.partitions)
    }

    pub(crate) fn to_text(&self) -> Result<String, EventsError> {
        serde_json::to_string(self).map_err(|error| EventsError::unavailable("settings", error))
    }

    pub(crate) fn from_text(text: &str) -> Result<Self, EventsError> {
        serde_json::from_str(text).map_err(|error| EventsError::Damaged(format!("the settings of a stream: {error}")))
    }
}

/// A stream that was found: what its writers need to know.
pub(crate) struct Resolved {
    /// Its number in the database. No other stream ever has it.
    pub(crate) number: i64,
    pub(crate) mode: Mode,
    pub(crate) partitioner: Box<dyn Partitioner>,
    /// Set once it is deleted, for those who had found it before.
    pub(crate) deleted: AtomicBool,
}

impl Resolved {
    pub(crate) fn new(number: i64, settings: &Settings) -> Result<Self, EventsError> {
        Ok(Self { number, mode: settings.mode, partitioner: settings.build()?, deleted: AtomicBool::new(false) })
    }

    pub(crate) fn is_deleted(&self) -> bool {
        self.deleted.load(Ordering::Acquire)
    }
}
