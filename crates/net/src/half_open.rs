//! Connections that have not yet shown what they are for, in the order in which they came.
//!
//! A connection that sends no whole head costs its peer nothing and us a slot ("slow loris"). Invariant:
//! when there is no room, the connection that has been half open for the longest is given up, never the
//! newcomer; so to keep a client out, somebody must open more connections while its head is on the way
//! than there are places. What was once heard is not touched here.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

/// The connections of one place, at most `capacity` of them.
pub struct HalfOpen {
    capacity: usize,
    entries: Mutex<Entries>,
}

#[derive(Default)]
struct Entries {
    next: u64,
    by_age: BTreeMap<u64, Arc<Notify>>,
}

impl HalfOpen {
    pub fn new(capacity: usize) -> Arc<Self> {
        Arc::new(Self { capacity: capacity.max(1), entries: Mutex::default() })
    }

    fn lock(&self) -> MutexGuard<'_, Entries> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a connection; gives up the oldest when there are too many.
    pub fn enter(self: &Arc<Self>) -> Entry {
        let given_up = Arc::new(Notify::new());
        let mut entries = self.lock();
        let id = entries.next;
        entries.next += 1;
        entries.by_age.insert(id, given_up.clone());
        if entries.by_age.len() > self.capacity {
            give_up(&mut entries);
        }
        Entry { place: self.clone(), id, given_up }
    }

    /// Gives up the oldest; `false` when there is none.
    pub fn give_up_oldest(&self) -> bool {
        give_up(&mut self.lock())
    }
}

fn give_up(entries: &mut Entries) -> bool {
    let Some((_, oldest)) = entries.by_age.pop_first() else { return false };
    oldest.notify_one();
    true
}

/// A connection's place among the half open, until it is dropped.
pub struct Entry {
    place: Arc<HalfOpen>,
    id: u64,
    given_up: Arc<Notify>,
}

impl Entry {
    /// Waits until the connection is to be closed in favour of another. Cancel safe.
    pub async fn given_up(&self) {
        self.given_up.notified().await;
    }

    /// The connection is not half open any more.
    pub fn leave(&self) {
        self.place.lock().by_age.remove(&self.id);
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.leave();
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[test]
    fn the_oldest_goes_first_and_what_left_is_not_counted() {
        let place = HalfOpen::new(3);
        let [first, second, third] = std::array::from_fn(|_| place.enter());
        drop(second);
        let fourth = place.enter();
        assert!(first.given_up().now_or_never().is_none());
        let fifth = place.enter();
        assert!(first.given_up().now_or_never().is_some());
        assert!(place.give_up_oldest() && third.given_up().now_or_never().is_some());
        assert!(fourth.given_up().now_or_never().is_none() && fifth.given_up().now_or_never().is_none());
        drop((first, third, fourth, fifth));
        assert!(!place.give_up_oldest());
    }
}
