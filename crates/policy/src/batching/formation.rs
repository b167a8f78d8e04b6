//! How the next batch comes about: who leads it, whether it begins, what is drawn for it.
//!
//! The steps of [`Batcher::next_into`] that change the queue. The judgement is elsewhere: whether and how many in `growth`, whom in
//! `form`, whose turn it is in `level`. Invariant: what is drawn and not chosen is back in its place before the step ends.

use super::form::{Fate, Pick, Prospect};
use super::growth::{Growth, Moment};
use super::{Batcher, Key, LATELY, PATIENCE, Situation, nanos};

impl Batcher {
    pub(super) fn lead(&mut self) -> Option<(u32, u32)> {
        let mut chosen: Option<(u32, u32)> = None;
        for (rank, level) in self.levels.iter().filter(|(_, level)| level.items > 0) {
            let overdue = if level.passed_over >= PATIENCE { level.passed_over } else { 0 };
            if chosen.is_none_or(|(_, most)| overdue > most) {
                chosen = Some((*rank, overdue));
            }
        }
        let (rank, _) = chosen?;
        Some((rank, self.levels.get_mut(&rank)?.lead()?))
    }

    pub(super) fn grow(&mut self, now: u64, situation: &Situation<'_>, lead: u32, group: u64) -> Growth {
        let (mut items, mut rows) = (0u32, 0u64);
        for level in self.levels.values() {
            let (more, of_rows) = level.of_group(group);
            items += more;
            rows += of_rows;
        }
        let slots = &self.slots;
        let due = self.expiry.soonest(|key| slots.waits(key));
        let due = due.and_then(|(look, key)| slots.find(key).map(|at| (slots[at].deadline, look)));
        Moment {
            now,
            cost: self.costs.of(group),
            arrivals: &self.arrivals,
            items,
            rows: u32::try_from(rows).unwrap_or(u32::MAX),
            max_rows: self.settings.max_rows,
            preferred: &self.settings.preferred_rows,
            idle: situation.idle_lanes,
            lanes: self.lanes,
            soonest_lane: soonest(situation),
            since: self.growing_since.unwrap_or(now),
            grow_until: self.settings.max_delay.map(|delay| self.slots[lead].arrived.saturating_add(nanos(delay))),
            timer: nanos(self.settings.timer) as f64,
            due,
        }
        .decide()
    }

    /// Forms the batch; returns its rows, 0 when everybody who was looked at is too late.
    pub(super) fn form(&mut self, now: u64, situation: &Situation<'_>, (lead, group): (u32, u64), limit: u32, keys: &mut Vec<Key>) -> u32 {
        self.picks.clear();
        let max_rows = self.settings.max_rows;
        let price = self.costs.of(group).mean(max_rows).map_or(1_000.0, |batch| (batch / f64::from(max_rows)).max(1.0)) as u64;
        let drawn = self.draw(now, (lead, group), limit, limit, price);
        let cost = self.costs.of(group);
        let alive = || self.picks.iter().filter(|pick| pick.fate != Fate::Doom);
        let tightest = alive().map(|pick| pick.deadline).min().unwrap_or(u64::MAX);
        let lasts = if cost.is_known() { cost.likely(drawn).unwrap_or(0.0) } else { 0.0 };
        if tightest != u64::MAX && (tightest.saturating_sub(now) as f64) < lasts {
            // Rarely: somebody is in a hurry. All is laid out, judged, put back, and the chosen are taken.
            let window = max_rows.saturating_mul(2);
            if drawn < window {
                self.draw(now, (lead, group), window - drawn, max_rows, price);
            }
            let other_lane = if situation.idle_lanes > 1 { Some(0.0) } else { soonest(situation) };
            let prospect = Prospect {
                now,
                cost: self.costs.of(group),
                preferred: &self.settings.preferred_rows,
                max_rows,
                lanes: self.lanes,
                loss: self.loss,
                other_lane,
            };
            prospect.choose(&mut self.picks);
            self.redraw();
        }
        for level in self.levels.values_mut() {
            level.restore_aside();
        }
        self.begin(lead, keys)
    }

