//! Rows of Parquet files.
//!
//! Invariants: the footer is believed only where it agrees with itself and with the file's length; memory is bounded by the
//! limits, whatever footer and pages say ([`pages`]); a panic inside the library is an error of the file. Columns are read by
//! their leaves, so a file may be any mixture of plain columns and lists; a leaf inside a structure is called by its path
//! (`a.b`). Dates and times are the whole numbers that the file holds. Decimals, 96-bit times, fixed-length bytes and columns
//! packed with GZIP, BROTLI or LZ4 are not read: the library unpacks the first two without a bound.
//!
//! Source: the Parquet format, <https://parquet.apache.org/docs/file-format/>.

mod cursor;
mod leaf;
mod pages;
mod schema;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use ::parquet::errors::ParquetError;
use ::parquet::file::metadata::{ParquetMetaData, ParquetMetaDataReader};
use serde_json::Map;

use crate::column::{Columns, Plan, no_such_field};
use crate::error::excerpt;
use crate::row::Budget;
use crate::source::Shared;
use crate::{Batch, Element, Format, Limits, Position, Row, RowError, RowsError};
use cursor::Cursor;
use schema::LeafInfo;

pub(crate) struct ParquetReader {
    shared: Shared,
    meta: Arc<ParquetMetaData>,
    leaves: Arc<Vec<LeafInfo>>,
    /// The rows of each group.
    groups: Vec<u64>,
    group: usize,
    /// Rows of the group that were given.
    given: u64,
    row: u64,
    cursor: Option<Cursor>,
}

impl ParquetReader {
    pub(crate) fn open(shared: Shared, at: Option<(u64, u64, u64)>, limits: &Limits) -> Result<Self, RowsError> {
        let footer = read_footer(&shared, limits)?;
        let meta = guard(|| ParquetMetaDataReader::decode_metadata(&footer))?;
        drop(footer);
        let leaves = guard(|| Ok(schema::leaves(&meta, limits)))??;
        let groups = guard(|| Ok(meta.row_groups().iter().map(|group| u64::try_from(group.num_rows()).ok()).collect::<Option<Vec<_>>>()))?;
        let groups = groups.ok_or_else(|| malformed("a row group has a negative number of rows"))?;
        let sum = groups.iter().try_fold(0_u64, |sum, rows| sum.checked_add(*rows).filter(|sum| i64::try_from(*sum).is_ok()));
        if sum.and_then(|sum| i64::try_from(sum).ok()) != Some(meta.file_metadata().num_rows()) {
            return Err(malformed("its row groups do not have as many rows as the footer says"));
        }
        let mut reader = Self { shared, meta: Arc::new(meta), leaves: Arc::new(leaves), groups, group: 0, given: 0, row: 0, cursor: None };
        if let Some((row, group, given)) = at {
            reader.go_to(row, group, given)?;
        }
        Ok(reader)
    }

    fn go_to(&mut self, row: u64, group: u64, given: u64) -> Result<(), RowsError> {
        let wrong = || RowsError::Checkpoint(format!("the file has no row {row} as row {given} of row group {group}"));
        let group = usize::try_from(group).ok().filter(|group| *group <= self.groups.len()).ok_or_else(wrong)?;
        let before: u64 = self.groups[..group].iter().sum();
        if given > self.groups.get(group).copied().unwrap_or(0) || before + given != row {
            return Err(wrong());
        }
        (self.group, self.given, self.row) = (group, given, row);
        Ok(())
    }

    pub(crate) fn row(&self) -> u64 {
        self.row
    }

    pub(crate) fn position(&self) -> Position {
        Position::RowGroup { group: self.group as u64, row: self.given }
    }

    pub(crate) fn column_names(&self) -> Vec<String> {
        self.leaves.iter().map(|leaf| leaf.name.clone()).collect()
    }

    /// Goes on to the next group that has rows left. False at the end.
    fn in_group(&mut self) -> bool {
        while self.group < self.groups.len() && self.given == self.groups[self.group] {
            (self.group, self.given, self.cursor) = (self.group + 1, 0, None);
        }
        self.group < self.groups.len()
    }

