//! Turns output rows of JSON lines into a Parquet file.
//!
//! Invariant: the file is a function of the lines and the outputs: the same bytes each time. A row group has at most
//! [`GROUP_ROWS`] rows, which is what is held in memory.
//!
//! Columns: `row` (INT64), each output (optional; a list where it has several elements; 8-bit numbers as INT32 without
//! sign), `error` (optional UTF-8). A row with an error has nulls in the outputs. Packed with snappy.

use std::io::{Read, Write};
use std::sync::Arc;

use ::parquet::basic::{Compression as Codec, ConvertedType, Repetition, Type as Physical};
use ::parquet::data_type::{BoolType, ByteArray, ByteArrayType, DataType, DoubleType, FloatType, Int32Type, Int64Type};
use ::parquet::errors::ParquetError;
use ::parquet::file::properties::WriterProperties;
use ::parquet::file::writer::{SerializedFileWriter, SerializedRowGroupWriter};
use ::parquet::schema::types::{Type, TypePtr};
use serde_json::Value;

use super::{Output, check};
use crate::error::excerpt;
use crate::frame::{Frame, Framer};
use crate::{Element, Format, Limits, Row, RowsError, Values, row};

/// The most rows of a row group.
const GROUP_ROWS: usize = 65_536;
/// The most elements of one, in all outputs together.
const GROUP_ELEMENTS: usize = 4 << 20;

/// Writes what a [`super::Writer`] wrote as JSON lines as one Parquet file; how many rows. A line may be 16 times as long as
/// `limits` say for an input row.
///
/// # Errors
/// [`RowsError::Read`] and [`RowsError::Write`]; [`RowsError::Output`] for a line that no [`super::Writer`] with these outputs has
/// written.
pub fn write_parquet(lines: impl Read, sink: impl Write + Send, outputs: &[Output], limits: &Limits) -> Result<u64, RowsError> {
    check(Format::JsonLines, outputs)?;
    let limits = Limits { max_row_bytes: limits.max_row_bytes.saturating_mul(16), ..*limits };
    let properties = WriterProperties::builder().set_compression(Codec::SNAPPY).set_created_by("plinth".to_owned()).build();
    let mut file = SerializedFileWriter::new(sink, schema(outputs).map_err(failed)?, Arc::new(properties)).map_err(failed)?;
    let mut lines = Framer::new(lines, false, limits.max_row_bytes, 0, 1);
    let each_row = outputs.iter().map(|output| output.count).sum::<usize>() + 2;
    let group_rows = (GROUP_ELEMENTS / each_row).clamp(1, GROUP_ROWS);
    let mut group = Group::new(outputs);
    let mut written = 0;
    while let Some(frame) = lines.next().map_err(RowsError::Read)? {
        let (line, read) = match frame {
            Frame::Bad { line, text } => (line, Err(text)),
            Frame::Record { range, line, .. } => (line, row::parse(lines.bytes(&range), &limits)),
        };
        let pushed = read.and_then(|(row, cost)| group.push(row, cost, outputs));
        pushed.map_err(|text| RowsError::Output(format!("line {line} of the output rows: {text}")))?;
        if group.rows.len() == group_rows || group.text_bytes > limits.max_batch_bytes {
            written += group.rows.len() as u64;
            group.write(&mut file, outputs).map_err(failed)?;
        }
    }
    if !group.rows.is_empty() {
        written += group.rows.len() as u64;
        group.write(&mut file, outputs).map_err(failed)?;
    }
    file.close().map_err(failed)?;
    Ok(written)
}

fn failed(error: ParquetError) -> RowsError {
    match error {
        ParquetError::External(error) => match error.downcast::<std::io::Error>() {
            Ok(error) => RowsError::Write(*error),
            Err(error) => RowsError::Output(error.to_string()),
        },
        error => RowsError::Output(error.to_string()),
    }
}

