//! The queue in front of a target with a limited concurrency: who may begin, who waits, who is told at once that it cannot be.
//!
//! **Who goes first.** Classes in strict order, held back gradually: a class may begin only while fewer than its part of the slots is in
//! use ([`AdmissionSettings::hold_back`]), so low classes are slowed before the target is full. Within a class tenants share by
//! cost: start-time fair queueing, the same as deficit round-robin in the long run and without its quantum, which would have to be
//! as large as the largest cost (10⁴ times the smallest, for tokens) and let small requests wait behind so much. Within a tenant the
//! oldest goes first; once a class has had somebody waiting for [`AdmissionSettings::standing`] it is **overloaded**: the newest
//! goes first, and nobody waits longer than [`AdmissionSettings::patience`] (controlled delay with adaptive LIFO, as in Facebook's "Fail at
//! Scale"): those who are served are served fast.
//!
//! Invariants: a request begins, is dropped, is refused or is cancelled, exactly one of them. Never more begun than the limit, but for a
//! limit that was lowered. Nobody waits while it may begin. The queue is bounded in all, in bytes and per tenant, and "full" is said at once;
//! a higher class takes the place of a lower one, its tenant's own before others'. What waits past its deadline is dropped before it costs anything. In the steady
//! state nothing is allocated, and nothing is remembered of tenants that neither wait nor have just been served ahead of others that do.
//!
//! There is no clock here and no IO. Executing, and telling those who wait, is the caller's: each call that may let somebody in or drop
//! somebody appends to [`Answers`].

mod drain;
mod flows;
mod slots;

#[cfg(test)]
mod tests;

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use self::drain::Drain;
use self::flows::Flows;
use self::slots::{Entry, NIL, Slots};
use super::{CRITICALITIES, Criticality, nanos};

/// How the queue behaves.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AdmissionSettings {
    /// Requests that wait, in all.
    pub max_waiting: usize,
    /// Requests that wait, of one tenant in all classes.
    pub max_per_tenant: usize,
    /// Bytes that those who wait keep in memory, in all. One that is larger waits when nobody else does.
    pub max_bytes: u64,
    /// The part of the slots that a class may fill, by [`Criticality::index`]. Made to rise with the class; each class has at least
    /// one slot.
    pub hold_back: [f64; 4],
    /// After so long with somebody waiting a class is overloaded.
    pub standing: Duration,
    /// In an overloaded class nobody waits longer.
    pub patience: Duration,
    /// In an overloaded class no more wait: those would hardly be served within the patience, and hearing "no" at once costs least. Who has
    /// fewer waiting than another tenant takes the place of its oldest.
    pub most_overloaded: usize,
}

impl Default for AdmissionSettings {
    /// 1024 waiting, 128 of a tenant, 64 MiB; background holds back at 80 %, sheddable at 90 %; overloaded after 100 ms, patience 250 ms.
    fn default() -> Self {
        Self {
            max_waiting: 1024,
            max_per_tenant: 128,
            max_bytes: 64 << 20,
            hold_back: [0.8, 0.9, 1.0, 1.0],
            standing: Duration::from_millis(100),
            patience: Duration::from_millis(250),
            most_overloaded: usize::MAX,
        }
    }
}

/// How many may wait, and how long: what of [`AdmissionSettings`] follows the target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    /// In all, and of one tenant.
    pub most: usize,
    /// As in [`AdmissionSettings`].
    pub standing: Duration,
    /// As in [`AdmissionSettings`].
    pub patience: Duration,
    /// As in [`AdmissionSettings`].
    pub most_overloaded: usize,
}

/// A request as the queue sees it.
#[derive(Debug, Clone, Copy)]
pub struct Request {
    /// Whose it is.
    pub tenant: u32,
    /// Its class.
    pub criticality: Criticality,
    /// What it will cost, in any unit; at least 1 is charged.
    pub cost: u64,
    /// What it keeps in memory while it waits.
    pub bytes: u64,
    /// When its answer is worthless, on the same clock as `now`.
    pub deadline: Duration,
    /// The caller's name for it.
    pub id: u64,
}

