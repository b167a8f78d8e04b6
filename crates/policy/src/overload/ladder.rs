//! The ladder of degradation: what is switched off at which load, and when it comes back.
//!
//! | level | from | is switched off |
//! |---|---|---|
//! | normal | | nothing |
//! | L1 | 80 % | background work, hedging |
//! | L2 | 90 % | sheddable work; batches may wait longer |
//! | L3 | 100 % | quality where policy allows it: smaller model, shorter or stale answers, long work as a job |
//! | L4 | 120 % | all but critical work |
//! | L5 | 150 % | everything |
//!
//! Up: one level for each `up_after` that the load was over the next level's threshold without a break. Down: one level for each
//! `down_after` that it was clearly (`margin`) under the threshold of its own. Several at once for `fall_after` **far below** (`far`,
//! 50 %), or under its own threshold with a demand that is known: to the lowest level whose admitted demand fits, so that the end of
//! a surge is over in a second or two. A way down that turned out too early, because the load came straight back, doubles its wait,
//! up to eight times; so neither noise at a threshold nor a load that only looks low because it is being refused makes the ladder
//! swing. `L4` and `L5` are for what [`Admission`](super::Admission) cannot hold: memory, a processor that others use, a target that
//! no longer answers.
//!
//! Invariants: nothing is skipped on the way up; a level is left for a lower one only as said above. It decides nothing else: the
//! caller measures, reports the level, and asks [`Level`] what is allowed.

use std::fmt;
use std::time::Duration;

use super::{CRITICALITIES, Criticality, nanos};

/// How much is switched off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Level {
    /// Nothing.
    #[default]
    Normal,
    /// No background work, no hedging.
    L1,
    /// No sheddable work either, wider batches.
    L2,
    /// Lower quality where policy allows it.
    L3,
    /// Critical work only.
    L4,
    /// Nothing is served.
    L5,
}

const LEVELS: [Level; 6] = [Level::Normal, Level::L1, Level::L2, Level::L3, Level::L4, Level::L5];

impl Level {
    /// Whether requests of this class are let in.
    #[must_use]
    pub fn admits(self, class: Criticality) -> bool {
        let least = match self {
            Self::Normal => Criticality::Background,
            Self::L1 => Criticality::Sheddable,
            Self::L2 | Self::L3 => Criticality::Default,
            Self::L4 => Criticality::Critical,
            Self::L5 => return false,
        };
        class >= least
    }

    /// Whether a second copy of a slow request may be sent.
    #[must_use]
    pub fn hedges(self) -> bool {
        self == Self::Normal
    }

    /// Whether batches may wait longer for company.
    #[must_use]
    pub fn widens_batches(self) -> bool {
        self >= Self::L2
    }

    /// Whether a smaller model, a shorter or a stale answer may stand in, marked as such, where policy allows it.
    #[must_use]
    pub fn degrades(self) -> bool {
        self >= Self::L3
    }

    /// Whether long work is offered as a job (202).
    #[must_use]
    pub fn offers_jobs(self) -> bool {
        self >= Self::L3
    }

    /// 0 for normal to 5: for the metric and the header.
    #[must_use]
    pub const fn number(self) -> u8 {
        self as u8
    }

    fn above(self) -> Option<Self> {
        LEVELS.get(self as usize + 1).copied()
    }

    fn below(self) -> Option<Self> {
        (self as usize).checked_sub(1).and_then(|at| LEVELS.get(at)).copied()
    }
}

impl fmt::Display for Level {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.write_str(["normal", "L1", "L2", "L3", "L4", "L5"][*self as usize])
    }
}

/// When the ladder moves.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LadderSettings {
    /// The loads at which L1 to L5 begin, rising.
    pub thresholds: [f64; 5],
    /// So far under a level's threshold counts as under it.
    pub margin: f64,
    /// So long over a threshold, one level up.
    pub up_after: Duration,
    /// So long under it, one level down.
    pub down_after: Duration,
    /// Far below.
    pub far: f64,
    /// So long far below, as many levels down as demand allows.
    pub fall_after: Duration,
}

impl Default for LadderSettings {
    fn default() -> Self {
        Self {
            thresholds: [0.8, 0.9, 1.0, 1.2, 1.5],
            margin: 0.05,
            up_after: Duration::from_secs(1),
            down_after: Duration::from_secs(10),
            far: 0.5,
            fall_after: Duration::from_secs(1),
        }
    }
}

/// How busy the node is, in parts of what it can bear: 1.0 is full. What is not a number counts as nothing.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Load {
    /// Time in the queue over its target.
    pub queue: f64,
    /// Processor.
    pub cpu: f64,
    /// Memory.
    pub memory: f64,
    /// What is asked for by class ([`Criticality::index`]), refused or not, over what can be served. Zeros when it is not known.
    pub demand: [f64; 4],
}

