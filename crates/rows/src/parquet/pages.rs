//! Bytes and pages of a Parquet file, within bounds.
//!
//! Invariants: a page's header is looked at before the library reads it, and refused when the page is larger than allowed, packed
//! or unpacked; the pages that are held at once, and the elements of lists that are unpacked at once, are counted over all
//! columns ([`Meter`]). What remains beyond the count is one page.

use std::io::{self, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use ::parquet::column::page::{Page, PageMetadata, PageReader};
use ::parquet::errors::{ParquetError, Result};
use ::parquet::file::reader::{ChunkReader, Length, SerializedPageReader};
use bytes::Bytes;

use crate::source::Shared;

/// The longest header of a page, in bytes. Statistics inside may be as long as two values.
const MAX_HEADER: usize = 1 << 20;

/// What the columns of one cursor may take together. Counters only: nothing is ordered by them.
#[derive(Debug)]
pub(super) struct Meter {
    held: AtomicUsize,
    max_held: usize,
    elements: AtomicUsize,
    pub(super) max_page: usize,
}

impl Meter {
    pub(super) fn new(max_held: usize, max_page: usize) -> Self {
        Self { held: AtomicUsize::new(0), max_held, elements: AtomicUsize::new(0), max_page }
    }

    /// Allows so many elements of lists until it is called again.
    pub(super) fn allow_elements(&self, elements: usize) {
        self.elements.store(elements, Ordering::Relaxed);
    }

    fn take_elements(&self, elements: usize) -> Result<()> {
        let left = self.elements.load(Ordering::Relaxed).checked_sub(elements);
        let left = left.ok_or_else(|| refused("a few rows have more list elements than the limit max_list_elements allows"))?;
        self.elements.store(left, Ordering::Relaxed);
        Ok(())
    }

    fn replace(&self, before: usize, now: usize) -> Result<()> {
        let held = self.held.load(Ordering::Relaxed).saturating_sub(before).saturating_add(now);
        self.held.store(held, Ordering::Relaxed);
        if held > self.max_held { Err(refused("its pages take more memory than the limit max_pages_bytes allows")) } else { Ok(()) }
    }
}

fn refused(text: &str) -> ParquetError {
    ParquetError::General(text.to_owned())
}

/// The file, as the library reads it.
pub(super) struct Chunks {
    pub(super) shared: Shared,
    pub(super) max_page: usize,
}

impl Length for Chunks {
    fn len(&self) -> u64 {
        self.shared.size
    }
}

impl ChunkReader for Chunks {
    type T = HeaderRead;

    /// Only page headers are read this way.
    fn get_read(&self, start: u64) -> Result<Self::T> {
        Ok(HeaderRead { shared: self.shared.clone(), start, max_page: self.max_page, header: None, at: 0 })
    }

    fn get_bytes(&self, start: u64, length: usize) -> Result<Bytes> {
        let end = start.checked_add(length as u64);
        if length > self.max_page || end.is_none_or(|end| end > self.shared.size) {
            return Err(refused("a page is larger than allowed, or than the file"));
        }
        let mut buffer = vec![0; length];
        self.shared.read_from(start).read_exact(&mut buffer).map_err(|error| ParquetError::External(Box::new(error)))?;
        Ok(buffer.into())
    }
}

/// One page header, which is checked when its first byte is read.
pub(super) struct HeaderRead {
    shared: Shared,
    start: u64,
    max_page: usize,
    header: Option<Vec<u8>>,
    at: usize,
}

impl HeaderRead {
    fn load(&mut self) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        let mut want = 1 << 10;
        loop {
            let more = (want - bytes.len()) as u64;
            self.shared.read_from(self.start + bytes.len() as u64).take(more).read_to_end(&mut bytes)?;
            match page_sizes(&bytes) {
                Some(Ok((length, unpacked, packed))) => {
                    let fits = |size: i64| usize::try_from(size).is_ok_and(|size| size <= self.max_page);
                    if !fits(unpacked) || !fits(packed) {
                        return Err(invalid("a page is larger than the limit max_page_bytes allows"));
                    }
                    bytes.truncate(length);
                    return Ok(bytes);
                }
                Some(Err(())) => return Err(invalid("a page's header cannot be read")),
                None if bytes.len() < want || want >= MAX_HEADER => return Err(invalid("a page's header does not end")),
                None => want *= 16,
            }
        }
    }
}

fn invalid(text: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, text)
}

impl Read for HeaderRead {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let header = match self.header.take() {
            Some(header) => header,
            None => self.load()?,
        };
        let n = buffer.len().min(header.len() - self.at);
        buffer[..n].copy_from_slice(&header[self.at..self.at + n]);
        self.at += n;
        self.header = Some(header);
        Ok(n)
    }
}

