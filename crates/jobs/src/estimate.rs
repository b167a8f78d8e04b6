//! What this node has lately seen of each kind: how many ended and how long they ran. From it the waiting of others is estimated.
//!
//! Invariant: one minute in sixty cells for each kind, at most [`KINDS`] kinds.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use plinth_policy::jobs::Backlog;

const CELLS: usize = 60;
const KINDS: usize = 256;

#[derive(Default)]
struct Kind {
    /// How many ended in a second, and which second.
    cells: Vec<(u64, u64)>,
    /// Smoothed over about the last twenty.
    mean_run: f64,
}

/// What was seen.
#[derive(Default)]
pub(crate) struct Seen(Mutex<HashMap<String, Kind>>);

impl Seen {
    /// A job ended after it ran so long; `now` is any clock that goes forward.
    pub(crate) fn ended(&self, kind: &str, ran: Duration, now: Duration) {
        let mut kinds = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !kinds.contains_key(kind) {
            if kinds.len() >= KINDS {
                return;
            }
            kinds.insert(kind.to_owned(), Kind { cells: vec![(0, 0); CELLS], mean_run: ran.as_secs_f64() });
        }
        let Some(kind) = kinds.get_mut(kind) else { return };
        kind.mean_run += (ran.as_secs_f64() - kind.mean_run) / 20.0;
        let second = now.as_secs() + 1;
        if let Some(cell) = kind.cells.get_mut((second % CELLS as u64) as usize) {
            if cell.0 != second {
                *cell = (second, 0);
            }
            cell.1 += 1;
        }
    }

    /// What is known of a kind with so many ahead and running.
    pub(crate) fn backlog(&self, kind: &str, ahead: u64, running: u64, now: Duration) -> Backlog {
        let kinds = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut backlog = Backlog { ahead, running, window: Duration::from_secs(CELLS as u64), ..Backlog::default() };
        if let Some(kind) = kinds.get(kind) {
            let second = now.as_secs() + 1;
            backlog.ended = kind.cells.iter().filter(|(at, _)| *at > 0 && second.saturating_sub(*at) < CELLS as u64).map(|(_, n)| n).sum();
            backlog.mean_run = Duration::try_from_secs_f64(kind.mean_run).unwrap_or_default();
        }
        backlog
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_minute_is_remembered() {
        let seen = Seen::default();
        for second in 0..120 {
            seen.ended("k", Duration::from_millis(500), Duration::from_secs(second));
        }
        let now = Duration::from_secs(119);
        let backlog = seen.backlog("k", 9, 1, now);
        assert_eq!((backlog.ended, backlog.mean_run), (60, Duration::from_millis(500)));
        assert_eq!(seen.backlog("k", 0, 0, now + Duration::from_secs(30)).ended, 30);
        assert_eq!(seen.backlog("other", 0, 0, now).ended, 0);
    }
}
