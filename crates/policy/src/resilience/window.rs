//! Two counts over a sliding time, without a lock: what came in, and what was taken because of it.
//!
//! Ten slots, each one atomic word of a stamp and both counts, so a slot that is used again is emptied in the same write that counts.
//! Invariant: [`Window::take`] never lets the second count pass what it is allowed, also with many threads; two that ask at once may both be
//! refused. What the counts mean is left to retries and hedging.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use super::nanos;

const SLOTS: u64 = 10;
const COUNT: u64 = (1 << 24) - 1;

/// The layout of a slot: 16 bits of stamp, 24 of what came in, 24 of what was taken. A full count stays full.
#[derive(Debug)]
pub(super) struct Window {
    width: u64,
    slots: [AtomicU64; SLOTS as usize],
}

#[derive(Clone, Copy)]
struct Slot {
    stamp: u16,
    came: u64,
    taken: u64,
}

impl Slot {
    const fn read(word: u64) -> Self {
        Self { stamp: (word >> 48) as u16, came: (word >> 24) & COUNT, taken: word & COUNT }
    }

    fn word(self) -> u64 {
        (u64::from(self.stamp) << 48) | (self.came.min(COUNT) << 24) | self.taken.min(COUNT)
    }

    /// How many slots older than `stamp`; negative when newer. Stamps go round after 65,536 slots, stamp and place together after 327,680.
    const fn age(self, stamp: u16) -> i16 {
        stamp.wrapping_sub(self.stamp) as i16
    }
}

impl Window {
    /// Counts over `length`, in tenths of it. At least a microsecond.
    pub(super) fn new(length: Duration) -> Self {
        Self { width: (nanos(length) / SLOTS).max(100), slots: std::array::from_fn(|_| AtomicU64::new(0)) }
    }

    /// One more came in.
    pub(super) fn came(&self, now: Duration) {
        self.change(now, |slot| slot.came += 1);
    }

    /// Takes one, if then no more are taken within the window than `allowed` says for what came in within it.
    pub(super) fn take(&self, now: Duration, allowed: impl Fn(u64) -> u64) -> bool {
        // First take, then look: of several that look at once each sees the others.
        self.change(now, |slot| slot.taken += 1);
        let (came, taken) = self.totals(now);
        if taken <= allowed(came) {
            return true;
        }
        self.change(now, |slot| slot.taken = slot.taken.saturating_sub(1));
        false
    }

    /// What came in and what was taken within the window.
    pub(super) fn totals(&self, now: Duration) -> (u64, u64) {
        let number = self.number(now);
        let slots = (0..).zip(&self.slots).map(|(place, slot)| (place, Slot::read(slot.load(Relaxed))));
        let recent = slots.filter(|(place, slot)| {
            let age = slot.age(number as u16);
            // One ahead is another thread whose clock was read a moment later. The place tells slots apart whose stamps went round.
            (-1..SLOTS as i16).contains(&age) && ((number % SLOTS) as i16 - age).rem_euclid(SLOTS as i16) == *place
        });
        recent.fold((0, 0), |(came, taken), (_, slot)| (came + slot.came, taken + slot.taken))
    }

    fn number(&self, now: Duration) -> u64 {
        nanos(now) / self.width
    }

    fn change(&self, now: Duration, change: impl Fn(&mut Slot)) {
        let number = self.number(now);
        let Some(cell) = self.slots.get((number % SLOTS) as usize) else { return };
        let stamp = number as u16;
        let mut word = cell.load(Relaxed);
        loop {
            let mut slot = Slot::read(word);
            // A little newer is another thread's; anything else is long ago, however often the stamps went round since.
            if !(-(SLOTS as i16)..=0).contains(&slot.age(stamp)) {
                slot = Slot { stamp, came: 0, taken: 0 };
            }
            change(&mut slot);
            match cell.compare_exchange_weak(word, slot.word(), Relaxed, Relaxed) {
                Ok(_) => return,
                Err(other) => word = other,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn threads_together_never_take_too_many() {
        let window = Window::new(Duration::from_secs(10));
        let now = Duration::from_secs(5);
        let taken: usize = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4)
                .map(|_| {
                    scope.spawn(|| {
                        let ask = |_| {
                            window.came(now);
                            window.take(now, |came| came / 10)
                        };
                        (0..20_000).filter(|n| ask(*n)).count()
                    })
                })
                .collect();
            threads.into_iter().map(|thread| thread.join().expect("no panic")).sum()
        });
        assert_eq!(window.totals(now), (80_000, taken as u64));
        assert!(taken <= 8_000, "{taken}");
        assert!(taken > 7_000, "{taken}");
    }

    #[test]
    fn a_long_rest_is_forgotten() {
        let window = Window::new(Duration::from_secs(10));
        let mut now = 0;
        for rest in [1, 20, 30_000, 33_000, 50_000, 65_529, 65_536, 131_072, 400_000] {
            now += rest;
            window.came(Duration::from_secs(now));
            assert_eq!(window.totals(Duration::from_secs(now)).0, 1, "after {rest} s");
        }
    }

    proptest! {
        #[test]
        fn counts_as_a_list_would(steps in proptest::collection::vec((0u64..4_000, any::<bool>()), 1..300)) {
            let window = Window::new(Duration::from_secs(10));
            let (mut now, mut came, mut taken) = (0u64, Vec::new(), Vec::new());
            for (gap, asks) in steps {
                now += gap;
                let time = Duration::from_millis(now);
                let within = |at: &&u64| now / 1_000 - **at / 1_000 < 10;
                if asks {
                    let allowed = came.iter().filter(within).count() as u64 / 3;
                    let before = taken.iter().filter(within).count() as u64;
                    let granted = window.take(time, |came| came / 3);
                    prop_assert_eq!(granted, before < allowed);
                    if granted {
                        taken.push(now);
                    }
                } else {
                    window.came(time);
                    came.push(now);
                }
                let expected = (came.iter().filter(within).count() as u64, taken.iter().filter(within).count() as u64);
                prop_assert_eq!(window.totals(time), expected);
            }
        }
    }
}
