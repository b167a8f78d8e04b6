//! The items of one priority level, and whose turn it is among them.
//!
//! Within a level tenants share by start-time fair queueing: each has a virtual time that moves by the cost of what was taken
//! from it, the lowest goes first, and one that comes back from idleness starts at the level's clock, so idleness saves nothing up.
//! Charging happens when an item is taken and not when it arrives: what expires or is cancelled was never paid for. A tenant's
//! items go by arrival. Items that may share a batch (same group) of one tenant form a flow; a group orders its flows by their
//! tenants' times. The group of the oldest item of the tenant whose turn it is leads the next batch, so a tenant that is not
//! served moves to the front and takes its group along: no group starves.
//!
//! Heap entries are lower bounds that are put right when they come up; an entry whose stamp is not its flow's is void.

use std::cmp::Reverse;
use std::collections::binary_heap::PeekMut;
use std::collections::{BTreeMap, BinaryHeap};

use slab::Slab;

use super::slots::{Links, NIL, Slots, UNLINKED};

type Order = BinaryHeap<Reverse<(u64, u64, u32)>>;

#[derive(Debug)]
struct Tenant {
    id: u64,
    time: u64,
    items: u32,
    ends: Links,
    stamp: u64,
}

#[derive(Debug)]
struct Flow {
    tenant: u32,
    group: u32,
    ends: Links,
    /// The stamp of its entry in its group's order; 0 = it has none.
    stamp: u64,
    round: u64,
}

#[derive(Debug)]
struct Group {
    id: u64,
    items: u32,
    rows: u64,
    order: Order,
}

/// An item that was taken tentatively.
#[derive(Debug, Clone, Copy)]
pub(super) struct Drawn {
    pub at: u32,
    pub rank: u32,
    /// What its tenant was charged, in virtual time.
    pub charge: u64,
    /// Its tenant's virtual time before.
    pub start: u64,
}

/// One level, or the delayed items of one.
#[derive(Debug, Default)]
pub(super) struct Level {
    tenants: Slab<Tenant>,
    flows: Slab<Flow>,
    groups: Slab<Group>,
    by_tenant: BTreeMap<u64, u32>,
    by_group: BTreeMap<u64, u32>,
    by_flow: BTreeMap<(u32, u32), u32>,
    turns: Order,
    aside: Vec<u32>,
    stamps: u64,
    clock: u64,
    pub items: usize,
    /// How many batches began since the last one that took something from here.
    pub passed_over: u32,
}

fn index(key: usize) -> u32 {
    u32::try_from(key).unwrap_or(NIL)
}

impl Level {
    /// Puts an item last in its flow and in its tenant's line.
    pub(super) fn admit(&mut self, slots: &mut Slots, at: u32) {
        self.sweep();
        let (tenant_id, group_id, rows) = (slots[at].tenant, slots[at].group, slots[at].rows);
        let tenant = self.tenant(tenant_id);
        let group = self.group(group_id);
        let flow = self.flow(group, tenant);
        slots[at].flow = flow;

        let ends = &mut self.flows[flow as usize].ends;
        slots[at].in_flow = Links { before: ends.after, after: NIL };
        if ends.after == NIL {
            ends.before = at
        } else {
            slots[ends.after].in_flow.after = at
        }
        ends.after = at;

        let owner = &mut self.tenants[tenant as usize];
        slots[at].in_tenant = Links { before: owner.ends.after, after: NIL };
        if owner.ends.after == NIL {
            owner.ends.before = at
        } else {
            slots[owner.ends.after].in_tenant.after = at
        }
        owner.ends.after = at;
        if owner.items == 0 {
            owner.time = owner.time.max(self.clock);
        }
        owner.items += 1;
        let time = owner.time;
        if owner.stamp == 0 {
            self.stamps += 1;
            owner.stamp = self.stamps;
            self.turns.push(Reverse((time, self.stamps, tenant)));
        }
        let group = &mut self.groups[group as usize];
        group.items += 1;
        group.rows += u64::from(rows);
        self.items += 1;
        if self.flows[flow as usize].stamp == 0 {
            self.queue_flow(flow);
        }
    }

    /// Takes an item out, wherever it stands.
    pub(super) fn unlink(&mut self, slots: &mut Slots, at: u32) {
        let (flow, Links { before, after }, tenant_links, rows) = (slots[at].flow, slots[at].in_flow, slots[at].in_tenant, slots[at].rows);
        let of = &mut self.flows[flow as usize];
        if before == NIL {
            of.ends.before = after
        } else {
            slots[before].in_flow.after = after
        }
        if after == NIL {
            of.ends.after = before
        } else {
            slots[after].in_flow.before = before
        }
        let owner = &mut self.tenants[of.tenant as usize];
        let Links { before, after } = tenant_links;
        if before == NIL {
            owner.ends.before = after
        } else {
            slots[before].in_tenant.after = after
        }
        if after == NIL {
            owner.ends.after = before
        } else {
            slots[after].in_tenant.before = before
        }
        owner.items -= 1;
        let group = &mut self.groups[of.group as usize];
        group.items -= 1;
        group.rows -= u64::from(rows);
        self.items -= 1;
    }

