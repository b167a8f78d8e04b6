//! Rows are read as their formats say, the same however many at a time, and from any kind of source.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

mod support;

use std::io::Write;

use parquet::basic::{Compression as Codec, ZstdLevel};
use plinth_rows::{Column, Compression, Element, Format, Limits, Reader, Row, RowsError, Values};
use proptest::prelude::*;
use serde_json::json;
use support::{errors, open, parquet_file, rest, rest_columns, seek, stream};

fn fields(value: serde_json::Value) -> Row {
    Row::Fields(value.as_object().unwrap().clone())
}

#[test]
fn json_lines_keep_their_numbers_through_errors_and_blank_lines() {
    let text = "\u{feff}{\"a\":1}\r\n\n[1,\"x\"]\n  \nnonsense\n3\n{\"a\":1,\"a\":2}\n{\"a\":null}";
    let rows = rest(&mut open(text.as_bytes(), Format::JsonLines), 2).unwrap();
    assert_eq!(rows[0], Ok(fields(json!({"a": 1}))));
    assert_eq!(rows[1], Ok(Row::Array(vec![json!(1), json!("x")])));
    assert_eq!(rows[5], Ok(fields(json!({"a": null}))));
    assert_eq!(
        errors(&rows),
        [
            "row 2 (line 5): not JSON: expected ident (column 2)",
            "row 3 (line 6): expected an object or an array",
            "row 4 (line 7): the field \"a\" is there twice",
        ]
    );
}

#[test]
fn csv_has_quotes_line_ends_inside_and_rows_of_the_headers_length() {
    let text = "id,text\r\n1,\"a,\"\"b\"\"\r\nc\"\r\n2,x\"y\r\n\r\n3\r\n4,a,b\r\n5,\"z\"z\r\n6,";
    let rows = rest(&mut open(text.as_bytes(), Format::Csv), 3).unwrap();
    assert_eq!(rows[0], Ok(fields(json!({"id": "1", "text": "a,\"b\"\r\nc"}))));
    assert_eq!(rows[1], Ok(fields(json!({"id": "2", "text": "x\"y"}))));
    assert_eq!(rows[5], Ok(fields(json!({"id": "6", "text": ""}))));
    assert_eq!(
        errors(&rows),
        [
            "row 2 (line 6): the row has 1 fields, the header has 2",
            "row 3 (line 7): the row has 3 fields, the header has 2",
            "row 4 (line 8): a quoted field goes on after its closing quote; a quote inside a field is written twice",
        ]
    );
}

#[test]
fn columns_of_json_lines() {
    let text = r#"{"id":"a","x":[[1,2],[3,4.5]],"more":{"deep":[1]}}
[1,2,3,4]
{"x":[1,2,3],"id":"c"}
{"id":"d","x":[1,2,null,4]}
{"id":"e"}
{"x":[1,2,3,1e60],"id":"f"}
{"x":[1,2,3,1e999],"id":"g"}
{"x":[1,2,3,4],"id":7}
"#;
    let spec = [Column::new("x", Element::F32, 4), Column::new("id", Element::Text, 1)];
    let all = rest_columns(&mut open(text.as_bytes(), Format::JsonLines), &spec, 100).unwrap();
    assert_eq!(all.len(), 1);
    let Values::F32(x) = &all[0].values[0] else { panic!("another type") };
    assert_eq!(x[..8], [1.0, 2.0, 3.0, 4.5, 0.0, 0.0, 0.0, 0.0]);
    let texts: Vec<String> = all[0].errors.iter().map(ToString::to_string).collect();
    assert_eq!(
        texts,
        [
            "row 1 (line 2): expected an object: a bare array is a row only where one column is read",
            "row 2 (line 3): the field \"x\" has 3 elements, expected 4 (each a finite number in the range of a 32-bit float)",
            "row 3 (line 4): the field \"x\", element 2: expected a finite number in the range of a 32-bit float, got null",
            "row 4 (line 5): the field \"x\" is missing",
            &format!(
                "row 5 (line 6): the field \"x\", element 3: expected a finite number in the range of a 32-bit float, got 1{}",
                "0".repeat(60)
            ),
            "row 6 (line 7): not JSON: number out of range (column 17)",
            "row 7 (line 8): the field \"id\": expected a string, got 7",
        ]
    );
    // One column: a bare array is a row too.
    let one = [Column::new("x", Element::F64, 4)];
    let all = rest_columns(&mut open(b"[1,2,3,4]\n{\"x\":[5,6,7,8]}\n[[1,2],[3,4,5]]", Format::JsonLines), &one, 100).unwrap();
    assert_eq!(all[0].values[0], Values::F64(vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 0.0, 0.0, 0.0, 0.0]));
    assert!(all[0].errors[0].text.contains("has 5 elements, expected 4"));
}

