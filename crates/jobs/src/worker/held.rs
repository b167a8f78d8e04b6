//! The jobs that a worker holds, and the word to each to stop.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use plinth_queue::jobs::{Claimed, Held, JobId};
use plinth_runtime::CancellationToken;

/// Why a job shall stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Why {
    /// Somebody asked for its end.
    Asked,
    /// It is held by somebody else.
    Lost,
    /// The node ends.
    NodeEnds,
}

/// The word to a job to stop, and why.
#[derive(Clone, Default)]
pub(super) struct Stop {
    pub(super) token: CancellationToken,
    why: Arc<Mutex<Option<Why>>>,
}

impl Stop {
    fn cancel(&self, why: Why) {
        self.why.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(why);
        self.token.cancel();
    }

    pub(super) fn why(&self) -> Option<Why> {
        if !self.token.is_cancelled() {
            return None;
        }
        // A report that was fenced cancels the token alone.
        Some(self.why.lock().unwrap_or_else(PoisonError::into_inner).unwrap_or(Why::Lost))
    }
}

struct Entry {
    epoch: u64,
    kind: String,
    stop: Stop,
}

#[derive(Default)]
pub(super) struct HeldJobs {
    jobs: Mutex<HashMap<JobId, Entry>>,
}

impl HeldJobs {
    fn table(&self) -> std::sync::MutexGuard<'_, HashMap<JobId, Entry>> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn add(&self, job: &Claimed) -> Stop {
        let stop = Stop::default();
        let entry = Entry { epoch: job.epoch, kind: job.kind.clone(), stop: stop.clone() };
        // An older hold of the same job is lost: this claim has taken it over.
        if let Some(old) = self.table().insert(job.id, entry) {
            old.stop.cancel(Why::Lost);
        }
        stop
    }

    pub(super) fn remove(&self, id: JobId, epoch: u64) {
        let mut table = self.table();
        if table.get(&id).is_some_and(|entry| entry.epoch == epoch) {
            table.remove(&id);
        }
    }

    pub(super) fn all(&self) -> Vec<Held> {
        self.table().iter().map(|(id, entry)| Held { id: *id, epoch: entry.epoch }).collect()
    }

    pub(super) fn len(&self) -> usize {
        self.table().len()
    }

    pub(super) fn of_kind(&self, kind: &str) -> u32 {
        u32::try_from(self.table().values().filter(|entry| entry.kind == kind).count()).unwrap_or(u32::MAX)
    }

    pub(super) fn cancel(&self, job: Held, why: Why) {
        if let Some(entry) = self.table().get(&job.id).filter(|entry| entry.epoch == job.epoch) {
            entry.stop.cancel(why);
        }
    }

    pub(super) fn cancel_all(&self, why: Why) {
        self.table().values().for_each(|entry| entry.stop.cancel(why));
    }
}
