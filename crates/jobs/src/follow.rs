//! Those who wait for a job in this process: told when something about it is written here.
//!
//! Invariant: as with the bell, nothing is promised: what another node writes is seen with the next look at the ledger.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use plinth_queue::jobs::JobId;
use tokio::sync::Notify;

#[derive(Default)]
struct Table(Mutex<HashMap<JobId, (Arc<Notify>, usize)>>);

/// Who waits for which job. Cheap to clone.
#[derive(Clone, Default)]
pub struct Followers(Arc<Table>);

impl Followers {
    /// Something about a job was written.
    pub(crate) fn touch(&self, id: JobId) {
        let table = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((notify, _)) = table.get(&id) {
            notify.notify_waiters();
        }
    }

    /// Begins to wait for a job; what is written from now on wakes.
    pub(crate) fn watch(&self, id: JobId) -> Watch {
        let mut table = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (notify, count) = table.entry(id).or_default();
        *count += 1;
        Watch { id, notify: notify.clone(), followers: self.clone() }
    }
}

/// One who waits.
pub(crate) struct Watch {
    id: JobId,
    notify: Arc<Notify>,
    followers: Followers,
}

impl Watch {
    /// The next time that something is written, from the moment of this call on: `notify_waiters` reaches what was made before it.
    pub(crate) fn next(&self) -> tokio::sync::futures::OwnedNotified {
        self.notify.clone().notified_owned()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let mut table = self.followers.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, count)) = table.get_mut(&self.id) {
            *count -= 1;
            if *count == 0 {
                table.remove(&self.id);
            }
        }
    }
}
