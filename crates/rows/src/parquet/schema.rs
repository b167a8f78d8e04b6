//! The leaves of a Parquet schema, and which of them can be read.

use std::collections::HashSet;

use ::parquet::basic::{ConvertedType, LogicalType, Type as Physical};
use ::parquet::file::metadata::ParquetMetaData;
use ::parquet::schema::types::{ColumnDescriptor, Type};

use super::malformed;
use crate::error::excerpt;
use crate::{Limits, RowsError};

/// One leaf: what rows and plans call a column.
#[derive(Debug)]
pub(super) struct LeafInfo {
    /// The name of the top-level field, when this is its only leaf; else the path with dots.
    pub(super) name: String,
    /// The definition level at each repeated node on the way, outermost first: below it the list is not there or empty.
    pub(super) list_levels: Vec<i16>,
    /// Whether the stored whole numbers have no sign.
    pub(super) unsigned: bool,
    pub(super) unreadable: Option<&'static str>,
}

pub(super) fn leaves(meta: &ParquetMetaData, limits: &Limits) -> Result<Vec<LeafInfo>, RowsError> {
    let schema = meta.file_metadata().schema_descr();
    if schema.num_columns() > limits.max_columns {
        return Err(RowsError::Limit(format!(
            "the Parquet file has {} columns, at most {} are read",
            schema.num_columns(),
            limits.max_columns
        )));
    }
    let mut roots = vec![0_usize; schema.root_schema().get_fields().len()];
    for index in 0..schema.num_columns() {
        roots[schema.get_column_root_idx(index)] += 1;
    }
    let mut names = HashSet::new();
    let mut leaves = Vec::with_capacity(schema.num_columns());
    for index in 0..schema.num_columns() {
        let column = schema.column(index);
        let root = schema.get_column_root_idx(index);
        let only = roots[root] == 1;
        let name = if only { schema.get_column_root(index).name().to_owned() } else { column.path().string() };
        if !names.insert(name.clone()) {
            return Err(malformed(format!("it has the column \"{}\" twice", excerpt(&name))));
        }
        let list_levels = list_levels(schema.root_schema(), column.path().parts())?;
        if list_levels.len() != usize::try_from(column.max_rep_level()).unwrap_or(usize::MAX) || list_levels.len() > limits.max_depth {
            return Err(malformed(format!("the lists of the column \"{}\" are nested too deeply", excerpt(&name))));
        }
        leaves.push(LeafInfo { name, list_levels, unsigned: unsigned(&column), unreadable: unreadable(&column) });
    }
    for group in meta.row_groups() {
        if group.num_columns() != leaves.len() {
            return Err(malformed("a row group has other columns than the schema"));
        }
    }
    Ok(leaves)
}

fn list_levels(root: &Type, path: &[String]) -> Result<Vec<i16>, RowsError> {
    let mut levels = Vec::new();
    let (mut node, mut level) = (root, 0_i16);
    for part in path {
        let child = if node.is_group() { node.get_fields().iter().find(|field| field.name() == part) } else { None };
        node = child.ok_or_else(|| malformed("its schema contradicts itself"))?;
        let info = node.get_basic_info();
        if info.has_repetition() {
            use ::parquet::basic::Repetition;
            match info.repetition() {
                Repetition::OPTIONAL => level += 1,
                Repetition::REPEATED => {
                    level += 1;
                    levels.push(level);
                }
                Repetition::REQUIRED => {}
            }
        }
    }
    Ok(levels)
}

fn unsigned(column: &ColumnDescriptor) -> bool {
    let by_converted =
        matches!(column.converted_type(), ConvertedType::UINT_8 | ConvertedType::UINT_16 | ConvertedType::UINT_32 | ConvertedType::UINT_64);
    by_converted || matches!(column.logical_type_ref(), Some(LogicalType::Integer(integer)) if !integer.is_signed)
}

fn unreadable(column: &ColumnDescriptor) -> Option<&'static str> {
    let decimal = column.converted_type() == ConvertedType::DECIMAL || matches!(column.logical_type_ref(), Some(LogicalType::Decimal(_)));
    match column.physical_type() {
        _ if decimal => Some("holds decimals, which are not read; write it as a float or as whole numbers"),
        Physical::INT96 => Some("holds 96-bit times, which are not read; write it as a 64-bit time"),
        Physical::FIXED_LEN_BYTE_ARRAY => Some("holds bytes of a fixed length, which are not read; write it as numbers or strings"),
        _ => None,
    }
}
