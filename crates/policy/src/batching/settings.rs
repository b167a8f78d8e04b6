//! What an operator may say about batching, in the words of `config.pbtxt`, and how it is read.
//!
//! Everything here is a hint or a limit: limits always hold, hints move the scheduler's own judgement. Invariant: once
//! resolved, every level has a policy and every bound is at least one. Reading files is left to others.

use std::collections::BTreeMap;
use std::time::Duration;

use super::slots::MOST;

/// More priority levels than this are read as this many.
pub const MOST_LEVELS: u32 = 1_024;

/// The rules of one model's queue.
#[derive(Debug, Clone)]
pub struct Settings {
    /// `max_batch_size`: a batch never has more rows; 1 when the model has no batch dimension or batching is off.
    pub max_rows: u32,
    /// `preferred_batch_size`: a hint, sizes to stop growing at and to cut at where the learned cost agrees.
    pub preferred_rows: Vec<u32>,
    /// `max_queue_delay_microseconds`: a batch is never kept back longer than this in order to grow. `None`: the scheduler decides.
    pub max_delay: Option<Duration>,
    /// Answers of a tenant go out in the order of its requests; see [`Answers`](super::Answers).
    pub preserve_ordering: bool,
    /// `priority_levels`: 1 is the highest; 0 means one level.
    pub levels: u32,
    /// `default_priority_level`: for items that name no level, or one that there is not.
    pub default_level: u32,
    /// `default_queue_policy`.
    pub default_policy: QueuePolicy,
    /// `priority_queue_policy`.
    pub level_policies: BTreeMap<u32, QueuePolicy>,
    /// No more items than this wait.
    pub max_items: usize,
    /// No more bytes than this wait.
    pub max_bytes: u64,
    /// How coarse the caller's timers are: a batch is not kept back for so short a time that waking up would take longer.
    pub timer: Duration,
}

impl Default for Settings {
    /// No batching, one level, 1,024 items, 256 MiB, timers that are exact to a millisecond.
    fn default() -> Self {
        Self {
            max_rows: 1,
            preferred_rows: Vec::new(),
            max_delay: None,
            preserve_ordering: false,
            levels: 0,
            default_level: 0,
            default_policy: QueuePolicy::default(),
            level_policies: BTreeMap::new(),
            max_items: 1_024,
            max_bytes: 256 << 20,
            timer: Duration::from_millis(1),
        }
    }
}

/// Triton's `ModelQueuePolicy`: what happens to an item that waits too long, and how many may wait.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueuePolicy {
    /// `timeout_action`: refuse an item whose queue time-out has passed; otherwise it is served after all others of its level.
    pub reject_on_timeout: bool,
    /// `default_timeout_microseconds`; `None`: no time-out but the deadline.
    pub default_timeout: Option<Duration>,
    /// Whether a request may name a time-out of its own. It can only shorten the default one.
    pub allow_timeout_override: bool,
    /// `max_queue_size`; `None`: only the queue's own bounds.
    pub max_items: Option<usize>,
}

impl Default for QueuePolicy {
    /// Triton's: no time-out, no limit, and refusal should there be a time-out.
    fn default() -> Self {
        Self { reject_on_timeout: true, default_timeout: None, allow_timeout_override: false, max_items: None }
    }
}

impl QueuePolicy {
    /// The queue time-out of a request that asks for `own`.
    #[must_use]
    pub fn timeout(&self, own: Option<Duration>) -> Option<Duration> {
        match (self.default_timeout, own.filter(|_| self.allow_timeout_override)) {
            (Some(default), Some(own)) => Some(default.min(own)),
            (default, own) => default.or(own),
        }
    }
}

impl Settings {
    pub(super) fn resolved(mut self) -> Self {
        self.max_rows = self.max_rows.max(1);
        let most = self.max_rows;
        self.preferred_rows.retain(|rows| (1..=most).contains(rows));
        self.preferred_rows.sort_unstable();
        self.preferred_rows.dedup();
        self.preferred_rows.truncate(16);
        self.max_items = self.max_items.clamp(1, MOST);
        self.max_bytes = self.max_bytes.max(1);
        self.levels = self.levels.clamp(1, MOST_LEVELS);
        if !(1..=self.levels).contains(&self.default_level) {
            self.default_level = self.levels;
        }
        self
    }

    pub(super) fn level(&self, named: u32) -> u32 {
        if (1..=self.levels).contains(&named) { named } else { self.default_level }
    }

    pub(super) fn policy(&self, level: u32) -> &QueuePolicy {
        self.level_policies.get(&level).unwrap_or(&self.default_policy)
    }
}
