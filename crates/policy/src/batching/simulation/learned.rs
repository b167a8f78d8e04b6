//! The batcher of this crate, as the simulation drives it: like the real caller, with one setting for everything.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{Request, Scheduler, Wish};
use crate::batching::{Batcher, Done, Item, Key, Settings, Situation, Turn};

/// The learning batcher.
#[derive(Debug)]
pub struct Learned {
    batcher: Batcher,
    ids: BTreeMap<Key, usize>,
    keys: Vec<Key>,
}

impl Learned {
    /// With these rules.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        Self { batcher: Batcher::new(settings), ids: BTreeMap::new(), keys: Vec::new() }
    }

    /// The one setting of the sweep: the largest batch, and nothing else.
    #[must_use]
    pub fn plain(max_rows: u32) -> Self {
        Self::new(Settings { max_rows, max_items: 100_000, timer: Duration::ZERO, ..Settings::default() })
    }
}

impl Scheduler for Learned {
    fn push(&mut self, request: Request, now: u64) -> bool {
        let item = Item {
            rows: 1,
            bytes: 1,
            deadline: Duration::from_nanos(request.deadline),
            timeout: None,
            level: 0,
            tenant: request.tenant,
            group: 0,
        };
        match self.batcher.push(item, Duration::from_nanos(now)) {
            Ok(key) => self.ids.insert(key, request.id).is_none(),
            Err(_) => false,
        }
    }

    fn next(&mut self, now: u64, idle: usize, lanes: usize, busy: &[(u32, u64)]) -> Wish {
        let left = |(rows, began): &(u32, u64)| {
            let lasts = self.batcher.estimate(*rows).unwrap_or_default();
            lasts.saturating_sub(Duration::from_nanos(now - began))
        };
        let busy: Vec<Duration> = busy.iter().map(left).collect();
        let situation = Situation { idle_lanes: idle as u32, lanes: lanes as u32, busy: &busy };
        match self.batcher.next_into(Duration::from_nanos(now), situation, &mut self.keys) {
            Turn::Run { .. } => Wish::Run(self.keys.iter().filter_map(|key| self.ids.remove(key)).collect()),
            Turn::Wait { until } => Wish::Wait(until.as_nanos() as u64),
            Turn::Idle => Wish::Idle,
        }
    }

    fn dropped(&mut self, now: u64) -> Vec<usize> {
        let gone = self.batcher.expired(Duration::from_nanos(now));
        gone.iter().filter_map(|key| self.ids.remove(key)).collect()
    }

    fn finished(&mut self, rows: u32, took: u64, now: u64) {
        let done = Done { group: 0, items: rows as usize, rows, took: Duration::from_nanos(took) };
        self.batcher.finished(done, Duration::from_nanos(now));
    }
}