    /// Opens the columns `wanted` (an error for one that cannot be read) where the reader stands, if they are not open.
    fn open_cursor(
        &mut self,
        mode: u64,
        wanted: impl FnOnce(&[LeafInfo]) -> Result<Vec<usize>, RowsError>,
        limits: &Limits,
    ) -> Result<(), RowsError> {
        if self.cursor.as_ref().is_some_and(|cursor| cursor.mode == mode && (mode == ROWS || cursor.left() == 0)) {
            return Ok(());
        }
        self.cursor = None;
        let wanted = wanted(&self.leaves)?;
        self.cursor = Some(Cursor::open(mode, &self.shared, &self.meta, &self.leaves, self.group, &wanted, self.given, limits)?);
        Ok(())
    }

    pub(crate) fn next_batch(&mut self, max_rows: usize, max_bytes: usize, limits: &Limits) -> Result<Option<Batch>, RowsError> {
        let mut batch = Batch { first_row: self.row, rows: Vec::new() };
        let mut bytes = 0_usize;
        while batch.rows.len() < max_rows.max(1) && (bytes < max_bytes || batch.rows.is_empty()) && self.in_group() {
            match self.next_row(limits) {
                Ok((row, cost)) => {
                    bytes = bytes.saturating_add(cost);
                    batch.rows.push(row);
                }
                Err(error) => {
                    self.cursor = None;
                    if batch.rows.is_empty() {
                        return Err(error);
                    }
                    // The next call meets the error again.
                    break;
                }
            }
        }
        Ok((!batch.rows.is_empty()).then_some(batch))
    }

    fn next_row(&mut self, limits: &Limits) -> Result<(Result<Row, RowError>, usize), RowsError> {
        self.open_cursor(ROWS, |leaves| (0..leaves.len()).map(|at| readable(&leaves[at], at)).collect(), limits)?;
        let left = self.groups[self.group] - self.given;
        let Some(cursor) = &mut self.cursor else { return Err(malformed("no columns are open")) };
        if cursor.left() == 0 {
            cursor.read(usize::try_from(left).unwrap_or(usize::MAX))?;
        }
        let budget = Budget::new(limits);
        let mut row = Map::new();
        let mut problem = None;
        for leaf in &mut cursor.leaves {
            let name = &self.leaves[leaf.index].name;
            // Each leaf is gone through, also when the row has an error already, so that all stay at one row.
            match leaf.value(if problem.is_none() { Some(&budget) } else { None })? {
                Ok(value) if problem.is_none() => {
                    problem = budget.value(name.len() + 64).err();
                    row.insert(name.clone(), value);
                }
                Ok(_) => {}
                Err(text) => problem = problem.or_else(|| Some(format!("the field \"{}\": {text}", excerpt(name)))),
            }
        }
        cursor.used += 1;
        let number = self.row;
        (self.given, self.row) = (self.given + 1, self.row + 1);
        Ok(match problem {
            None => (Ok(Row::Fields(row)), budget.taken()),
            Some(text) => (Err(RowError { row: number, line: None, text }), 256),
        })
    }

