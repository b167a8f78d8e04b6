//! After a runner died with a batch: which parts to try again, how, and whom to refuse.
//!
//! [`Suspects`] says what to run next, alone in a runner, until every part was answered, given up, or found to be poison.
//! [`PoisonList`] remembers poison for a while. Invariants: a part that did not bring a runner down is tried until it is answered; a
//! part is called poison only after it crashed alone, and was in a crash before; never more crashes in one search than
//! [`Suspects::most_crashes`] for one poison part. Running, restarting and counting crashes toward quarantine are the caller's.
//!
//! **Why not always halves.** Trying 64 parts one by one costs at most one more crash and 64 small executions; halving costs few
//! executions but a crash at each of six steps, and three crashes in a minute are quarantine. So the caller says how many
//! crashes the search may cost: with one, every part runs alone; with two, in about eight eights; with six or more, in halves.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use plinth_types::Digest;

/// Parts of a crashed batch that are still under suspicion. `T` is the caller's name for a part.
#[derive(Debug, Clone)]
pub struct Suspects<T> {
    /// Sets to run, last first. Each knows how many crashes may still be spent on it.
    trials: Vec<Trial<T>>,
    running: Option<Trial<T>>,
}

#[derive(Debug, Clone)]
struct Trial<T> {
    parts: Vec<T>,
    crashes_left: u32,
    /// Which split it came from; the last of a split whose others were all answered holds the culprit.
    siblings: u64,
}

/// What a crash has shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Finding<T> {
    /// One of several; they will be tried in smaller sets.
    Narrowed,
    /// This part crashed alone, and in a batch or alone before: refuse it from now on.
    Poison(T),
    /// Nothing was being tried.
    Nothing,
}

impl<T: PartialEq> Suspects<T> {
    /// After a crash with `parts` in the runner. `crashes` is how many more crashes the search may cost for one poison part; it
    /// counts as at least one.
    #[must_use]
    pub fn after_crash(parts: Vec<T>, crashes: u32) -> Self {
        let mut suspects = Self { trials: Vec::new(), running: None };
        if !parts.is_empty() {
            suspects.split(Trial { parts, crashes_left: crashes.max(1), siblings: 0 });
        }
        suspects
    }

    /// The most crashes that finding one poison part may still cost.
    #[must_use]
    pub fn most_crashes(&self) -> u32 {
        self.trials.iter().chain(&self.running).map(|trial| trial.crashes_left).max().unwrap_or(0)
    }

    /// The parts to run now, together and with nothing else; `None` when the search is over. Asked again before the result is in,
    /// the same parts.
    pub fn trial(&mut self) -> Option<&[T]> {
        if self.running.is_none() {
            self.running = self.trials.pop();
        }
        self.running.as_ref().map(|trial| trial.parts.as_slice())
    }

    /// The parts in hand were answered (with a result or with an error; the runner lives).
    pub fn answered(&mut self) {
        let Some(done) = self.running.take() else { return };
        // When all others of a split were answered the last set holds the culprit, and running it whole would cost a crash for
        // what is known already. A single part has its chance all the same.
        let mut left = self.trials.iter().filter(|trial| trial.siblings == done.siblings);
        if let (Some(last), None) = (left.next(), left.next())
            && last.parts.len() > 1
            && done.siblings & CRASHED == 0
            && let Some(last) = self.trials.pop()
        {
            self.split(last);
        }
    }

    /// The runner died with the parts in hand.
    pub fn crashed(&mut self) -> Finding<T> {
        let Some(mut trial) = self.running.take() else { return Finding::Nothing };
        for other in &mut self.trials {
            if other.siblings == trial.siblings {
                other.siblings |= CRASHED;
            }
        }
        if trial.parts.len() > 1 {
            trial.crashes_left = trial.crashes_left.saturating_sub(1).max(1);
            self.split(trial);
            return Finding::Narrowed;
        }
        trial.parts.pop().map_or(Finding::Nothing, Finding::Poison)
    }

    /// A part is not wanted any more: cancelled, or past its deadline. Not for parts in hand.
    pub fn give_up(&mut self, part: &T) {
        for trial in &mut self.trials {
            trial.parts.retain(|other| other != part);
        }
        self.trials.retain(|trial| !trial.parts.is_empty());
    }

    /// Whether every part has its result.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.trials.is_empty() && self.running.is_none()
    }

    fn split(&mut self, trial: Trial<T>) {
        let Trial { mut parts, crashes_left, .. } = trial;
        // The fewest sets with which `crashes_left` rounds come down to single parts: the root of that degree, at least two.
        let count = parts.len();
        let sets = (2..=count.max(2)).find(|sets| reaches(*sets, crashes_left, count)).unwrap_or(count);
        let size = count.div_ceil(sets.max(1)).max(1);
        let siblings = next_split(&self.trials);
        while !parts.is_empty() {
            let from = (parts.len() - 1) / size * size;
            let set = parts.split_off(from);
            self.trials.push(Trial { parts: set, crashes_left, siblings });
        }
    }
}

/// Marks a split of which one set has crashed: its last set is not known to hold another culprit.
const CRASHED: u64 = 1;

fn next_split<T>(trials: &[Trial<T>]) -> u64 {
    trials.iter().map(|trial| trial.siblings | CRASHED).max().map_or(2, |last| last + 1)
}

fn reaches(sets: usize, rounds: u32, count: usize) -> bool {
    let mut covered = 1usize;
    for _ in 0..rounds {
        covered = covered.saturating_mul(sets);
        if covered >= count {
            return true;
        }
    }
    false
}

/// Requests to refuse for a while, by the digest of their inputs.
#[derive(Debug, Clone)]
pub struct PoisonList {
    most: usize,
    lasts: Duration,
    until: BTreeMap<Digest, Duration>,
    order: VecDeque<(Digest, Duration)>,
}

impl PoisonList {
    /// Remembers at most `most` requests (at least one), each for `lasts`.
    #[must_use]
    pub fn new(most: usize, lasts: Duration) -> Self {
        Self { most: most.max(1), lasts, until: BTreeMap::new(), order: VecDeque::new() }
    }

    /// Whether there is nothing to check for, so that no digest need be computed. Entries that have run out may still count.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.until.is_empty()
    }

    /// How long this request is still refused; `None`: let it in.
    #[must_use]
    pub fn check(&self, digest: &Digest, now: Duration) -> Option<Duration> {
        self.until.get(digest).filter(|until| **until > now).map(|until| until.saturating_sub(now))
    }

    /// Refuses a request from now on. When the list is full the oldest entry goes.
    pub fn add(&mut self, digest: Digest, now: Duration) {
        self.forget(now);
        let until = now.saturating_add(self.lasts);
        self.until.insert(digest, until);
        self.order.push_back((digest, until));
        while self.until.len() > self.most || self.order.len() > 2 * self.most {
            let Some((oldest, was)) = self.order.pop_front() else { break };
            if self.until.get(&oldest) == Some(&was) {
                self.until.remove(&oldest);
            }
        }
    }

    /// Drops what has run out. [`add`](Self::add) does so too; worth calling now and then.
    pub fn forget(&mut self, now: Duration) {
        while let Some((digest, until)) = self.order.front().copied().filter(|(_, until)| *until <= now) {
            self.order.pop_front();
            if self.until.get(&digest) == Some(&until) {
                self.until.remove(&digest);
            }
        }
    }
}

#[cfg(test)]
mod tests;
