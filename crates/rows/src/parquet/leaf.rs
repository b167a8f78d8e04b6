//! One column of a row group: a few rows unpacked, and gone through row by row.
//!
//! Invariant: what is gone through is what was unpacked: each call takes one row's levels and values, also when it gives an
//! error. Levels from the file are not believed: none leads outside of a buffer.
//!
//! Source: the Dremel encoding, <https://parquet.apache.org/docs/file-format/nestedencoding/>.

use std::ops::Range;

use ::parquet::column::reader::{ColumnReader, ColumnReaderImpl};
use ::parquet::data_type::{BoolType, ByteArray, ByteArrayType, DoubleType, FloatType, Int32Type, Int64Type};
use ::parquet::errors::{ParquetError, Result as ParquetResult};
use serde_json::Value;

use super::malformed;
use crate::error::excerpt;
use crate::row::Budget;
use crate::values::Misfit;
use crate::{RowsError, Values};

enum Typed {
    Bool(ColumnReaderImpl<BoolType>, Vec<bool>),
    I32(ColumnReaderImpl<Int32Type>, Vec<i32>),
    I64(ColumnReaderImpl<Int64Type>, Vec<i64>),
    F32(ColumnReaderImpl<FloatType>, Vec<f32>),
    F64(ColumnReaderImpl<DoubleType>, Vec<f64>),
    Bytes(ColumnReaderImpl<ByteArrayType>, Vec<ByteArray>),
}

/// Applies one expression to whichever reader and buffer are inside.
macro_rules! each {
    ($typed:expr, $reader:ident, $values:ident => $body:expr) => {
        match $typed {
            Typed::Bool($reader, $values) => $body,
            Typed::I32($reader, $values) => $body,
            Typed::I64($reader, $values) => $body,
            Typed::F32($reader, $values) => $body,
            Typed::F64($reader, $values) => $body,
            Typed::Bytes($reader, $values) => $body,
        }
    };
}

pub(super) struct Leaf {
    /// Its place in the schema.
    pub(super) index: usize,
    typed: Typed,
    unsigned: bool,
    list_levels: Vec<i16>,
    max_def: i16,
    definitions: Vec<i16>,
    repetitions: Vec<i16>,
    /// The next row's first level and first value.
    level: usize,
    value: usize,
}

impl Leaf {
    pub(super) fn new(reader: ColumnReader, index: usize, unsigned: bool, list_levels: Vec<i16>, max_def: i16) -> ParquetResult<Self> {
        let typed = match reader {
            ColumnReader::BoolColumnReader(reader) => Typed::Bool(reader, Vec::new()),
            ColumnReader::Int32ColumnReader(reader) => Typed::I32(reader, Vec::new()),
            ColumnReader::Int64ColumnReader(reader) => Typed::I64(reader, Vec::new()),
            ColumnReader::FloatColumnReader(reader) => Typed::F32(reader, Vec::new()),
            ColumnReader::DoubleColumnReader(reader) => Typed::F64(reader, Vec::new()),
            ColumnReader::ByteArrayColumnReader(reader) => Typed::Bytes(reader, Vec::new()),
            _ => return Err(ParquetError::NYI("this type".to_owned())),
        };
        let (definitions, repetitions) = (Vec::new(), Vec::new());
        Ok(Self { index, typed, unsigned, list_levels, max_def, definitions, repetitions, level: 0, value: 0 })
    }

    pub(super) fn skip(&mut self, rows: usize) -> ParquetResult<usize> {
        each!(&mut self.typed, reader, _values => reader.skip_records(rows))
    }

    /// Unpacks the next rows; all of them, or it is an error.
    pub(super) fn read(&mut self, rows: usize) -> ParquetResult<()> {
        self.definitions.clear();
        self.repetitions.clear();
        (self.level, self.value) = (0, 0);
        let (definitions, repetitions) = (&mut self.definitions, &mut self.repetitions);
        let (read, _, levels) = each!(&mut self.typed, reader, values => {
            values.clear();
            reader.read_records(rows, Some(definitions), Some(repetitions), values)?
        });
        let flat = self.list_levels.is_empty();
        let wrong = read != rows
            || (flat && levels != rows)
            || (!flat && (self.repetitions.len() != levels || self.repetitions.first() != Some(&0)))
            || (self.max_def > 0 && self.definitions.len() != levels);
        if wrong { Err(ParquetError::General("a column has fewer rows than its row group".to_owned())) } else { Ok(()) }
    }

