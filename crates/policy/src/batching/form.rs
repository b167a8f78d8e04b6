//! Which items the batch takes, so that most are answered within their deadlines.
//!
//! Items are drawn in the order of turns (level, tenant, arrival). If all of them can end within their deadlines in a batch of
//! that size, that is the batch. Otherwise a window of twice the largest batch is looked at, and for several sizes it is worked out who
//! would be answered in this batch, who could still be in those after it, and who would be lost. A size that loses nobody
//! wins, the largest of them first; where loss cannot be avoided, or was not lately, lane time has a price. So a single urgent item makes the batch small, and under overload the batch stays large and those who could only be
//! answered in a small one are given up: serving the most urgent first under overload serves everybody too late.
//! Nobody is given up whom another lane could still answer, unless requests are being lost anyway.

use super::cost::Cost;
use super::level::Drawn;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// Goes with this batch.
    Run,
    /// Goes back to its place.
    Back,
    /// Cannot be answered in time any more.
    Doom,
}

/// A drawn item and what is decided about it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pick {
    pub drawn: Drawn,
    pub rows: u32,
    pub deadline: u64,
    pub fate: Fate,
}

/// What the choice depends on besides the items. Times are nanoseconds from now.
pub(super) struct Prospect<'a> {
    pub now: u64,
    pub cost: &'a Cost,
    pub preferred: &'a [u32],
    /// The largest batch.
    pub max_rows: u32,
    pub lanes: u32,
    /// The share of those who left lately that was lost.
    pub loss: f64,
    /// When a lane other than this one is free: zero when one is idle now.
    pub other_lane: Option<f64>,
}

/// How much an item below the window's best level weighs.
const LOWER_LEVEL: f64 = 1.0 / 8.0;

struct Outcome {
    lost: f64,
    picked: f64,
    lasts: f64,
}

