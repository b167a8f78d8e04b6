//! A reader goes on from any checkpoint with exactly the rest, and refuses another source.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

mod support;

use parquet::basic::Compression as Codec;
use plinth_rows::{Checkpoint, Column, Compression, Element, Format, Limits, Position, Reader, RowsError};
use proptest::prelude::*;
use support::{open, parquet_file, rest, rest_columns, seek, stored, stream};

/// Stops after every row, and compares what is left with what an uninterrupted reader gives.
fn resumes_everywhere(bytes: &[u8], format: Format, compression: Compression, limits: Limits) {
    let start = |source| Reader::open(source, format, compression, limits);
    let Ok(mut whole) = start(seek(bytes)) else { return };
    let all = rest(&mut whole, 3).unwrap();
    let mut reader = start(seek(bytes)).unwrap();
    for done in 0..=all.len() {
        let checkpoint = stored(&reader.checkpoint());
        assert_eq!(checkpoint.row, done as u64);
        let mut sources = vec![seek(bytes)];
        if format != Format::Parquet {
            sources.push(stream(bytes));
        }
        for source in sources {
            let mut resumed = Reader::resume(source, &checkpoint, limits).unwrap();
            assert_eq!(resumed.checkpoint().position, checkpoint.position);
            assert_eq!(rest(&mut resumed, 2).unwrap(), all[done..], "after row {done}");
        }
        assert_eq!(reader.next_batch(1, 1 << 20).unwrap().is_some(), done < all.len());
    }
}

#[test]
fn from_every_row_of_every_format() {
    let lines = "\u{feff}{\"a\":1}\n\n[2]\r\nbad\n\n[3]";
    resumes_everywhere(lines.as_bytes(), Format::JsonLines, Compression::None, Limits::default());
    let csv = "\u{feff}a,b\r\n1,\"x\n\ny\"\r\n2,\"q\"q\n\n3,4\n5\n6,\"open";
    resumes_everywhere(csv.as_bytes(), Format::Csv, Compression::None, Limits::default());
    resumes_everywhere(&zstd::bulk::compress(csv.as_bytes(), 1).unwrap(), Format::Csv, Compression::Zstd, Limits::default());
    for group in [1, 9, 100] {
        resumes_everywhere(&parquet_file(25, group, Codec::SNAPPY), Format::Parquet, Compression::None, Limits::default());
    }
    resumes_everywhere(&parquet_file(0, 1, Codec::SNAPPY), Format::Parquet, Compression::None, Limits::default());
}

#[test]
fn columns_go_on_too() {
    for (bytes, format) in [
        (parquet_file(60, 23, Codec::SNAPPY), Format::Parquet),
        ((0..60).map(|n| format!("{{\"id\":{n},\"inputs\":[1,2,{n}]}}\n")).collect::<String>().into_bytes(), Format::JsonLines),
    ] {
        let spec = [Column::new("inputs", Element::F32, 3), Column::new("id", Element::I64, 1)];
        let whole = rest_columns(&mut open(&bytes, format), &spec, 1).unwrap();
        for done in 0..60 {
            let mut reader = open(&bytes, format);
            for _ in 0..done {
                reader.read_columns(&spec, 1).unwrap();
            }
            let mut resumed = Reader::resume(seek(&bytes), &stored(&reader.checkpoint()), Limits::default()).unwrap();
            assert_eq!(rest_columns(&mut resumed, &spec, 1).unwrap(), whole[done..]);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn whatever_the_bytes_are(pieces in proptest::collection::vec(prop_oneof![
        Just("\""), Just(","), Just("\n"), Just("\r\n"), Just("a"), Just("[1]"), Just("{\"a\":"), Just("}"), Just("\0")
    ], 0..40), csv: bool) {
        let bytes = pieces.concat().into_bytes();
        let limits = Limits { max_row_bytes: 16, ..Limits::default() };
        resumes_everywhere(&bytes, if csv { Format::Csv } else { Format::JsonLines }, Compression::None, limits);
    }
}

#[test]
fn another_source_is_refused() {
    let bytes = b"[1]\n[2]\n".to_vec();
    let mut reader = open(&bytes, Format::JsonLines);
    reader.next_batch(1, 1).unwrap();
    let checkpoint = reader.checkpoint();
    let refused = |bytes: &[u8]| Reader::resume(seek(bytes), &checkpoint, Limits::default()).err().unwrap().to_string();
    assert!(refused(b"[1]\n[2]\n[3]\n").contains("had 8 bytes, this one has 12"));
    assert!(refused(b"[0]\n[2]\n").contains("begins with other bytes"));

    // A long file that differs only in its last bytes.
    let mut long = b"[1]\n".repeat(100_000);
    let checkpoint = open(&long, Format::JsonLines).checkpoint();
    *long.last_mut().unwrap() = b' ';
    let error = Reader::resume(seek(&long), &checkpoint, Limits::default()).err().unwrap();
    assert!(matches!(error, RowsError::OtherSource(_)), "{error}");
    // A stream does not know its end, so what it knows is compared.
    assert!(Reader::resume(stream(&long), &checkpoint, Limits::default()).is_ok());
}

#[test]
fn a_place_where_no_row_begins_is_refused() {
    let text = open(b"a,b\n1,2\n3,4\n", Format::Csv).checkpoint();
    let file = parquet_file(10, 4, Codec::SNAPPY);
    let parquet = open(&file, Format::Parquet).checkpoint();
    let resume = |bytes: &[u8], from: &Checkpoint, row, position| {
        Reader::resume(seek(bytes), &Checkpoint { row, position, ..from.clone() }, Limits::default()).map(|_| ())
    };
    for offset in [0, 3, 5, 13, u64::MAX] {
        let error = resume(b"a,b\n1,2\n3,4\n", &text, 1, Position::Text { offset, line: 2 }).unwrap_err();
        assert!(matches!(error, RowsError::Checkpoint(_)), "{offset}: {error}");
    }
    assert!(resume(b"a,b\n1,2\n3,4\n", &text, 1, Position::Text { offset: 8, line: 3 }).is_ok());
    assert!(resume(b"a,b\n1,2\n3,4\n", &text, 1, Position::RowGroup { group: 0, row: 1 }).is_err());
    for (row, group, given) in [(1, 0, 2), (5, 1, 2), (u64::MAX, 0, u64::MAX), (10, 4, 0), (0, u64::MAX, 0), (11, 3, 1)] {
        let error = resume(&file, &parquet, row, Position::RowGroup { group, row: given }).unwrap_err();
        assert!(matches!(error, RowsError::Checkpoint(_)), "{row} {group} {given}: {error}");
    }
    assert!(resume(&file, &parquet, 6, Position::RowGroup { group: 1, row: 2 }).is_ok());
    assert!(resume(&file, &parquet, 6, Position::Text { offset: 6, line: 1 }).is_err());
}