    /// Takes the next row: its levels, and its first value.
    fn next_row(&mut self) -> (Range<usize>, usize) {
        let (start, first) = (self.level, self.value);
        let mut end = start + 1;
        if !self.list_levels.is_empty() {
            let rest = self.repetitions.get(end..).unwrap_or_default();
            end += rest.iter().position(|repetition| *repetition == 0).unwrap_or(rest.len());
        }
        self.level = end;
        self.value += (start..end).filter(|level| self.present(*level)).count();
        (start..end, first)
    }

    fn present(&self, level: usize) -> bool {
        self.max_def == 0 || self.definitions.get(level) == Some(&self.max_def)
    }

    /// Puts the next row's elements into a buffer; how many bytes of text they have.
    pub(super) fn fill(&mut self, values: &mut Values, at: usize, count: usize, max_text: usize) -> Result<usize, String> {
        let (levels, first) = self.next_row();
        let values_here = self.value - first;
        if values_here != levels.len() {
            let what = if levels.len() == 1 { "null, or an empty list" } else { "a list with null inside" };
            return Err(format!("expected {count} of {}, got {what}", values.element().wanted()));
        }
        if values_here != count {
            return Err(format!("has {values_here} elements, expected {count} (each {})", values.element().wanted()));
        }
        let mut bytes = 0_usize;
        for n in 0..count {
            bytes += self.text_len(first + n);
            if bytes > max_text {
                return Err(format!("the row is longer than {max_text} bytes"));
            }
            self.put(first + n, values, at + n).map_err(|_| {
                let element = if count > 1 { format!("element {n}: ") } else { String::new() };
                format!("{element}expected {}, got {}", values.element().wanted(), self.shown(first + n))
            })?;
        }
        Ok(bytes)
    }

    #[inline]
    fn text_len(&self, value: usize) -> usize {
        match &self.typed {
            Typed::Bytes(_, values) => values.get(value).map_or(0, |bytes| bytes.len()),
            _ => 0,
        }
    }

    #[inline]
    fn put(&self, value: usize, values: &mut Values, at: usize) -> Result<(), Misfit> {
        match &self.typed {
            Typed::Bool(_, v) => values.set_bool(at, *v.get(value).ok_or(Misfit)?),
            Typed::I32(_, v) => {
                let x = *v.get(value).ok_or(Misfit)?;
                values.set_i64(at, if self.unsigned { i64::from(x as u32) } else { i64::from(x) })
            }
            Typed::I64(_, v) => {
                let x = *v.get(value).ok_or(Misfit)?;
                if self.unsigned { values.set_u64(at, x as u64) } else { values.set_i64(at, x) }
            }
            Typed::F32(_, v) => values.set_f64(at, f64::from(*v.get(value).ok_or(Misfit)?)),
            Typed::F64(_, v) => values.set_f64(at, *v.get(value).ok_or(Misfit)?),
            Typed::Bytes(_, v) => values.set_text(at, text(v.get(value).ok_or(Misfit)?).map_err(|_| Misfit)?),
        }
    }

    #[cold]
    fn shown(&self, value: usize) -> String {
        match &self.typed {
            Typed::Bytes(_, v) => v.get(value).map_or_else(String::new, |bytes| match text(bytes) {
                Ok(text) => format!("\"{}\"", excerpt(text)),
                Err(why) => why.to_owned(),
            }),
            Typed::F32(_, v) => v.get(value).map(f32::to_string).unwrap_or_default(),
            Typed::F64(_, v) => v.get(value).map(f64::to_string).unwrap_or_default(),
            _ => self.json(value).map(|value| value.to_string()).unwrap_or_default(),
        }
    }

