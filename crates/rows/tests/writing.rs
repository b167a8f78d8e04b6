//! Output rows are in order, one for each input row, and the same bytes however often the run was cut off.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

mod support;

use plinth_rows::{Columns, Element, Format, Limits, Output, RowError, Values, Writer, write_parquet};
use proptest::prelude::*;
use serde_json::json;
use support::{open, rest};

fn outputs() -> Vec<Output> {
    vec![Output::new("p", Element::F32, 2), Output::new("label", Element::Text, 1), Output::new("n", Element::U8, 1)]
}

fn rows(first_row: u64, count: usize) -> Columns {
    let numbers = || (0..count).map(|n| first_row + n as u64);
    let error = |row| RowError { row, line: None, text: format!("bad, \"{row}\"") };
    Columns {
        first_row,
        rows: count,
        values: vec![
            Values::F32(numbers().flat_map(|n| [n as f32 / 10.0, if n % 4 == 1 { f32::NAN } else { 1e-9 }]).collect()),
            Values::Text(numbers().map(|n| format!("l,{n}")).collect()),
            Values::U8(numbers().map(|n| n as u8).collect()),
        ],
        errors: numbers().filter(|n| n % 5 == 3).map(error).collect(),
    }
}

#[test]
fn what_is_written() {
    let mut lines = Writer::new(Vec::new(), Format::JsonLines, outputs()).unwrap();
    lines.write_columns(&rows(1, 3)).unwrap();
    let expected = "{\"row\":1,\"p\":[0.1,\"NaN\"],\"label\":\"l,1\",\"n\":1}\n{\"row\":2,\"p\":[0.2,1e-9],\"label\":\"l,2\",\"n\":2}\n{\"row\":3,\"error\":\"bad, \\\"3\\\"\"}\n";
    assert_eq!(lines.position(), 0);
    assert_eq!(lines.flush().unwrap(), expected.len() as u64);
    assert_eq!(String::from_utf8(lines.finish().unwrap()).unwrap(), expected);
    let mut csv = Writer::new(Vec::new(), Format::Csv, outputs()).unwrap();
    csv.write_columns(&rows(1, 3)).unwrap();
    csv.write_row(9, Ok(json!({"p": [1, 2], "n": 7}).as_object().unwrap())).unwrap();
    let expected = "row,p_0,p_1,label,n,error\n1,0.1,NaN,\"l,1\",1,\n2,0.2,1e-9,\"l,2\",2,\n3,,,,,\"bad, \"\"3\"\"\"\n9,1,2,,7,\n";
    assert_eq!(String::from_utf8(csv.finish().unwrap()).unwrap(), expected);
}

#[test]
fn what_does_not_fit_is_refused() {
    let names = |names: &[&str]| names.iter().map(|name| Output::new(*name, Element::F32, 1)).collect::<Vec<_>>();
    for wrong in [names(&["row"]), names(&["error"]), names(&["a", "a"])] {
        assert!(Writer::new(Vec::new(), Format::JsonLines, wrong).is_err());
    }
    assert!(Writer::new(Vec::new(), Format::Parquet, outputs()).is_err());
    let mut writer = Writer::new(Vec::new(), Format::JsonLines, outputs()).unwrap();
    writer.write_columns(&rows(0, 2)).unwrap();
    assert!(writer.write_columns(&rows(1, 2)).is_err(), "a row twice");
    assert!(writer.write_columns(&Columns { rows: 3, ..rows(2, 2) }).is_err(), "buffers that are too short");
    assert!(writer.write_row(2, Ok(json!({"error": 1}).as_object().unwrap())).is_err());
    writer.write_columns(&rows(2, 2)).unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn a_killed_run_ends_with_the_same_bytes(cuts in proptest::collection::vec((1_usize..6, 0_usize..40), 1..8), csv: bool) {
        let format = if csv { Format::Csv } else { Format::JsonLines };
        let total: usize = cuts.iter().map(|(rows, _)| rows).sum();
        let mut whole = Writer::new(Vec::new(), format, outputs()).unwrap();
        whole.write_columns(&rows(0, total)).unwrap();
        let whole = whole.finish().unwrap();
        let (mut kept, mut position, mut row) = (Vec::new(), 0, 0);
        for (count, torn) in cuts {
            let mut writer = Writer::resume(std::mem::take(&mut kept), format, outputs(), position).unwrap();
            writer.write_columns(&rows(row, count)).unwrap();
            position = writer.flush().unwrap();
            row += count as u64;
            // More was written and is torn off at any byte; then the run is killed.
            writer.write_columns(&rows(row, 3)).unwrap();
            kept = writer.finish().unwrap();
            kept.truncate(position as usize + torn);
            kept.truncate(position as usize);
        }
        prop_assert_eq!(kept, whole);
    }
}

#[test]
fn parquet_is_made_of_the_lines_and_reads_back() {
    let mut writer = Writer::new(Vec::new(), Format::JsonLines, outputs()).unwrap();
    writer.write_columns(&rows(0, 50)).unwrap();
    let lines = writer.finish().unwrap();
    let make = || {
        let mut file = Vec::new();
        assert_eq!(write_parquet(&lines[..], &mut file, &outputs(), &Limits::default()).unwrap(), 50);
        file
    };
    let file = make();
    assert_eq!(file, make());
    let read = rest(&mut open(&file, Format::Parquet), 7).unwrap();
    assert_eq!(read.len(), 50);
    let plinth_rows::Row::Fields(second) = read[2].clone().unwrap() else { panic!("no fields") };
    assert_eq!(serde_json::Value::Object(second), json!({"row": 2, "p": [0.2, 1e-9], "label": "l,2", "n": 2, "error": null}));
    let plinth_rows::Row::Fields(third) = read[3].clone().unwrap() else { panic!("no fields") };
    assert_eq!(serde_json::Value::Object(third), json!({"row": 3, "p": null, "label": null, "n": null, "error": "bad, \"3\""}));
    // NaN is a number in Parquet; as JSON it is an error of its row.
    assert!(read[1].as_ref().unwrap_err().text.contains("NaN is not finite"));
    assert!(write_parquet(&b"{\"row\":1,\"other\":2}\n"[..], Vec::new(), &outputs(), &Limits::default()).is_err());
}
