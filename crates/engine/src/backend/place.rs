//! Where a backend may put its outputs so that nobody has to copy them again.
//!
//! A runner's lane hands in the area that the node has set aside. Invariant: no two outputs of one execution overlap, and
//! what has been put here stays until the answer has gone.
#![allow(unsafe_code, reason = "the area is memory shared with the node, reached through a pointer")]

use bytes::Bytes;

/// Outputs begin at multiples of this.
pub(crate) const ALIGNMENT: usize = 64;

/// An area for the outputs of one execution; it may be empty.
#[derive(Debug)]
pub struct OutputPlace {
    base: *mut u8,
    length: usize,
    used: usize,
    rows: Option<u64>,
}

/// A part of an [`OutputPlace`], to be written before it is turned into bytes.
#[derive(Debug)]
pub struct Slot {
    at: *mut u8,
    length: usize,
}

impl OutputPlace {
    /// No area: every output is in memory of the backend's own. `rows` as in [`OutputPlace::rows`].
    #[must_use]
    pub const fn none(rows: Option<u64>) -> Self {
        Self { base: std::ptr::null_mut(), length: 0, used: 0, rows }
    }

    /// An area at `base`.
    ///
    /// # Safety
    /// `length` bytes at `base` are writable, nobody else in this process uses them, and they are never unmapped.
    pub(crate) const unsafe fn new(base: *mut u8, length: usize, rows: Option<u64>) -> Self {
        Self { base, length, used: 0, rows }
    }

    /// The size of the batch, where the first dimension of inputs and outputs is the batch dimension.
    #[must_use]
    pub const fn rows(&self) -> Option<u64> {
        self.rows
    }

    /// Sets `length` bytes aside for one output; `None` when there is no room.
    pub fn slot(&mut self, length: usize) -> Option<Slot> {
        let start = self.used.checked_next_multiple_of(ALIGNMENT)?;
        let end = start.checked_add(length).filter(|end| *end <= self.length)?;
        self.used = end;
        // SAFETY: `start` is within the area.
        Some(Slot { at: unsafe { self.base.add(start) }, length })
    }

    /// Gives all slots back, for a second try. None of them may be used any more.
    pub(crate) const fn clear(&mut self) {
        self.used = 0;
    }

    /// The whole area, for a backend that is hostile on purpose.
    pub(crate) fn area(&self) -> (usize, usize) {
        (self.base.expose_provenance(), self.length)
    }

    /// Where in the area these bytes lie; `None` when they lie elsewhere.
    pub(crate) fn offset_of(&self, data: &[u8]) -> Option<usize> {
        let offset = data.as_ptr().addr().checked_sub(self.base.addr())?;
        (!self.base.is_null() && offset.checked_add(data.len())? <= self.used).then_some(offset)
    }

    /// Copies bytes into the area; `None` when there is no room.
    pub(crate) fn put(&mut self, data: &[u8]) -> Option<usize> {
        let slot = self.slot(data.len())?;
        let offset = slot.at.addr() - self.base.addr();
        drop(slot.fill(data));
        Some(offset)
    }
}

impl Slot {
    /// Where it begins; `length` bytes from there may be written until [`Slot::done`].
    pub(crate) const fn as_ptr(&self) -> *mut u8 {
        self.at
    }

    /// Copies `data`, which is as long as the slot or shorter, and answers it in place.
    #[must_use]
    pub fn fill(self, data: &[u8]) -> Bytes {
        let length = data.len().min(self.length);
        // SAFETY: the slot is this value's own for `length` bytes; `data` is not in it, because nobody has its bytes.
        unsafe { std::ptr::copy_nonoverlapping(data.as_ptr(), self.at, length) };
        Self { at: self.at, length }.done()
    }

    /// What was written, in place.
    pub(crate) fn done(self) -> Bytes {
        // SAFETY: the memory is never unmapped (a promise of `OutputPlace::new`), and nobody writes here again before the
        // answer has gone and these bytes with it: the slot is spent, and slots do not overlap.
        Bytes::from_static(unsafe { std::slice::from_raw_parts(self.at, self.length) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_aligned_and_apart() {
        let area: &'static mut [u8] = Box::leak(vec![0; 300].into_boxed_slice());
        // SAFETY: leaked, and used by nobody else.
        let mut place = unsafe { OutputPlace::new(area.as_mut_ptr(), 300, Some(2)) };
        assert_eq!(place.put(b"abc"), Some(0));
        let bytes = place.slot(5).unwrap().fill(b"defgh");
        assert_eq!((place.offset_of(&bytes), &bytes[..]), (Some(64), &b"defgh"[..]));
        assert_eq!(place.offset_of(b"elsewhere"), None);
        assert!(place.slot(173).is_none() && place.slot(usize::MAX).is_none());
        assert!(place.slot(172).is_some() && place.slot(1).is_none());
        place.clear();
        assert!(place.slot(300).is_some());
        assert!(OutputPlace::none(None).slot(1).is_none());
    }
}