    /// Undoes the latest [`unlink`](Self::unlink) that is not yet undone: its own links still say where it stood.
    fn relink(&mut self, slots: &mut Slots, at: u32) {
        let (flow, Links { before, after }, tenant_links, rows) = (slots[at].flow, slots[at].in_flow, slots[at].in_tenant, slots[at].rows);
        let of = &mut self.flows[flow as usize];
        if before == NIL {
            of.ends.before = at
        } else {
            slots[before].in_flow.after = at
        }
        if after == NIL {
            of.ends.after = at
        } else {
            slots[after].in_flow.before = at
        }
        let owner = &mut self.tenants[of.tenant as usize];
        let Links { before, after } = tenant_links;
        if before == NIL {
            owner.ends.before = at
        } else {
            slots[before].in_tenant.after = at
        }
        if after == NIL {
            owner.ends.after = at
        } else {
            slots[after].in_tenant.before = at
        }
        owner.items += 1;
        let group = &mut self.groups[of.group as usize];
        group.items += 1;
        group.rows += u64::from(rows);
        self.items += 1;
    }

    /// The oldest item of the tenant whose turn it is.
    pub(super) fn lead(&mut self) -> Option<u32> {
        loop {
            let mut top = self.turns.peek_mut()?;
            let Reverse((key, stamp, tenant)) = *top;
            match self.tenants.get_mut(tenant as usize).filter(|owner| owner.stamp == stamp) {
                None => {
                    PeekMut::pop(top);
                }
                Some(owner) if owner.items == 0 => {
                    owner.stamp = 0;
                    PeekMut::pop(top);
                }
                Some(owner) if owner.time > key => top.0.0 = owner.time,
                Some(owner) => return Some(owner.ends.before),
            }
        }
    }

    /// Items and rows of a group that wait here.
    pub(super) fn of_group(&self, group: u64) -> (u32, u64) {
        self.by_group.get(&group).map_or((0, 0), |at| (self.groups[*at as usize].items, self.groups[*at as usize].rows))
    }

    /// Items of a tenant that wait here.
    pub(super) fn of_tenant(&self, tenant: u64) -> usize {
        self.by_tenant.get(&tenant).map_or(0, |at| self.tenants[*at as usize].items as usize)
    }

    /// How many tenants are known here, waiting or not long gone.
    pub(super) fn tenants(&self) -> usize {
        self.tenants.len()
    }

    /// Takes the next item of `group` that has at most `room` rows and charges `price` for each row. With `in_order` a tenant's
    /// item is taken only when none of its items arrived before it.
    pub(super) fn draw(&mut self, slots: &mut Slots, group: u64, room: u32, in_order: bool, price: u64) -> Option<Drawn> {
        /// How many flows with a too large item at their head are passed over in search for one that fits.
        const SEARCH: usize = 8;
        let group = *self.by_group.get(&group)?;
        loop {
            let flow = self.first_flow(group)?;
            let of = &mut self.flows[flow as usize];
            let (at, tenant) = (of.ends.before, of.tenant);
            let too_large = slots[at].rows > room;
            if too_large || (in_order && self.tenants[tenant as usize].ends.before != at) {
                if too_large && self.aside.len() >= SEARCH {
                    return None;
                }
                of.stamp = 0;
                self.aside.push(flow);
                self.groups[group as usize].order.pop();
                continue;
            }
            let charge = price.saturating_mul(u64::from(slots[at].rows)).max(1);
            let owner = &mut self.tenants[tenant as usize];
            let start = owner.time;
            owner.time = start.saturating_add(charge);
            self.unlink(slots, at);
            return Some(Drawn { at, rank: slots[at].rank, charge, start });
        }
    }

    /// Gives flows that [`draw`](Self::draw) passed over their places back.
    pub(super) fn restore_aside(&mut self) {
        while let Some(flow) = self.aside.pop() {
            if self.flows.get(flow as usize).is_some_and(|of| of.stamp == 0 && of.ends.before != NIL) {
                self.queue_flow(flow);
            }
        }
    }

    /// Takes the charge of a drawn item back: it will not run.
    pub(super) fn refund(&mut self, slots: &Slots, drawn: &Drawn) {
        let tenant = self.flows[slots[drawn.at].flow as usize].tenant;
        let owner = &mut self.tenants[tenant as usize];
        owner.time = owner.time.saturating_sub(drawn.charge);
    }