impl Prospect<'_> {
    /// Sets every pick's fate. Picks that are doomed already stay so.
    pub(super) fn choose(&self, picks: &mut [Pick]) {
        let total = picks.iter().filter(|pick| pick.fate != Fate::Doom).map(|pick| pick.rows).fold(0, u32::saturating_add);
        let most = total.min(self.max_rows).max(1);
        let tightest = picks.iter().filter(|pick| pick.fate != Fate::Doom).map(|pick| self.slack(pick)).fold(f64::INFINITY, f64::min);
        let mut best: Option<(f64, u32)> = None;
        let mut least = f64::INFINITY;
        for pass in 0..2 {
            let halves = (0..16).map(|power| most >> power).take_while(|rows| *rows > 0);
            let hinted = self.preferred.iter().copied().filter(|rows| *rows < most);
            for rows in halves.chain(hinted).chain(std::iter::once(self.fits(tightest, most))) {
                let outcome = self.outcome(picks, rows);
                if outcome.picked <= 0.0 {
                    continue;
                }
                if pass == 0 {
                    least = least.min(outcome.lost);
                    continue;
                }
                let score = outcome.lost + self.overload(picks, least) * (self.price(picks) * outcome.lasts - outcome.picked);
                if best.is_none_or(|(low, of)| score < low - 1e-9 || (score <= low + 1e-9 && rows > of)) {
                    best = Some((score, rows));
                }
            }
        }
        let Some((_, rows)) = best else {
            // Nobody is sure to make it. The first may yet.
            let mut first = true;
            for pick in picks.iter_mut().filter(|pick| pick.fate != Fate::Doom) {
                pick.fate = if std::mem::take(&mut first) { Fate::Run } else { Fate::Back };
            }
            return;
        };
        let mut taken = 0;
        let lasts = self.cost.likely(rows).unwrap_or(0.0);
        for pick in picks.iter_mut().filter(|pick| pick.fate != Fate::Doom) {
            let slack = pick.deadline.saturating_sub(self.now) as f64;
            pick.fate = if slack >= lasts && taken + pick.rows <= rows {
                taken += pick.rows;
                Fate::Run
            } else {
                Fate::Back
            };
        }
        let free = self.next_lane(self.cost.at_best(taken));
        // While requests are being lost the next lane will run a batch as large as this one, not one for the sake of a straggler.
        let price = (20.0 * self.loss).min(1.0);
        for pick in picks.iter_mut().filter(|pick| pick.fate == Fate::Back) {
            let alone = self.cost.at_best(pick.rows);
            let needs = alone + price * (lasts - alone).max(0.0);
            if (pick.deadline.saturating_sub(self.now) as f64) < free + needs {
                pick.fate = Fate::Doom;
            }
        }
    }

    fn slack(&self, pick: &Pick) -> f64 {
        pick.deadline.saturating_sub(self.now) as f64
    }

    fn next_lane(&self, lasts: f64) -> f64 {
        self.other_lane.map_or(lasts, |other| other.min(lasts))
    }

    /// The largest size up to `most` that ends within `slack`, at least one row.
    fn fits(&self, slack: f64, most: u32) -> u32 {
        let (mut low, mut high) = (1, most);
        while low < high {
            let middle = low + (high - low).div_ceil(2);
            if self.cost.likely(middle).is_some_and(|lasts| lasts <= slack) { low = middle } else { high = middle - 1 }
        }
        low
    }

    fn weight(&self, picks: &[Pick], pick: &Pick) -> f64 {
        if picks.first().is_some_and(|first| first.drawn.rank < pick.drawn.rank) { LOWER_LEVEL } else { 1.0 }
    }

    fn outcome(&self, picks: &[Pick], rows: u32) -> Outcome {
        let alive = || picks.iter().filter(|pick| pick.fate != Fate::Doom);
        let planned = self.cost.likely(rows).unwrap_or(0.0);
        let (mut taken, mut picked, mut rest) = (0u32, 0.0, 0u32);
        let goes = |pick: &Pick, taken: u32| self.slack(pick) >= planned && taken + pick.rows <= rows;
        for pick in alive() {
            if goes(pick, taken) {
                taken += pick.rows;
                picked += self.weight(picks, pick);
            } else {
                rest = rest.saturating_add(pick.rows);
            }
        }
        let lasts = self.cost.likely(taken.max(1)).unwrap_or(0.0);
        let second = self.next_lane(lasts) + self.cost.likely(rest.clamp(1, self.max_rows)).unwrap_or(0.0);
        let each = self.cost.likely(self.max_rows).unwrap_or(0.0) / f64::from(self.lanes.max(1));
        let (mut retaken, mut lost, mut ahead) = (0u32, 0.0, 0u32);
        for pick in alive() {
            if goes(pick, retaken) {
                retaken += pick.rows;
                continue;
            }
            if self.slack(pick) < second + f64::from(ahead / self.max_rows.max(1)) * each {
                lost += self.weight(picks, pick);
            } else {
                ahead = ahead.saturating_add(pick.rows);
            }
        }
        Outcome { lost, picked, lasts }
    }

    /// What lane time is worth, from nothing to what it could answer: the share of the window that is lost whatever is done, and
    /// all once one in twenty was lost lately.
    fn overload(&self, picks: &[Pick], least: f64) -> f64 {
        let all: f64 = picks.iter().filter(|pick| pick.fate != Fate::Doom).map(|pick| self.weight(picks, pick)).sum();
        if all > 0.0 { (least / all).max((20.0 * self.loss).min(1.0)) } else { 0.0 }
    }

    /// Items that a lane answers in a nanosecond at its best.
    fn price(&self, picks: &[Pick]) -> f64 {
        let (items, rows) = picks.iter().fold((0.0, 0.0), |(items, rows), pick| (items + 1.0, rows + f64::from(pick.rows)));
        let full = self.cost.likely(self.max_rows).unwrap_or(f64::INFINITY);
        f64::from(self.max_rows) * items / f64::max(rows, 1.0) / full.max(1.0)
    }
}