/// The length of a page header, and the sizes that it gives (unpacked, packed). `None` when it goes on behind the bytes; an error
/// for what is no header, or says a size twice. Source: Thrift's compact protocol, and `PageHeader` in parquet.thrift.
fn page_sizes(bytes: &[u8]) -> Option<std::result::Result<(usize, i64, i64), ()>> {
    let mut walk = Walk { bytes, at: 0 };
    let (mut id, mut sizes) = (0_i64, [None; 2]);
    loop {
        let head = walk.byte()?;
        if head == 0 {
            let [Some(unpacked), Some(packed)] = sizes else { return Some(Err(())) };
            return Some(Ok((walk.at, unpacked, packed)));
        }
        id = match head >> 4 {
            0 => walk.zigzag()?,
            delta => id.wrapping_add(i64::from(delta)),
        };
        match (id, head & 15) {
            (2 | 3, 5) => {
                let size = &mut sizes[if id == 2 { 0 } else { 1 }];
                if size.replace(walk.zigzag()?).is_some() {
                    return Some(Err(()));
                }
            }
            (2 | 3, _) => return Some(Err(())),
            (_, kind) => {
                if walk.skip(kind, 8)?.is_err() {
                    return Some(Err(()));
                }
            }
        }
    }
}

/// Walks over Thrift values; every answer is `None` at the end of the bytes.
struct Walk<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Walk<'_> {
    fn byte(&mut self) -> Option<u8> {
        let byte = *self.bytes.get(self.at)?;
        self.at += 1;
        Some(byte)
    }

    fn varint(&mut self) -> Option<u64> {
        let mut value = 0_u64;
        for shift in (0..70).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f).checked_shl(shift).unwrap_or(0);
            if byte < 0x80 {
                break;
            }
        }
        Some(value)
    }

    fn zigzag(&mut self) -> Option<i64> {
        let value = self.varint()?;
        Some((value >> 1) as i64 ^ -((value & 1) as i64))
    }

    fn jump(&mut self, length: u64) -> Option<()> {
        let end = self.at.checked_add(usize::try_from(length).ok()?).filter(|end| *end <= self.bytes.len())?;
        self.at = end;
        Some(())
    }

    fn skip(&mut self, kind: u8, depth: u8) -> Option<std::result::Result<(), ()>> {
        match kind {
            1 | 2 => {}
            3 => self.jump(1)?,
            4..=6 => {
                self.varint()?;
            }
            7 => self.jump(8)?,
            8 => {
                let length = self.varint()?;
                self.jump(length)?;
            }
            12 if depth > 0 => loop {
                let head = self.byte()?;
                if head == 0 {
                    break;
                }
                if head >> 4 == 0 {
                    self.varint()?;
                }
                if self.skip(head & 15, depth - 1)?.is_err() {
                    return Some(Err(()));
                }
            },
            // Lists, sets and maps do not occur in page headers.
            _ => return Some(Err(())),
        }
        Some(Ok(()))
    }
}

/// The pages of one column, counted.
pub(super) struct BoundedPages {
    pub(super) pages: SerializedPageReader<Chunks>,
    pub(super) meter: Arc<Meter>,
    /// Whether the column has lists.
    pub(super) lists: bool,
    pub(super) held: usize,
}

impl Iterator for BoundedPages {
    type Item = Result<Page>;

    fn next(&mut self) -> Option<Self::Item> {
        self.get_next_page().transpose()
    }
}

impl PageReader for BoundedPages {
    fn get_next_page(&mut self) -> Result<Option<Page>> {
        let page = self.pages.get_next_page()?;
        if let Some(page) = &page {
            let size = page.buffer().len();
            if page.is_dictionary_page() {
                // Kept for the whole column; texts take as much again for where they are.
                self.meter.replace(0, size.saturating_mul(2))?;
            } else {
                self.meter.replace(self.held, size)?;
                self.held = size;
                if self.lists {
                    self.meter.take_elements(page.num_values() as usize)?;
                }
            }
        }
        Ok(page)
    }

    fn peek_next_page(&mut self) -> Result<Option<PageMetadata>> {
        self.pages.peek_next_page()
    }

    fn skip_next_page(&mut self) -> Result<()> {
        self.pages.skip_next_page()
    }

    fn at_record_boundary(&mut self) -> Result<bool> {
        self.pages.at_record_boundary()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_header_gives_its_sizes_once() {
        // type = 0, unpacked = 100, packed = 50, then a structure with one field.
        let good = [0x15, 0, 0x15, 200, 1, 0x15, 100, 0x2c, 0x15, 8, 0, 0, 99];
        assert_eq!(page_sizes(&good), Some(Ok((12, 100, 50))));
        assert_eq!(page_sizes(&good[..11]), None);
        // The unpacked size a second time, by its number.
        let twice = [0x15, 0, 0x15, 200, 1, 0x15, 100, 0x05, 4, 200, 1, 0];
        assert_eq!(page_sizes(&twice), Some(Err(())));
        assert_eq!(page_sizes(&[0]), Some(Err(())));
    }

    proptest! {
        #[test]
        fn any_bytes_are_walked_over(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = page_sizes(&bytes);
        }
    }
}