impl Load {
    /// The greatest of queue, processor and memory.
    #[must_use]
    pub fn pressure(&self) -> f64 {
        self.queue.max(self.cpu).max(self.memory).max(0.0)
    }

    fn demand_at(&self, level: Level) -> f64 {
        CRITICALITIES.iter().filter(|class| level.admits(**class)).map(|class| self.demand[class.index()].max(0.0)).sum()
    }
}

/// The ladder has moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Change {
    /// From.
    pub from: Level,
    /// To.
    pub to: Level,
}

/// The state of a node's ladder.
#[derive(Debug, Clone)]
pub struct Ladder {
    settings: LadderSettings,
    level: Level,
    over_since: Option<u64>,
    under_since: Option<u64>,
    far_since: Option<u64>,
    /// When it last went down, and how.
    went_down: Option<(u64, Way)>,
    /// How many times the waits of [`Way`] are to be doubled.
    doubled: [u32; 2],
}

const MOST_DOUBLED: u32 = 3;

/// The two ways down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Step,
    Fall,
}

impl Ladder {
    /// A ladder at normal.
    #[must_use]
    pub const fn new(settings: LadderSettings) -> Self {
        let (over_since, under_since, far_since, went_down) = (None, None, None, None);
        Self { settings, level: Level::Normal, over_since, under_since, far_since, went_down, doubled: [0; 2] }
    }

    /// Where it stands.
    #[must_use]
    pub const fn level(&self) -> Level {
        self.level
    }

    /// Takes a measurement; to be called several times a second. What was measured is taken to hold until the next time.
    pub fn observe(&mut self, now: Duration, load: Load) -> Option<Change> {
        let (now, from) = (nanos(now), self.level);
        let (over, under, far) = self.signs(&load);
        let over_for = lasting(&mut self.over_since, over, now);
        let under_for = lasting(&mut self.under_since, under, now);
        let far_for = lasting(&mut self.far_since, far, now);
        let reached = |lasted: Option<u64>, wait: u64| lasted.is_some_and(|lasted| lasted >= wait);

        let to = if reached(over_for, nanos(self.settings.up_after)) {
            let to = from.above()?;
            self.back_up(now);
            to
        } else if reached(far_for, self.wait(Way::Fall)) {
            self.went_down = Some((now, Way::Fall));
            self.fitting(&load)
        } else if reached(under_for, self.wait(Way::Step)) {
            self.went_down = Some((now, Way::Step));
            from.below()?
        } else {
            return None;
        };
        self.level = to;
        let (over, under, far) = self.signs(&load);
        let from_now = |sign: bool| sign.then_some(now);
        (self.over_since, self.under_since, self.far_since) = (from_now(over), from_now(under), from_now(far));
        Some(Change { from, to })
    }

    /// Whether the load is over the next level's threshold, under its own, and low enough to fall.
    fn signs(&self, load: &Load) -> (bool, bool, bool) {
        let (pressure, level) = (load.pressure(), self.level);
        let over = level.above().is_some_and(|next| pressure >= self.threshold(next));
        let under = level > Level::Normal && pressure < self.threshold(level) - self.settings.margin;
        let known = load.demand.iter().any(|demand| *demand > 0.0);
        let low = pressure < self.settings.far || (under && known);
        (over, under, level > Level::Normal && low && self.fitting(load) < level)
    }

    /// It was down for hardly longer than it had waited for: then the wait was too short.
    fn back_up(&mut self, now: u64) {
        let Some((when, way)) = self.went_down.take() else { return };
        let early = self.wait(way).saturating_mul(2).saturating_add(nanos(self.settings.up_after));
        let doubled = &mut self.doubled[way as usize];
        *doubled = if now.saturating_sub(when) <= early { (*doubled + 1).min(MOST_DOUBLED) } else { 0 };
    }

    fn wait(&self, way: Way) -> u64 {
        let wait = if way == Way::Step { self.settings.down_after } else { self.settings.fall_after };
        nanos(wait).saturating_mul(1 << self.doubled[way as usize])
    }

    /// The lowest level at which what is asked for would not drive it up again.
    fn fitting(&self, load: &Load) -> Level {
        let fits = |level: &Level| {
            let next = level.above().map_or(f64::INFINITY, |next| self.threshold(next));
            load.demand_at(*level) < next - self.settings.margin
        };
        LEVELS.into_iter().find(fits).unwrap_or(self.level)
    }

    fn threshold(&self, level: Level) -> f64 {
        (level as usize).checked_sub(1).and_then(|at| self.settings.thresholds.get(at)).copied().unwrap_or(0.0)
    }
}

/// For how long something has been so without a break.
fn lasting(since: &mut Option<u64>, holds: bool, now: u64) -> Option<u64> {
    *since = if holds { Some(since.unwrap_or(now)) } else { None };
    since.map(|since| now.saturating_sub(since))
}

#[cfg(test)]
mod tests;
