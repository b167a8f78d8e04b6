//! One bound for the bodies of all requests together.
//!
//! Invariant: the sum of what is held never exceeds the bound, and what is held is given back when
//! the last slice of the body is dropped. Small bodies are not counted: the connection cap bounds them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use plinth_types::{ByteSize, Error, Reason};

/// The memory that bodies may take. Cheap to clone; clones share the bound.
#[derive(Debug, Clone)]
pub struct BodyMemory(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    used: AtomicU64,
    bound: u64,
}

impl BodyMemory {
    /// At most `bound` bytes at a time.
    #[must_use]
    pub fn new(bound: ByteSize) -> Self {
        Self(Arc::new(Shared { used: AtomicU64::new(0), bound: bound.0 }))
    }

    /// How many bytes are held now.
    #[must_use]
    pub fn used(&self) -> u64 {
        self.0.used.load(Ordering::Relaxed)
    }

    /// A buffer of `size` bytes that `fill` fills and that counts until its last slice is dropped.
    ///
    /// # Errors
    /// `over_capacity` when the bound does not allow it, and those of `fill`.
    pub fn filled(&self, size: usize, fill: impl FnOnce(&mut [u8]) -> Result<(), Error>) -> Result<Bytes, Error> {
        let mut held = self.hold();
        held.grow_to(size)?;
        let mut bytes = vec![0; size];
        fill(&mut bytes)?;
        Ok(held.into_bytes(bytes))
    }

    /// Holds nothing yet.
    pub(crate) fn hold(&self) -> HeldMemory {
        HeldMemory { memory: self.clone(), bytes: 0 }
    }
}

/// Some of it.
#[derive(Debug)]
pub(crate) struct HeldMemory {
    memory: BodyMemory,
    bytes: u64,
}

impl HeldMemory {
    /// Holds at least `bytes`.
    ///
    /// # Errors
    /// `over_capacity` when the bound does not allow it; what is held stays held.
    pub(crate) fn grow_to(&mut self, bytes: usize) -> Result<(), Error> {
        let more = (bytes as u64).saturating_sub(self.bytes);
        let shared = &self.memory.0;
        let add = |used: u64| used.checked_add(more).filter(|sum| *sum <= shared.bound);
        shared.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add).map_err(|_| {
            Error::new(Reason::OverCapacity, "the server holds too many large requests at this moment; try again shortly")
                .retry_after(Duration::from_secs(1))
        })?;
        self.bytes += more;
        Ok(())
    }

    /// Bytes that give their share back with their last slice.
    pub(crate) fn into_bytes(self, bytes: Vec<u8>) -> Bytes {
        struct Owner(Vec<u8>, #[allow(dead_code, reason = "held until the bytes are dropped")] HeldMemory);
        impl AsRef<[u8]> for Owner {
            fn as_ref(&self) -> &[u8] {
                &self.0
            }
        }
        Bytes::from_owner(Owner(bytes, self))
    }
}

impl Drop for HeldMemory {
    fn drop(&mut self) {
        self.memory.0.used.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bound_holds_and_slices_give_back() {
        let memory = BodyMemory::new(ByteSize(100));
        let mut a = memory.hold();
        a.grow_to(60).unwrap();
        a.grow_to(10).unwrap();
        let mut b = memory.hold();
        assert_eq!(b.grow_to(50).unwrap_err().reason(), Reason::OverCapacity);
        b.grow_to(40).unwrap();
        assert!(b.grow_to(usize::MAX).is_err());
        assert_eq!(memory.used(), 100);
        let slice = a.into_bytes(vec![7; 60]).slice(2..3);
        drop(b);
        assert_eq!((memory.used(), slice[0]), (60, 7));
        drop(slice);
        assert_eq!(memory.used(), 0);
    }

    #[test]
    fn a_buffer_from_elsewhere_counts_too() {
        let memory = BodyMemory::new(ByteSize(100));
        let fill = |buffer: &mut [u8]| {
            buffer.fill(3);
            Ok(())
        };
        let bytes = memory.filled(60, fill).unwrap();
        assert_eq!((memory.used(), &bytes[58..]), (60, &[3, 3][..]));
        assert_eq!(memory.filled(60, fill).unwrap_err().reason(), Reason::OverCapacity);
        assert!(memory.filled(10, |_| Err(Error::internal("x"))).is_err());
        drop(bytes);
        assert_eq!(memory.used(), 0);
    }
}