    /// Undoes a draw; to be called for all draws, latest first, and [`requeue`](Self::requeue) for each after.
    pub(super) fn undo(&mut self, slots: &mut Slots, drawn: &Drawn) {
        self.refund(slots, drawn);
        self.relink(slots, drawn.at);
    }

    /// Gives the flow of an undone draw its place back, once in each `round`.
    pub(super) fn requeue(&mut self, slots: &Slots, drawn: &Drawn, round: u64) {
        let flow = slots[drawn.at].flow;
        let of = &mut self.flows[flow as usize];
        if of.round != round {
            of.round = round;
            self.queue_flow(flow);
        }
    }

    /// Takes an item for good and charges its tenant.
    pub(super) fn take(&mut self, slots: &mut Slots, drawn: &Drawn) {
        let tenant = self.flows[slots[drawn.at].flow as usize].tenant;
        let owner = &mut self.tenants[tenant as usize];
        owner.time = owner.time.saturating_add(drawn.charge);
        self.unlink(slots, drawn.at);
    }

    /// The level's clock follows the latest start among what runs.
    pub(super) fn began(&mut self, start: u64) {
        self.clock = self.clock.max(start);
    }

    fn first_flow(&mut self, group: u32) -> Option<u32> {
        loop {
            let mut top = self.groups[group as usize].order.peek_mut()?;
            let Reverse((key, stamp, flow)) = *top;
            match self.flows.get_mut(flow as usize).filter(|of| of.stamp == stamp) {
                None => {
                    PeekMut::pop(top);
                }
                Some(of) if of.ends.before == NIL => {
                    of.stamp = 0;
                    PeekMut::pop(top);
                }
                Some(of) => {
                    let time = self.tenants[of.tenant as usize].time;
                    if time <= key {
                        return Some(flow);
                    }
                    top.0.0 = time;
                }
            }
        }
    }

    fn queue_flow(&mut self, flow: u32) {
        self.stamps += 1;
        let of = &mut self.flows[flow as usize];
        of.stamp = self.stamps;
        let time = self.tenants[of.tenant as usize].time;
        let group = &mut self.groups[of.group as usize];
        if group.order.len() > 64 + 4 * group.items as usize {
            let flows = &self.flows;
            group.order.retain(|Reverse((_, stamp, flow))| flows.get(*flow as usize).is_some_and(|of| of.stamp == *stamp));
        }
        group.order.push(Reverse((time, self.stamps, flow)));
    }

    fn tenant(&mut self, id: u64) -> u32 {
        let (tenants, clock) = (&mut self.tenants, self.clock);
        *self.by_tenant.entry(id).or_insert_with(|| index(tenants.insert(Tenant { id, time: clock, items: 0, ends: UNLINKED, stamp: 0 })))
    }

    fn group(&mut self, id: u64) -> u32 {
        let groups = &mut self.groups;
        *self.by_group.entry(id).or_insert_with(|| index(groups.insert(Group { id, items: 0, rows: 0, order: BinaryHeap::new() })))
    }

    fn flow(&mut self, group: u32, tenant: u32) -> u32 {
        let flows = &mut self.flows;
        *self
            .by_flow
            .entry((group, tenant))
            .or_insert_with(|| index(flows.insert(Flow { tenant, group, ends: UNLINKED, stamp: 0, round: 0 })))
    }

    /// Forgets empty flows, groups and tenants once they outnumber the items. A tenant that is ahead of the clock is remembered
    /// as long as there is room: else it could come back with a clean slate.
    fn sweep(&mut self) {
        const KEPT: usize = 64;
        let (most, most_tenants) = (KEPT + 2 * self.items, 8 * KEPT + 2 * self.items);
        if self.flows.len() <= most && self.tenants.len() <= most_tenants && self.groups.len() <= most {
            return;
        }
        self.flows.retain(|_, flow| flow.ends.before != NIL);
        self.groups.retain(|_, group| group.items > 0);
        let clock = self.clock;
        self.tenants.retain(|_, tenant| tenant.items > 0 || tenant.time > clock);
        if self.tenants.len() > most_tenants {
            self.tenants.retain(|_, tenant| tenant.items > 0);
        }
        let (flows, groups, tenants) = (&self.flows, &self.groups, &self.tenants);
        self.by_flow
            .retain(|(group, tenant), at| flows.get(*at as usize).is_some_and(|flow| flow.group == *group && flow.tenant == *tenant));
        self.by_group.retain(|id, at| groups.get(*at as usize).is_some_and(|group| group.id == *id));
        self.by_tenant.retain(|id, at| tenants.get(*at as usize).is_some_and(|tenant| tenant.id == *id));
        self.turns.retain(|Reverse((_, stamp, tenant))| tenants.get(*tenant as usize).is_some_and(|owner| owner.stamp == *stamp));
    }
}
