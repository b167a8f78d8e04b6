//! Begin now, or let the batch grow? And if now, with how many rows?
//!
//! **Whether.** A lane is idle and `n` items wait. Waiting for the next one costs each of the `n` the expected gap `g` and what one
//! more makes the batch last longer; and everybody who comes while it runs waits `g` longer for the lane. It saves the next
//! item the time for which it would find every lane busy: the execution `D(n)`, or less where another lane ends sooner, less the
//! gaps until the `k` idle lanes are used up. So the batch is kept back while
//! `n (g + D(n+1) - D(n)) + r D(n) g < min(D(n), soonest lane) - k g`, with `r` the rate of those who come unasked. For independent
//! arrivals `r g` is 1 and nothing is ever kept back: batches that form while lanes are busy cannot be bettered by waiting.
//! Where the next ones are callers who were just answered and come back together, waiting for them is what makes the batch.
//!
//! **How long.** Three expected gaps without an arrival refute the expectation. In all no longer than one execution, the
//! operator's `max_delay`, and what the soonest deadline allows.
//!
//! **How many.** Everyone in a batch waits for its end, so with dear rows two batches one after the other answer sooner on
//! average, and nine rows that cost as much as sixteen should go as eight and one. Let `e` be the best rate that a lane reaches at any
//! size, `r` the arrivals to it (both in rows), `n` the rows that wait for it, `d = c - r D(c)` by how much a batch of `c` rows shortens the
//! queue. In a queue that drains like a fluid at rate `e`, a batch of `c` costs `n (e D(c) - c) + d² / 2` more waiting than the
//! fluid: rows that its size wastes, and that its rows leave together. The size with the least of that for each row drained
//! is taken; for `D = a + b c` it is near `d = sqrt(2 n a / b)`. If no size drains the queue, all that waits goes. Several idle lanes
//! share what waits where that saves those who wait more than it costs those who come next.

use super::arrivals::Arrivals;
use super::cost::Cost;

/// What is known at the moment of the decision. Times are nanoseconds.
pub(super) struct Moment<'a> {
    pub now: u64,
    pub cost: &'a Cost,
    pub arrivals: &'a Arrivals,
    /// Items and rows that could share the batch.
    pub items: u32,
    pub rows: u32,
    pub max_rows: u32,
    pub preferred: &'a [u32],
    pub idle: u32,
    pub lanes: u32,
    /// When the soonest busy lane ends, from now.
    pub soonest_lane: Option<f64>,
    /// Since when the batch has been kept back.
    pub since: u64,
    /// The operator's limit.
    pub grow_until: Option<u64>,
    pub timer: f64,
    /// The deadline and the next look of the item that is due first.
    pub due: Option<(u64, u64)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Growth {
    /// Begin with at most so many rows.
    Begin(u32),
    /// Keep it back until then.
    Until(u64),
}

impl Moment<'_> {
    pub(super) fn decide(&self) -> Growth {
        match self.worth_waiting() {
            Some(until) if until > self.now => Growth::Until(until),
            _ => Growth::Begin(self.limit()),
        }
    }

    fn worth_waiting(&self) -> Option<u64> {
        let full = self.rows >= self.max_rows || self.preferred.contains(&self.rows);
        if full || !self.cost.is_known() || self.grow_until.is_some_and(|limit| limit <= self.now) {
            return None;
        }
        let gap = self.arrivals.gap(self.now)?;
        let one = self.arrivals.rows().round() as u32;
        let grown = (self.rows.saturating_add(one)).min(self.max_rows);
        let (lasts, longer) = (self.cost.mean(self.rows)?, self.cost.mean(grown)?);
        let busy_for = self.soonest_lane.map_or(lasts, |lane| lane.min(lasts));
        let saved = busy_for - f64::from(self.idle) * gap;
        let delayed = if self.lanes > 1 { 0.0 } else { self.arrivals.unasked() * lasts * gap };
        let spent = f64::from(self.items) * (gap + (longer - lasts).max(0.0)) + delayed;
        // A timer that fires late costs as much as the wait itself.
        let patience = 3.0 * gap;
        if saved <= spent || (patience < self.timer && patience + self.timer > lasts) {
            return None;
        }
        let mut until = self.arrivals.touched().max(self.since).saturating_add(patience.min(1e15) as u64);
        until = until.min(self.since.saturating_add(lasts as u64));
        until = until.min(self.grow_until.unwrap_or(u64::MAX));
        if let Some((deadline, look)) = self.due {
            let latest = deadline.saturating_sub(self.cost.likely(grown)? as u64).saturating_sub(self.timer as u64);
            until = until.min(latest).min(look.saturating_sub(1));
        }
        Some(until)
    }

    fn limit(&self) -> u32 {
        let rows = self.rows.min(self.max_rows).max(1);
        if rows == 1 || !self.cost.is_known() {
            return rows;
        }
        self.for_the_mean(rows).min(self.shared(rows)).max(1)
    }

    /// The size that drains what waits with the least waiting for each row.
    fn for_the_mean(&self, rows: u32) -> u32 {
        let best_rate = self.cost.best_rate();
        let rate = self.arrivals.rate() * self.arrivals.rows() / f64::from(self.lanes.max(1));
        let waiting = f64::from(self.rows) / f64::from(self.idle.max(1));
        let halves = (0..10).flat_map(|power| [1u32 << power, 3u32 << power]);
        let mut best = (rows, f64::INFINITY);
        for size in std::iter::once(rows).chain(self.preferred.iter().copied()).chain(halves).filter(|size| *size <= rows) {
            let Some(lasts) = self.cost.mean(size) else { continue };
            let drained = f64::from(size) - rate * lasts;
            if drained <= 0.0 {
                continue;
            }
            let wasted = (best_rate * lasts - f64::from(size)).max(0.0);
            let price = (waiting * wasted + drained * drained / 2.0) / drained;
            // The whole is the first candidate: a cut must be clearly better than what the estimates may err.
            if price < best.1 * 0.95 || (size > best.0 && price < best.1) {
                best = (size, price);
            }
        }
        best.0
    }

    /// The share of one lane when several are idle.
    fn shared(&self, rows: u32) -> u32 {
        let Some(whole) = self.cost.mean(rows).filter(|_| self.idle > 1) else { return rows };
        let rate = self.arrivals.rate();
        let mut best = (rows, 0.0);
        for lanes in 2..=self.idle.min(rows) {
            let share = rows.div_ceil(lanes);
            let Some(lasts) = self.cost.mean(share) else { continue };
            let left = self.idle - lanes;
            // Who comes while every lane is busy waits for half of an execution on average.
            let kept_out = rate * lasts * lasts / 2.0 / f64::from(1 + 2 * left);
            let gain = f64::from(self.items) * (whole - lasts) - kept_out;
            if gain > best.1 {
                best = (share, gain);
            }
        }
        best.0
    }
}
