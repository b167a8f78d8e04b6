//! One cell for each of a few groups of threads, so that counting threads do not share a cache line.
//!
//! Invariant: the number of cells is a power of two, the same for the whole process; the sum over
//! the cells is the value.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use crossbeam_utils::CachePadded;

/// More cells than this cost memory and bring nothing.
const MAX_CELLS: usize = 16;

fn count() -> usize {
    static COUNT: OnceLock<usize> = OnceLock::new();
    *COUNT.get_or_init(|| std::thread::available_parallelism().map_or(1, usize::from).next_power_of_two().min(MAX_CELLS))
}

/// The number of this thread, given out in order of first use.
fn thread_number() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static NUMBER: usize = NEXT.fetch_add(1, Ordering::Relaxed);
    }
    // A thread that counts while it ends has lost its number; any cell will do.
    NUMBER.try_with(|number| *number).unwrap_or(0)
}

/// The cells.
pub struct Cells<T>(Box<[CachePadded<T>]>);

impl<T: Default> Default for Cells<T> {
    fn default() -> Self {
        Self((0..count()).map(|_| CachePadded::new(T::default())).collect())
    }
}

impl<T> Cells<T> {
    /// The cell of the calling thread.
    pub fn mine(&self) -> &T {
        &self.0[thread_number() & (self.0.len() - 1)]
    }

    /// All cells, for the scrape.
    pub fn all(&self) -> impl Iterator<Item = &T> {
        self.0.iter().map(|cell| &**cell)
    }
}
