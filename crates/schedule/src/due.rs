//! What to do now, given what was done last.
//!
//! Invariant: of the ticks in `(last, now]` each is either in [`Due::ticks`] or in [`Due::missed`]. Who goes on with
//! [`Due::through`] as the next `last` therefore fires nothing twice and forgets nothing, whatever steps or jumps `now` makes, also
//! backwards. The work is bounded: at most [`MAX_AT_ONCE`] ticks are found, and at most [`MAX_COUNTED`] more are counted.

use std::time::Duration;

use plinth_types::Timestamp;

use crate::schedule::{Schedule, second, timestamp};

/// The most ticks that are caught up with at a time.
pub const MAX_AT_ONCE: u32 = 1000;
/// Up to so many ticks that do not fire are counted.
pub const MAX_COUNTED: u64 = 10_000;
/// How old a tick may be and still count as on time under [`CatchUp::Skip`].
pub const ON_TIME: Duration = Duration::from_secs(60);

/// What becomes of ticks that passed while nobody looked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CatchUp {
    /// They are given up: only the newest tick fires, and only if it is at most [`ON_TIME`] old.
    Skip,
    /// They are made up for by one: only the newest tick fires, however old it is.
    Once,
    /// All fire, in their order; of very many the newest.
    All {
        /// How many, at most [`MAX_AT_ONCE`]. Older ones are given up.
        at_most: u32,
    },
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Due {
    /// The ticks that fire now, oldest first.
    pub ticks: Vec<Timestamp>,
    /// The first tick after `now`: when to ask again. `None`: never.
    pub next: Option<Timestamp>,
    /// The ticks that were given up; [`MAX_COUNTED`] stands for that many or more.
    pub missed: u64,
    /// What to give as `last` the next time: `now`, or `last` where the clock went back.
    pub through: Timestamp,
}

impl Schedule {
    /// Judges the time since `last`, up to which everything was judged before (at first: when the schedule was made).
    #[must_use]
    pub fn due(&self, last: Timestamp, now: Timestamp, rule: CatchUp) -> Due {
        let through = last.max(now);
        let next = self.next_after(through);
        let (after, until) = (second(last), second(now));
        if until <= after {
            return Due { ticks: Vec::new(), next, missed: 0, through };
        }
        let most = match rule {
            CatchUp::Skip | CatchUp::Once => 1,
            CatchUp::All { at_most } => at_most.min(MAX_AT_ONCE) as usize,
        };
        let backwards = std::iter::successors(self.last(after, until), |tick| self.last(after, tick - 1));
        let mut ticks: Vec<Timestamp> = backwards.take(most).map_while(timestamp).collect();
        ticks.reverse();
        if rule == CatchUp::Skip {
            ticks.retain(|tick| now.since(*tick) <= ON_TIME);
        }
        let given_up = ticks.first().map_or(until, |oldest| second(*oldest) - 1);
        Due { missed: self.count(after, given_up, MAX_COUNTED), ticks, next, through }
    }
}
