//! Which areas of a region are free, and how much of it was used lately. Pure.
//!
//! The lowest area that fits is given out, so that memory which is in place is used again before new memory is taken, and
//! what is not needed lies at the end. Invariants: free areas do not touch or overlap; free and taken add up to the size.

use std::collections::BTreeMap;

#[derive(Debug)]
pub(super) struct Book {
    size: u64,
    used: u64,
    /// Free areas: where, how long.
    free: BTreeMap<u64, u64>,
    /// Past this no memory is in place.
    touched: u64,
    /// The highest ends of areas given out in this window and in the one before.
    peaks: [u64; 2],
}

impl Book {
    pub(super) fn new(size: u64) -> Self {
        Self { size, used: 0, free: BTreeMap::from([(0, size)]), touched: 0, peaks: [0; 2] }
    }

    pub(super) const fn size(&self) -> u64 {
        self.size
    }

    pub(super) const fn used(&self) -> u64 {
        self.used
    }

    pub(super) const fn touched(&self) -> u64 {
        self.touched
    }

    pub(super) fn allocate(&mut self, length: u64) -> Option<u64> {
        let (offset, free) = self.free.iter().find(|(_, free)| **free >= length).map(|(offset, free)| (*offset, *free))?;
        self.free.remove(&offset);
        if free > length {
            self.free.insert(offset + length, free - length);
        }
        let end = offset + length;
        self.used += length;
        self.touched = self.touched.max(end);
        self.peaks[0] = self.peaks[0].max(end);
        Some(offset)
    }

    pub(super) fn release(&mut self, offset: u64, length: u64) {
        self.used -= length;
        // What is in use until now was used lately.
        self.peaks[0] = self.peaks[0].max(offset + length);
        self.put_back(offset, length);
    }

    fn put_back(&mut self, mut offset: u64, mut length: u64) {
        if let Some((before, free)) = self.free.range(..offset).next_back().map(|(o, l)| (*o, *l))
            && before + free == offset
        {
            self.free.remove(&before);
            (offset, length) = (before, length + free);
        }
        if let Some(after) = self.free.remove(&(offset + length)) {
            length += after;
        }
        self.free.insert(offset, length);
    }

    /// A new window begins.
    pub(super) fn next_window(&mut self) {
        self.peaks = [0, self.peaks[0]];
    }

    /// Takes an area of at most `most` bytes that may be in place and was not used lately, or says that there is none.
    /// It lies at the end of what is in place, past the first `kept` bytes.
    pub(super) fn take_untouched(&mut self, kept: u64, most: u64) -> Option<(u64, u64)> {
        let floor = self.peaks[0].max(self.peaks[1]).max(kept);
        let (free, length) = self.free.range(..self.touched).next_back().map(|(o, l)| (*o, *l))?;
        let end = (free + length).min(self.touched);
        // Something in use lies at the very end, and its time will come.
        if end < self.touched || end <= floor {
            return None;
        }
        let start = free.max(floor).max(end.saturating_sub(most));
        self.free.remove(&free);
        for (from, to) in [(free, start), (end, free + length)] {
            if to > from {
                self.free.insert(from, to - from);
            }
        }
        self.used += end - start;
        Some((start, end - start))
    }

    /// Gives an area back of which nothing is in place any more. It is the last one that was.
    pub(super) fn release_clean(&mut self, offset: u64, length: u64) {
        self.used -= length;
        if self.touched == offset + length {
            self.touched = offset;
        }
        self.put_back(offset, length);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    impl Book {
        fn check(&self, taken: &[(u64, u64)]) {
            let mut all: Vec<(u64, u64, bool)> = self.free.iter().map(|(o, l)| (*o, *l, true)).collect();
            all.extend(taken.iter().map(|(o, l)| (*o, *l, false)));
            all.sort_unstable();
            let mut at = 0;
            let mut was_free = false;
            for (offset, length, free) in all {
                assert_eq!(offset, at, "no gap and no overlap");
                assert!(length > 0 && !(free && was_free), "free areas are merged");
                (at, was_free) = (offset + length, free);
            }
            assert_eq!(at, self.size);
            assert_eq!(self.used, taken.iter().map(|(_, l)| l).sum::<u64>());
            assert!(taken.iter().all(|(o, l)| o + l <= self.touched));
        }
    }

    proptest! {
        #[test]
        fn every_byte_is_free_or_taken_once(steps in proptest::collection::vec((0u8..4, 1u64..40, any::<prop::sample::Index>()), 0..200)) {
            let mut book = Book::new(100);
            let mut taken: Vec<(u64, u64)> = Vec::new();
            for (step, length, which) in steps {
                match step {
                    0 | 1 => {
                        if let Some(offset) = book.allocate(length) {
                            taken.push((offset, length));
                        }
                    }
                    2 if !taken.is_empty() => {
                        let (offset, length) = taken.swap_remove(which.index(taken.len()));
                        book.release(offset, length);
                    }
                    2 => book.next_window(),
                    _ => {
                        book.next_window();
                        while let Some((offset, length)) = book.take_untouched(5, 7) {
                            prop_assert!(length <= 7 && offset >= 5);
                            book.check(&[&taken[..], &[(offset, length)]].concat());
                            book.release_clean(offset, length);
                        }
                    }
                }
                book.check(&taken);
            }
        }
    }

    #[test]
    fn what_was_used_lately_is_kept() {
        let mut book = Book::new(100);
        let (a, b) = (book.allocate(40).unwrap(), book.allocate(40).unwrap());
        book.release(b, 40);
        assert_eq!(book.take_untouched(10, 100), None, "this window");
        book.next_window();
        assert_eq!(book.take_untouched(10, 100), None, "the one before");
        book.next_window();
        assert_eq!(book.take_untouched(10, 30), Some((50, 30)));
        book.release_clean(50, 30);
        assert_eq!(book.take_untouched(10, 100), Some((40, 10)));
        book.release_clean(40, 10);
        assert_eq!(book.touched(), 40);
        book.release(a, 40);
        book.next_window();
        book.next_window();
        assert_eq!(book.take_untouched(10, 100), Some((10, 30)));
        book.release_clean(10, 30);
        assert_eq!((book.touched(), book.allocate(100)), (10, Some(0)));
    }
}
