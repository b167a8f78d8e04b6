//! Where the body of an answer ends (RFC 9112, 6.3 and 7.1).
//!
//! Invariant: a byte is given out only when it belongs to the body, and whatever the standard does not allow is an error, because
//! who guesses where a body ends may take a part of it for the next answer. Lines are bounded; trailers are passed over.

use bytes::{Buf, Bytes, BytesMut};

/// The longest line with the size of a chunk, extensions included.
const MAX_LINE: usize = 256;

/// The most bytes of trailers.
const MAX_TRAILERS: usize = 8 << 10;

/// Up to this size bytes are copied out, so that a small answer does not hold the buffer of its connection.
const COPIED: usize = 2 << 10;

/// How a body is framed, and what is left of it.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Framing {
    /// So many bytes.
    Length(u64),
    /// Chunks.
    Chunked(Chunks),
    /// Everything until the connection is closed.
    Close,
}

/// Where in the chunks.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Chunks {
    Size,
    /// Bytes that are left of this chunk.
    Data(u64),
    /// The line end behind a chunk.
    DataEnd,
    /// Bytes of trailers so far.
    Trailers(usize),
    Done,
}

/// What can be had from a buffer.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    Piece(Bytes),
    More,
    End,
}

impl Framing {
    pub(super) const fn is_over(&self) -> bool {
        matches!(self, Self::Length(0) | Self::Chunked(Chunks::Done))
    }

    /// The next piece of the body.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(super) fn next(&mut self, buffer: &mut BytesMut) -> Result<Step, &'static str> {
        match self {
            Self::Length(0) => Ok(Step::End),
            Self::Length(left) => Ok(take(buffer, left)),
            Self::Close if buffer.is_empty() => Ok(Step::More),
            Self::Close => {
                let mut endless = u64::MAX;
                Ok(take(buffer, &mut endless))
            }
            Self::Chunked(chunks) => chunks.next(buffer),
        }
    }
}

fn take(buffer: &mut BytesMut, left: &mut u64) -> Step {
    let count = buffer.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
    if count == 0 {
        return Step::More;
    }
    *left -= count as u64;
    if count > COPIED {
        return Step::Piece(buffer.split_to(count).freeze());
    }
    let bytes = Bytes::copy_from_slice(buffer.get(..count).unwrap_or_default());
    buffer.advance(count);
    Step::Piece(bytes)
}

impl Chunks {
    fn next(&mut self, buffer: &mut BytesMut) -> Result<Step, &'static str> {
        loop {
            match self {
                Self::Done => return Ok(Step::End),
                Self::Size => {
                    let Some(line) = line(buffer, MAX_LINE, "a chunk whose size does not end")? else { return Ok(Step::More) };
                    let size = size(&line)?;
                    *self = if size == 0 { Self::Trailers(0) } else { Self::Data(size) };
                }
                Self::Data(left) => {
                    let step = take(buffer, left);
                    if *left == 0 {
                        *self = Self::DataEnd;
                    }
                    return Ok(step);
                }
                Self::DataEnd => match buffer.get(..2) {
                    Some(b"\r\n") => {
                        buffer.advance(2);
                        *self = Self::Size;
                    }
                    Some(_) => return Err("a chunk that is longer than its size"),
                    None if buffer.first().is_some_and(|byte| *byte != b'\r') => return Err("a chunk that is longer than its size"),
                    None => return Ok(Step::More),
                },
                Self::Trailers(seen) => {
                    let Some(line) = line(buffer, MAX_TRAILERS - *seen, "trailers that are too long")? else { return Ok(Step::More) };
                    *seen += line.len() + 2;
                    if line.is_empty() {
                        *self = Self::Done;
                    } else if *seen > MAX_TRAILERS {
                        return Err("trailers that are too long");
                    }
                }
            }
        }
    }
}

