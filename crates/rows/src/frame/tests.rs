//! The framer against a plain reading of the same rules, in buffers of every size.

use super::*;
use proptest::prelude::*;

/// Gives at most so many bytes for each read.
struct Drip<'a>(&'a [u8], usize);

impl Read for Drip<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.0.len().min(self.1).min(buffer.len());
        buffer[..n].copy_from_slice(&self.0[..n]);
        self.0 = &self.0[n..];
        Ok(n)
    }
}

/// The records (`None` for a bad one), each with its line and the offset behind it.
fn frames(bytes: &[u8], csv: bool, drip: usize, max: usize) -> Vec<(Option<Vec<u8>>, u64, u64)> {
    let mut framer = Framer::new(Drip(bytes, drip), csv, max, 0, 1);
    let mut out = Vec::new();
    while let Some(frame) = framer.next().unwrap() {
        assert!(framer.buffer.len() <= 4 * (max + CHUNK), "the buffer grew to {}", framer.buffer.len());
        out.push(match frame {
            Frame::Record { range, line, .. } => (Some(framer.bytes(&range).to_vec()), line, framer.offset()),
            Frame::Bad { line, .. } => (None, line, framer.offset()),
        });
    }
    assert_eq!(framer.offset(), bytes.len() as u64);
    out
}

/// The same rules, a byte at a time.
fn plainly(bytes: &[u8], max: usize) -> Vec<(Option<Vec<u8>>, u64, u64)> {
    let (mut out, mut start, mut line) = (Vec::new(), 0, 1);
    while start < bytes.len() {
        let (mut i, mut quoted, mut broken, mut field_start) = (start, false, false, true);
        while i < bytes.len() && (quoted || bytes[i] != b'\n') {
            match bytes[i] {
                _ if broken => {}
                b'"' if quoted && bytes.get(i + 1) == Some(&b'"') => i += 1,
                b'"' if quoted => {
                    quoted = false;
                    let rest = &bytes[i + 1..];
                    broken = !(rest.is_empty() || rest == b"\r" || rest[0] == b',' || rest[0] == b'\n' || rest.starts_with(b"\r\n"));
                }
                b'"' if field_start => quoted = true,
                b',' if !quoted => {
                    field_start = true;
                    i += 1;
                    continue;
                }
                _ => {}
            }
            field_start = false;
            i += 1;
        }
        let i = i.min(bytes.len());
        let text = bytes[start..i].strip_suffix(b"\r").unwrap_or(&bytes[start..i]);
        let next = (i + 1).min(bytes.len());
        let record = (!quoted && !broken && text.len() <= max).then(|| text.to_vec());
        out.push((record, line, next as u64));
        line += bytes[start..next].iter().filter(|b| **b == b'\n').count() as u64;
        start = next;
    }
    out
}

fn csv_like() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        4 => Just(b"\"".to_vec()),
        3 => Just(b",".to_vec()),
        3 => Just(b"\n".to_vec()),
        1 => Just(b"\r\n".to_vec()),
        1 => Just(b"\r".to_vec()),
        3 => Just(b"ab".to_vec()),
        1 => proptest::collection::vec(any::<u8>(), 0..4),
    ];
    proptest::collection::vec(piece, 0..40).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn csv_is_cut_by_its_rules_whatever_the_reads(bytes in csv_like(), drip in 1_usize..9, max in 3_usize..40) {
        prop_assert_eq!(frames(&bytes, true, drip, max), plainly(&bytes, max));
        prop_assert_eq!(frames(&bytes, true, 1 << 20, 1 << 20), plainly(&bytes, 1 << 20));
    }

    #[test]
    fn lines_are_cut_at_line_ends(bytes in csv_like(), drip in 1_usize..9, max in 3_usize..40) {
        let lines: Vec<Option<Vec<u8>>> = bytes
            .split_inclusive(|b| *b == b'\n')
            .map(|line| line.strip_suffix(b"\n").unwrap_or(line))
            .map(|line| line.strip_suffix(b"\r").unwrap_or(line).to_vec())
            .map(|line| (line.len() <= max).then_some(line))
            .collect();
        let got: Vec<Option<Vec<u8>>> = frames(&bytes, false, drip, max).into_iter().map(|(record, ..)| record).collect();
        prop_assert_eq!(got, lines);
    }
}

#[test]
fn a_line_of_ten_megabytes_is_passed_over() {
    let mut bytes = vec![b'x'; 10 << 20];
    bytes.extend_from_slice(b"\nok\n");
    for csv in [false, true] {
        let got = frames(&bytes, csv, 1 << 16, 1 << 10);
        assert_eq!(got[0], (None, 1, (10 << 20) + 1));
        assert_eq!(got[1].0.as_deref(), Some(&b"ok"[..]));
        assert_eq!(got[1].1, 2);
    }
}

#[test]
fn a_forgotten_quote_ends_at_the_next_one_and_joins_nothing() {
    let got = frames(b"a,\"b\nc,d\ne,\"f\"\ng,h\n", true, 100, 100);
    let records: Vec<_> = got.iter().map(|(record, line, _)| (record.is_some(), *line)).collect();
    assert_eq!(records, [(false, 1), (true, 4)]);
}

#[test]
fn a_failed_read_stays_failed_and_moves_nothing() {
    struct Fails(usize);
    impl Read for Fails {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            self.0 += 1;
            match self.0 {
                1 => Err(io::ErrorKind::Interrupted.into()),
                2 => {
                    buffer[..4].copy_from_slice(b"1\n22");
                    Ok(4)
                }
                _ => Err(io::Error::other("gone")),
            }
        }
    }
    let mut framer = Framer::new(Fails(0), false, 100, 0, 1);
    assert!(matches!(framer.next(), Ok(Some(Frame::Record { .. }))));
    for _ in 0..3 {
        assert_eq!(framer.next().unwrap_err().to_string(), "gone");
        assert_eq!((framer.offset(), framer.line()), (2, 2));
    }
}
