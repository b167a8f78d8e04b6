//! How many rows a second are read into flat buffers, on one core? Rows of 64 floats, 50,000 in memory, the best of three.
//! Command: `cargo run --release -p plinth-rows --example rows_speed`.
#![allow(clippy::print_stdout, clippy::unwrap_used, clippy::disallowed_methods, reason = "an example that measures and prints")]

use std::io::Cursor;
use std::time::Instant;

use plinth_rows::{Column, Columns, Compression, Element, Format, Limits, Output, Reader, Source, Values, Writer, write_parquet};

const ROWS: usize = 50_000;
const FLOATS: usize = 64;

fn main() {
    let value = |n: usize| ((n * 2_654_435_761) % 1_000_003) as f32 / 1_000_003.0;
    let values = vec![Values::F32((0..ROWS * FLOATS).map(value).collect())];
    let all = Columns { first_row: 0, rows: ROWS, values, errors: Vec::new() };
    let outputs = vec![Output::new("p", Element::F32, FLOATS)];
    let column = Column::new("p", Element::F32, FLOATS);
    let write = |format| {
        let started = Instant::now();
        let mut writer = Writer::new(Vec::new(), format, outputs.clone()).unwrap();
        writer.write_columns(&all).unwrap();
        let bytes = writer.finish().unwrap();
        println!("write {format}: {:.0} rows/s", ROWS as f64 / started.elapsed().as_secs_f64());
        bytes
    };
    let lines = write(Format::JsonLines);
    let csv = write(Format::Csv);
    let mut parquet = Vec::new();
    write_parquet(&lines[..], &mut parquet, &outputs, &Limits::default()).unwrap();
    for (format, bytes, column) in
        [(Format::JsonLines, lines, column.clone()), (Format::Csv, csv, column.clone().prefix("p_")), (Format::Parquet, parquet, column)]
    {
        let mut best = f64::INFINITY;
        for _ in 0..3 {
            let source = Source::seek(Cursor::new(bytes.clone()));
            let started = Instant::now();
            let mut reader = Reader::open(source, format, Compression::None, Limits::default()).unwrap();
            let (mut rows, spec) = (0, [column.clone()]);
            while let Some(columns) = reader.read_columns(&spec, 4096).unwrap() {
                assert!(columns.errors.is_empty());
                rows += columns.rows;
            }
            assert_eq!(rows, ROWS);
            best = best.min(started.elapsed().as_secs_f64());
        }
        println!("read {format}: {:.0} rows/s, {:.0} MB/s", ROWS as f64 / best, bytes.len() as f64 / best / 1e6);
    }
}
