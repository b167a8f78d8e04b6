//! The requests that wait, in slots that are used again, so that a request allocates nothing here.
//!
//! A ticket is a slot and how often it was used before, so it names one request for the life of the queue. A request hangs in two
//! doubly linked lists, both by arrival: that of its class and that of its flow. The lists' ends belong to their owners.

/// No slot.
pub(super) const NIL: u32 = u32::MAX;
const SLOT_BITS: u32 = 24;
/// More requests than can ever wait.
pub(super) const MOST: usize = (1 << SLOT_BITS) - 1;
const USES: u64 = (1 << (64 - SLOT_BITS)) - 1;

#[derive(Debug, Clone, Copy)]
struct Links {
    before: u32,
    after: u32,
}

const UNLINKED: Links = Links { before: NIL, after: NIL };

/// What a new request says of itself. Times are nanoseconds.
#[derive(Debug, Clone, Copy)]
pub(super) struct Entry {
    pub id: u64,
    pub tenant: u32,
    pub class: u8,
    pub cost: u64,
    pub bytes: u64,
    pub late_at: u64,
    pub arrived: u64,
}

#[derive(Debug)]
pub(super) struct Slot {
    entry: Entry,
    /// Its place in the class's flows.
    pub flow: u32,
    uses: u64,
    free: bool,
    in_class: Links,
    in_flow: Links,
}

impl std::ops::Deref for Slot {
    type Target = Entry;

    fn deref(&self) -> &Entry {
        &self.entry
    }
}

#[derive(Debug, Default)]
pub(super) struct Slots {
    slots: Vec<Slot>,
    free: Vec<u32>,
}

impl Slots {
    /// Puts a request in; the caller has checked that fewer than [`MOST`] wait.
    pub(super) fn insert(&mut self, entry: Entry) -> (u32, u64) {
        if let Some(at) = self.free.pop() {
            let slot = &mut self.slots[at as usize];
            let uses = slot.uses;
            *slot = Slot { entry, flow: NIL, uses, free: false, in_class: UNLINKED, in_flow: UNLINKED };
            return (at, ticket(at, uses));
        }
        self.slots.push(Slot { entry, flow: NIL, uses: 0, free: false, in_class: UNLINKED, in_flow: UNLINKED });
        let at = u32::try_from(self.slots.len() - 1).unwrap_or(NIL);
        (at, ticket(at, 0))
    }

    /// 2^40 uses of one slot last for 34 years at a thousand a second; then its tickets begin anew.
    pub(super) fn release(&mut self, at: u32) {
        let slot = &mut self.slots[at as usize];
        slot.free = true;
        slot.uses = (slot.uses + 1) & USES;
        self.free.push(at);
    }

    /// The slot of a ticket whose request still waits.
    pub(super) fn find(&self, ticket: u64) -> Option<u32> {
        let at = (ticket & MOST as u64) as u32;
        let slot = self.slots.get(at as usize)?;
        (!slot.free && slot.uses == ticket >> SLOT_BITS).then_some(at)
    }

    pub(super) fn link_in_class(&mut self, at: u32, first: &mut u32, last: &mut u32) {
        self.link(at, first, last, |slot| &mut slot.in_class);
    }

    pub(super) fn unlink_in_class(&mut self, at: u32, first: &mut u32, last: &mut u32) {
        self.unlink(at, first, last, |slot| &mut slot.in_class);
    }

    pub(super) fn link_in_flow(&mut self, at: u32, first: &mut u32, last: &mut u32) {
        self.link(at, first, last, |slot| &mut slot.in_flow);
    }

    pub(super) fn unlink_in_flow(&mut self, at: u32, first: &mut u32, last: &mut u32) {
        self.unlink(at, first, last, |slot| &mut slot.in_flow);
    }

    /// Last in the list.
    fn link(&mut self, at: u32, first: &mut u32, last: &mut u32, links: impl Fn(&mut Slot) -> &mut Links) {
        *links(&mut self.slots[at as usize]) = Links { before: *last, after: NIL };
        if *last == NIL {
            *first = at;
        } else {
            links(&mut self.slots[*last as usize]).after = at;
        }
        *last = at;
    }

    fn unlink(&mut self, at: u32, first: &mut u32, last: &mut u32, links: impl Fn(&mut Slot) -> &mut Links) {
        let Links { before, after } = std::mem::replace(links(&mut self.slots[at as usize]), UNLINKED);
        if before == NIL {
            *first = after;
        } else {
            links(&mut self.slots[before as usize]).after = after;
        }
        if after == NIL {
            *last = before;
        } else {
            links(&mut self.slots[after as usize]).before = before;
        }
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }
}

fn ticket(at: u32, uses: u64) -> u64 {
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
