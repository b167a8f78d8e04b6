//! The learned costs of all groups of one model.
//!
//! Items of different groups have different shapes and may cost differently, so each group learns for itself once it has been seen
//! enough, and borrows from all executions until then. Invariant: at most [`GROUPS`] groups are remembered, the ones
//! executed last.

use std::collections::BTreeMap;

use super::cost::Cost;

/// How many groups keep a cost of their own.
const GROUPS: usize = 64;

/// So many groups that were executed once are remembered, to see whether they come again.
const NEWCOMERS: usize = 8;

#[derive(Debug, Default)]
pub(super) struct Costs {
    all: Cost,
    /// The first group; as long as there is no other, `all` is its cost.
    only: Option<u64>,
    groups: BTreeMap<u64, (u64, Cost)>,
    newcomers: [u64; NEWCOMERS],
    executions: u64,
}

impl Costs {
    pub(super) fn of(&self, group: u64) -> &Cost {
        if self.groups.is_empty() {
            return &self.all;
        }
        self.groups.get(&group).map(|(_, cost)| cost).filter(|cost| cost.is_known()).unwrap_or(&self.all)
    }

    pub(super) const fn all(&self) -> &Cost {
        &self.all
    }

    pub(super) fn observe(&mut self, group: u64, rows: u32, took: u64, max_rows: u32) {
        self.executions += 1;
        let only = *self.only.get_or_insert(group) == group;
        if self.groups.is_empty() && only {
            self.all.observe(rows, took, max_rows);
            return;
        }
        if self.groups.is_empty()
            && let Some(only) = self.only
        {
            // A second group: what was learned so far was the first one's.
            self.groups.insert(only, (self.executions, self.all.clone()));
        }
        self.all.observe(rows, took, max_rows);
        if max_rows > 1 && (self.groups.contains_key(&group) || self.is_admitted(group)) {
            let (seen, cost) = self.groups.entry(group).or_default();
            *seen = self.executions;
            cost.observe(rows, took, max_rows);
        }
    }

    /// A group gets a place of its own the second time, so that groups which never come again cost nothing.
    fn is_admitted(&mut self, group: u64) -> bool {
        if !self.newcomers.contains(&group) {
            let at = self.executions as usize % NEWCOMERS;
            self.newcomers[at] = group;
            return false;
        }
        if self.groups.len() >= GROUPS
            && let Some(oldest) = self.groups.iter().min_by_key(|(_, (seen, _))| *seen).map(|(id, _)| *id)
        {
            self.groups.remove(&oldest);
        }
        true
    }
}