/// Names a waiting request; unique for the life of its queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Ticket(u64);

/// The answer to an offer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Offer {
    /// Begin now, and say [`done`](Admission::done) once.
    Enter,
    /// Wait: the id will come in [`Answers`].
    Wait(Ticket),
    /// Not now.
    Refuse(RefuseReason, Duration),
}

/// Why an offer was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RefuseReason {
    /// The queue is full.
    Full,
    /// The tenant's part of the queue is full.
    TenantFull,
    /// The deadline has passed, or leaves less time than the target takes.
    Expired,
}

/// Why a waiting request was dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loss {
    /// Its deadline has passed or can no longer be met.
    Expired,
    /// It waited for longer than the patience of an overloaded queue.
    Stale,
    /// A request of a higher class has its place.
    Displaced,
}

/// A waiting request that will not begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dropped {
    /// Which.
    pub id: u64,
    /// Why.
    pub loss: Loss,
}

/// What became of those who waited. The caller empties it; its buffers are used again.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Answers {
    /// These begin now.
    pub entered: Vec<u64>,
    /// These do not.
    pub dropped: Vec<Dropped>,
}

/// A request that had begun has ended.
#[derive(Debug, Clone, Copy)]
pub struct Done {
    /// Whose it was.
    pub tenant: u32,
    /// Its class.
    pub criticality: Criticality,
    /// The cost of its offer.
    pub reserved: u64,
    /// What it did cost; the difference counts for the tenant's next turn.
    pub actual: u64,
}

#[derive(Debug, Default)]
struct Class {
    flows: Flows,
    /// The oldest and the newest of all that wait in it.
    first: u32,
    last: u32,
    waiting: usize,
    bytes: u64,
    waiting_since: u64,
}

/// The queue of one target.
#[derive(Debug)]
pub struct Admission {
    settings: AdmissionSettings,
    slots: Slots,
    classes: [Class; 4],
    /// (when to look, ticket); entries of those who have left are void.
    expiry: BinaryHeap<Reverse<(u64, u64)>>,
    limit: usize,
    in_use: usize,
    waiting: usize,
    bytes: u64,
    service: u64,
    drain: Drain,
}

impl Admission {
    /// An empty queue in front of a target that takes `limit` at once (at least one).
    #[must_use]
    pub fn new(mut settings: AdmissionSettings, limit: usize) -> Self {
        let mut least = 0.0f64;
        for part in &mut settings.hold_back {
            *part = if part.is_finite() { part.clamp(least, 1.0) } else { 1.0 };
            least = *part;
        }
        settings.max_waiting = settings.max_waiting.min(slots::MOST);
        let class = || Class { first: NIL, last: NIL, ..Class::default() };
        let classes = [class(), class(), class(), class()];
        let (slots, expiry, drain) = (Slots::default(), BinaryHeap::new(), Drain::default());
        Self { settings, slots, classes, expiry, limit: limit.max(1), in_use: 0, waiting: 0, bytes: 0, service: 0, drain }
    }

    /// A request comes. Somebody of a lower class may have to go for it.
    pub fn offer(&mut self, now: Duration, request: Request, answers: &mut Answers) -> Offer {
        let (at, class) = (nanos(now), request.criticality.index());
        let late_at = nanos(request.deadline).saturating_sub(self.service);
        if late_at <= at {
            return Offer::Refuse(RefuseReason::Expired, self.retry_after(request.criticality, at));
        }
        if self.classes[class].waiting > 0 {
            self.drop_stale(class, at, answers);
        }
        if self.in_use < self.part(class) {
            debug_assert!(self.classes[class].waiting == 0, "nobody waits while it may begin");
            self.in_use += 1;
            return Offer::Enter;
        }
        let way = self.way(request.tenant, class, at);
        if way.is_none() || !self.can_hold(class, request.bytes) {
            return Offer::Refuse(RefuseReason::Full, self.retry_after(request.criticality, at));
        }
        if let Some(reason) = self.is_full_for(request.tenant)
            && !self.displace_own(request.tenant, class, answers)
        {
            return Offer::Refuse(reason, self.retry_after(request.criticality, at));
        }
        if let Some(Some(longest)) = way {
            self.lose(longest, Loss::Displaced, answers);
        }
        while !self.has_room(self.waiting, self.bytes, request.bytes) && self.displace(class, answers) {}
        Offer::Wait(self.admit(&request, late_at, at))
    }