    pub(crate) fn read_columns(&mut self, plan: &Plan, mode: u64, max_rows: usize, limits: &Limits) -> Result<Option<Columns>, RowsError> {
        let find = |leaves: &[LeafInfo]| {
            let index = |name: &str| leaves.iter().position(|leaf| leaf.name == name);
            let one = |(name, _): &(String, _)| {
                let at = index(name).ok_or_else(|| no_such_field(name, leaves.iter().map(|leaf| leaf.name.as_str())))?;
                readable(&leaves[at], at)
            };
            plan.fields.iter().map(one).collect::<Result<Vec<_>, _>>()
        };
        // Also where there are no rows, a wrong name is an error.
        find(&self.leaves)?;
        let max_rows = plan.rows(max_rows, limits);
        let texts = plan.fields.iter().filter(|(_, slot)| plan.columns[slot.column].element == Element::Text).count();
        let at_once = limits.max_batch_bytes.checked_div(texts * limits.max_row_bytes).map_or(usize::MAX, |rows| rows.max(1));
        let mut columns = Columns::new(plan, self.row, max_rows);
        let mut text_bytes = 0_usize;
        while columns.rows < max_rows && text_bytes < limits.max_batch_bytes && self.in_group() {
            let left = usize::try_from(self.groups[self.group] - self.given).unwrap_or(usize::MAX);
            let want = left.min(max_rows - columns.rows).min(at_once);
            let read = self.open_cursor(mode, find, limits).and_then(|()| match &mut self.cursor {
                Some(cursor) => {
                    cursor.read(want).and_then(|n| cursor.fill(n, plan, &self.leaves, &mut columns, limits).map(|bytes| (n, bytes)))
                }
                None => Err(malformed("no columns are open")),
            });
            match read {
                Ok((n, bytes)) => {
                    text_bytes = text_bytes.saturating_add(bytes);
                    (self.given, self.row) = (self.given + n as u64, self.row + n as u64);
                }
                Err(error) => {
                    self.cursor = None;
                    columns.resize(plan, columns.rows);
                    if columns.rows == 0 {
                        return Err(error);
                    }
                    break;
                }
            }
        }
        Ok((columns.rows > 0).then_some(columns))
    }
}

/// The mode of a cursor that gives whole rows; others are plans.
const ROWS: u64 = 0;

fn readable(leaf: &LeafInfo, at: usize) -> Result<usize, RowsError> {
    match &leaf.unreadable {
        None => Ok(at),
        Some(why) => Err(RowsError::Columns(format!("the column \"{}\" {why}", excerpt(&leaf.name)))),
    }
}

fn read_footer(shared: &Shared, limits: &Limits) -> Result<Vec<u8>, RowsError> {
    let mut end = [0; 8];
    if shared.size < 12 {
        return Err(malformed("it is too short"));
    }
    read_exact(shared, shared.size - 8, &mut end)?;
    let [a, b, c, d, magic @ ..] = end;
    if &magic == b"PARE" {
        return Err(malformed("its footer is encrypted, which is not read"));
    }
    if &magic != b"PAR1" {
        return Err(malformed("it does not end as a Parquet file does; is it whole?"));
    }
    let length = u32::from_le_bytes([a, b, c, d]);
    if u64::from(length) > shared.size - 12 {
        return Err(malformed("its footer says to be longer than the file"));
    }
    if length as usize > limits.max_footer_bytes {
        return Err(RowsError::Limit(format!("the Parquet footer has {length} bytes, at most {} are read", limits.max_footer_bytes)));
    }
    let mut footer = vec![0; length as usize];
    read_exact(shared, shared.size - 8 - u64::from(length), &mut footer)?;
    Ok(footer)
}

fn read_exact(shared: &Shared, offset: u64, buffer: &mut [u8]) -> Result<(), RowsError> {
    std::io::Read::read_exact(&mut shared.read_from(offset), buffer).map_err(RowsError::Read)
}

fn malformed(text: impl Into<String>) -> RowsError {
    RowsError::Malformed { format: Format::Parquet, text: text.into() }
}

/// Calls the library. Files from outside make it panic in places that no list is complete of; nothing of it is used after.
fn guard<T>(call: impl FnOnce() -> Result<T, ParquetError>) -> Result<T, RowsError> {
    match catch_unwind(AssertUnwindSafe(call)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(ParquetError::External(error))) => Err(match error.downcast::<std::io::Error>() {
            Ok(error) => RowsError::Read(*error),
            Err(error) => malformed(excerpt(&error.to_string())),
        }),
        Ok(Err(error)) => Err(malformed(error.to_string().chars().take(200).collect::<String>())),
        Err(_) => Err(malformed("its structure contradicts itself")),
    }
}
