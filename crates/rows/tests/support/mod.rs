//! What the tests of this crate share: sources in memory, all rows of a source, and a Parquet file of any shape.
#![allow(dead_code, reason = "each test file uses some of it")]

use std::io::Cursor;
use std::sync::Arc;

use parquet::basic::Compression as Codec;
use parquet::data_type::{ByteArray, ByteArrayType, DoubleType, FloatType, Int64Type};
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;
use plinth_rows::{Checkpoint, Column, Columns, Compression, Format, Limits, Reader, Row, RowError, RowsError, Source};

pub fn seek(bytes: &[u8]) -> Source {
    Source::seek(Cursor::new(bytes.to_vec()))
}

pub fn stream(bytes: &[u8]) -> Source {
    Source::stream(Cursor::new(bytes.to_vec()))
}

pub fn open(bytes: &[u8], format: Format) -> Reader {
    Reader::open(seek(bytes), format, Compression::None, Limits::default()).unwrap()
}

pub type Rows = Vec<Result<Row, RowError>>;

/// All rows that are left, some at a time. Checks that they are numbered without a gap.
pub fn rest(reader: &mut Reader, at_once: usize) -> Result<Rows, RowsError> {
    let mut rows = Vec::new();
    let start = reader.row();
    while let Some(batch) = reader.next_batch(at_once, 1 << 16)? {
        assert!(!batch.rows.is_empty() && batch.rows.len() <= at_once);
        assert_eq!(batch.first_row, start + rows.len() as u64);
        for (row, n) in batch.rows.iter().zip(batch.first_row..) {
            assert!(row.as_ref().err().is_none_or(|error| error.row == n));
        }
        rows.extend(batch.rows);
        assert_eq!(reader.row(), start + rows.len() as u64);
    }
    Ok(rows)
}

/// All columns that are left, put together.
pub fn rest_columns(reader: &mut Reader, spec: &[Column], at_once: usize) -> Result<Vec<Columns>, RowsError> {
    let mut all = Vec::new();
    while let Some(columns) = reader.read_columns(spec, at_once)? {
        assert!(columns.rows > 0 && columns.rows <= at_once);
        for (values, column) in columns.values.iter().zip(spec) {
            assert_eq!(values.len(), columns.rows * column.count);
        }
        all.push(columns);
    }
    Ok(all)
}

/// The texts of all errors.
pub fn errors(rows: &Rows) -> Vec<String> {
    rows.iter().filter_map(|row| row.as_ref().err()).map(ToString::to_string).collect()
}

/// A checkpoint as it comes back from where it is stored.
pub fn stored(checkpoint: &Checkpoint) -> Checkpoint {
    serde_json::from_str(&serde_json::to_string(checkpoint).unwrap()).unwrap()
}

/// A file with the columns id (INT64), score (optional DOUBLE), name (optional UTF-8), inputs (list of FLOAT) and deep (list of
/// lists of FLOAT), in groups of so many rows. Row n has: score null when n % 3 == 1; name null when n % 4 == 2; inputs
/// of three elements, but null, empty, two elements, or a null inside when n % 11 is 7, 8, 9, 10.
pub fn parquet_file(rows: usize, group: usize, codec: Codec) -> Vec<u8> {
    let schema = parse_message_type(
        "message rows { required int64 id; optional double score; optional binary name (UTF8);
          optional group inputs (LIST) { repeated group list { optional float element; } }
          required group deep (LIST) { repeated group list { required group element (LIST) { repeated group list { required float element; } } } } }",
    )
    .unwrap();
    let properties = WriterProperties::builder().set_compression(codec).set_data_page_row_count_limit(7).set_write_batch_size(5).build();
    let mut bytes = Vec::new();
    let mut file = SerializedFileWriter::new(&mut bytes, Arc::new(schema), Arc::new(properties)).unwrap();
    let all: Vec<usize> = (0..rows).collect();
    for numbers in all.chunks(group) {
        let mut out = file.next_row_group().unwrap();
        let ids: Vec<i64> = numbers.iter().map(|n| *n as i64).collect();
        let mut column = out.next_column().unwrap().unwrap();
        column.typed::<Int64Type>().write_batch(&ids, None, None).unwrap();
        column.close().unwrap();

        let scores: Vec<f64> = numbers.iter().filter(|n| *n % 3 != 1).map(|n| *n as f64 / 4.0).collect();
        let levels: Vec<i16> = numbers.iter().map(|n| i16::from(n % 3 != 1)).collect();
        let mut column = out.next_column().unwrap().unwrap();
        column.typed::<DoubleType>().write_batch(&scores, Some(&levels), None).unwrap();
        column.close().unwrap();

        let names: Vec<ByteArray> =
            numbers.iter().filter(|n| *n % 4 != 2).map(|n| ByteArray::from(format!("n{}", n % 5).as_str())).collect();
        let levels: Vec<i16> = numbers.iter().map(|n| i16::from(n % 4 != 2)).collect();
        let mut column = out.next_column().unwrap().unwrap();
        column.typed::<ByteArrayType>().write_batch(&names, Some(&levels), None).unwrap();
        column.close().unwrap();

        let (mut values, mut definitions, mut repetitions) = (Vec::new(), Vec::new(), Vec::new());
        for n in numbers {
            let row: &[i16] = match n % 11 {
                7 => &[0],
                8 => &[1],
                9 => &[3, 3],
                10 => &[3, 2, 3],
                _ => &[3, 3, 3],
            };
            for (at, level) in row.iter().enumerate() {
                definitions.push(*level);
                repetitions.push(i16::from(at > 0));
                if *level == 3 {
                    values.push(*n as f32 + at as f32 / 10.0);
                }
            }
        }
        let mut column = out.next_column().unwrap().unwrap();
        column.typed::<FloatType>().write_batch(&values, Some(&definitions), Some(&repetitions)).unwrap();
        column.close().unwrap();

        // [[n, n], [n]], and [] for each fifth row.
        let (mut values, mut definitions, mut repetitions) = (Vec::new(), Vec::new(), Vec::new());
        for n in numbers {
            if n % 5 == 0 {
                definitions.push(0);
                repetitions.push(0);
            } else {
                definitions.extend([2, 2, 2]);
                repetitions.extend([0, 2, 1]);
                values.extend([*n as f32; 3]);
            }
        }
        let mut column = out.next_column().unwrap().unwrap();
        column.typed::<FloatType>().write_batch(&values, Some(&definitions), Some(&repetitions)).unwrap();
        column.close().unwrap();
        out.close().unwrap();
    }
    file.close().unwrap();
    bytes
}
