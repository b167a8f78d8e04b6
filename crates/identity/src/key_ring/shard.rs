//! A part of the ring: some keys, sorted by id.

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

/// Keys whose ids begin with the same bits. The ids lie together, so that a search touches few cache lines.
#[derive(Debug, Clone, Default)]
pub(super) struct Shard {
    ids: Vec<u64>,
    slots: Vec<Slot>,
}

impl Shard {
    /// A part of these keys, sorted by id. Of two with one id the first stays.
    pub(super) fn new(sorted: &[(u64, Slot)]) -> Arc<Self> {
        let mut shard = Self { ids: Vec::with_capacity(sorted.len()), slots: Vec::with_capacity(sorted.len()) };
        for (id, slot) in sorted {
            if shard.ids.last() != Some(id) {
                shard.ids.push(*id);
                shard.slots.push(*slot);
            }
        }
        Arc::new(shard)
    }

    pub(super) fn get(&self, id: u64) -> Option<&Slot> {
        self.slots.get(self.ids.binary_search(&id).ok()?)
    }

    /// Puts a key in place, or takes it away.
    pub(super) fn set(&mut self, id: u64, slot: Option<Slot>) {
        match (self.ids.binary_search(&id), slot) {
            (Ok(place), Some(slot)) => {
                if let Some(old) = self.slots.get_mut(place) {
                    *old = slot;
                }
            }
            (Ok(place), None) => {
                self.ids.remove(place);
                self.slots.remove(place);
            }
            (Err(place), Some(slot)) => {
                self.ids.insert(place, id);
                self.slots.insert(place, slot);
            }
            (Err(_), None) => {}
        }
    }

    pub(super) const fn len(&self) -> usize {
        self.ids.len()
    }

    /// Bytes on the heap, the reference counts and the allocator's words included.
    pub(super) fn memory(&self) -> usize {
        self.ids.capacity() * size_of::<u64>() + self.slots.capacity() * size_of::<Slot>() + size_of::<Self>() + 16 + 3 * 8
    }
}
