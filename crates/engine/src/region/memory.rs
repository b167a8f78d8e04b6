//! Anonymous shared memory: made, sealed, mapped, given back page by page.
#![allow(unsafe_code, reason = "mapped memory is reached through pointers")]

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::ptr::NonNull;

use rustix::fs::{FallocateFlags, MemfdFlags, SealFlags, fallocate, fcntl_add_seals, fstat, ftruncate, memfd_create};
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

use crate::backend::OutputPlace;

/// Memory of `size` bytes that nobody can make smaller or larger.
pub(super) fn create(size: u64) -> io::Result<OwnedFd> {
    let fd = memfd_create("plinth-tensors", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
    ftruncate(&fd, size)?;
    // A page that is cut off under a mapping would be a fatal signal for whoever touches it.
    fcntl_add_seals(&fd, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?;
    Ok(fd)
}

/// Gives the pages of an area back; they read as zeros then.
pub(super) fn punch(fd: &OwnedFd, offset: u64, length: u64) -> io::Result<()> {
    Ok(fallocate(fd, FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, offset, length)?)
}

/// How many bytes of memory are in place; 0 when the kernel does not say.
pub(super) fn resident(fd: &OwnedFd) -> u64 {
    fstat(fd).map_or(0, |stat| u64::try_from(stat.st_blocks).unwrap_or(0).saturating_mul(512))
}

/// A region mapped into this process.
#[derive(Debug)]
pub(crate) struct Mapping {
    base: NonNull<u8>,
    size: usize,
}

// SAFETY: the mapping is plain memory; whoever reads and writes it keeps to the areas that are his (see the methods).
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Mapping {
    pub(crate) fn of(fd: &impl AsFd, size: u64) -> io::Result<Self> {
        let size = usize::try_from(size).map_err(|_| io::ErrorKind::OutOfMemory)?;
        // SAFETY: a new mapping at a place of the kernel's choice; nothing that exists is touched.
        let base = unsafe { mmap(std::ptr::null_mut(), size, ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED, fd, 0) }?;
        NonNull::new(base.cast()).map(|base| Self { base, size }).ok_or_else(|| io::Error::other("a mapping at address zero"))
    }

    /// Maps memory that somebody else has made, as long as he says it is.
    pub(crate) fn whole(fd: &impl AsFd) -> io::Result<Self> {
        let size = u64::try_from(fstat(fd)?.st_size).map_err(|_| io::ErrorKind::InvalidData)?;
        Self::of(fd, size)
    }

    /// The place of an area, or a panic: the callers have checked that it lies within.
    fn at(&self, offset: u64, length: u64) -> (*mut u8, usize) {
        let (from, length) = (usize::try_from(offset).unwrap_or(usize::MAX), usize::try_from(length).unwrap_or(usize::MAX));
        assert!(from.checked_add(length).is_some_and(|end| end <= self.size), "an area outside of the region");
        // SAFETY: `from` is within the mapping by the assertion.
        (unsafe { self.base.as_ptr().add(from) }, length)
    }

    /// Copies `bytes` into an area that is the caller's.
    pub(super) fn write(&self, offset: u64, bytes: &[u8]) {
        let (to, length) = self.at(offset, bytes.len() as u64);
        // SAFETY: `at` has checked the place; the area is given to one batch, so nobody else in this process looks at it.
        // The process at the other end may write there as well, and then gets what it deserves.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), to, length) }
    }

    /// A private copy of an area.
    #[cfg(test)]
    pub(super) fn read(&self, offset: u64, length: u64) -> Vec<u8> {
        let (from, length) = self.at(offset, length);
        let mut copy = Vec::with_capacity(length);
        // SAFETY: `at` has checked the place, the copy has room for all of it, and every byte value is a valid `u8`,
        // whatever the other process writes meanwhile.
        unsafe {
            std::ptr::copy_nonoverlapping(from, copy.as_mut_ptr(), length);
            copy.set_len(length);
        }
        copy
    }

    /// An area in place.
    pub(super) fn slice(&self, offset: u64, length: u64) -> &[u8] {
        let (from, length) = self.at(offset, length);
        // SAFETY: `at` has checked the place; in this process nobody writes to the area as long as it is held as bytes.
        // An honest runner does not either. A hostile one changes numbers under the reader's eyes, as it could have
        // computed other numbers: nothing that is looked at in this way decides about memory.
        unsafe { std::slice::from_raw_parts(from, length) }
    }

    /// For a runner, which keeps its mapping until it ends.
    pub(crate) fn forever(self) -> Whole {
        let this = std::mem::ManuallyDrop::new(self);
        Whole { base: this.base, size: this.size }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the mapping is this value's own, and no slice of it outlives the value.
        let _ = unsafe { munmap(self.base.as_ptr().cast(), self.size) };
    }
}

/// A region as a runner sees it: never unmapped.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Whole {
    base: NonNull<u8>,
    size: usize,
}

// SAFETY: see `Mapping`.
unsafe impl Send for Whole {}
// SAFETY: see `Mapping`.
unsafe impl Sync for Whole {}

impl Whole {
    /// An area as the node has filled it; `None` when it is not within the region.
    pub(crate) fn slice(&self, offset: u64, length: u64) -> Option<&'static [u8]> {
        let (from, length) = self.place(offset, length)?;
        // SAFETY: `place` has checked it, the mapping stays until the process ends, and the node does not write to an
        // area before the batch has been answered for which it was filled.
        Some(unsafe { std::slice::from_raw_parts(from, length) })
    }

    /// An area that the node has set aside for the outputs of a batch.
    pub(crate) fn output_place(&self, offset: u64, length: u64, rows: Option<u64>) -> Option<OutputPlace> {
        let (base, length) = self.place(offset, length)?;
        // SAFETY: `place` has checked it, the mapping stays until the process ends, and the node gives the area to this
        // batch alone.
        Some(unsafe { OutputPlace::new(base, length, rows) })
    }

    /// Where an area begins, and its length.
    pub(crate) fn place(&self, offset: u64, length: u64) -> Option<(*mut u8, usize)> {
        let (from, length) = (usize::try_from(offset).ok()?, usize::try_from(length).ok()?);
        from.checked_add(length).filter(|end| *end <= self.size)?;
        // SAFETY: `from` is within the mapping.
        Some((unsafe { self.base.as_ptr().add(from) }, length))
    }
}