fn schema(outputs: &[Output]) -> Result<TypePtr, ParquetError> {
    let leaf = |name: &str, physical, converted, repetition| {
        Type::primitive_type_builder(name, physical).with_converted_type(converted).with_repetition(repetition).build().map(Arc::new)
    };
    let mut fields = vec![leaf("row", Physical::INT64, ConvertedType::NONE, Repetition::REQUIRED)?];
    for output in outputs {
        let (physical, converted) = match output.element {
            Element::F32 => (Physical::FLOAT, ConvertedType::NONE),
            Element::F64 => (Physical::DOUBLE, ConvertedType::NONE),
            Element::I64 => (Physical::INT64, ConvertedType::NONE),
            Element::U8 => (Physical::INT32, ConvertedType::UINT_8),
            Element::Bool => (Physical::BOOLEAN, ConvertedType::NONE),
            Element::Text => (Physical::BYTE_ARRAY, ConvertedType::UTF8),
        };
        if output.count == 1 {
            fields.push(leaf(&output.name, physical, converted, Repetition::OPTIONAL)?);
            continue;
        }
        let element = leaf("element", physical, converted, Repetition::REQUIRED)?;
        let list = Type::group_type_builder("list").with_repetition(Repetition::REPEATED).with_fields(vec![element]).build()?;
        let outer = Type::group_type_builder(&output.name)
            .with_repetition(Repetition::OPTIONAL)
            .with_converted_type(ConvertedType::LIST)
            .with_fields(vec![Arc::new(list)])
            .build()?;
        fields.push(Arc::new(outer));
    }
    fields.push(leaf("error", Physical::BYTE_ARRAY, ConvertedType::UTF8, Repetition::OPTIONAL)?);
    Ok(Arc::new(Type::group_type_builder("rows").with_fields(fields).build()?))
}

/// The rows of one row group.
struct Group {
    rows: Vec<i64>,
    errors: Vec<Option<String>>,
    /// The elements of each output, of the rows that have it.
    values: Vec<Values>,
    /// Whether each row has each output.
    present: Vec<Vec<bool>>,
    text_bytes: usize,
}

impl Group {
    fn new(outputs: &[Output]) -> Self {
        Self {
            rows: Vec::new(),
            errors: Vec::new(),
            values: outputs.iter().map(|output| Values::with_capacity(output.element, 0)).collect(),
            present: vec![Vec::new(); outputs.len()],
            text_bytes: 0,
        }
    }

    fn push(&mut self, row: Row, cost: usize, outputs: &[Output]) -> Result<(), String> {
        let Row::Fields(fields) = row else { return Err("it is no object".to_owned()) };
        let number = fields.get("row").and_then(Value::as_i64).ok_or("it has no row number")?;
        for (index, output) in outputs.iter().enumerate() {
            let value = fields.get(&output.name).filter(|value| !value.is_null());
            self.present[index].push(value.is_some());
            let Some(value) = value else { continue };
            let items = match value {
                Value::Array(items) if output.count > 1 => &items[..],
                value => std::slice::from_ref(value),
            };
            let values = &mut self.values[index];
            let start = values.len();
            values.resize(start + output.count);
            let fits = items.len() == output.count && items.iter().enumerate().all(|(at, item)| set(values, start + at, item));
            if !fits {
                let (name, count, of) = (excerpt(&output.name), output.count, output.element.wanted());
                return Err(format!("\"{name}\" does not hold {count} elements (each {of})"));
            }
        }
        let known = |name: &String| name == "row" || name == "error" || outputs.iter().any(|output| output.name == *name);
        if let Some(name) = fields.keys().find(|name| !known(name)) {
            return Err(format!("\"{}\" is not one of the outputs", excerpt(name)));
        }
        self.rows.push(number);
        self.errors.push(fields.get("error").and_then(Value::as_str).map(ToOwned::to_owned));
        self.text_bytes += if outputs.iter().any(|output| output.element == Element::Text) { cost } else { 0 };
        Ok(())
    }

