//! When to look at which item again, soonest first.
//!
//! A heap of (time, key). Items that left stay in it until they come up, or until they are the larger part and are swept
//! out together, so its size stays within twice the live items. What is due is judged by the owner; nothing is decided here.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

#[derive(Debug, Default)]
pub(super) struct Expiry {
    heap: BinaryHeap<Reverse<(u64, u64)>>,
}

impl Expiry {
    /// Notes that `key` wants a look at `at`.
    pub(super) fn push(&mut self, at: u64, key: u64, live: usize, is_live: impl Fn(u64) -> bool) {
        if self.heap.len() > 2 * live + 64 {
            self.heap.retain(|Reverse((_, key))| is_live(*key));
        }
        self.heap.push(Reverse((at, key)));
    }

    /// The next key that is due at `now`, taken out.
    pub(super) fn due(&mut self, now: u64, is_live: impl Fn(u64) -> bool) -> Option<u64> {
        while let Some(Reverse((at, key))) = self.heap.peek().copied() {
            if at > now {
                return None;
            }
            self.heap.pop();
            if is_live(key) {
                return Some(key);
            }
        }
        None
    }

    /// The soonest time, and whose it is.
    pub(super) fn soonest(&mut self, is_live: impl Fn(u64) -> bool) -> Option<(u64, u64)> {
        while let Some(Reverse((at, key))) = self.heap.peek().copied() {
            if is_live(key) {
                return Some((at, key));
            }
            self.heap.pop();
        }
        None
    }
}
