//! The requests that a runner holds, as the node knows them.
//!
//! A runner executes in the order of arrival and one at a time, so the oldest request is the one in execution.
//! Invariants: what is admitted counts against the limits until the *runner* has answered, also when the caller has
//! gone; every admitted request ends exactly once; after [`Pending::close`] nothing is admitted and nobody waits.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use plinth_runtime::Clock;
use plinth_types::Tensor;
use tokio::sync::{Notify, oneshot};

use crate::spec::RunnerError;

/// How a request ends.
pub(crate) type Outcome = Result<Vec<Tensor>, RunnerError>;

pub(crate) struct Pending {
    table: Mutex<Table>,
    empty: Notify,
    clock: Arc<dyn Clock>,
    max_requests: usize,
    max_bytes: u64,
}

#[derive(Default)]
struct Table {
    entries: BTreeMap<u64, Entry>,
    bytes: u64,
    last: u64,
    /// Since when the oldest entry is the oldest.
    oldest_since: Duration,
    closed: Option<RunnerError>,
}

struct Entry {
    waiter: Option<oneshot::Sender<Outcome>>,
    outputs: Vec<String>,
    bytes: u64,
}

impl Pending {
    pub(crate) fn new(clock: Arc<dyn Clock>, max_requests: usize, max_bytes: u64) -> Self {
        Self { table: Mutex::default(), empty: Notify::new(), clock, max_requests, max_bytes }
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a request in and says under which number.
    pub(crate) fn admit(&self, bytes: u64, outputs: Vec<String>) -> Result<(u64, oneshot::Receiver<Outcome>), RunnerError> {
        let mut table = self.lock();
        if let Some(error) = &table.closed {
            return Err(error.clone());
        }
        let total = table.bytes.saturating_add(bytes);
        if table.entries.len() >= self.max_requests || total > self.max_bytes {
            return Err(RunnerError::QueueFull);
        }
        if table.entries.is_empty() {
            table.oldest_since = self.clock.monotonic();
        }
        table.last += 1;
        table.bytes = total;
        let (id, (waiter, outcome)) = (table.last, oneshot::channel());
        table.entries.insert(id, Entry { waiter: Some(waiter), outputs, bytes });
        Ok((id, outcome))
    }

    /// Ends the request that the runner has answered. `outcome` is made from the names of the wished outputs. False
    /// when there is no such request.
    pub(crate) fn complete(&self, id: u64, outcome: impl FnOnce(&[String]) -> Outcome) -> bool {
        let Some(entry) = self.remove(id) else { return false };
        if let Some(waiter) = entry.waiter {
            // The caller may have gone this very moment.
            let _ = waiter.send(outcome(&entry.outputs));
        }
        true
    }

    fn remove(&self, id: u64) -> Option<Entry> {
        let mut table = self.lock();
        let oldest = table.entries.first_key_value().map(|(id, _)| *id);
        let entry = table.entries.remove(&id)?;
        table.bytes = table.bytes.saturating_sub(entry.bytes);
        if oldest == Some(id) {
            table.oldest_since = self.clock.monotonic();
        }
        if table.entries.is_empty() {
            self.empty.notify_waiters();
        }
        Some(entry)
    }

    /// Takes a request back that never reached the runner.
    pub(crate) fn retract(&self, id: u64) {
        drop(self.remove(id));
    }

    /// The caller has gone. True when the runner should be told.
    pub(crate) fn abandon(&self, id: u64) -> bool {
        self.lock().entries.get_mut(&id).is_some_and(|entry| entry.waiter.take().is_some())
    }

    /// Whether the runner executes this request now.
    pub(crate) fn is_oldest(&self, id: u64) -> bool {
        self.lock().entries.first_key_value().is_some_and(|(oldest, _)| *oldest == id)
    }

    /// How many requests the runner holds.
    pub(crate) fn len(&self) -> usize {
        self.lock().entries.len()
    }

    /// For how long the oldest request has been the oldest; `None` when there is none.
    pub(crate) fn oldest_for(&self) -> Option<Duration> {
        let table = self.lock();
        (!table.entries.is_empty()).then(|| self.clock.monotonic().saturating_sub(table.oldest_since))
    }

    /// Returns when the runner holds nothing. Cancel safe.
    pub(crate) async fn drained(&self) {
        loop {
            let empty = self.empty.notified();
            tokio::pin!(empty);
            // Registered before the look at the table, so that no notification falls between them.
            empty.as_mut().enable();
            if self.len() == 0 {
                return;
            }
            empty.await;
        }
    }

    /// Refuses new requests with `error` from now on; those inside go on.
    pub(crate) fn refuse(&self, error: RunnerError) {
        self.lock().closed.get_or_insert(error);
    }

    /// Ends all requests with `error` and refuses new ones.
    pub(crate) fn close(&self, error: &RunnerError) {
        let entries = {
            let mut table = self.lock();
            table.closed.get_or_insert_with(|| error.clone());
            table.bytes = 0;
            std::mem::take(&mut table.entries)
        };
        for waiter in entries.into_values().filter_map(|entry| entry.waiter) {
            let _ = waiter.send(Err(error.clone()));
        }
        self.empty.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use plinth_runtime::ManualClock;
    use plinth_types::Timestamp;

    fn pending() -> (Arc<ManualClock>, Pending) {
        let clock = Arc::new(ManualClock::new(Timestamp::from_millis(0).unwrap()));
        (clock.clone(), Pending::new(clock, 3, 100))
    }

    #[test]
    fn count_and_bytes_are_bounded_until_the_runner_answers() {
        let (_, pending) = pending();
        let (first, _gone) = pending.admit(60, vec![]).unwrap();
        assert!(matches!(pending.admit(41, vec![]), Err(RunnerError::QueueFull)));
        assert!(pending.abandon(first), "the runner is told once");
        assert!(!pending.abandon(first));
        assert!(matches!(pending.admit(41, vec![]), Err(RunnerError::QueueFull)), "it still holds the bytes");
        assert!(pending.complete(first, |_| Ok(vec![])));
        assert!(!pending.complete(first, |_| Ok(vec![])), "nothing ends twice");
        let held: Vec<_> = (0..3).map(|_| pending.admit(1, vec![]).unwrap()).collect();
        assert!(matches!(pending.admit(1, vec![]), Err(RunnerError::QueueFull)));
        assert_eq!(held.len(), pending.len());
    }

    #[test]
    fn the_oldest_is_timed_from_when_it_became_the_oldest() {
        let (clock, pending) = pending();
        assert_eq!(pending.oldest_for(), None);
        let (a, _ra) = pending.admit(1, vec![]).unwrap();
        let (b, _rb) = pending.admit(1, vec![]).unwrap();
        clock.advance(Duration::from_secs(5));
        assert_eq!(pending.oldest_for(), Some(Duration::from_secs(5)));
        assert!(pending.is_oldest(a) && !pending.is_oldest(b));
        pending.complete(a, |_| Ok(vec![]));
        assert_eq!(pending.oldest_for(), Some(Duration::ZERO));
        clock.advance(Duration::from_secs(1));
        let (c, _rc) = pending.admit(1, vec![]).unwrap();
        pending.complete(c, |_| Ok(vec![]));
        assert_eq!(pending.oldest_for(), Some(Duration::from_secs(1)), "b is still the oldest");
    }

    #[tokio::test]
    async fn closing_ends_all_and_admits_none() {
        let (_, pending) = pending();
        let (_, outcome) = pending.admit(1, vec![]).unwrap();
        pending.refuse(RunnerError::Stopping);
        assert!(matches!(pending.admit(1, vec![]), Err(RunnerError::Stopping)));
        pending.close(&RunnerError::Crashed);
        assert!(matches!(outcome.await.unwrap(), Err(RunnerError::Crashed)));
        pending.drained().await;
    }
}