    /// Draws up to `room` rows of a group, level by level, with no item above `largest`. Returns the rows that can still be answered.
    fn draw(&mut self, now: u64, (lead, group): (u32, u64), room: u32, largest: u32, price: u64) -> u32 {
        let (mut rows, in_order) = (0, self.settings.preserve_ordering);
        let cost = self.costs.of(group);
        let ranks = std::iter::once(lead).chain(self.levels.keys().copied().filter(|rank| *rank != lead));
        let ranks: RankList = ranks.collect();
        for rank in ranks.iter() {
            let Some(level) = self.levels.get_mut(&rank) else { continue };
            while rows < room {
                let Some(mut drawn) = level.draw(&mut self.slots, group, (room - rows).min(largest), in_order, price) else { break };
                let slot = &self.slots[drawn.at];
                let (of_rows, deadline) = (slot.rows, slot.deadline);
                let mut fate = Fate::Run;
                if deadline <= now.saturating_add(cost.at_best(of_rows) as u64) {
                    fate = Fate::Doom;
                    level.refund(&self.slots, &drawn);
                    drawn.charge = 0;
                } else {
                    rows += of_rows;
                }
                self.picks.push(Pick { drawn, rows: of_rows, deadline, fate });
            }
            if rows >= room {
                break;
            }
        }
        rows
    }

    /// Puts everything that was drawn back, and takes what was chosen.
    fn redraw(&mut self) {
        self.round += 1;
        for pick in self.picks.iter().rev() {
            if let Some(level) = self.levels.get_mut(&pick.drawn.rank) {
                level.undo(&mut self.slots, &pick.drawn);
            }
        }
        for pick in &self.picks {
            if let Some(level) = self.levels.get_mut(&pick.drawn.rank) {
                level.requeue(&self.slots, &pick.drawn, self.round);
                match pick.fate {
                    Fate::Run => level.take(&mut self.slots, &pick.drawn),
                    Fate::Doom => level.unlink(&mut self.slots, pick.drawn.at),
                    Fate::Back => {}
                }
            }
        }
        self.picks.retain(|pick| pick.fate != Fate::Back);
    }

    /// Lets what was picked leave the queue.
    fn begin(&mut self, lead: u32, keys: &mut Vec<Key>) -> u32 {
        let mut rows = 0;
        let picks = std::mem::take(&mut self.picks);
        for pick in &picks {
            if pick.fate == Fate::Doom {
                self.doom(pick.drawn.at);
                continue;
            }
            rows += pick.rows;
            keys.push(Key(self.slots.key(pick.drawn.at)));
            if let Some(level) = self.levels.get_mut(&pick.drawn.rank) {
                level.began(pick.drawn.start);
            }
            self.leaves(pick.drawn.at);
            self.slots.release(pick.drawn.at);
            self.loss -= self.loss * LATELY;
        }
        if rows > 0 && (self.levels.len() > 1 || lead > 3) {
            for (rank, level) in &mut self.levels {
                let served = picks.iter().any(|pick| pick.fate == Fate::Run && pick.drawn.rank == *rank);
                level.passed_over = if served || level.items == 0 { 0 } else { level.passed_over.saturating_add(1) };
            }
        }
        self.picks = picks;
        rows
    }
}

/// The ranks to draw from, in order. Most models have one level; only the others pay for a list.
struct RankList {
    first: Option<u32>,
    more: Vec<u32>,
}

impl FromIterator<u32> for RankList {
    fn from_iter<I: IntoIterator<Item = u32>>(ranks: I) -> Self {
        let mut ranks = ranks.into_iter();
        Self { first: ranks.next(), more: ranks.collect() }
    }
}

impl RankList {
    fn iter(&self) -> impl Iterator<Item = u32> + '_ {
        self.first.into_iter().chain(self.more.iter().copied())
    }
}

fn soonest(situation: &Situation<'_>) -> Option<f64> {
    situation.busy.iter().min().map(|left| nanos(*left) as f64)
}
