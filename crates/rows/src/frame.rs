//! Cuts a stream into records: lines of JSON, records of CSV.
//!
//! Invariants: memory is bounded by the longest record that is allowed, whatever comes; a record that is too long is passed over
//! under the same rules, so that the next one begins where it would have begun; [`Framer::offset`] is where the next record
//! begins, also after a failed read.
//!
//! CSV (RFC 4180): a quoted field ends at a quote that is followed by a comma or the end of the line. A quote that is followed by
//! anything else breaks the record, which then ends with that line: so a quote that was forgotten costs the rows up to the next
//! quote, not the rest of the file, and never joins two rows into one without an error. A quote inside an unquoted field is a
//! character like others.

use std::io::{self, Read};
use std::ops::Range;

use memchr::{memchr, memchr_iter, memchr2};

const CHUNK: usize = 128 << 10;

/// One record. A range is of the framer's buffer and holds until the next call.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Frame {
    Record {
        range: Range<usize>,
        line: u64,
        /// Whether a field of it is quoted.
        quotes: bool,
    },
    Bad {
        line: u64,
        text: String,
    },
}

/// Where in a CSV record the scan stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
    FieldStart,
    Plain,
    Quoted,
    /// Behind a quote in a quoted field: its end, or the first half of two.
    Quote,
    /// Behind a quoted field and a CR.
    Return,
    Broken,
}

#[derive(Debug)]
struct Scan {
    at: At,
    quotes: bool,
}

impl Scan {
    /// The index of the LF that ends the record, if it is here. FieldStart → Plain | Quoted; Plain → FieldStart at a comma;
    /// Quoted → Quote at a quote; Quote → Quoted at a second one, FieldStart at a comma, Return at a CR, else Broken.
    fn csv(&mut self, bytes: &[u8]) -> Option<usize> {
        let mut i = 0;
        // Nearly every record is a line without a quote.
        if matches!(self.at, At::FieldStart | At::Plain)
            && let Some(end) = memchr(b'\n', bytes)
            && memchr(b'"', &bytes[..end]).is_none()
        {
            return Some(end);
        }
        loop {
            match self.at {
                At::FieldStart => {
                    if *bytes.get(i)? == b'"' {
                        (self.at, self.quotes) = (At::Quoted, true);
                        i += 1;
                    } else {
                        self.at = At::Plain;
                    }
                }
                At::Plain => {
                    i += memchr2(b',', b'\n', &bytes[i..])?;
                    if bytes[i] == b'\n' {
                        return Some(i);
                    }
                    self.at = At::FieldStart;
                    i += 1;
                }
                At::Quoted => {
                    i += memchr(b'"', &bytes[i..])? + 1;
                    self.at = At::Quote;
                }
                At::Quote => {
                    self.at = match *bytes.get(i)? {
                        b'"' => At::Quoted,
                        b',' => At::FieldStart,
                        b'\r' => At::Return,
                        b'\n' => return Some(i),
                        _ => At::Broken,
                    };
                    i += 1;
                }
                At::Return => match *bytes.get(i)? {
                    b'\n' => return Some(i),
                    _ => self.at = At::Broken,
                },
                At::Broken => return memchr(b'\n', &bytes[i..]).map(|n| i + n),
            }
        }
    }
}

pub(crate) struct Framer<R> {
    input: R,
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    /// Where the next record begins.
    offset: u64,
    line: u64,
    csv: bool,
    max: usize,
    failed: Option<(io::ErrorKind, String)>,
}

impl<R: Read> Framer<R> {
    /// A framer of bytes that begin at `offset` of the source, in `line` of it.
    pub(crate) fn new(input: R, csv: bool, max: usize, offset: u64, line: u64) -> Self {
        Self { input, buffer: vec![0; CHUNK], start: 0, end: 0, offset, line, csv, max, failed: None }
    }

    /// Passes over the byte order mark of UTF-8. False for one of UTF-16 or UTF-32.
    pub(crate) fn byte_order_mark(&mut self) -> io::Result<bool> {
        while self.end - self.start < 3 && self.fill()? {}
        let head = &self.buffer[self.start..self.end];
        if head.starts_with(&[0xef, 0xbb, 0xbf]) {
            self.start += 3;
            self.offset += 3;
        } else if head.starts_with(&[0xff, 0xfe]) || head.starts_with(&[0xfe, 0xff]) {
            return Ok(false);
        }
        Ok(true)
    }

