//! Counters of users and addresses: a bounded table of cells by a 64-bit key.
//!
//! A segment of 64 sets of eight places is made when the first key falls into it; a key has two sets of its segment to stand in, so
//! the table can be filled to three quarters before any key finds no place. Invariants: memory is bounded; only a cell that is full
//! again (for a second), which nobody can tell from a new one, is given to another key; a key has one place. A look takes no lock and allocates
//! nothing; only a key that is new takes its segment's lock.
//!
//! Taking and giving a place away meet like this: who gives it away first hides the key and then looks whether the cell is idle;
//! who takes first takes and then looks whether the key still stands ([`Place::holds`]). One of the two sees the other. A taker that
//! finds another key gives back what it took and begins anew; whose place it is now may be refused by mistake meanwhile, and is never
//! let in by mistake. When all places of both sets are in use the newcomer counts in one of them together with its holder, until there is
//! room: both get less than they should, and nobody gets more than a burst beyond its rate.

use std::num::NonZeroU64;
use std::sync::atomic::{AtomicU64, Ordering, fence};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

use plinth_policy::limits::{Cell, Rate};
use plinth_telemetry::Counter;

const WAYS: usize = 8;
const SETS: usize = 64;
/// Keys for which a segment is made: three quarters of its places.
const KEYS: usize = WAYS * SETS * 3 / 4;
const FREE: u64 = 0;
/// A cell is given away when it has been full again for so long. Threads that read the clock at the same time may act on it so much apart
/// without counting from another start.
const GRACE: Duration = Duration::from_secs(1);
/// Stands where a place is being given away.
const HIDDEN: u64 = u64::MAX;

/// Two cache lines: the keys, and their cells.
#[derive(Default)]
#[repr(align(64))]
struct Set {
    keys: [AtomicU64; WAYS],
    cells: [Cell; WAYS],
}

struct Segment {
    /// Held by who brings in a key.
    entry: Mutex<()>,
    sets: Box<[Set]>,
}

/// The table.
pub(super) struct KeyedCells {
    segments: Box<[OnceLock<Segment>]>,
    /// Any rate: whether a cell is idle does not depend on it.
    any: Option<Rate>,
    shared: Counter,
}

/// Where the cell of a key is.
#[derive(Clone, Copy)]
pub(super) struct Place<'a> {
    pub cell: &'a Cell,
    at: &'a AtomicU64,
    key: u64,
    shared: bool,
    /// The key has just been brought in.
    pub new: bool,
}

impl Place<'_> {
    /// Whether the cell is still that of the key, asked after taking from it.
    pub fn holds(&self) -> bool {
        fence(Ordering::SeqCst);
        self.shared || self.at.load(Ordering::Relaxed) == self.key
    }
}

impl KeyedCells {
    /// An empty table for so many keys at a time. `shared` counts those that found no place of their own.
    pub fn new(capacity: usize, shared: Counter) -> Self {
        let segments = capacity.div_ceil(KEYS).max(1);
        let any = Rate::new(NonZeroU64::MIN, Duration::from_secs(1), NonZeroU64::MIN).ok();
        Self { segments: (0..segments).map(|_| OnceLock::new()).collect(), any, shared }
    }

    /// The place of a key, which is brought in when it is new.
    pub fn place(&self, key: u64, now: Duration) -> Place<'_> {
        let key = if key == FREE || key == HIDDEN { 1 } else { key };
        let make = || Segment { entry: Mutex::new(()), sets: (0..SETS).map(|_| Set::default()).collect() };
        // The high bits choose the segment, the low ones the sets.
        let number = (u128::from(key) * self.segments.len() as u128) >> 64;
        let segment = self.segments[number as usize].get_or_init(make);
        find(segment, key).unwrap_or_else(|| self.bring_in(segment, key, now))
    }

    /// The place of a key that is there.
    pub fn known(&self, key: u64) -> Option<Place<'_>> {
        let number = (u128::from(key) * self.segments.len() as u128) >> 64;
        find(self.segments.get(number as usize)?.get()?, key)
    }

    /// Bytes on the heap.
    pub fn memory(&self) -> usize {
        let made = self.segments.iter().filter(|segment| segment.get().is_some()).count();
        self.segments.len() * size_of::<OnceLock<Segment>>() + made * SETS * size_of::<Set>()
    }

    fn idle(&self, cell: &Cell, now: Duration) -> bool {
        self.any.as_ref().is_some_and(|any| cell.look(any, now.saturating_sub(GRACE)).reset.is_zero())
    }

    fn bring_in<'a>(&self, segment: &'a Segment, key: u64, now: Duration) -> Place<'a> {
        let _entry = segment.entry.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(place) = find(segment, key) {
            return place;
        }
        let open = |set: &Set, way: usize| set.keys[way].load(Ordering::Relaxed) == FREE || self.idle(&set.cells[way], now);
        let mut sets = sets(segment, key).map(|set| ((0..WAYS).filter(|way| open(set, *way)).count(), set));
        sets.sort_by_key(|(room, _)| std::cmp::Reverse(*room));
        for (set, way) in sets.iter().flat_map(|(_, set)| (0..WAYS).map(move |way| (*set, way))) {
            if !open(set, way) {
                continue;
            }
            let before = set.keys[way].swap(HIDDEN, Ordering::SeqCst);
            fence(Ordering::SeqCst);
            if self.idle(&set.cells[way], now) {
                set.keys[way].store(key, Ordering::SeqCst);
                return Place { cell: &set.cells[way], at: &set.keys[way], key, shared: false, new: true };
            }
            set.keys[way].store(before, Ordering::SeqCst);
        }
        self.shared.inc();
        // Always the same one, or it would have the rates of all of them.
        let ([set, _], way) = (self::sets(segment, key), (key >> 16) as usize % WAYS);
        let (at, cell) = (&set.keys[way], &set.cells[way]);
        Place { cell, at, key, shared: true, new: false }
    }
}

