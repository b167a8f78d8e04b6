//! The open sequences of one version, and whose turn it is.
//!
//! Invariants: the requests of a sequence are executed one after another in the order of arrival, each with what the one
//! before has left as state; there are never more open sequences than the model has places for; a sequence without a
//! request for the idle time is over. The table outlives the runner: a crash does not lose the state of sequences.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use plinth_runtime::Clock;
use plinth_types::{Error, ModelName, Reason, Result, TenantName, Tensor, VersionNumber};
use tokio::sync::{Mutex as Gate, Notify, OwnedMutexGuard};

use super::{SequenceControl, SequenceId};
use crate::VersionRef;
use crate::model_config::SequenceSettings;

/// The most requests that wait for the requests of their sequence before them, or for a place.
const MAX_WAITING: usize = 1024;

type Key = (TenantName, SequenceId);

/// The open sequences of one version.
pub(crate) struct Sequences {
    pub(super) settings: SequenceSettings,
    places: usize,
    open: Mutex<HashMap<Key, Arc<Sequence>>>,
    freed: Notify,
    waiting: AtomicUsize,
    clock: Arc<dyn Clock>,
}

struct Sequence {
    gate: Arc<Gate<Kept>>,
    used: Mutex<Duration>,
}

/// What is kept between two requests of a sequence.
#[derive(Default)]
pub(super) struct Kept {
    pub states: Vec<Tensor>,
    over: bool,
}

/// A request's turn in its sequence; nobody else of the sequence is executed while it is held.
pub(crate) struct Turn {
    sequences: Arc<Sequences>,
    key: Key,
    sequence: Arc<Sequence>,
    pub(super) kept: OwnedMutexGuard<Kept>,
    pub(super) control: SequenceControl,
}

struct Waits<'a>(&'a AtomicUsize);

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Sequences {
    pub fn new(settings: SequenceSettings, instances: usize, clock: Arc<dyn Clock>) -> Self {
        let places = (settings.per_instance as usize).saturating_mul(instances.max(1)).max(1);
        Self { settings, places, open: Mutex::default(), freed: Notify::new(), waiting: AtomicUsize::new(0), clock }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Key, Arc<Sequence>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many sequences are open.
    #[cfg(test)]
    fn len(&self) -> usize {
        self.lock().len()
    }

    fn wait(&self) -> Result<Waits<'_>> {
        if self.waiting.fetch_add(1, Ordering::Relaxed) >= MAX_WAITING {
            self.waiting.fetch_sub(1, Ordering::Relaxed);
            let text = "too many requests wait for their sequences; try again in a moment";
            return Err(Error::new(Reason::QueueFull, text).retry_after(Duration::from_secs(1)));
        }
        Ok(Waits(&self.waiting))
    }

    /// Waits for a request's turn. Cancel safe.
    ///
    /// # Errors
    /// [`Reason::InvalidSequence`] for a sequence that has not begun or is over, [`Reason::QueueFull`],
    /// [`Reason::DeadlineExceeded`].
    pub async fn turn(self: &Arc<Self>, model: &str, tenant: &TenantName, control: SequenceControl, deadline: Duration) -> Result<Turn> {
        let late = || Error::new(Reason::DeadlineExceeded, format!("the deadline passed while the request to model '{model}' was queued"));
        let key = (tenant.clone(), control.id.clone());
        let sequence = self.place(model, &key, control.start, deadline).await?;
        let waits = self.wait()?;
        let left = deadline.saturating_sub(self.clock.monotonic());
        let mut kept = tokio::time::timeout(left, sequence.gate.clone().lock_owned()).await.map_err(|_| late())?;
        drop(waits);
        if kept.over {
            return Err(not_begun(model, &key.1));
        }
        if control.start {
            kept.states.clear();
        }
        sequence.touch(self.clock.monotonic());
        Ok(Turn { sequences: self.clone(), key, sequence, kept, control })
    }

    /// The sequence, with a place for it when it begins.
    async fn place(&self, model: &str, key: &Key, start: bool, deadline: Duration) -> Result<Arc<Sequence>> {
        loop {
            let freed = self.freed.notified();
            tokio::pin!(freed);
            freed.as_mut().enable();
            let now = self.clock.monotonic();
            let idle_until = {
                let mut open = self.lock();
                self.sweep(&mut open, now);
                match open.get(key) {
                    Some(sequence) => return Ok(sequence.clone()),
                    None if !start => return Err(not_begun(model, &key.1)),
                    None if open.len() < self.places => {
                        let sequence = Arc::new(Sequence { gate: Arc::default(), used: Mutex::new(now) });
                        open.insert(key.clone(), sequence.clone());
                        return Ok(sequence);
                    }
                    None => open.values().map(|s| s.used()).min().unwrap_or(now).saturating_add(self.settings.idle),
                }
            };
            if now >= deadline {
                let text = format!("the deadline passed while a sequence of model '{model}' waited for a place; {} are open", self.places);
                return Err(Error::new(Reason::DeadlineExceeded, text));
            }
            let _waits = self.wait()?;
            // A millisecond more, so that what is idle then has been so for long enough; busy sequences are looked at again.
            let pause = idle_until.saturating_sub(now).max(Duration::from_millis(1)).min(deadline.saturating_sub(now));
            let _ = tokio::time::timeout(pause + Duration::from_millis(1), freed).await;
        }
    }

    /// Ends sequences that were idle for too long. One that is being executed is not idle.
    fn sweep(&self, open: &mut HashMap<Key, Arc<Sequence>>, now: Duration) {
        open.retain(|_, sequence| {
            if now.saturating_sub(sequence.used()) < self.settings.idle {
                return true;
            }
            match sequence.gate.try_lock() {
                Ok(mut kept) => {
                    kept.over = true;
                    false
                }
                Err(_) => true,
            }
        });
    }
}

