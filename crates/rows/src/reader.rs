//! The reader of rows, whatever format they are in.

use crate::column::Plan;
use crate::parquet::ParquetReader;
use crate::source::Opened;
use crate::text::TextReader;
use crate::{Batch, Checkpoint, Column, Columns, Compression, Fingerprint, Format, Limits, Position, RowsError, Source};

/// Reads rows in their order, each once. It blocks: call it on a thread that may.
///
/// Rows are numbered from zero over the whole source. A row that is not understood is a [`crate::RowError`] in its place and not
/// the end. A call takes as many rows as asked for unless its bound of bytes is reached or the source ends; a failure of the source is
/// told by the call after those that gave the rows before it.
pub struct Reader {
    inner: Inner,
    format: Format,
    compression: Compression,
    fingerprint: Fingerprint,
    limits: Limits,
    plan: Option<(u64, Vec<Column>, Plan)>,
}

enum Inner {
    Text(TextReader),
    Parquet(ParquetReader),
}

impl Reader {
    /// Opens a source at its beginning.
    ///
    /// # Errors
    /// [`RowsError::Read`]; [`RowsError::Malformed`] for a header or footer that cannot be read, and for Parquet in a stream or packed
    /// as a whole; [`RowsError::Limit`].
    pub fn open(source: Source, format: Format, compression: Compression, limits: Limits) -> Result<Self, RowsError> {
        Self::start(source, format, compression, limits, None)
    }

    /// Opens a source where a reader of the same source stood.
    ///
    /// # Errors
    /// As [`Reader::open`]; [`RowsError::OtherSource`] when it is another one, [`RowsError::Checkpoint`] when no row begins there.
    pub fn resume(source: Source, checkpoint: &Checkpoint, limits: Limits) -> Result<Self, RowsError> {
        Self::start(source, checkpoint.format, checkpoint.compression, limits, Some(checkpoint))
    }

    fn start(source: Source, format: Format, compression: Compression, limits: Limits, at: Option<&Checkpoint>) -> Result<Self, RowsError> {
        let (opened, fingerprint) = source.open().map_err(RowsError::Read)?;
        if let Some(checkpoint) = at {
            checkpoint.fingerprint.check(&fingerprint)?;
        }
        let wrong_place = || RowsError::Checkpoint(format!("its position is not one in {format}"));
        let inner = match (format, opened) {
            (Format::Parquet, Opened::Shared(shared)) if compression == Compression::None => {
                let at = match at {
                    None => None,
                    Some(Checkpoint { row, position: Position::RowGroup { group, row: given }, .. }) => Some((*row, *group, *given)),
                    Some(_) => return Err(wrong_place()),
                };
                Inner::Parquet(ParquetReader::open(shared, at, &limits)?)
            }
            (Format::Parquet, _) => {
                let text = "it is read by position: it must be a file, and not be packed as a whole".to_owned();
                return Err(RowsError::Malformed { format, text });
            }
            (_, opened) => {
                let at = match at {
                    None => None,
                    Some(Checkpoint { row, position: Position::Text { offset, line }, .. }) => Some((*row, *offset, *line)),
                    Some(_) => return Err(wrong_place()),
                };
                Inner::Text(TextReader::open(opened, format, compression, at, &limits)?)
            }
        };
        Ok(Self { inner, format, compression, fingerprint, limits, plan: None })
    }

    /// The format that is read.
    #[must_use]
    pub fn format(&self) -> Format {
        self.format
    }

    /// The number of the next row: how many rows were given, by this reader and those before it.
    #[must_use]
    pub fn row(&self) -> u64 {
        match &self.inner {
            Inner::Text(text) => text.row(),
            Inner::Parquet(parquet) => parquet.row(),
        }
    }

    /// The names of the columns, of CSV and Parquet; JSON lines have none in common.
    #[must_use]
    pub fn column_names(&self) -> Option<Vec<String>> {
        match &self.inner {
            Inner::Text(text) => text.column_names(),
            Inner::Parquet(parquet) => Some(parquet.column_names()),
        }
    }

    /// Where the reader stands: behind the last row that it gave.
    #[must_use]
    pub fn checkpoint(&self) -> Checkpoint {
        let position = match &self.inner {
            Inner::Text(text) => text.position(),
            Inner::Parquet(parquet) => parquet.position(),
        };
        let Self { format, compression, fingerprint, .. } = *self;
        Checkpoint { format, compression, fingerprint, row: self.row(), position }
    }

    /// The next rows as JSON values: at most `max_rows`, and no further row once they take `max_bytes` of memory (an estimate
    /// that is rather too high). At least one row. `None` at the end.
    ///
    /// # Errors
    /// [`RowsError::Read`], [`RowsError::Malformed`] and [`RowsError::Limit`] end the source.
    pub fn next_batch(&mut self, max_rows: usize, max_bytes: usize) -> Result<Option<Batch>, RowsError> {
        match &mut self.inner {
            Inner::Text(text) => text.next_batch(max_rows, max_bytes, &self.limits),
            Inner::Parquet(parquet) => parquet.next_batch(max_rows, max_bytes, &self.limits),
        }
    }

    /// The next rows, at most `max_rows`, straight into flat buffers. `None` at the end.
    ///
    /// # Errors
    /// As [`Reader::next_batch`]; [`RowsError::Columns`] for columns that make no sense or that the source does not have.
    pub fn read_columns(&mut self, columns: &[Column], max_rows: usize) -> Result<Option<Columns>, RowsError> {
        let mode = match &self.plan {
            Some((mode, planned, _)) if planned == columns => *mode,
            before => {
                let mode = before.as_ref().map_or(1, |(mode, ..)| mode + 1);
                self.plan = Some((mode, columns.to_vec(), Plan::new(columns, &self.limits)?));
                mode
            }
        };
        let Some((_, _, plan)) = &self.plan else { return Ok(None) };
        match &mut self.inner {
            Inner::Text(text) => text.read_columns(plan, max_rows, &self.limits),
            Inner::Parquet(parquet) => parquet.read_columns(plan, mode, max_rows, &self.limits),
        }
    }
}
