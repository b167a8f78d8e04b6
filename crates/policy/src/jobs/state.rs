//! The states of a job.

use std::fmt;
use std::str::FromStr;

/// Where a job stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum State {
    /// It waits for other jobs.
    Blocked,
    /// It waits for a moment: its own time, or the pause after a failed attempt.
    Scheduled,
    /// It waits for a worker.
    Ready,
    /// A worker holds it.
    Running,
    /// It ended well.
    Succeeded,
    /// It ended badly: a dead letter, which may be replayed.
    Dead,
    /// Somebody ended it.
    Cancelled,
}

/// A text that names no state.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is no state of a job; there are: blocked, scheduled, ready, running, succeeded, dead, cancelled")]
pub struct ParseStateError(String);

impl State {
    /// All states.
    pub const ALL: [Self; 7] = [Self::Blocked, Self::Scheduled, Self::Ready, Self::Running, Self::Succeeded, Self::Dead, Self::Cancelled];

    /// The state as it is written.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Blocked => "blocked",
            Self::Scheduled => "scheduled",
            Self::Ready => "ready",
            Self::Running => "running",
            Self::Succeeded => "succeeded",
            Self::Dead => "dead",
            Self::Cancelled => "cancelled",
        }
    }

    /// The number that databases keep.
    #[must_use]
    pub const fn code(self) -> i16 {
        match self {
            Self::Blocked => 0,
            Self::Scheduled => 1,
            Self::Ready => 2,
            Self::Running => 3,
            Self::Succeeded => 4,
            Self::Dead => 5,
            Self::Cancelled => 6,
        }
    }

    /// The state of a number that a database kept.
    #[must_use]
    pub fn from_code(code: i64) -> Option<Self> {
        Self::ALL.into_iter().find(|state| i64::from(state.code()) == code)
    }

    /// Whether the job has ended.
    #[must_use]
    pub const fn ended(self) -> bool {
        matches!(self, Self::Succeeded | Self::Dead | Self::Cancelled)
    }

    /// Whether a job may go from this state to that one.
    #[must_use]
    pub const fn may_become(self, next: Self) -> bool {
        match (self, next) {
            // What waits begins to be ready, is held back anew, or is ended before it ran.
            (Self::Blocked, Self::Scheduled | Self::Ready | Self::Dead | Self::Cancelled)
            | (Self::Scheduled, Self::Ready | Self::Cancelled | Self::Dead)
            | (Self::Ready, Self::Running | Self::Cancelled | Self::Dead)
            | (Self::Running, Self::Ready | Self::Scheduled | Self::Succeeded | Self::Dead | Self::Cancelled)
            // A dead letter may be replayed; nothing else comes back.
            | (Self::Dead, Self::Ready) => true,
            _ => false,
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for State {
    type Err = ParseStateError;
    fn from_str(text: &str) -> Result<Self, ParseStateError> {
        Self::ALL.into_iter().find(|state| state.as_str() == text).ok_or_else(|| ParseStateError(text.chars().take(32).collect()))
    }
}
