//! Where a reader stands ([`Checkpoint`]), and of which source ([`Fingerprint`]).
//!
//! Invariant: a reader that is opened at a checkpoint gives exactly the rows that the reader which made it had not given, with
//! the same numbers. A checkpoint says nothing about what became of the rows before it: take the output's position
//! ([`crate::Writer::flush`]) at the same moment, and keep both in one place.

use plinth_types::Digest;
use serde::{Deserialize, Serialize};

use crate::{Compression, Format, RowsError};

/// What tells one source from another without reading all of it. Not proof against somebody who wants to deceive: a file that
/// was changed in the middle has the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fingerprint {
    /// The source's size in bytes, as it is stored, where it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
    /// The digest of the first [`Fingerprint::SAMPLE`] bytes, as they are stored.
    pub head: Digest,
    /// The digest of the last ones, where the source seeks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tail: Option<Digest>,
}

impl Fingerprint {
    /// How many bytes at each end are looked at.
    pub const SAMPLE: usize = 64 << 10;

    /// Whether two may be of one source: what both know is the same.
    ///
    /// # Errors
    /// [`RowsError::OtherSource`], with what differs.
    pub fn check(&self, now: &Self) -> Result<(), RowsError> {
        if let (Some(then), Some(now)) = (self.size, now.size)
            && then != now
        {
            return Err(RowsError::OtherSource(format!("that one had {then} bytes, this one has {now}")));
        }
        if self.head != now.head {
            return Err(RowsError::OtherSource("it begins with other bytes".to_owned()));
        }
        match (self.tail, now.tail) {
            (Some(then), Some(now)) if then != now => Err(RowsError::OtherSource("it ends with other bytes".to_owned())),
            _ => Ok(()),
        }
    }
}

/// Where the next row begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "in")]
pub enum Position {
    /// JSON lines and CSV.
    Text {
        /// Bytes before the row, after unpacking.
        offset: u64,
        /// The line in which the row begins, counted from one.
        line: u64,
    },
    /// Parquet.
    RowGroup {
        /// The row group, counted from zero.
        group: u64,
        /// Rows of this group before the row.
        row: u64,
    },
}

/// Where a reader stands. Small, and made to be stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checkpoint {
    /// What is being read.
    pub format: Format,
    /// How it is packed.
    pub compression: Compression,
    /// Which source it is.
    pub fingerprint: Fingerprint,
    /// The number of the next row, counted from zero.
    pub row: u64,
    /// Where it begins.
    pub position: Position,
}