    /// A request that had begun has ended: others may begin.
    pub fn done(&mut self, now: Duration, done: Done, answers: &mut Answers) {
        debug_assert!(self.in_use > 0, "whoever is done had begun");
        self.in_use = self.in_use.saturating_sub(1);
        let at = nanos(now);
        self.drain.left(at);
        let flows = &mut self.classes[done.criticality.index()].flows;
        flows.settle(done.tenant, done.reserved.max(1), done.actual);
        self.let_in(at, answers);
    }

    /// A waiting request's caller is gone. False when it does not wait (any more): it may have begun.
    pub fn cancel(&mut self, ticket: Ticket) -> bool {
        let found = self.slots.find(ticket.0);
        if let Some(at) = found {
            self.remove(at);
        }
        found.is_some()
    }

    /// Drops whoever has waited too long. To be called at [`next_look`](Self::next_look); the other calls drop only what they meet.
    pub fn expired(&mut self, now: Duration, answers: &mut Answers) {
        let now = nanos(now);
        while let Some(Reverse((when, ticket))) = self.expiry.peek().copied() {
            let found = self.slots.find(ticket);
            if found.is_some() && when > now {
                break;
            }
            self.expiry.pop();
            if let Some(at) = found {
                self.lose(at, Loss::Expired, answers);
            }
        }
        for class in 0..self.classes.len() {
            self.drop_stale(class, now, answers);
        }
    }

    /// When [`expired`](Self::expired) has something to do, at the soonest; `None` while nobody waits.
    #[must_use]
    pub fn next_look(&self) -> Option<Duration> {
        let deadline = self.expiry.peek().map(|Reverse((when, _))| *when);
        let stale = self.classes.iter().filter(|class| class.waiting > 0).map(|class| {
            let overloaded = class.waiting_since.saturating_add(nanos(self.settings.standing));
            self.slots[class.first].arrived.saturating_add(nanos(self.settings.patience)).max(overloaded)
        });
        deadline.into_iter().filter(|_| self.waiting > 0).chain(stale).min().map(Duration::from_nanos)
    }

    /// The target takes so many at once from now on. What has begun goes on.
    pub fn set_limit(&mut self, now: Duration, limit: usize, answers: &mut Answers) {
        self.limit = limit.max(1);
        self.let_in(nanos(now), answers);
    }

    /// The least time that an execution takes: a request with less time left is late already. Zero at first.
    pub fn set_service_time(&mut self, least: Duration) {
        self.service = nanos(least);
    }

    /// So many have begun and are not done, where the caller counts them itself. Lets nobody in: the next call does.
    pub fn set_in_use(&mut self, in_use: usize) {
        self.in_use = in_use;
    }

    /// How many may wait, and how long, from now on. Those who wait already stay.
    pub fn set_room(&mut self, room: Room) {
        let Room { most, standing, patience, most_overloaded } = room;
        let max_waiting = most.min(slots::MOST);
        let max_per_tenant = max_waiting;
        self.settings = AdmissionSettings { max_waiting, max_per_tenant, standing, patience, most_overloaded, ..self.settings };
    }

