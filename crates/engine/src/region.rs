//! The memory that the node shares with one runner, for the bytes of large inputs and outputs.
//!
//! The node makes it, and the node alone says what is where: its book of areas ([`book`]) lies in its private memory, and
//! a runner, which can write anywhere in the region, cannot write there. Invariants: the memory never changes its size
//! (it is sealed), so that nobody can make the other's access fault; an area is given to one batch at a time and comes
//! back when the last look at it ends; memory that was not needed lately goes back to the machine. What a runner has
//! written is looked at once: whoever needs it to stay as it was checked takes a copy first.

mod book;
mod memory;

use std::fmt;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::Notify;

use book::Book;
pub(crate) use memory::{Mapping, Whole};

/// Areas begin and end at pages, which can be given back one by one.
pub(crate) const PAGE: u64 = 4096;
/// Memory that is kept although nothing has used it lately.
const KEPT: u64 = 4 << 20;
/// Memory that was used in one of the last two of these is kept as well: what comes again soon finds it in place.
const WINDOW: Duration = Duration::from_secs(1);
/// At most so much is given back at once, because the kernel takes its time for each page.
const STEP: u64 = 16 << 20;

/// The node's view of a region.
pub(crate) struct Region {
    mapping: Mapping,
    fd: OwnedFd,
    book: Mutex<Book>,
    grown: Notify,
}

/// An area that nobody else has. Dropping it gives it back.
pub(crate) struct Extent {
    region: Arc<Region>,
    offset: u64,
    length: u64,
}

impl Region {
    /// A region with at least `size` bytes of address space and no memory yet.
    pub(crate) fn new(size: u64) -> io::Result<Arc<Self>> {
        let size = size.max(1).checked_next_multiple_of(PAGE).ok_or(io::ErrorKind::OutOfMemory)?;
        let fd = memory::create(size)?;
        let mapping = Mapping::of(&fd, size)?;
        Ok(Arc::new(Self { mapping, fd, book: Mutex::new(Book::new(size)), grown: Notify::new() }))
    }

    /// What the runner maps.
    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        use std::os::fd::AsFd;
        self.fd.as_fd()
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An area of `length` bytes; `None` when there is none.
    pub(crate) fn allocate(self: &Arc<Self>, length: u64) -> Option<Extent> {
        let length = length.checked_next_multiple_of(PAGE).filter(|length| *length > 0)?;
        let (offset, grown) = {
            let mut book = self.book();
            let before = book.touched();
            let offset = book.allocate(length)?;
            (offset, before <= KEPT && book.touched() > KEPT)
        };
        if grown {
            self.grown.notify_one();
        }
        Some(Extent { region: self.clone(), offset, length })
    }

    /// Whether more than half of it is in use, so that nobody should hold on to areas for long.
    pub(crate) fn is_scarce(&self) -> bool {
        let book = self.book();
        book.used() > book.size() / 2
    }

    /// How many bytes of memory it takes from the machine now.
    pub(crate) fn resident(&self) -> u64 {
        memory::resident(&self.fd)
    }

    /// Gives memory back for as long as the region is in use. Run by one task.
    pub(crate) async fn keep_small(self: Arc<Self>) {
        loop {
            self.grown.notified().await;
            while self.book().touched() > KEPT {
                tokio::time::sleep(WINDOW).await;
                while self.trim_step() {
                    tokio::task::yield_now().await;
                }
                self.book().next_window();
            }
        }
    }

    /// Gives some memory back that was not used lately; false when there is no more of it.
    fn trim_step(&self) -> bool {
        // The area stays taken while the kernel works, so that nobody is given a page that is about to vanish.
        let taken = self.book().take_untouched(KEPT, STEP);
        let Some((offset, length)) = taken else { return false };
        if let Err(error) = memory::punch(&self.fd, offset, length) {
            tracing::warn!(%error, "memory shared with a runner is not given back");
        }
        self.book().release_clean(offset, length);
        true
    }
}

impl Extent {
    pub(crate) const fn offset(&self) -> u64 {
        self.offset
    }

    /// At least what was asked for.
    pub(crate) const fn length(&self) -> u64 {
        self.length
    }

    /// Copies `bytes` to `at` bytes after the area's beginning. False, and nothing is written, when they do not fit.
    pub(crate) fn write(&mut self, at: u64, bytes: &[u8]) -> bool {
        let fits = at.checked_add(bytes.len() as u64).is_some_and(|end| end <= self.length);
        if fits {
            self.region.mapping.write(self.offset + at, bytes);
        }
        fits
    }

    /// A private copy of a part; `None` when it is not within the area.
    #[cfg(test)]
    pub(crate) fn copy(&self, at: u64, length: u64) -> Option<Vec<u8>> {
        at.checked_add(length).filter(|end| *end <= self.length)?;
        Some(self.region.mapping.read(self.offset + at, length))
    }

    /// The area as bytes that are not copied; it comes back when the last of them is dropped. The runner can still
    /// change them: only for what may be anything.
    pub(crate) fn into_bytes(self) -> Bytes {
        Bytes::from_owner(Shared(self))
    }
}

impl Drop for Extent {
    fn drop(&mut self) {
        self.region.book().release(self.offset, self.length);
    }
}

impl fmt::Debug for Extent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Extent({}+{})", self.offset, self.length)
    }
}

/// See [`Extent::into_bytes`].
struct Shared(Extent);

impl AsRef<[u8]> for Shared {
    fn as_ref(&self) -> &[u8] {
        self.0.region.mapping.slice(self.0.offset, self.0.length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn areas_do_not_overlap_and_come_back() {
        let region = Region::new(8 * PAGE).unwrap();
        let mut one = region.allocate(PAGE + 1).unwrap();
        let mut two = region.allocate(1).unwrap();
        assert!(one.write(0, &[1; 5000]) && two.write(PAGE - 1, &[2]) && !two.write(PAGE - 1, &[2, 2]));
        assert_eq!(one.copy(4999, 2).unwrap(), [1, 0]);
        assert_eq!(two.copy(PAGE, 1), None);
        assert!(region.allocate(6 * PAGE).is_none());
        let bytes = one.into_bytes();
        let last = bytes.slice(4990..5000);
        drop(bytes);
        assert!(region.allocate(6 * PAGE).is_none(), "a slice holds the whole area");
        assert_eq!(last, [1; 10][..]);
        drop((last, two));
        assert!(region.allocate(8 * PAGE).is_some());
        assert!(region.allocate(0).is_none() && region.allocate(u64::MAX).is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn memory_goes_back_when_it_was_not_used_lately() {
        let region = Region::new(64 << 20).unwrap();
        let keeper = region.clone();
        let work = async {
            let large = vec![7; 32 << 20];
            for _ in 0..5 {
                let mut extent = region.allocate(32 << 20).unwrap();
                extent.write(0, &large);
                drop(extent);
                tokio::time::sleep(Duration::from_millis(900)).await;
                assert!(region.resident() >= 32 << 20, "what is used again and again stays");
            }
            let mut small = region.allocate(1).unwrap();
            small.write(0, &[9]);
            tokio::time::sleep(WINDOW * 4).await;
            assert!(region.resident() <= KEPT, "{}", region.resident());
            assert_eq!(small.copy(0, 1).unwrap(), [9], "what is in use stays");
            drop(small);
            let again = region.allocate(32 << 20).unwrap();
            assert_eq!(again.copy(8 << 20, 3).unwrap(), [0; 3], "given back means empty");
        };
        tokio::select! {
            () = keeper.keep_small() => {}
            () = work => {}
        }
    }
}