#[test]
fn columns_of_csv() {
    let text = "p0,label,p1,list,p2\n0.5,yes,1,\"[1,2]\",3\n1,no,nan,\"[1,2]\",3\n1,,2,\"[1]\",3\n1,\"a\0b\",2,\"[3, 4]\",\"3\"\n-0,x, 7 ,\"[256,0]\",1e3\n";
    let spec =
        [Column::new("pixels", Element::F32, 3).prefix("p"), Column::new("label", Element::Text, 1), Column::new("list", Element::U8, 2)];
    let all = rest_columns(&mut open(text.as_bytes(), Format::Csv), &spec, 2).unwrap();
    assert_eq!(all.iter().map(|columns| columns.rows).collect::<Vec<_>>(), [2, 2, 1]);
    assert_eq!(all[0].values[0], Values::F32(vec![0.5, 1.0, 3.0, 0.0, 0.0, 0.0]));
    assert_eq!(all[0].values[1], Values::Text(vec!["yes".into(), String::new()]));
    let texts: Vec<String> = all.iter().flat_map(|columns| &columns.errors).map(ToString::to_string).collect();
    assert_eq!(
        texts,
        [
            "row 1 (line 3): the field \"p1\": expected a finite number in the range of a 32-bit float, got \"nan\"",
            "row 2 (line 4): the field \"list\" as a list: the field \"list\" has 1 elements, expected 2 (each a whole number from 0 to 255)",
            "row 3 (line 5): the field \"label\" holds a NUL byte; the file must be text in UTF-8",
            "row 4 (line 6): the field \"list\" as a list: the field \"list\", element 0: expected a whole number from 0 to 255, got 256",
        ]
    );
}

#[test]
fn columns_that_make_no_sense_are_refused() {
    let read = |spec: &[Column]| open(b"a,b\n1,2\n", Format::Csv).read_columns(spec, 10).unwrap_err().to_string();
    assert_eq!(read(&[Column::new("c", Element::F32, 1)]), "there is no column \"c\"; the file has: a, b");
    assert!(read(&[]).contains("no columns"));
    assert!(read(&[Column::new("a", Element::F32, 0)]).contains("0 elements"));
    assert!(read(&[Column::new("a", Element::F32, usize::MAX)]).contains("at most"));
    assert!(read(&[Column::new("a", Element::F32, 1), Column::new("x", Element::F32, 1).each(vec!["a".into()])]).contains("twice"));
    assert!(read(&[Column::new("a", Element::F32, 2).each(vec!["a".into()])]).contains("names 1 fields"));
}

#[test]
fn parquet_rows_have_nulls_and_nested_lists() {
    for codec in [Codec::UNCOMPRESSED, Codec::SNAPPY, Codec::ZSTD(ZstdLevel::default())] {
        let file = parquet_file(40, 17, codec);
        for at_once in [1, 7, 100] {
            let mut reader = open(&file, Format::Parquet);
            assert_eq!(reader.column_names().unwrap(), ["id", "score", "name", "inputs", "deep"]);
            let rows = rest(&mut reader, at_once).unwrap();
            assert_eq!(rows.len(), 40);
            let row = |n: usize| rows[n].clone().unwrap();
            assert_eq!(row(7), fields(json!({"id": 7, "score": null, "name": "n2", "inputs": null, "deep": [[7.0, 7.0], [7.0]]})));
            assert_eq!(row(8), fields(json!({"id": 8, "score": 2.0, "name": "n3", "inputs": [], "deep": [[8.0, 8.0], [8.0]]})));
            assert_eq!(row(10), fields(json!({"id": 10, "score": null, "name": null, "inputs": [10.0, null, 10.2], "deep": []})));
        }
    }
}

#[test]
fn columns_of_parquet() {
    let file = parquet_file(40, 17, Codec::SNAPPY);
    let spec = [Column::new("inputs", Element::F32, 3), Column::new("id", Element::I64, 1)];
    let all = rest_columns(&mut open(&file, Format::Parquet), &spec, 100).unwrap();
    assert_eq!(all.len(), 1);
    let Values::I64(ids) = &all[0].values[1] else { panic!("another type") };
    for (n, id) in ids.iter().enumerate() {
        assert_eq!(*id, if n % 11 < 7 { n as i64 } else { 0 });
    }
    let texts: Vec<String> = all[0].errors.iter().take(4).map(ToString::to_string).collect();
    let float = "a finite number in the range of a 32-bit float";
    assert_eq!(
        texts,
        [
            format!("row 7: the field \"inputs\": expected 3 of {float}, got null, or an empty list"),
            format!("row 8: the field \"inputs\": expected 3 of {float}, got null, or an empty list"),
            format!("row 9: the field \"inputs\": has 2 elements, expected 3 (each {float})"),
            format!("row 10: the field \"inputs\": expected 3 of {float}, got a list with null inside"),
        ]
    );
    let text = [Column::new("name", Element::Text, 1)];
    let all = rest_columns(&mut open(&file, Format::Parquet), &text, 3).unwrap();
    assert_eq!(all[0].values[0], Values::Text(vec!["n0".into(), "n1".into(), String::new()]));
    let wrong = open(&file, Format::Parquet).read_columns(&[Column::new("input", Element::F32, 3)], 1).unwrap_err();
    assert_eq!(wrong.to_string(), "there is no column \"input\"; the file has: id, score, name, inputs, deep");
}