    /// Writes the rows, and is empty again.
    fn write<W: Write + Send>(&mut self, file: &mut SerializedFileWriter<W>, outputs: &[Output]) -> Result<(), ParquetError> {
        let full = std::mem::replace(self, Self::new(outputs));
        let mut group = file.next_row_group()?;
        column::<Int64Type, _>(&mut group, &full.rows, None, None)?;
        for ((output, values), present) in outputs.iter().zip(&full.values).zip(&full.present) {
            let (mut definitions, mut repetitions) = (Vec::new(), Vec::new());
            for present in present {
                match (*present, output.count) {
                    (false, _) => definitions.push(0),
                    (true, 1) => definitions.push(1),
                    (true, count) => definitions.resize(definitions.len() + count, 2),
                }
                repetitions.push(0);
                repetitions.resize(definitions.len(), 1);
            }
            let (definitions, repetitions) = (Some(&definitions[..]), (output.count > 1).then_some(&repetitions[..]));
            match values {
                Values::F32(v) => column::<FloatType, _>(&mut group, v, definitions, repetitions)?,
                Values::F64(v) => column::<DoubleType, _>(&mut group, v, definitions, repetitions)?,
                Values::I64(v) => column::<Int64Type, _>(&mut group, v, definitions, repetitions)?,
                Values::Bool(v) => column::<BoolType, _>(&mut group, v, definitions, repetitions)?,
                Values::U8(v) => {
                    let wide: Vec<i32> = v.iter().map(|x| i32::from(*x)).collect();
                    column::<Int32Type, _>(&mut group, &wide, definitions, repetitions)?;
                }
                Values::Text(v) => {
                    let texts: Vec<ByteArray> = v.iter().map(|text| ByteArray::from(text.as_str())).collect();
                    column::<ByteArrayType, _>(&mut group, &texts, definitions, repetitions)?;
                }
            }
        }
        let errors: Vec<ByteArray> = full.errors.iter().flatten().map(|text| ByteArray::from(text.as_str())).collect();
        let definitions: Vec<i16> = full.errors.iter().map(|error| i16::from(error.is_some())).collect();
        column::<ByteArrayType, _>(&mut group, &errors, Some(&definitions), None)?;
        group.close().map(|_| ())
    }
}

/// Writes the next column.
fn column<T: DataType, W: Write + Send>(
    group: &mut SerializedRowGroupWriter<'_, W>,
    values: &[T::T],
    definitions: Option<&[i16]>,
    repetitions: Option<&[i16]>,
) -> Result<(), ParquetError> {
    let mut writer = group.next_column()?.ok_or_else(|| ParquetError::General("there is no further column".to_owned()))?;
    writer.typed::<T>().write_batch(values, definitions, repetitions)?;
    writer.close()
}

fn set(values: &mut Values, at: usize, item: &Value) -> bool {
    let special = |text: &str| match text {
        "NaN" => Some(f64::NAN),
        "Infinity" => Some(f64::INFINITY),
        "-Infinity" => Some(f64::NEG_INFINITY),
        _ => None,
    };
    match (values, item) {
        (Values::F32(v), Value::String(text)) => special(text).map(|x| v[at] = x as f32).is_some(),
        (Values::F64(v), Value::String(text)) => special(text).map(|x| v[at] = x).is_some(),
        (values, Value::String(text)) => values.set_text(at, text).is_ok(),
        (values, Value::Bool(x)) => values.set_bool(at, *x).is_ok(),
        (values, Value::Number(x)) => match (x.as_i64(), x.as_u64(), x.as_f64()) {
            (Some(x), ..) => values.set_i64(at, x).is_ok(),
            (_, Some(x), _) => values.set_u64(at, x).is_ok(),
            (.., Some(x)) => values.set_f64(at, x).is_ok(),
            _ => false,
        },
        _ => false,
    }
}
