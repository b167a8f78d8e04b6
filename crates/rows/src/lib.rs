//! Rows of files: JSON lines, CSV and Parquet, read from any checkpoint and written in order.
//!
//! A [`Reader`] gives rows as JSON values ([`Reader::next_batch`]) or straight in flat buffers of numbers
//! ([`Reader::read_columns`]); a [`Writer`] writes one output row for each.
//!
//! Invariants: memory is bounded by [`Limits`], whatever the file holds and however long it is; a row that is not understood is an
//! error in its place, so that row `n` is always row `n`; a reader goes on from a [`Checkpoint`] with exactly the rows that were
//! not given; and an output that is cut to the position of that moment and gone on with is the same, byte for byte, as one
//! that was never interrupted.
//!
//! Left to others: where files come from, who may read them, threads, and what is done with the rows. Everything here blocks.
#![warn(missing_docs)]

mod checkpoint;
mod column;
mod csv;
mod error;
mod format;
mod frame;
mod json;
mod limits;
mod parquet;
mod reader;
mod row;
mod source;
mod text;
mod values;
mod writer;

pub use checkpoint::{Checkpoint, Fingerprint, Position};
pub use column::{Column, Columns, Fields};
pub use error::{RowError, RowsError};
pub use format::{Compression, Format};
pub use limits::Limits;
pub use reader::Reader;
pub use row::{Batch, Row};
pub use source::{SeekRead, Source};
pub use values::{Element, Values};
pub use writer::{Output, Writer, write_parquet};
