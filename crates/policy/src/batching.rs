//! The dynamic batcher: which of the waiting requests run together, and when. `(state, event, now) → (state, decision)`.
//!
//! One [`Batcher`] holds what waits for one model version. It learns what a batch costs as a function of its rows, and how
//! requests arrive, from executions and arrivals alone; from those, the deadlines and the operator's hints it decides. A batch is
//! formed at the moment a lane takes it, so it grows for as long as the lanes are busy.
//!
//! Invariants: every key that [`push`](Batcher::push) gave out leaves exactly once, by a [`Turn::Run`], by
//! [`expired`](Batcher::expired) or by [`remove`](Batcher::remove). A batch has items of one group only and never more than
//! `max_rows`. Items and bytes that wait stay within their bounds, and "full" is said at once. Nobody waits for ever: a level that
//! was passed over [`PATIENCE`] times leads the next batch, and within a level tenants take turns by cost.
//!
//! Times are `Duration`s since any fixed start. There is no clock and no IO: the caller runs the batches, keeps the tensors, and asks
//! again whenever something has changed or [`Turn::Wait`]'s time has come.

mod answers;
mod arrivals;
mod cost;
mod costs;
mod expiry;
mod form;
mod formation;
mod growth;
mod level;
mod settings;
mod slots;

#[cfg(any(test, feature = "testing"))]
pub mod simulation;

use std::collections::BTreeMap;
use std::time::Duration;

pub use self::answers::Answers;
pub use self::settings::{MOST_LEVELS, QueuePolicy, Settings};

use self::arrivals::Arrivals;
use self::costs::Costs;
use self::expiry::Expiry;
use self::form::Pick;
use self::growth::Growth;
use self::level::Level;
use self::slots::{Entry, MOST, Slots, State};

/// After so many batches that took nothing from a level although something waited there, the next one begins with it. So a
/// level below others that are saturated still gets about one batch in seventeen.
pub const PATIENCE: u32 = 16;
/// No [`Turn::Wait`] is longer: whoever forgets to ask again is late by a second at most.
pub const LONGEST_WAIT: Duration = Duration::from_secs(1);

/// The weight of the latest item among those that left "lately".
const LATELY: f64 = 1.0 / 256.0;

/// A request that waits to be run. `deadline` is absolute, on the same scale as `now`.
#[derive(Debug, Clone, Copy)]
pub struct Item {
    /// Its size along the batch dimension.
    pub rows: u32,
    /// What it keeps in memory while it waits.
    pub bytes: u64,
    /// When its answer is worthless.
    pub deadline: Duration,
    /// The request's own queue time-out.
    pub timeout: Option<Duration>,
    /// Its priority level; 0: the default one.
    pub level: u32,
    /// Whose it is, as an opaque number. Tenants share a level equally, by cost.
    pub tenant: u64,
    /// Items of different groups (other shapes of ragged inputs) cannot share a batch.
    pub group: u64,
}

/// Names a waiting item. Unique for the life of its batcher.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(u64);

/// Why an item was not let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// The queue, its level, or the tenant's share of the queue is full.
    Full,
    /// Its deadline has passed, or leaves less time than any execution takes.
    Expired,
    /// It has more rows than a batch may have, or more bytes than the queue.
    TooLarge,
}

/// What to do, with the batch in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Run these together, now.
    Run {
        /// The items, which have left the queue.
        keys: Vec<Key>,
    },
    /// Nothing to do before then, unless something arrives or a lane ends.
    Wait {
        /// Later than now, and not later than [`LONGEST_WAIT`] from now.
        until: Duration,
    },
    /// Nothing waits.
    Idle,
}

/// What to do; the batch is in the caller's buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// Run the items in the buffer together, now.
    Run {
        /// All rows together.
        rows: u32,
        /// Their group.
        group: u64,
    },
    /// As [`Step::Wait`].
    Wait {
        /// As in [`Step::Wait`].
        until: Duration,
    },
    /// Nothing waits.
    Idle,
}