    /// When somebody who waits is to call [`expired`](Self::expired) for its own sake, at the soonest; `None` when it does not wait.
    #[must_use]
    pub fn due(&self, ticket: Ticket) -> Option<Duration> {
        let slot = &self.slots[self.slots.find(ticket.0)?];
        let overloaded = self.classes[slot.class as usize].waiting_since.saturating_add(nanos(self.settings.standing));
        let stale = slot.arrived.saturating_add(nanos(self.settings.patience)).max(overloaded);
        Some(Duration::from_nanos(slot.late_at.min(stale)))
    }

    /// When a request of this class that is refused now should come again; 1 s to 30 s.
    #[must_use]
    pub fn come_back(&self, class: Criticality, now: Duration) -> Duration {
        self.retry_after(class, nanos(now))
    }

    /// How many wait.
    #[must_use]
    pub const fn waiting(&self) -> usize {
        self.waiting
    }

    /// How many have begun and are not done.
    #[must_use]
    pub const fn in_use(&self) -> usize {
        self.in_use
    }

    /// The concurrency limit.
    #[must_use]
    pub const fn limit(&self) -> usize {
        self.limit
    }

    /// For how long the oldest has waited. While the newest go first this says nothing of those who are served: for the `queue` of
    /// [`Load`](super::Load) take the waits of those who entered.
    #[must_use]
    pub fn oldest_wait(&self, now: Duration) -> Duration {
        let oldest = self.classes.iter().filter(|class| class.waiting > 0).map(|class| self.slots[class.first].arrived).min();
        Duration::from_nanos(oldest.map_or(0, |arrived| nanos(now).saturating_sub(arrived)))
    }

    /// Whether the newest go first in a class.
    #[must_use]
    pub fn is_overloaded(&self, class: Criticality, now: Duration) -> bool {
        self.overloaded(class.index(), nanos(now))
    }

    fn overloaded(&self, class: usize, now: u64) -> bool {
        let class = &self.classes[class];
        class.waiting > 0 && now.saturating_sub(class.waiting_since) >= nanos(self.settings.standing)
    }

    /// The slots that a class may fill.
    fn part(&self, class: usize) -> usize {
        ((self.limit as f64 * self.settings.hold_back[class]).floor() as usize).clamp(1, self.limit)
    }

    /// A tenant that is not alone may hold four times what is free, so that there is always room for the others.
    fn is_full_for(&self, tenant: u32) -> Option<RefuseReason> {
        const SHARE: usize = 4;
        let own: usize = self.classes.iter().map(|class| class.flows.of_tenant(tenant)).sum();
        let free = self.settings.max_waiting.saturating_sub(self.waiting);
        let greedy = own > 0 && own < self.waiting && own >= SHARE.saturating_mul(free);
        (own >= self.settings.max_per_tenant || greedy).then_some(RefuseReason::TenantFull)
    }

    /// Whether one more of a tenant may wait in a class, overloaded or not, and whose place it takes if so.
    fn way(&self, tenant: u32, class: usize, now: u64) -> Option<Option<u32>> {
        let flows = &self.classes[class].flows;
        if self.classes[class].waiting < self.settings.most_overloaded || !self.overloaded(class, now) {
            return Some(None);
        }
        let (waiting, oldest) = flows.longest()?;
        (waiting > flows.of_tenant(tenant) + 1).then_some(Some(oldest))
    }

    /// Whether so many bytes could wait, with all lower classes displaced if need be.
    fn can_hold(&self, class: usize, bytes: u64) -> bool {
        let stay = self.classes.iter().skip(class);
        let (waiting, held) = stay.fold((0, 0), |(waiting, held), class| (waiting + class.waiting, held + class.bytes));
        self.has_room(waiting, held, bytes)
    }

    const fn has_room(&self, waiting: usize, held: u64, bytes: u64) -> bool {
        waiting < self.settings.max_waiting && (waiting == 0 || held.saturating_add(bytes) <= self.settings.max_bytes)
    }

    /// Drops the oldest of the lowest class that waits, if that is below `class`.
    fn displace(&mut self, class: usize, answers: &mut Answers) -> bool {
        let Some(lowest) = self.classes.iter().take(class).find(|lower| lower.waiting > 0) else { return false };
        let oldest = lowest.first;
        self.lose(oldest, Loss::Displaced, answers);
        true
    }

