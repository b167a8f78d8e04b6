//! What goes wrong: with a whole source ([`RowsError`]) and with one row ([`RowError`]).
//!
//! Invariant: no text holds more than a short excerpt of the data, and none holds a path or an address.

use std::fmt;
use std::io;

use serde::{Deserialize, Serialize};

/// Why a source cannot be read, or an output not be written, any further.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RowsError {
    /// No format is known by this word, file name or content type.
    #[error(
        "the format of \"{0}\" is not known: want one of json-lines, csv, parquet (.jsonl, .ndjson, .csv, also with .gz or .zst; .parquet)"
    )]
    UnknownFormat(String),
    /// No compression is known by this word.
    #[error("the compression \"{0}\" is not known: want one of none, gzip, zstd")]
    UnknownCompression(String),
    /// The source could not be read. A retry may help; what was read before stands.
    #[error("reading the rows failed: {0}")]
    Read(io::Error),
    /// The output could not be written. What stands up to the last position is whole.
    #[error("writing the rows failed: {0}")]
    Write(io::Error),
    /// The source is not text in UTF-8, has no usable header, is a broken Parquet file, or is in a variant that is not read.
    #[error("the source cannot be read as {format}: {text}")]
    Malformed {
        /// The format it was read as.
        format: crate::Format,
        /// What is wrong with it.
        text: String,
    },
    /// More bytes, columns or pages than the limits allow.
    #[error("{0}")]
    Limit(String),
    /// The columns that were asked for do not make sense, or the source has none of that name or type.
    #[error("{0}")]
    Columns(String),
    /// A checkpoint that does not belong to this source.
    #[error("the checkpoint is of another source: {0}; start from the beginning, or hand in the file that it was made for")]
    OtherSource(String),
    /// A checkpoint that no reader could have made.
    #[error("the checkpoint is not valid: {0}")]
    Checkpoint(String),
    /// Output rows that do not fit what the writer was made for.
    #[error("{0}")]
    Output(String),
}

/// Why one row is not understood. Its place in the order is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RowError {
    /// The row's number, counted from zero over the whole source.
    pub row: u64,
    /// The line in which the row begins, counted from one; `None` where there are no lines (Parquet).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub line: Option<u64>,
    /// What is wrong, with the field's name and what was expected.
    pub text: String,
}

impl fmt::Display for RowError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            Some(line) => write!(f, "row {} (line {line}): {}", self.row, self.text),
            None => write!(f, "row {}: {}", self.row, self.text),
        }
    }
}

impl std::error::Error for RowError {}

/// The first 64 characters of a text, without control characters.
pub(crate) fn excerpt(text: &str) -> String {
    let mut out: String = text.chars().take(64).map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect();
    if text.chars().nth(64).is_some() {
        out.push('…');
    }
    out
}

/// The same for bytes that may be no text.
pub(crate) fn excerpt_bytes(bytes: &[u8]) -> String {
    excerpt(&String::from_utf8_lossy(&bytes[..bytes.len().min(300)]))
}
