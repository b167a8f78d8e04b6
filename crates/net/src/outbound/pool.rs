//! The HTTP/1 connections of one endpoint.
//!
//! Invariants: at most `max_connections` are open, in use or idle; a connection is in use by one request or idle, and goes back
//! only when its answer was read to the last byte and nothing is left on it; the last one to come back is the first to go out,
//! so that those that are not needed grow old. A request that finds all in use waits, but not for ever.
//!
//! States of a connection: dialled ──► in use ◄──► idle ──too old, closed by the upstream──► gone; in use ──anything odd──► gone.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

use super::error::{Kind, OutboundError};
use super::link::Link;

/// How long before the upstream closes an idle connection it is not used any more.
const MARGIN: Duration = Duration::from_secs(1);

#[derive(Clone)]
pub(super) struct Pool(Arc<Inner>);

struct Inner {
    limits: Limits,
    state: Mutex<State>,
    freed: Notify,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    pub max_connections: usize,
    pub max_idle: usize,
    pub idle_timeout: Duration,
    pub queue_timeout: Duration,
}

#[derive(Default)]
struct State {
    idle: Vec<Idle>,
    in_use: usize,
    waiting: usize,
}

struct Idle {
    link: Link,
    until: Instant,
}

/// The right to one connection. Given back when dropped.
pub(super) struct Slot(Arc<Inner>);

/// A connection in use. Dropping it closes it.
pub(super) struct Lease {
    pub link: Link,
    slot: Slot,
}

impl Pool {
    pub(super) fn new(limits: Limits) -> Self {
        Self(Arc::new(Inner { limits, state: Mutex::default(), freed: Notify::new() }))
    }

    /// A slot, and an idle connection with it if there is one and it is wanted.
    pub(super) async fn take(&self, idle: bool, total: Option<Instant>) -> Result<(Slot, Option<Link>), OutboundError> {
        if let Some(taken) = self.try_take(idle) {
            return Ok(taken);
        }
        let until = Instant::now() + self.0.limits.queue_timeout;
        let until = total.map_or(until, |total| total.min(until));
        let _waiting = Waiting::new(&self.0);
        loop {
            // A place may have come free before this one was counted.
            if let Some(taken) = self.try_take(idle) {
                return Ok(taken);
            }
            timeout_at(until, self.0.freed.notified()).await.map_err(|_| OutboundError::unsent(Kind::Busy))?;
        }
    }

    fn try_take(&self, idle: bool) -> Option<(Slot, Option<Link>)> {
        let mut state = self.0.state();
        if state.in_use >= self.0.limits.max_connections {
            return None;
        }
        state.in_use += 1;
        // From here on a drop gives it back.
        let slot = Slot(self.0.clone());
        if !idle {
            return Some((slot, None));
        }
        let now = Instant::now();
        while let Some(mut found) = state.idle.pop() {
            if now < found.until && found.link.is_quiet() {
                return Some((slot, Some(found.link)));
            }
        }
        Some((slot, None))
    }

    /// Closes what is too old or was closed by the upstream.
    pub(super) fn sweep(&self) {
        let now = Instant::now();
        self.0.state().idle.retain_mut(|idle| now < idle.until && idle.link.is_quiet());
    }

    pub(super) fn close_idle(&self) {
        self.0.state().idle.clear();
    }

    /// Idle connections and those in use.
    pub(super) fn counts(&self) -> (usize, usize) {
        let state = self.0.state();
        (state.idle.len(), state.in_use)
    }
}

impl Inner {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Slot {
    pub(super) const fn with(self, link: Link) -> Lease {
        Lease { link, slot: self }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let wake = {
            let mut state = self.0.state();
            state.in_use = state.in_use.saturating_sub(1);
            state.waiting > 0
        };
        if wake {
            self.0.freed.notify_one();
        }
    }
}

impl Lease {
    /// Keeps the connection for the next request. To be called only when nothing is left on it.
    pub(super) fn keep(self) {
        let Self { mut link, slot } = self;
        let limits = &slot.0.limits;
        let kept = link.kept_for.map_or(limits.idle_timeout, |kept| limits.idle_timeout.min(kept.saturating_sub(MARGIN)));
        if !kept.is_zero() {
            link.rest();
            let until = Instant::now() + kept;
            let mut state = slot.0.state();
            if state.idle.len() < limits.max_idle {
                state.idle.push(Idle { link, until });
            }
        }
    }

    /// The connection for good, and its place.
    pub(super) fn into_parts(self) -> (Link, Slot) {
        (self.link, self.slot)
    }
}

/// One who waits.
struct Waiting<'a>(&'a Inner);

impl<'a> Waiting<'a> {
    fn new(inner: &'a Inner) -> Self {
        inner.state().waiting += 1;
        Self(inner)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.waiting -= 1;
        // The word that a place is free may have come to one who went away.
        let wake = state.waiting > 0 && state.in_use < self.0.limits.max_connections;
        drop(state);
        if wake {
            self.0.freed.notify_one();
        }
    }
}