/// How the lanes (instances) stand.
#[derive(Debug, Clone, Copy)]
pub struct Situation<'a> {
    /// Lanes that could begin a batch now. A lane that may be sent a second batch early (see [`prefetch`]) counts as idle.
    pub idle_lanes: u32,
    /// All lanes.
    pub lanes: u32,
    /// How long each busy lane's work will still last, by estimate. May be empty.
    pub busy: &'a [Duration],
}

/// The queue of one model version.
#[derive(Debug)]
pub struct Batcher {
    settings: Settings,
    slots: Slots,
    /// By rank: twice the level, and one more for its delayed items.
    levels: BTreeMap<u32, Level>,
    expiry: Expiry,
    doomed: Vec<u64>,
    items: usize,
    bytes: u64,
    costs: Costs,
    arrivals: Arrivals,
    /// Since when a batch is being kept back.
    growing_since: Option<u64>,
    lanes: u32,
    /// The share of those who left lately that was lost.
    loss: f64,
    picks: Vec<Pick>,
    round: u64,
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

impl Batcher {
    /// An empty queue that knows nothing yet.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        Self {
            settings: settings.resolved(),
            slots: Slots::default(),
            levels: BTreeMap::new(),
            expiry: Expiry::default(),
            doomed: Vec::new(),
            items: 0,
            bytes: 0,
            costs: Costs::default(),
            arrivals: Arrivals::default(),
            growing_since: None,
            lanes: 1,
            loss: 0.0,
            picks: Vec::new(),
            round: 0,
        }
    }

    /// Lets an item in.
    ///
    /// # Errors
    ///
    /// [`Refusal`], at once; nothing has changed then.
    pub fn push(&mut self, item: Item, now: Duration) -> Result<Key, Refusal> {
        let (now, deadline, rows) = (nanos(now), nanos(item.deadline), item.rows.max(1));
        if rows > self.settings.max_rows || item.bytes > self.settings.max_bytes {
            return Err(Refusal::TooLarge);
        }
        let level = self.settings.level(item.level);
        let best = self.costs.of(item.group).at_best(rows) as u64;
        if deadline <= now.saturating_add(best) {
            return Err(Refusal::Expired);
        }
        if self.is_full_for(&item, level) {
            return Err(Refusal::Full);
        }
        let memorable = self.memorable();
        self.arrivals.arrived(rows, memorable, now);
        let policy = self.settings.policy(level);
        let timeout_at = policy.timeout(item.timeout).map_or(u64::MAX, |timeout| now.saturating_add(nanos(timeout)));
        let reject = policy.reject_on_timeout;
        let Item { bytes, tenant, group, .. } = item;
        let rank = 2 * level;
        let entry = Entry { rows, bytes, deadline, timeout_at, reject, arrived: now, rank, tenant, group };
        let (at, key) = self.slots.insert(entry);
        self.levels.entry(rank).or_default().admit(&mut self.slots, at);
        self.items += 1;
        self.bytes += bytes;
        self.look_again(key, timeout_at.min(deadline - best));
        Ok(Key(key))
    }

    /// A tenant that is not alone may hold four times what is free, so that there is always room for the others.
    fn is_full_for(&self, item: &Item, level: u32) -> bool {
        const SHARE: usize = 4;
        let held = self.items + self.doomed.len();
        if held >= self.settings.max_items || item.bytes > self.settings.max_bytes.saturating_sub(self.bytes) || !self.slots.has_room() {
            return true;
        }
        let of = |rank: u32| self.levels.get(&rank);
        let (prompt, delayed) = (of(2 * level), of(2 * level + 1));
        let in_level = prompt.map_or(0, |level| level.items) + delayed.map_or(0, |level| level.items);
        if self.settings.policy(level).max_items.is_some_and(|most| in_level >= most) {
            return true;
        }
        let alone = prompt.is_none_or(|level| level.tenants() < 2);
        let own = prompt.map_or(0, |level| level.of_tenant(item.tenant));
        !alone && own > SHARE.saturating_mul(self.settings.max_items - held)
    }

    /// Takes an item out: its caller is gone. False when it is not here (any more).
    pub fn remove(&mut self, key: Key) -> bool {
        let Some(at) = self.slots.find(key.0) else { return false };
        if self.slots[at].state == State::Waiting {
            let rank = self.slots[at].rank;
            if let Some(level) = self.levels.get_mut(&rank) {
                level.unlink(&mut self.slots, at);
            }
            self.leaves(at);
        } else {
            self.doomed.retain(|doomed| *doomed != key.0);
        }
        self.slots.release(at);
        true
    }

    /// The items that have left the queue without being run: their deadline has passed or can no longer be met, or their queue
    /// time-out has passed and its action is to refuse. To be called before and after [`next`](Self::next).
    pub fn expired(&mut self, now: Duration) -> Vec<Key> {
        let mut keys = Vec::new();
        self.expired_into(now, &mut keys);
        keys
    }

    /// [`expired`](Self::expired), appending to a buffer that is used again.
    pub fn expired_into(&mut self, now: Duration, keys: &mut Vec<Key>) {
        let now = nanos(now);
        loop {
            let slots = &self.slots;
            let Some(key) = self.expiry.due(now, |key| slots.waits(key)) else { break };
            let Some(at) = self.slots.find(key) else { continue };
            let slot = &self.slots[at];
            let (rank, timeout_at) = (slot.rank, slot.timeout_at);
            let start_by = slot.deadline.saturating_sub(self.costs.of(slot.group).at_best(slot.rows) as u64);
            if start_by <= now || (timeout_at <= now && slot.reject) {
                if let Some(level) = self.levels.get_mut(&rank) {
                    level.unlink(&mut self.slots, at);
                }
                self.doom(at);
            } else if timeout_at <= now {
                if let Some(level) = self.levels.get_mut(&rank) {
                    level.unlink(&mut self.slots, at);
                }
                self.slots[at].rank = rank + 1;
                self.slots[at].timeout_at = u64::MAX;
                self.levels.entry(rank + 1).or_default().admit(&mut self.slots, at);
                self.look_again(key, start_by);
            } else {
                self.look_again(key, start_by.min(timeout_at));
            }
        }
        for key in self.doomed.drain(..) {
            if let Some(at) = self.slots.find(key) {
                self.slots.release(at);
                keys.push(Key(key));
            }
        }
    }

    /// Decides. [`next_into`](Self::next_into) with a buffer of its own.
    #[must_use = "the items of a batch have left the queue"]
    pub fn next(&mut self, now: Duration, situation: Situation<'_>) -> Step {
        let mut keys = Vec::new();
        match self.next_into(now, situation, &mut keys) {
            Turn::Run { .. } => Step::Run { keys },
            Turn::Wait { until } => Step::Wait { until },
            Turn::Idle => Step::Idle,
        }
    }

    /// Decides, and puts a batch's items into `keys`, which is emptied first. To be asked again at once after a batch while
    /// lanes are idle, and [`expired`](Self::expired) after it, since forming a batch may have shown that somebody is too late.
    #[must_use = "the items of a batch have left the queue"]
    pub fn next_into(&mut self, now: Duration, situation: Situation<'_>, keys: &mut Vec<Key>) -> Turn {
        keys.clear();
        let now = nanos(now);
        self.lanes = situation.lanes.max(1);
        while self.items > 0 {
            if situation.idle_lanes == 0 {
                return self.wait(u64::MAX, now);
            }
            let Some((rank, lead)) = self.lead() else { break };
            let group = self.slots[lead].group;
            let limit = match self.grow(now, &situation, lead, group) {
                Growth::Until(until) => {
                    self.growing_since = self.growing_since.or(Some(now));
                    return self.wait(until, now);
                }
                Growth::Begin(limit) => limit.max(self.slots[lead].rows),
            };
            let before = self.items;
            let rows = self.form(now, &situation, (rank, group), limit, keys);
            if rows > 0 {
                self.growing_since = None;
                return Turn::Run { rows, group };
            }
            debug_assert!(self.items < before, "whoever was not run was too late and has left");
            if self.items == before {
                return self.wait(now, now);
            }
        }
        self.growing_since = None;
        Turn::Idle
    }

    /// An execution that ended well: `rows` of `group` in `items` items took `took`. The only source of what is known of costs.
    pub fn finished(&mut self, done: Done, now: Duration) {
        self.costs.observe(done.group, done.rows.max(1), nanos(done.took), self.settings.max_rows);
        let memorable = self.memorable();
        self.arrivals.answered(done.items, memorable, nanos(now));
    }

    /// How many items wait.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.items
    }

    /// How many bytes wait.
    #[must_use]
    pub const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Whether nothing waits.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.items == 0
    }

    /// How long a batch of so many rows is expected to take, over all groups; `None` before the first execution.
    #[must_use]
    pub fn estimate(&self, rows: u32) -> Option<Duration> {
        self.costs.all().mean(rows).map(|mean| Duration::from_nanos(mean as u64))
    }

    /// How long what waits now will keep the lanes busy: what to say in `Retry-After`. At least a millisecond.
    #[must_use]
    pub fn wait_estimate(&self) -> Duration {
        let rows = self.items as f64 * self.arrivals.rows();
        let full = f64::from(self.settings.max_rows);
        let batch = self.costs.all().mean(self.settings.max_rows).unwrap_or(1e6);
        let wait = (rows / full).ceil() * batch / f64::from(self.lanes);
        Duration::from_nanos((wait as u64).clamp(1_000_000, 3_600_000_000_000))
    }

    /// Nobody waits longer for the next one than a small batch lasts, so a silence of that length says all that longer ones could.
    fn memorable(&self) -> f64 {
        1.5 * self.costs.all().mean(1).unwrap_or(1e8)
    }

    fn doom(&mut self, at: u32) {
        self.leaves(at);
        self.loss += (1.0 - self.loss) * LATELY;
        self.slots[at].state = State::Doomed;
        self.doomed.push(self.slots.key(at));
    }

    fn leaves(&mut self, at: u32) {
        self.items -= 1;
        self.bytes = self.bytes.saturating_sub(self.slots[at].bytes);
        if self.items == 0 {
            self.growing_since = None;
        }
    }

    fn look_again(&mut self, key: u64, at: u64) {
        let slots = &self.slots;
        self.expiry.push(at, key, self.items, |key| slots.waits(key));
    }

    fn wait(&mut self, until: u64, now: u64) -> Turn {
        let slots = &self.slots;
        let look = self.expiry.soonest(|key| slots.waits(key)).map_or(u64::MAX, |(at, _)| at);
        let until = until.min(look).clamp(now.saturating_add(1), now.saturating_add(nanos(LONGEST_WAIT)));
        Turn::Wait { until: Duration::from_nanos(until) }
    }
}

/// An execution that has ended.
#[derive(Debug, Clone, Copy)]
pub struct Done {
    /// The batch's group, from [`Turn::Run`].
    pub group: u64,
    /// How many items it had.
    pub items: usize,
    /// How many rows it had.
    pub rows: u32,
    /// How long the lane was busy with it.
    pub took: Duration,
}

/// Whether to send a lane its next batch while it still executes. That saves the lane the gap in which it would sit idle until it
/// is woken again (`wake_up`), but what was sent can grow no more for as long as the running batch lasts; so it pays only
/// when that is short in comparison with the gap.
#[must_use]
pub fn prefetch(running: Duration, wake_up: Duration) -> bool {
    running <= wake_up.saturating_mul(2)
}

const _: () = assert!(MOST < u32::MAX as usize);

#[cfg(test)]
mod tests;