#[test]
fn rows_and_columns_by_turns_go_on_where_the_other_stopped() {
    for (bytes, format) in [
        (parquet_file(30, 13, Codec::SNAPPY), Format::Parquet),
        ((0..30).map(|n| format!("{{\"id\":{n}}}\n")).collect::<String>().into_bytes(), Format::JsonLines),
    ] {
        let mut reader = open(&bytes, format);
        let spec = [Column::new("id", Element::I64, 1)];
        let mut next = 0;
        while next < 30 {
            let batch = reader.next_batch(3, 1 << 20).unwrap().unwrap();
            let Ok(Row::Fields(first)) = &batch.rows[0] else { panic!("no fields") };
            assert_eq!(first["id"], json!(next));
            next += batch.rows.len() as i64;
            if let Some(columns) = reader.read_columns(&spec, 2).unwrap() {
                let Values::I64(ids) = &columns.values[0] else { panic!("another type") };
                assert_eq!(ids[0], next);
                next += columns.rows as i64;
            }
        }
        assert!(reader.next_batch(1, 1).unwrap().is_none());
    }
}

#[test]
fn packed_files_are_unpacked() {
    let text: String = (0..1000).map(|n| format!("{{\"n\":{n}}}\n")).collect();
    let gzip = |text: &str| {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(text.as_bytes()).unwrap();
        encoder.finish().unwrap()
    };
    // Two members, cut inside of a row.
    let (a, b) = text.split_at(5_003);
    let packed = [(Compression::Gzip, [gzip(a), gzip(b)].concat()), (Compression::Zstd, zstd::bulk::compress(text.as_bytes(), 1).unwrap())];
    let plain = rest(&mut open(text.as_bytes(), Format::JsonLines), 100).unwrap();
    for (compression, bytes) in packed {
        for source in [seek(&bytes), stream(&bytes)] {
            let mut reader = Reader::open(source, Format::JsonLines, compression, Limits::default()).unwrap();
            assert_eq!(rest(&mut reader, 100).unwrap(), plain);
        }
        // Cut off: the rows before are given, then it is an error.
        let mut reader = match Reader::open(seek(&bytes[..bytes.len() / 2]), Format::JsonLines, compression, Limits::default()) {
            Ok(reader) => reader,
            // All of it is one block.
            Err(error) => {
                assert!(matches!((compression, &error), (Compression::Zstd, RowsError::Read(_))), "{error}");
                continue;
            }
        };
        let mut rows = 0;
        let error = loop {
            match reader.next_batch(10, 1 << 20) {
                Ok(Some(batch)) => rows += batch.rows.len(),
                Ok(None) => panic!("it ended as if it were whole"),
                Err(error) => break error,
            }
        };
        assert!(matches!(error, RowsError::Read(_)), "{error}");
        assert_eq!(reader.row(), rows as u64);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]
    #[test]
    fn csv_is_read_as_another_reader_does(rows in proptest::collection::vec(proptest::collection::vec("[a-c,\"\n\r é]{0,6}", 3), 0..12), crlf: bool) {
        // Written by csv-core, with quotes where it thinks fit.
        let mut writer = csv_core::WriterBuilder::new().terminator(if crlf { csv_core::Terminator::CRLF } else { csv_core::Terminator::Any(b'\n') }).build();
        let mut bytes = vec![0; 4096];
        let mut at = 0;
        let header = vec!["a".to_owned(), "b".to_owned(), "c".to_owned()];
        for record in std::iter::once(&header).chain(&rows) {
            for (n, field) in record.iter().enumerate() {
                if n > 0 {
                    at += writer.delimiter(&mut bytes[at..]).1;
                }
                let (_, read, wrote) = writer.field(field.as_bytes(), &mut bytes[at..]);
                prop_assert_eq!(read, field.len());
                at += wrote;
            }
            at += writer.terminator(&mut bytes[at..]).1;
        }
        bytes.truncate(at);
        let read = rest(&mut open(&bytes, Format::Csv), 5).unwrap();
        let expected: Vec<_> = rows.iter().map(|row| Ok(fields(json!({"a": row[0], "b": row[1], "c": row[2]})))).collect();
        prop_assert_eq!(read, expected);
    }
}
