//! The items that wait, in slots that are used again, so that a request allocates nothing here.
//!
//! A key is a slot and how often the slot was used before; a slot whose count is spent is never used again, so a key names one
//! item for the life of the batcher. Items hang in two doubly linked lists: their flow (same tenant, same group) and their
//! tenant. The lists' ends belong to `level`; linking is done there.

use std::collections::VecDeque;

/// No slot.
pub(super) const NIL: u32 = u32::MAX;
const SLOT_BITS: u32 = 24;
/// More items than a batcher can ever hold.
pub(super) const MOST: usize = (1 << SLOT_BITS) - 1;
const LAST_USE: u64 = (1 << (64 - SLOT_BITS)) - 1;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    Free,
    Waiting,
    /// Out of the queue, to be reported as expired.
    Doomed,
}

/// Two neighbours in a list.
#[derive(Debug, Clone, Copy)]
pub(super) struct Links {
    pub before: u32,
    pub after: u32,
}

/// An item in its slot. Times are nanoseconds.
#[derive(Debug, Clone)]
pub(super) struct Slot {
    uses: u64,
    pub state: State,
    pub rows: u32,
    pub bytes: u64,
    pub deadline: u64,
    pub timeout_at: u64,
    pub reject: bool,
    pub arrived: u64,
    /// Twice the level, and one more when the item was delayed.
    pub rank: u32,
    pub tenant: u64,
    pub group: u64,
    /// The item's flow within its level.
    pub flow: u32,
    pub in_flow: Links,
    pub in_tenant: Links,
}

pub(super) const UNLINKED: Links = Links { before: NIL, after: NIL };

/// All slots.
#[derive(Debug, Default)]
pub(super) struct Slots {
    slots: Vec<Slot>,
    free: VecDeque<u32>,
}

/// What a new item says of itself.
#[derive(Debug, Clone, Copy)]
pub(super) struct Entry {
    pub rows: u32,
    pub bytes: u64,
    pub deadline: u64,
    pub timeout_at: u64,
    pub reject: bool,
    pub arrived: u64,
    pub rank: u32,
    pub tenant: u64,
    pub group: u64,
}

impl Slots {
    /// Puts an item in; the caller has checked that it holds fewer than [`MOST`].
    pub(super) fn insert(&mut self, entry: Entry) -> (u32, u64) {
        let Entry { rows, bytes, deadline, timeout_at, reject, arrived, rank, tenant, group } = entry;
        let uses = self.free.front().map_or(0, |at| self.slots[*at as usize].uses);
        let flow = NIL;
        let (state, in_flow, in_tenant) = (State::Waiting, UNLINKED, UNLINKED);
        let slot = Slot { uses, state, rows, bytes, deadline, timeout_at, reject, arrived, rank, tenant, group, flow, in_flow, in_tenant };
        let at = if let Some(at) = self.free.pop_front() {
            self.slots[at as usize] = slot;
            at
        } else {
            self.slots.push(slot);
            u32::try_from(self.slots.len() - 1).unwrap_or(NIL)
        };
        (at, key(at, uses))
    }

    /// Whether another item finds a slot.
    pub(super) fn has_room(&self) -> bool {
        !self.free.is_empty() || self.slots.len() < MOST
    }

    pub(super) fn release(&mut self, at: u32) {
        let slot = &mut self.slots[at as usize];
        slot.state = State::Free;
        if slot.uses < LAST_USE {
            slot.uses += 1;
            self.free.push_back(at);
        }
    }

    /// The slot of a key whose item is still here.
    pub(super) fn find(&self, key: u64) -> Option<u32> {
        let at = (key & MOST as u64) as u32;
        let slot = self.slots.get(at as usize)?;
        (slot.state != State::Free && slot.uses == key >> SLOT_BITS).then_some(at)
    }

    /// Whether the key's item waits in the queue.
    pub(super) fn waits(&self, key: u64) -> bool {
        self.find(key).is_some_and(|at| self.slots[at as usize].state == State::Waiting)
    }

    pub(super) fn key(&self, at: u32) -> u64 {
        key(at, self.slots[at as usize].uses)
    }
}

fn key(at: u32, uses: u64) -> u64 {
    (uses << SLOT_BITS) | u64::from(at)
}

impl std::ops::Index<u32> for Slots {
    type Output = Slot;

    fn index(&self, at: u32) -> &Slot {
        &self.slots[at as usize]
    }
}

impl std::ops::IndexMut<u32> for Slots {
    fn index_mut(&mut self, at: u32) -> &mut Slot {
        &mut self.slots[at as usize]
    }
}