    /// A tenant's lower classes do not keep its own higher ones out.
    fn displace_own(&mut self, tenant: u32, class: usize, answers: &mut Answers) -> bool {
        let oldest = self.classes.iter().take(class).find_map(|lower| lower.flows.oldest_of(tenant));
        if let Some(at) = oldest {
            self.lose(at, Loss::Displaced, answers);
        }
        oldest.is_some()
    }

    fn admit(&mut self, request: &Request, late_at: u64, now: u64) -> Ticket {
        let Request { tenant, criticality, cost, bytes, id, .. } = *request;
        let index = criticality.index();
        let class = &mut self.classes[index];
        let (at, ticket) = self.slots.insert(Entry { id, tenant, class: index as u8, cost: cost.max(1), bytes, late_at, arrived: now });
        self.slots.link_in_class(at, &mut class.first, &mut class.last);
        class.flows.admit(&mut self.slots, at);
        if class.waiting == 0 {
            class.waiting_since = now;
        }
        class.waiting += 1;
        class.bytes = class.bytes.saturating_add(bytes);
        self.waiting += 1;
        self.bytes = self.bytes.saturating_add(bytes);
        if self.expiry.len() > 2 * self.waiting + 64 {
            let slots = &self.slots;
            self.expiry.retain(|Reverse((_, ticket))| slots.find(*ticket).is_some());
        }
        self.expiry.push(Reverse((late_at, ticket)));
        Ticket(ticket)
    }

    fn let_in(&mut self, now: u64, answers: &mut Answers) {
        for class in CRITICALITIES.map(Criticality::index) {
            while self.classes[class].waiting > 0 && self.in_use < self.part(class) {
                let newest = self.overloaded(class, now);
                let Some(at) = self.classes[class].flows.next(newest) else { break };
                let waited = now.saturating_sub(self.slots[at].arrived);
                if self.slots[at].late_at <= now {
                    self.lose(at, Loss::Expired, answers);
                } else if newest && waited >= nanos(self.settings.patience) {
                    self.lose(at, Loss::Stale, answers);
                } else {
                    let cost = self.slots[at].cost;
                    self.classes[class].flows.charge(&self.slots, at, cost);
                    answers.entered.push(self.slots[at].id);
                    self.remove(at);
                    self.in_use += 1;
                }
            }
        }
    }

    fn drop_stale(&mut self, class: usize, now: u64, answers: &mut Answers) {
        while self.overloaded(class, now) {
            let oldest = self.classes[class].first;
            if now.saturating_sub(self.slots[oldest].arrived) < nanos(self.settings.patience) {
                break;
            }
            self.lose(oldest, Loss::Stale, answers);
        }
    }

    fn lose(&mut self, at: u32, loss: Loss, answers: &mut Answers) {
        answers.dropped.push(Dropped { id: self.slots[at].id, loss });
        self.remove(at);
    }

    fn remove(&mut self, at: u32) {
        let class = &mut self.classes[self.slots[at].class as usize];
        self.slots.unlink_in_class(at, &mut class.first, &mut class.last);
        class.flows.unlink(&mut self.slots, at);
        class.waiting -= 1;
        class.bytes = class.bytes.saturating_sub(self.slots[at].bytes);
        self.waiting -= 1;
        self.bytes = self.bytes.saturating_sub(self.slots[at].bytes);
        self.slots.release(at);
    }

    /// How long those who go first will take, at the rate at which others have left lately; 1 s to 30 s.
    fn retry_after(&self, class: Criticality, now: u64) -> Duration {
        let ahead: usize = self.classes.iter().skip(class.index()).map(|class| class.waiting).sum();
        let wait = (ahead + 1) as f64 / self.drain.rate(now).max(1e-3);
        Duration::from_secs_f64(wait.clamp(1.0, 30.0))
    }
}