fn sets(segment: &Segment, key: u64) -> [&Set; 2] {
    let first = key as usize % SETS;
    // Another one, whatever the key: an odd step below the number of sets.
    let second = (first + ((key >> 8) as usize % (SETS / 2) * 2 + 1)) % SETS;
    [&segment.sets[first], &segment.sets[second]]
}

fn find(segment: &Segment, key: u64) -> Option<Place<'_>> {
    for set in sets(segment, key) {
        for (at, cell) in set.keys.iter().zip(&set.cells) {
            if at.load(Ordering::Relaxed) == key {
                return Some(Place { cell, at, key, shared: false, new: false });
            }
        }
    }
    None
}

/// The last step of splitmix64.
pub(super) const fn mix(mut value: u64) -> u64 {
    value = (value ^ (value >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    value = (value ^ (value >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    value ^ (value >> 31)
}

/// A number for a text.
pub(super) fn number_of(text: &str) -> u64 {
    text.bytes().fold(0x9E37_79B9_7F4A_7C15, |hash, byte| mix(hash ^ u64::from(byte)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashMap;

    fn rate() -> Rate {
        Rate::parse("10/s", Some(3)).unwrap()
    }

    #[test]
    fn a_busy_table_forgets_only_who_is_full_again() {
        let (table, rate, at) = (KeyedCells::new(1000, Counter::default()), rate(), Duration::from_secs);
        let keys: Vec<u64> = (1..=1000).map(mix).collect();
        for key in &keys {
            let place = table.place(*key, at(1));
            assert!(place.new && place.cell.take(&rate, 3, at(1)).allowed() && place.holds());
        }
        assert!(keys.iter().all(|key| !table.place(*key, at(1)).cell.take(&rate, 1, at(1)).allowed()), "all are remembered");
        assert_eq!(table.shared.value(), 0, "for as many as it is made for there is room");
        let memory = table.memory();
        for key in (1001..=2000).map(mix) {
            assert!(table.place(key, at(3)).cell.take(&rate, 3, at(3)).allowed());
        }
        assert_eq!((table.memory(), table.shared.value()), (memory, 0), "the idle made room");
        for key in (2001..=9000).map(mix) {
            table.place(key, at(3)).cell.take(&rate, 3, at(3));
        }
        assert_eq!(table.memory(), memory);
        assert!(table.shared.value() > 5000, "no busy one made room");
    }

    #[test]
    fn threads_that_fight_for_places_never_admit_too_much() {
        // One segment and three times as many keys; each comes for 0.3 s, goes, and comes again, so places are given away all the time.
        let (table, rate) = (KeyedCells::new(1, Counter::default()), rate());
        let (keys, clock) = ((1..=1500).map(mix).collect::<Vec<_>>(), AtomicU64::new(0));
        // A thread that sleeps with the time in its hand is not what is tested.
        let together = std::sync::Barrier::new(4);
        let admitted: Vec<HashMap<u64, u64>> = std::thread::scope(|scope| {
            let one = |seed: u64| {
                let mut admitted = HashMap::new();
                for step in 0..100_000u64 {
                    if step % 100 == 0 {
                        together.wait();
                    }
                    let key = keys[((step / 500 * 12 + mix(seed << 32 | step) % 60) % 1500) as usize];
                    let now = Duration::from_micros(clock.fetch_add(30, Ordering::Relaxed));
                    let place = table.place(key, now);
                    if place.cell.take(&rate, 1, now).allowed() {
                        if place.holds() {
                            *admitted.entry(key).or_default() += 1;
                        } else {
                            place.cell.settle(&rate, 1, 0, now);
                        }
                    }
                }
                admitted
            };
            let threads: Vec<_> = (0..4).map(|seed| scope.spawn(move || one(seed))).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        // Twice a burst, what 0.3 s earn, and one that was earned between two readings of the clock.
        let most = 2 * (3 + 3 + 1);
        for key in &keys {
            let sum: u64 = admitted.iter().filter_map(|one| one.get(key)).sum();
            assert!(sum <= most, "{sum} of at most {most}");
        }
        assert_eq!(table.shared.value(), 0, "there was room");
    }

    #[test]
    fn who_finds_no_place_gets_no_more_than_others() {
        let (table, rate, now) = (KeyedCells::new(1, Counter::default()), rate(), Duration::from_secs(5));
        for key in (1..=20_000).map(mix) {
            table.place(key, now).cell.take(&rate, 1, now);
        }
        for key in (20_001..=20_100).map(mix) {
            let admitted = (0..50).filter(|_| table.place(key, now).cell.take(&rate, 1, now).allowed()).count();
            assert!(admitted <= 3, "{admitted}");
        }
        assert!(table.shared.value() > 100);
    }

    proptest! {
        #[test]
        fn a_key_counts_as_if_it_were_alone(asks in proptest::collection::vec((0u64..40, 0u64..200), 1..400)) {
            let (table, rate) = (KeyedCells::new(1000, Counter::default()), rate());
            let mut alone: HashMap<u64, Cell> = HashMap::new();
            let mut now = Duration::from_secs(1);
            for (key, wait) in asks {
                now += Duration::from_millis(wait);
                let expected = alone.entry(key).or_default().take(&rate, 1, now).allowed();
                prop_assert_eq!(table.place(mix(key), now).cell.take(&rate, 1, now).allowed(), expected);
            }
        }
    }
}