impl Sequence {
    fn used(&self) -> Duration {
        *self.used.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn touch(&self, now: Duration) {
        *self.used.lock().unwrap_or_else(PoisonError::into_inner) = now;
    }
}

impl Turn {
    /// The request was answered; the last one ends its sequence.
    pub(super) fn done(mut self) {
        if self.control.end {
            self.kept.over = true;
            self.sequences.lock().remove(&self.key);
            self.sequences.freed.notify_waiters();
        }
    }

    pub(super) fn settings(&self) -> &SequenceSettings {
        &self.sequences.settings
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.sequence.touch(self.sequences.clock.monotonic());
    }
}

fn not_begun(model: &str, id: &SequenceId) -> Error {
    let text =
        format!("inference request for sequence {id} to model '{model}' must specify the START flag on the first request of the sequence");
    Error::new(Reason::InvalidSequence, text).field("parameters.sequence_start")
}

/// The sequences of all versions, so that a version that is started again finds its own.
#[derive(Default)]
pub(crate) struct AllSequences(Mutex<HashMap<(TenantName, ModelName, VersionNumber), Arc<Sequences>>>);

impl AllSequences {
    /// The sequences of a version; new ones when the version has none, or was loaded with other settings.
    pub fn of(&self, version: &VersionRef, settings: &SequenceSettings, instances: usize, clock: &Arc<dyn Clock>) -> Arc<Sequences> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Those of versions that were let go and have no open sequence are not needed any more.
        all.retain(|_, sequences| Arc::strong_count(sequences) > 1 || sequences.is_live());
        let key = (version.tenant.clone(), version.model.clone(), version.number);
        match all.get(&key) {
            Some(known) if known.settings == *settings => known.clone(),
            _ => {
                let new = Arc::new(Sequences::new(settings.clone(), instances, clock.clone()));
                all.insert(key, new.clone());
                new
            }
        }
    }
}

impl Sequences {
    fn is_live(&self) -> bool {
        let mut open = self.lock();
        self.sweep(&mut open, self.clock.monotonic());
        !open.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use plinth_runtime::World;

    fn sequences(per_instance: u32) -> Arc<Sequences> {
        let settings = SequenceSettings {
            idle: Duration::from_secs(5),
            controls: vec![],
            states: vec![],
            per_instance,
            max_delay: None,
            preferred_rows: vec![],
        };
        Arc::new(Sequences::new(settings, 1, World::real().clock))
    }

    fn control(id: u64, start: bool, end: bool) -> SequenceControl {
        SequenceControl { id: SequenceId::Number(id), start, end }
    }

    async fn turn(sequences: &Arc<Sequences>, control: SequenceControl) -> Result<Turn> {
        let deadline = sequences.clock.monotonic() + Duration::from_millis(20);
        sequences.turn("m", &"t".parse().unwrap(), control, deadline).await
    }

    #[tokio::test]
    async fn a_sequence_begins_goes_on_and_ends() {
        let all = sequences(2);
        let error = turn(&all, control(7, false, false)).await.err().unwrap();
        assert_eq!(error.reason(), Reason::InvalidSequence);
        assert!(error.to_string().contains("sequence 7 to model 'm' must specify the START flag"), "{error}");
        turn(&all, control(7, true, false)).await.unwrap().done();
        turn(&all, control(7, false, true)).await.unwrap().done();
        assert_eq!(all.len(), 0);
        assert_eq!(turn(&all, control(7, false, false)).await.err().unwrap().reason(), Reason::InvalidSequence);
    }

    #[tokio::test]
    async fn one_at_a_time_and_no_more_sequences_than_places() {
        let all = sequences(1);
        let first = turn(&all, control(1, true, false)).await.unwrap();
        assert_eq!(turn(&all, control(1, false, false)).await.err().unwrap().reason(), Reason::DeadlineExceeded);
        assert_eq!(turn(&all, control(2, true, false)).await.err().unwrap().reason(), Reason::DeadlineExceeded);
        first.done();
        turn(&all, control(1, false, true)).await.unwrap().done();
        turn(&all, control(2, true, false)).await.unwrap().done();
    }

    #[tokio::test]
    async fn what_is_cancelled_leaves_no_trace() {
        let all = sequences(1);
        drop(turn(&all, control(1, true, true)).await.unwrap());
        // The last request was not executed: the sequence is still open.
        assert_eq!(all.len(), 1);
        turn(&all, control(1, false, true)).await.unwrap().done();
        assert_eq!((all.len(), all.waiting.load(Ordering::Relaxed)), (0, 0));
    }
}
