//! A part of the ring: some keys, sorted by id, each in a cache line of its own.

use std::sync::Arc;

use plinth_store::resources::Role;

/// What is known of a key besides its id. 48 bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Slot {
    /// SHA-256 of the secret.
    pub secret: [u8; 32],
    /// From when on it is refused, in milliseconds since 1970; `u64::MAX` for never.
    pub expires: u64,
    /// The tenant's index.
    pub tenant: u32,
    /// Two bits of role, thirty of the list of models (0: all).
    rights: u32,
}

const LIST_BITS: u32 = 30;
const LIST_MASK: u32 = (1 << LIST_BITS) - 1;

impl Slot {
    pub(super) const fn new(secret: [u8; 32], expires: u64, tenant: u32, role: Role, models: u32) -> Self {
        let role = match role {
            Role::Viewer => 0,
            Role::Developer => 1,
            Role::Operator => 2,
            Role::Admin => 3_u32,
        };
        Self { secret, expires, tenant, rights: role << LIST_BITS | models & LIST_MASK }
    }

    pub(super) const fn role(&self) -> Role {
        match self.rights >> LIST_BITS {
            0 => Role::Viewer,
            1 => Role::Developer,
            2 => Role::Operator,
            _ => Role::Admin,
        }
    }

    /// The list of models, 0 for all.
    pub(super) const fn models(&self) -> u32 {
        self.rights & LIST_MASK
    }
}

/// So far from the place where it should stand an id is looked for one by one.
const NEAR: usize = 16;

/// A key. One cache line, so that a key which no cache holds comes from memory at once.
#[derive(Debug, Clone, Copy)]
#[repr(align(64))]
struct Entry {
    id: u64,
    slot: Slot,
}

/// Keys whose ids begin with the same bits, sorted by id. Never changed: [`set`](Self::set) makes a new one.
#[derive(Debug, Clone, Default)]
pub(super) struct Shard(Arc<[Entry]>);

impl Shard {
    /// A part of these keys, sorted by id. Of two with one id the first stays.
    pub(super) fn new(sorted: &[(u64, Slot)]) -> Self {
        let mut entries: Vec<Entry> = Vec::with_capacity(sorted.len());
        for (id, slot) in sorted {
            if entries.last().is_none_or(|last| last.id != *id) {
                entries.push(Entry { id: *id, slot: *slot });
            }
        }
        Self(entries.into())
    }

    /// The key of an id; `skip` are the bits that all ids of the part begin with.
    pub(super) fn get(&self, id: u64, skip: u32) -> Option<&Slot> {
        Some(&self.find(id, skip)?.slot)
    }

    /// Ids are random, so one stands near the place that its bits say: in the line that is looked at first, or in one beside it.
    fn find(&self, id: u64, skip: u32) -> Option<&Entry> {
        let share = u128::from(id.checked_shl(skip).unwrap_or(0));
        let guess = ((share * self.0.len() as u128) >> 64) as usize;
        let (before, after) = self.0.split_at_checked(guess)?;
        let near = if after.first().is_some_and(|first| first.id <= id) {
            after.iter().take(NEAR).find(|entry| entry.id >= id)
        } else {
            before.iter().rev().take(NEAR).find(|entry| entry.id <= id)
        };
        let far = || self.0.get(self.0.binary_search_by_key(&id, |entry| entry.id).ok()?);
        near.or_else(far).filter(|entry| entry.id == id)
    }

    /// Puts a key in place, or takes it away.
    pub(super) fn set(&mut self, id: u64, slot: Option<Slot>) {
        let place = self.0.partition_point(|entry| entry.id < id);
        let (before, after) = self.0.split_at(place);
        let known = after.first().is_some_and(|entry| entry.id == id);
        let entry = slot.map(|slot| Entry { id, slot });
        self.0 = before.iter().copied().chain(entry).chain(after.iter().skip(usize::from(known)).copied()).collect();
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Bytes on the heap, with the line of the reference counts.
    pub(super) fn memory(&self) -> usize {
        (self.0.len() + 1) * size_of::<Entry>()
    }
}
