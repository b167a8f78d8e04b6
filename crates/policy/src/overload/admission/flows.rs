//! The tenants of one class, and whose turn it is.
//!
//! Start-time fair queueing: a flow has a virtual time that moves by the cost of what began; the lowest goes first, and one that comes
//! back from idleness starts at the class's clock, so idleness saves nothing up. Charged is what begins: what expires or is
//! cancelled was never paid for. A flow that has nothing waiting but is ahead of the clock is kept until its time comes up (else it could
//! come back with a clean slate), unless such flows outnumber those that wait.
//!
//! Each flow has exactly one entry in the heap, with a lower bound of its time that is put right when it comes up.

use std::cmp::Reverse;
use std::collections::binary_heap::PeekMut;
use std::collections::{BinaryHeap, HashMap};

use slab::Slab;

use super::slots::{NIL, Slots};

#[derive(Debug)]
struct Flow {
    tenant: u32,
    time: u64,
    /// What it was charged too much for.
    credit: u64,
    waiting: usize,
    first: u32,
    last: u32,
}

#[derive(Debug, Default)]
pub(super) struct Flows {
    flows: Slab<Flow>,
    by_tenant: HashMap<u32, u32>,
    /// (time or less, order of coming, flow).
    order: BinaryHeap<Reverse<(u64, u64, u32)>>,
    clock: u64,
    comings: u64,
    busy: usize,
}

impl Flows {
    /// Puts a request last in its tenant's flow.
    pub(super) fn admit(&mut self, slots: &mut Slots, at: u32) {
        let tenant = slots[at].tenant;
        let index = match self.by_tenant.get(&tenant) {
            Some(index) => *index,
            None => self.begin(tenant),
        };
        slots[at].flow = index;
        let flow = &mut self.flows[index as usize];
        slots.link_in_flow(at, &mut flow.first, &mut flow.last);
        if flow.waiting == 0 {
            flow.time = flow.time.max(self.clock);
            self.busy += 1;
        }
        flow.waiting += 1;
    }

    /// Takes a request out, wherever it stands.
    pub(super) fn unlink(&mut self, slots: &mut Slots, at: u32) {
        let flow = &mut self.flows[slots[at].flow as usize];
        slots.unlink_in_flow(at, &mut flow.first, &mut flow.last);
        flow.waiting -= 1;
        self.busy -= usize::from(flow.waiting == 0);
    }

    /// The request whose turn it is: the oldest or the newest of the flow with the lowest time.
    pub(super) fn next(&mut self, newest: bool) -> Option<u32> {
        loop {
            let mut top = self.order.peek_mut()?;
            let Reverse((key, _, index)) = *top;
            let flow = &self.flows[index as usize];
            if flow.time > key {
                top.0.0 = flow.time;
            } else if flow.waiting == 0 {
                PeekMut::pop(top);
                let flow = self.flows.remove(index as usize);
                self.by_tenant.remove(&flow.tenant);
            } else {
                return Some(if newest { flow.last } else { flow.first });
            }
        }
    }

    /// A request begins: its tenant pays.
    pub(super) fn charge(&mut self, slots: &Slots, at: u32, cost: u64) {
        let flow = &mut self.flows[slots[at].flow as usize];
        self.clock = self.clock.max(flow.time);
        let paid = cost.min(flow.credit);
        flow.credit -= paid;
        flow.time = flow.time.saturating_add(cost - paid);
    }

    /// The true cost of something that began is known.
    pub(super) fn settle(&mut self, tenant: u32, reserved: u64, actual: u64) {
        let Some(flow) = self.by_tenant.get(&tenant).and_then(|index| self.flows.get_mut(*index as usize)) else { return };
        flow.time = flow.time.saturating_add(actual.saturating_sub(reserved));
        // No more than it is ahead: credit is a correction, not savings.
        let most = flow.time.saturating_sub(self.clock);
        flow.credit = flow.credit.saturating_add(reserved.saturating_sub(actual)).min(most);
    }

    /// How many of a tenant wait.
    pub(super) fn of_tenant(&self, tenant: u32) -> usize {
        self.by_tenant.get(&tenant).and_then(|index| self.flows.get(*index as usize)).map_or(0, |flow| flow.waiting)
    }

    /// How many wait of the tenant of which most do, and its oldest.
    pub(super) fn longest(&self) -> Option<(usize, u32)> {
        self.flows
            .iter()
            .map(|(_, flow)| (flow.waiting, flow.first))
            .max_by_key(|(waiting, _)| *waiting)
            .filter(|(waiting, _)| *waiting > 0)
    }

    /// The oldest of a tenant.
    pub(super) fn oldest_of(&self, tenant: u32) -> Option<u32> {
        let flow = self.by_tenant.get(&tenant).and_then(|index| self.flows.get(*index as usize))?;
        (flow.waiting > 0).then_some(flow.first)
    }

    fn begin(&mut self, tenant: u32) -> u32 {
        const KEPT: usize = 64;
        if self.flows.len() > KEPT + 2 * self.busy {
            let flows = &mut self.flows;
            self.order.retain(|Reverse((_, _, index))| flows.get(*index as usize).is_some_and(|flow| flow.waiting > 0));
            flows.retain(|_, flow| flow.waiting > 0);
            self.by_tenant.retain(|tenant, index| flows.get(*index as usize).is_some_and(|flow| flow.tenant == *tenant));
        }
        let time = self.clock;
        let flow = Flow { tenant, time, credit: 0, waiting: 0, first: NIL, last: NIL };
        let index = u32::try_from(self.flows.insert(flow)).unwrap_or(NIL);
        self.by_tenant.insert(tenant, index);
        self.comings += 1;
        self.order.push(Reverse((time, self.comings, index)));
        index
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.flows.len()
    }
}