    /// Goes on to a place behind this one, at which `line` begins. False when the source ends before it.
    pub(crate) fn skip_to(&mut self, offset: u64, line: u64) -> io::Result<bool> {
        loop {
            let ahead = offset.saturating_sub(self.offset);
            let here = (self.end - self.start) as u64;
            let step = ahead.min(here);
            self.start += step as usize; // at most what is in the buffer
            self.offset += step;
            if step == ahead {
                self.line = line;
                return Ok(true);
            }
            if !self.fill()? {
                return Ok(false);
            }
        }
    }

    /// The byte of the source at which the next record begins.
    pub(crate) fn offset(&self) -> u64 {
        self.offset
    }

    /// The line of the source in which the next record begins, counted from one.
    pub(crate) fn line(&self) -> u64 {
        self.line
    }

    pub(crate) fn bytes(&self, range: &Range<usize>) -> &[u8] {
        &self.buffer[range.clone()]
    }

    /// The next record, without its line end. `None` at the end, also for a last line that is empty.
    ///
    /// # Errors
    /// What reading says; the same again from then on.
    pub(crate) fn next(&mut self) -> io::Result<Option<Frame>> {
        let mut scan = Scan { at: At::FieldStart, quotes: false };
        let mut scanned = self.start;
        // Bytes and line ends of this record that are no longer in the buffer.
        let (mut dropped, mut lines) = (0_u64, 0_u64);
        let stop = loop {
            let fresh = &self.buffer[scanned..self.end];
            let found = if self.csv { scan.csv(fresh) } else { memchr(b'\n', fresh) };
            if let Some(n) = found {
                break Some(scanned + n);
            }
            if self.end - self.start > self.max.saturating_add(2) {
                lines += memchr_iter(b'\n', &self.buffer[self.start..self.end]).count() as u64;
                dropped += (self.end - self.start) as u64;
                (self.start, self.end) = (0, 0);
            }
            let kept = self.end - self.start;
            if !self.fill()? {
                break None;
            }
            scanned = self.start + kept;
        };
        if stop.is_none() && self.end == self.start && dropped == 0 {
            return Ok(None);
        }
        let line = self.line;
        let end = stop.unwrap_or(self.end);
        let mut range = self.start..end;
        lines += if dropped > 0 || scan.quotes { memchr_iter(b'\n', &self.buffer[range.clone()]).count() as u64 } else { 0 };
        let taken = stop.map_or(self.end, |stop| stop + 1);
        self.offset += dropped + (taken - self.start) as u64;
        self.line += lines + u64::from(stop.is_some());
        self.start = taken;
        if self.buffer[range.clone()].last() == Some(&b'\r') {
            range.end -= 1;
        }
        let text = if dropped > 0 || range.len() > self.max {
            let hint = if scan.quotes { "; is a quote missing?" } else { "" };
            format!("the row is longer than {} bytes{hint}", self.max)
        } else if scan.at == At::Broken {
            "a quoted field goes on after its closing quote; a quote inside a field is written twice".to_owned()
        } else if scan.at == At::Quoted {
            "a quoted field is not closed before the end of the file".to_owned()
        } else {
            return Ok(Some(Frame::Record { range, line, quotes: scan.quotes }));
        };
        Ok(Some(Frame::Bad { line, text }))
    }

    /// Reads more behind what is in the buffer, which may move. False at the end of the source.
    fn fill(&mut self) -> io::Result<bool> {
        if let Some((kind, text)) = &self.failed {
            return Err(io::Error::new(*kind, text.clone()));
        }
        if self.start > 0 {
            self.buffer.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
        if self.end == self.buffer.len() {
            self.buffer.resize(self.buffer.len() + CHUNK.max(self.end), 0);
        }
        loop {
            match self.input.read(&mut self.buffer[self.end..]) {
                Ok(n) => {
                    self.end += n;
                    return Ok(n > 0);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    self.failed = Some((error.kind(), error.to_string()));
                    return Err(error);
                }
            }
        }
    }
}

#[cfg(test)]
#[path = "frame/tests.rs"]
mod tests;
