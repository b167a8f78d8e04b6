//! The entry of a pipeline: how many requests, and how many bytes of tensors, are inside at a time.
//!
//! Whoever is not let in is told so at once; nobody waits here, and who was let in is not stopped before a step because
//! others came later. Invariants: at most `max_requests` are inside; a request is let in only if what it will probably
//! hold fits into what is free, by the mean of those before it; all together never hold more than [`SLACK`] times
//! `max_bytes`, because a request that would pass that is ended. What a [`Pass`] holds is free again when it is dropped.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use tokio::sync::Notify;

/// How far growth that nobody foresaw may go past the bytes at which no more are let in.
const SLACK: u64 = 2;
/// The share of a new request in the mean is one in so many.
const SMOOTHING: u64 = 8;

/// The entry.
#[derive(Debug)]
pub(super) struct Gate {
    max_requests: usize,
    max_bytes: u64,
    requests: AtomicUsize,
    bytes: AtomicU64,
    /// What a request holds at most, in the mean.
    usual: AtomicU64,
    /// Rung when the last one has left.
    empty: Notify,
}

/// The right to be inside, with the bytes that are counted for it.
pub(super) struct Pass<'a> {
    gate: &'a Gate,
    charged: u64,
    peak: u64,
}

impl Gate {
    pub const fn new(max_requests: usize, max_bytes: u64) -> Self {
        let (requests, bytes, usual) = (AtomicUsize::new(0), AtomicU64::new(0), AtomicU64::new(0));
        Self { max_requests, max_bytes, requests, bytes, usual, empty: Notify::const_new() }
    }

    /// Returns when nobody is inside. Cancel safe.
    pub async fn emptied(&self) {
        loop {
            let rung = self.empty.notified();
            if self.inside() == 0 {
                return;
            }
            rung.await;
        }
    }

    pub fn inside(&self) -> usize {
        self.requests.load(Ordering::Relaxed)
    }

    /// Lets a request in whose inputs have so many bytes; `None` when there is no room.
    pub fn enter(&self, inputs: u64) -> Option<Pass<'_>> {
        let room = |inside: usize| (inside < self.max_requests).then_some(inside + 1);
        let before = self.requests.fetch_update(Ordering::AcqRel, Ordering::Relaxed, room).ok()?;
        // Whoever is alone is let in whatever is usual, or nobody would be ever again.
        let foreseen = if before == 0 { inputs } else { inputs.max(self.usual.load(Ordering::Relaxed)) };
        let fits = |bytes: u64| bytes.checked_add(foreseen).filter(|sum| *sum <= self.max_bytes);
        if self.bytes.fetch_update(Ordering::AcqRel, Ordering::Relaxed, fits).is_err() {
            if self.requests.fetch_sub(1, Ordering::AcqRel) == 1 {
                self.empty.notify_waiters();
            }
            return None;
        }
        Some(Pass { gate: self, charged: foreseen, peak: inputs })
    }
}

impl Pass<'_> {
    /// Says what the request holds now; false when that is more than can be borne, and the request must end.
    #[must_use]
    pub fn holds(&mut self, bytes: u64) -> bool {
        self.peak = self.peak.max(bytes);
        let Some(more) = bytes.checked_sub(self.charged).filter(|more| *more > 0) else { return true };
        let limit = self.gate.max_bytes.saturating_mul(SLACK);
        let fits = |all: u64| all.checked_add(more).filter(|sum| *sum <= limit);
        let grown = self.gate.bytes.fetch_update(Ordering::AcqRel, Ordering::Relaxed, fits).is_ok();
        if grown {
            self.charged = bytes;
        }
        grown
    }
}

impl Drop for Pass<'_> {
    fn drop(&mut self) {
        let gate = self.gate;
        gate.bytes.fetch_sub(self.charged, Ordering::AcqRel);
        if gate.requests.fetch_sub(1, Ordering::AcqRel) == 1 {
            gate.empty.notify_waiters();
        }
        // Two that end at once may lose one of the two samples; it is a mean.
        let usual = gate.usual.load(Ordering::Relaxed);
        let next =
            if self.peak > usual { usual + (self.peak - usual).div_ceil(SMOOTHING) } else { usual - (usual - self.peak) / SMOOTHING };
        gate.usual.store(next, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_count_is_kept_and_given_back() {
        let gate = Gate::new(2, 1000);
        let (one, two) = (gate.enter(10).unwrap(), gate.enter(10).unwrap());
        assert!(gate.enter(1).is_none());
        drop(one);
        assert_eq!(gate.inside(), 1);
        let three = gate.enter(1).unwrap();
        drop((two, three));
        assert_eq!((gate.inside(), gate.bytes.load(Ordering::Relaxed)), (0, 0));
        assert!(Gate::new(0, 1000).enter(1).is_none());
    }

    #[test]
    fn requests_that_grow_inside_let_fewer_in() {
        let gate = Gate::new(100, 1000);
        assert!(gate.enter(1001).is_none(), "more than fits at all");
        assert_eq!(gate.inside(), 0);
        for _ in 0..64 {
            let mut pass = gate.enter(10).unwrap();
            assert!(pass.holds(400));
            assert!(pass.holds(20), "what was free again is not asked back");
        }
        let inside: Vec<_> = std::iter::from_fn(|| gate.enter(10)).collect();
        assert_eq!(inside.len(), 3, "one for its inputs alone, then as many as fit with what they will hold");
    }

    #[test]
    fn unforeseen_growth_has_an_end() {
        let gate = Gate::new(100, 1000);
        let (mut one, mut two) = (gate.enter(500).unwrap(), gate.enter(500).unwrap());
        assert!(one.holds(1500));
        assert!(!two.holds(501), "all together hold twice the limit");
        drop(one);
        assert!(two.holds(2000) && !two.holds(2001));
    }

    proptest! {
        #[test]
        fn nothing_leaks(steps in prop::collection::vec((0u64..500, 0u64..3000, any::<bool>()), 0..50)) {
            let gate = Gate::new(8, 1000);
            let mut inside = Vec::new();
            for (inputs, grows, leaves) in steps {
                if leaves && !inside.is_empty() {
                    inside.remove(0);
                }
                if let Some(mut pass) = gate.enter(inputs) {
                    let _may_be_refused = pass.holds(grows);
                    inside.push(pass);
                }
                prop_assert!(gate.inside() <= 8 && gate.bytes.load(Ordering::Relaxed) <= 2000);
                prop_assert_eq!(inside.iter().map(|p| p.charged).sum::<u64>(), gate.bytes.load(Ordering::Relaxed));
            }
            inside.clear();
            prop_assert_eq!((gate.inside(), gate.bytes.load(Ordering::Relaxed)), (0, 0));
        }
    }
}
