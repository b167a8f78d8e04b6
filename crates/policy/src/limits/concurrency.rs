//! How many at once: a count and its bound.
//!
//! Invariant: never more in use than the bound that held when the last one was taken. Lowering the bound takes nothing away; it lets
//! nobody in until enough have left. Nobody waits here: [`overload::admission`](crate::overload::admission) is the queue.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// Places that are taken and given back.
#[derive(Debug)]
pub struct Permits {
    max: AtomicU32,
    in_use: AtomicU32,
}

impl Permits {
    /// So many places.
    #[must_use]
    pub const fn new(max: u32) -> Self {
        Self { max: AtomicU32::new(max), in_use: AtomicU32::new(0) }
    }

    /// Takes a place if one is free. Whoever got `true` calls [`give_back`](Self::give_back) once.
    #[must_use = "a place that was taken must be given back"]
    pub fn try_take(&self) -> bool {
        let max = self.max.load(Ordering::Relaxed);
        self.in_use.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| (used < max).then_some(used + 1)).is_ok()
    }

    /// Gives a place back. With nothing taken it does nothing.
    pub fn give_back(&self) {
        let given = self.in_use.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| used.checked_sub(1));
        debug_assert!(given.is_ok(), "a place was given back twice");
    }

    /// As [`try_take`](Self::try_take); the place comes back when the permit is dropped, also when its holder panics or is cancelled.
    #[must_use]
    pub fn permit(self: &Arc<Self>) -> Option<Permit> {
        self.try_take().then(|| Permit(Arc::clone(self)))
    }

    /// Sets another bound.
    pub fn set_max(&self, max: u32) {
        self.max.store(max, Ordering::Relaxed);
    }

    /// The bound.
    #[must_use]
    pub fn max(&self) -> u32 {
        self.max.load(Ordering::Relaxed)
    }

    /// How many are taken; may be above the bound after it was lowered.
    #[must_use]
    pub fn in_use(&self) -> u32 {
        self.in_use.load(Ordering::Relaxed)
    }
}

/// A place that was taken; dropping it gives it back.
#[derive(Debug)]
pub struct Permit(Arc<Permits>);

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.give_back();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_dropped_permit_is_free() {
        let permits = Arc::new(Permits::new(1));
        let held = permits.permit().unwrap();
        assert!(permits.permit().is_none());
        drop(held);
        assert!(permits.permit().is_some());
        assert_eq!(permits.in_use(), 0);
    }

    #[test]
    fn threads_never_pass_the_bound() {
        let permits = Permits::new(3);
        let most = AtomicU32::new(0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..2000 {
                        if permits.try_take() {
                            most.fetch_max(permits.in_use(), Ordering::Relaxed);
                            permits.give_back();
                        }
                    }
                });
            }
        });
        assert!(most.into_inner() <= 3);
        assert_eq!(permits.in_use(), 0);
    }

    proptest! {
        #[test]
        fn counts_like_a_list(max in 0u32..5, acts in proptest::collection::vec(0u32..8, 0..100)) {
            let (permits, mut held, mut max) = (Arc::new(Permits::new(max)), Vec::new(), max);
            for act in acts {
                match act {
                    0..=3 => {
                        let permit = permits.permit();
                        prop_assert_eq!(permit.is_some(), (held.len() as u32) < max);
                        held.extend(permit);
                    }
                    4..=6 => drop(held.pop()),
                    _ => {
                        max = (max + 2) % 5;
                        permits.set_max(max);
                    }
                }
                prop_assert_eq!(permits.in_use() as usize, held.len());
            }
        }
    }
}
