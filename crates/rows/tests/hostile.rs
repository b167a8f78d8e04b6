//! Whatever a file holds, it is read or refused: no panic, no row lost without an error, and no memory beyond the limits.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

mod support;

use parquet::basic::Compression as Codec;
use plinth_rows::{Column, Compression, Element, Format, Limits, Reader, RowsError};
use proptest::prelude::*;
use support::{errors, open, parquet_file, rest, rest_columns, seek};

fn refused(bytes: &[u8], format: Format) -> String {
    Reader::open(seek(bytes), format, Compression::None, Limits::default()).err().unwrap().to_string()
}

#[test]
fn a_long_line_is_one_error() {
    let text = format!("[1]\n[\"{}\"]\n[2]\n", "x".repeat(10 << 20));
    let rows = rest(&mut open(text.as_bytes(), Format::JsonLines), 10).unwrap();
    assert_eq!(rows.len(), 3);
    assert_eq!(errors(&rows), ["row 1 (line 2): the row is longer than 1048576 bytes"]);
}

#[test]
fn nesting_and_memory_are_bounded() {
    let deep = format!("{}{}\n[1]\n", "[".repeat(100_000), "]".repeat(100_000));
    let objects = format!("[{}0]\n", "{\"a\":0},".repeat(100_000));
    for (text, why) in [(deep, "nested too deeply"), (objects, "bytes of memory")] {
        let rows = rest(&mut open(text.as_bytes(), Format::JsonLines), 10).unwrap();
        assert!(errors(&rows)[0].contains(why), "{:?}", errors(&rows));
    }
    // A field that nobody asked for may be as deep as it likes: it is passed over without recursion.
    let text = format!("{{\"y\":{}{},\"x\":1}}\n", "[".repeat(100_000), "]".repeat(100_000));
    let spec = [Column::new("x", Element::F32, 1)];
    let all = rest_columns(&mut open(text.as_bytes(), Format::JsonLines), &spec, 10).unwrap();
    assert_eq!(all[0].rows, 1);
}

#[test]
fn what_is_no_text_and_what_has_no_header() {
    assert!(refused(b"\xff\xfea\0,\0", Format::Csv).contains("UTF-16"));
    assert!(refused(b"", Format::Csv).contains("it is empty"));
    assert!(refused(b"a,b,a\n", Format::Csv).contains("the column \"a\" twice"));
    assert!(refused(b"a,\xff\n", Format::Csv).contains("field 2 is not UTF-8"));
    assert!(refused(b"\"a\n1\n2\n", Format::Csv).contains("not closed"));
    assert!(refused(&[b','; 20_000], Format::Csv).contains("20001 columns"));
    assert!(open(b"", Format::JsonLines).next_batch(1, 1).unwrap().is_none());
    let rows = rest(&mut open(b"{\"a\":\"\0\"}\n\xff\n{\"a\":\"\xff\"}\n", Format::JsonLines), 9).unwrap();
    assert_eq!(errors(&rows).len(), 3);
}

#[test]
fn unpacking_ends_at_its_limit() {
    let packed = zstd::bulk::compress(&vec![b'\n'; 8 << 20], 1).unwrap();
    let limits = Limits { max_unpacked_bytes: 1 << 20, ..Limits::default() };
    let mut reader = Reader::open(seek(&packed), Format::JsonLines, Compression::Zstd, limits).unwrap();
    let error = reader.next_batch(1, 1).unwrap_err();
    assert!(error.to_string().contains("max_unpacked_bytes"), "{error}");
}

#[test]
fn a_lying_footer() {
    let good = parquet_file(20, 7, Codec::SNAPPY);
    let length_at = good.len() - 8;
    let with_length = |length: u32| {
        let mut bytes = good.clone();
        bytes[length_at..length_at + 4].copy_from_slice(&length.to_le_bytes());
        refused(&bytes, Format::Parquet)
    };
    assert!(with_length(u32::MAX).contains("longer than the file"));
    assert!(with_length(0).contains("cannot be read as parquet"));
    assert!(refused(&good[..good.len() - 1], Format::Parquet).contains("is it whole"));
    assert!(refused(b"PAR1", Format::Parquet).contains("too short"));
    let limits = Limits { max_footer_bytes: 10, ..Limits::default() };
    assert!(matches!(Reader::open(seek(&good), Format::Parquet, Compression::None, limits).err().unwrap(), RowsError::Limit(_)));
    let limits = Limits { max_page_bytes: 10, ..Limits::default() };
    let mut reader = Reader::open(seek(&good), Format::Parquet, Compression::None, limits).unwrap();
    assert!(reader.next_batch(1, 1).unwrap_err().to_string().contains("max_page_bytes"));
    let limits = Limits { max_list_elements: 10, ..Limits::default() };
    let mut reader = Reader::open(seek(&good), Format::Parquet, Compression::None, limits).unwrap();
    assert!(reader.next_batch(1, 1).unwrap_err().to_string().contains("max_list_elements"));
}

/// Reads all of it both ways. What is found does not matter.
fn read_both_ways(bytes: &[u8], format: Format) {
    let limits = Limits { max_row_bytes: 256, max_page_bytes: 1 << 20, max_list_elements: 1 << 16, ..Limits::default() };
    let spec = [Column::new("inputs", Element::F32, 3), Column::new("name", Element::Text, 1)];
    if let Ok(mut reader) = Reader::open(seek(bytes), format, Compression::None, limits) {
        while let Ok(Some(batch)) = reader.next_batch(7, 1 << 16) {
            assert!(batch.rows.len() <= 7);
        }
    }
    if let Ok(mut reader) = Reader::open(seek(bytes), format, Compression::None, limits) {
        while let Ok(Some(columns)) = reader.read_columns(&spec, 7) {
            assert!(columns.rows <= 7 && columns.values[0].len() == columns.rows * 3);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]
    #[test]
    fn any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        for format in Format::ALL {
            read_both_ways(&bytes, format);
        }
        let mut headed = b"name,inputs\n".to_vec();
        headed.extend_from_slice(&bytes);
        read_both_ways(&headed, Format::Csv);
    }

    #[test]
    fn a_parquet_file_with_wrong_bytes(changes in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 1..6), zstd: bool) {
        let codec = if zstd { Codec::ZSTD(Default::default()) } else { Codec::SNAPPY };
        let mut bytes = parquet_file(30, 13, codec);
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        read_both_ways(&bytes, Format::Parquet);
    }
}
