//! Fields of CSV: splitting a record, and the header.
//!
//! Invariant: a record comes from [`crate::frame`], which has looked at its quotes. Text must be UTF-8 and hold no NUL, which is
//! how a file in another encoding shows.

use std::collections::HashMap;
use std::ops::Range;

use memchr::{memchr, memchr_iter};

use crate::error::excerpt;
use crate::{Format, Limits, RowsError};

/// The fields of one record; kept between records for its memory.
#[derive(Debug, Default)]
pub(crate) struct Fields {
    ranges: Vec<Range<usize>>,
    /// The fields without their quotes, when the record has any.
    plain: Vec<u8>,
    quotes: bool,
}

impl Fields {
    pub(crate) fn split(&mut self, record: &[u8], quotes: bool) {
        self.ranges.clear();
        self.quotes = quotes;
        if !quotes {
            let mut start = 0;
            self.ranges.extend(memchr_iter(b',', record).map(|comma| std::mem::replace(&mut start, comma + 1)..comma));
            self.ranges.push(start..record.len());
            return;
        }
        self.plain.clear();
        let mut rest = record;
        loop {
            let start = self.plain.len();
            let more = if rest.first() == Some(&b'"') { self.quoted(&mut rest) } else { self.unquoted(&mut rest) };
            self.ranges.push(start..self.plain.len());
            if !more {
                return;
            }
        }
    }

    /// Takes one field and the comma behind it; whether there was a comma.
    fn unquoted(&mut self, rest: &mut &[u8]) -> bool {
        let end = memchr(b',', rest).unwrap_or(rest.len());
        self.plain.extend_from_slice(&rest[..end]);
        let more = end < rest.len();
        *rest = &rest[(end + usize::from(more))..];
        more
    }

    fn quoted(&mut self, rest: &mut &[u8]) -> bool {
        *rest = &rest[1..];
        loop {
            let end = memchr(b'"', rest).unwrap_or(rest.len());
            self.plain.extend_from_slice(&rest[..end]);
            match rest.get(end + 1) {
                Some(b'"') => {
                    self.plain.push(b'"');
                    *rest = &rest[end + 2..];
                }
                Some(_) => {
                    *rest = &rest[end + 2..];
                    return true;
                }
                None => {
                    *rest = &[];
                    return false;
                }
            }
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.ranges.len()
    }

    /// A field's bytes; `record` is what was split.
    pub(crate) fn get<'a>(&'a self, record: &'a [u8], index: usize) -> &'a [u8] {
        let bytes = if self.quotes { &self.plain[..] } else { record };
        self.ranges.get(index).map_or(&[], |range| &bytes[range.clone()])
    }
}

/// A field as text.
pub(crate) fn text(field: &[u8]) -> Result<&str, &'static str> {
    if memchr(0, field).is_some() {
        return Err("holds a NUL byte; the file must be text in UTF-8");
    }
    std::str::from_utf8(field).map_err(|_| "is not UTF-8")
}

/// The names of the columns, each once.
#[derive(Debug)]
pub(crate) struct Header {
    pub(crate) names: Vec<String>,
    pub(crate) by_name: HashMap<String, usize>,
}

impl Header {
    pub(crate) fn parse(record: &[u8], quotes: bool, limits: &Limits) -> Result<Self, RowsError> {
        let mut fields = Fields::default();
        fields.split(record, quotes);
        if fields.len() > limits.max_columns {
            return Err(RowsError::Limit(format!("the header has {} columns, at most {} are read", fields.len(), limits.max_columns)));
        }
        let mut names = Vec::with_capacity(fields.len());
        for index in 0..fields.len() {
            let name = text(fields.get(record, index)).map_err(|why| malformed(format!("the header's field {} {why}", index + 1)))?;
            names.push(name.to_owned());
        }
        let mut by_name = HashMap::with_capacity(names.len());
        for (index, name) in names.iter().enumerate() {
            if by_name.insert(name.clone(), index).is_some() {
                return Err(malformed(format!("the header has the column \"{}\" twice; each name must be there once", excerpt(name))));
            }
        }
        Ok(Self { names, by_name })
    }
}

pub(crate) fn malformed(text: String) -> RowsError {
    RowsError::Malformed { format: Format::Csv, text }
}

/// Writes a field, in quotes where RFC 4180 asks for them.
pub(crate) fn write_field(out: &mut Vec<u8>, field: &str) {
    let bytes = field.as_bytes();
    if !bytes.iter().any(|b| matches!(b, b',' | b'"' | b'\n' | b'\r')) {
        out.extend_from_slice(bytes);
        return;
    }
    out.push(b'"');
    let mut start = 0;
    for quote in memchr_iter(b'"', bytes) {
        out.extend_from_slice(&bytes[start..=quote]);
        start = quote;
    }
    out.extend_from_slice(&bytes[start..]);
    out.push(b'"');
}
