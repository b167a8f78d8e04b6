//! The columns of one row group that are being read, all at the same row.

use std::sync::Arc;

use ::parquet::basic::Compression as Codec;
use ::parquet::column::reader::get_column_reader;
use ::parquet::file::metadata::ParquetMetaData;
use ::parquet::file::properties::ReaderProperties;
use ::parquet::file::reader::SerializedPageReader;

use super::leaf::Leaf;
use super::pages::{BoundedPages, Chunks, Meter};
use super::schema::LeafInfo;
use super::{guard, malformed};
use crate::column::{Columns, Plan};
use crate::error::excerpt;
use crate::{Limits, RowError, RowsError};

/// How many elements are unpacked at once, in all columns, as far as the footer says.
const AT_ONCE: u64 = 1 << 20;

pub(super) struct Cursor {
    /// Who opened it.
    pub(super) mode: u64,
    pub(super) leaves: Vec<Leaf>,
    meter: Arc<Meter>,
    max_elements: usize,
    /// How many rows to unpack at once.
    step: usize,
    unpacked: usize,
    /// Rows of the unpacked ones that were given.
    pub(super) used: usize,
}

impl Cursor {
    #[allow(clippy::too_many_arguments, reason = "one caller, and a structure would only repeat its fields")]
    pub(super) fn open(
        mode: u64,
        shared: &crate::source::Shared,
        meta: &ParquetMetaData,
        infos: &[LeafInfo],
        group: usize,
        wanted: &[usize],
        row: u64,
        limits: &Limits,
    ) -> Result<Self, RowsError> {
        let meter = Arc::new(Meter::new(limits.max_pages_bytes, limits.max_page_bytes));
        meter.allow_elements(limits.max_list_elements);
        let group = meta.row_group(group);
        let rows = u64::try_from(group.num_rows()).unwrap_or(0).max(1);
        let row = usize::try_from(row).map_err(|_| malformed("it has too many rows"))?;
        let properties = Arc::new(ReaderProperties::builder().set_read_bloom_filter(false).set_read_page_statistics(false).build());
        let mut each_row = 0_u64;
        let mut leaves = Vec::with_capacity(wanted.len());
        for index in wanted {
            let (info, column) = (&infos[*index], group.column(*index));
            if !matches!(column.compression(), Codec::UNCOMPRESSED | Codec::SNAPPY | Codec::ZSTD(_)) {
                return Err(malformed(format!(
                    "the column \"{}\" is packed with {}; none, snappy and zstd are read",
                    excerpt(&info.name),
                    column.compression()
                )));
            }
            let lists = !info.list_levels.is_empty();
            each_row = each_row.saturating_add(if lists { u64::try_from(column.num_values()).unwrap_or(0) / rows } else { 0 } + 1);
            let chunks = Arc::new(Chunks { shared: shared.clone(), max_page: meter.max_page });
            let descriptor = group.schema_descr().column(*index);
            let leaf = guard(|| {
                let pages = SerializedPageReader::new_with_properties(chunks, column, rows as usize, None, properties.clone())?;
                let pages = BoundedPages { pages, meter: meter.clone(), lists, held: 0 };
                let max_def = descriptor.max_def_level();
                let reader = get_column_reader(descriptor, Box::new(pages));
                let mut leaf = Leaf::new(reader, *index, info.unsigned, info.list_levels.clone(), max_def)?;
                let mut skipped = 0;
                while skipped < row {
                    // Lists are skipped a few at a time, because each of their pages counts.
                    let step = if lists { (row - skipped).min(1024) } else { row - skipped };
                    meter.allow_elements(limits.max_list_elements);
                    match leaf.skip(step)? {
                        0 => return Ok(None),
                        n => skipped += n,
                    }
                }
                Ok(Some(leaf))
            })?;
            leaves.push(leaf.ok_or_else(|| malformed("a column has fewer rows than its row group"))?);
        }
        let step = usize::try_from((AT_ONCE / each_row.max(1)).clamp(1, 1024)).unwrap_or(1);
        Ok(Self { mode, leaves, meter, max_elements: limits.max_list_elements, step, unpacked: 0, used: 0 })
    }

    /// Rows that are unpacked and not given yet.
    pub(super) fn left(&self) -> usize {
        self.unpacked - self.used
    }

    /// Unpacks the next rows, at most so many; how many.
    pub(super) fn read(&mut self, rows: usize) -> Result<usize, RowsError> {
        let rows = rows.min(self.step);
        (self.unpacked, self.used) = (0, 0);
        self.meter.allow_elements(self.max_elements);
        for leaf in &mut self.leaves {
            guard(|| leaf.read(rows))?;
        }
        self.unpacked = rows;
        Ok(rows)
    }

    /// Puts all unpacked rows behind the others; how many bytes of text they have.
    pub(super) fn fill(
        &mut self,
        rows: usize,
        plan: &Plan,
        infos: &[LeafInfo],
        columns: &mut Columns,
        limits: &Limits,
    ) -> Result<usize, RowsError> {
        let first = columns.rows;
        columns.resize(plan, first + rows);
        let mut problems: Vec<Option<String>> = vec![None; rows];
        let mut bytes = 0_usize;
        for (leaf, (_, slot)) in self.leaves.iter_mut().zip(&plan.fields) {
            let count = plan.columns[slot.column].count;
            let values = &mut columns.values[slot.column];
            for (row, problem) in problems.iter_mut().enumerate() {
                match leaf.fill(values, (first + row) * count + slot.at, slot.count, limits.max_row_bytes) {
                    Ok(text) => bytes = bytes.saturating_add(text),
                    Err(text) if problem.is_none() => {
                        *problem = Some(format!("the field \"{}\": {text}", excerpt(&infos[leaf.index].name)));
                    }
                    Err(_) => {}
                }
            }
        }
        for (row, text) in problems.into_iter().enumerate() {
            let Some(text) = text else { continue };
            for (values, column) in columns.values.iter_mut().zip(&plan.columns) {
                values.clear_range((first + row) * column.count, column.count);
            }
            columns.errors.push(RowError { row: columns.first_row + (first + row) as u64, line: None, text });
        }
        columns.rows = first + rows;
        self.used = self.unpacked;
        Ok(bytes)
    }
}