    /// The next row as JSON, its memory taken from `budget`; without one it is only passed over. The outer error is the file's,
    /// the inner one the row's.
    pub(super) fn value(&mut self, budget: Option<&Budget>) -> Result<Result<Value, String>, RowsError> {
        let (levels, first) = self.next_row();
        let Some(budget) = budget else { return Ok(Ok(Value::Null)) };
        let mut build = Build { leaf: self, budget, next: first };
        let built = build.list(levels, 0);
        match built {
            Err(Why::Row(text)) => Ok(Err(text)),
            Err(Why::File) => Err(malformed("the levels of a list contradict themselves")),
            Ok(value) => Ok(Ok(value)),
        }
    }

    fn json(&self, value: usize) -> Result<Value, Why> {
        let finite = |x: f64| serde_json::Number::from_f64(x).map(Value::Number).ok_or_else(|| Why::Row(format!("{x} is not finite")));
        match &self.typed {
            Typed::Bool(_, v) => v.get(value).map(|x| Value::Bool(*x)).ok_or(Why::File),
            Typed::I32(_, v) if self.unsigned => v.get(value).map(|x| (*x as u32).into()).ok_or(Why::File),
            Typed::I32(_, v) => v.get(value).map(|x| (*x).into()).ok_or(Why::File),
            Typed::I64(_, v) if self.unsigned => v.get(value).map(|x| (*x as u64).into()).ok_or(Why::File),
            Typed::I64(_, v) => v.get(value).map(|x| (*x).into()).ok_or(Why::File),
            // The shortest decimal of the 32 bits: 0.1 stays 0.1.
            Typed::F32(_, v) => {
                let x = *v.get(value).ok_or(Why::File)?;
                finite(x.to_string().parse().unwrap_or(f64::from(x)))
            }
            Typed::F64(_, v) => finite(*v.get(value).ok_or(Why::File)?),
            Typed::Bytes(_, v) => match text(v.get(value).ok_or(Why::File)?) {
                Ok(text) => Ok(Value::String(text.to_owned())),
                Err(why) => Err(Why::Row(why.to_owned())),
            },
        }
    }
}

fn text(bytes: &ByteArray) -> Result<&str, &'static str> {
    std::str::from_utf8(bytes.data()).map_err(|_| "bytes that are not UTF-8")
}

enum Why {
    Row(String),
    File,
}

/// Puts nested lists together.
struct Build<'a> {
    leaf: &'a Leaf,
    budget: &'a Budget,
    next: usize,
}

impl Build<'_> {
    /// The value of some levels at a depth of lists: one value at the innermost, else a list of what begins at each level that
    /// repeats at this depth.
    fn list(&mut self, levels: Range<usize>, depth: usize) -> Result<Value, Why> {
        let leaf = self.leaf;
        let Some(list_level) = leaf.list_levels.get(depth) else {
            if levels.len() != 1 {
                return Err(Why::File);
            }
            self.budget.value(0).map_err(Why::Row)?;
            if !leaf.present(levels.start) {
                return Ok(Value::Null);
            }
            self.budget.value(leaf.text_len(self.next)).map_err(Why::Row)?;
            self.next += 1;
            return leaf.json(self.next - 1);
        };
        self.budget.value(0).map_err(Why::Row)?;
        let defined = *leaf.definitions.get(levels.start).ok_or(Why::File)?;
        if defined < *list_level {
            let empty = defined == list_level - 1;
            return if levels.len() != 1 {
                Err(Why::File)
            } else if empty {
                Ok(Value::Array(Vec::new()))
            } else {
                Ok(Value::Null)
            };
        }
        let repeats = i16::try_from(depth + 1).map_err(|_| Why::File)?;
        let mut items = Vec::new();
        let mut start = levels.start;
        while start < levels.end {
            let rest = leaf.repetitions.get(start + 1..levels.end).ok_or(Why::File)?;
            let end = rest.iter().position(|repetition| *repetition == repeats).map_or(levels.end, |n| start + 1 + n);
            items.push(self.list(start..end, depth + 1)?);
            start = end;
        }
        Ok(Value::Array(items))
    }
}