/// The next line, without its end.
fn line(buffer: &mut BytesMut, max: usize, too_long: &'static str) -> Result<Option<BytesMut>, &'static str> {
    let Some(end) = buffer.iter().take(max).position(|byte| *byte == b'\n') else {
        return if buffer.len() >= max { Err(too_long) } else { Ok(None) };
    };
    let mut line = buffer.split_to(end + 1);
    line.truncate(end);
    if line.last() != Some(&b'\r') {
        return Err("a line of a chunked body that does not end in CRLF");
    }
    line.truncate(end - 1);
    if line.iter().any(|byte| *byte != b'\t' && byte.is_ascii_control()) {
        return Err("a control character in a chunked body's line");
    }
    Ok(Some(line))
}

/// The size of a chunk; extensions are passed over.
fn size(line: &[u8]) -> Result<u64, &'static str> {
    let digits = line.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
    let (number, extension) = line.split_at(digits);
    let extension = extension.trim_ascii_start();
    if digits == 0 || digits > 16 || !(extension.is_empty() || extension.starts_with(b";")) {
        return Err("a chunk whose size is not a number");
    }
    let text = std::str::from_utf8(number).unwrap_or_default();
    u64::from_str_radix(text, 16).map_err(|_| "a chunk whose size is not a number")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(mut framing: Framing, bytes: &[u8], step: usize) -> Result<(Vec<u8>, bool, usize), &'static str> {
        let (mut buffer, mut body) = (BytesMut::new(), Vec::new());
        let mut parts = bytes.chunks(step.max(1));
        loop {
            match framing.next(&mut buffer)? {
                Step::Piece(piece) => body.extend_from_slice(&piece),
                Step::End => return Ok((body, true, buffer.len())),
                Step::More => match parts.next() {
                    Some(part) => buffer.extend_from_slice(part),
                    None => return Ok((body, false, buffer.len())),
                },
            }
        }
    }

    fn chunked(bytes: &[u8]) -> Result<(Vec<u8>, bool, usize), &'static str> {
        let whole = read(Framing::Chunked(Chunks::Size), bytes, usize::MAX);
        let bytewise = read(Framing::Chunked(Chunks::Size), bytes, 1);
        assert_eq!(whole.clone().map(|read| (read.0, read.1)), bytewise.map(|read| (read.0, read.1)), "however it arrives");
        whole
    }

    #[test]
    fn well_formed_bodies() {
        assert_eq!(read(Framing::Length(3), b"abcdef", 6), Ok((b"abc".to_vec(), true, 3)));
        assert_eq!(read(Framing::Length(9), b"abcdef", 4), Ok((b"abcdef".to_vec(), false, 0)));
        assert_eq!(read(Framing::Close, b"abcdef", 4), Ok((b"abcdef".to_vec(), false, 0)));
        for (bytes, body) in [
            (&b"0\r\n\r\n"[..], &b""[..]),
            (b"3\r\nabc\r\n0\r\n\r\n", b"abc"),
            (b"3;x=y\r\nabc\r\n000A ; z\r\n0123456789\r\n0\r\nx: y\r\nz: w\r\n\r\n", b"abc0123456789"),
        ] {
            assert_eq!(chunked(bytes), Ok((body.to_vec(), true, 0)));
        }
        assert!(!chunked(b"3\r\nabc\r\n").unwrap().1);
    }

    #[test]
    fn anything_else_is_an_error() {
        for bytes in [
            &b"\r\n"[..],
            b"x\r\n",
            b"-1\r\n",
            b"+1\r\n",
            b" 1\r\n",
            b"0x1\r\n",
            b"1\nabc",
            b"1 2\r\n",
            b"11111111111111111\r\n",
            b"1\r\nab\r\n",
            b"1\r\na\n",
            b"1\r\nax",
            b"1;\x00\r\n",
            b"0\r\nx: y\n\r\n",
            b"0\r\nx: \x01\r\n\r\n",
            b"1\r\r\na\r\n",
        ] {
            assert!(chunked(bytes).is_err(), "{}", bytes.escape_ascii());
        }
        assert!(chunked(&[b'0'; 300]).is_err());
        assert!(chunked(&[&b"0\r\n"[..], &b"a: b\r\n".repeat(3000)].concat()).is_err());
        assert!(chunked(&[&b"0\r\n"[..], &[b'a'; 9000]].concat()).is_err());
    }

    proptest! {
        #[test]
        fn what_is_chunked_comes_back(pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..5000), 0..8), step in 1usize..7000) {
            let mut wire = Vec::new();
            for piece in &pieces {
                wire.extend_from_slice(format!("{:X}\r\n", piece.len()).as_bytes());
                wire.extend_from_slice(piece);
                wire.extend_from_slice(b"\r\n");
            }
            wire.extend_from_slice(b"0\r\n\r\n");
            prop_assert_eq!(read(Framing::Chunked(Chunks::Size), &wire, step), Ok((pieces.concat(), true, 0)));
        }

        #[test]
        fn nothing_panics(bytes in prop::collection::vec(any::<u8>(), 0..600), step in 1usize..50) {
            let _ = read(Framing::Chunked(Chunks::Size), &bytes, step);
        }
    }
}
