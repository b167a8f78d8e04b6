//! Who computes what just now: one in front for each key, the others behind.
//!
//! Invariants: a key has at most one caller in front; when that one lands or is dropped, everybody behind hears of it and the
//! seat is free before they do. The locks are held for a look into a table and never while anybody waits.

use std::any::Any;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use plinth_types::{CacheKey, Tensor};
use tokio::sync::watch;

/// How a computation ended.
#[derive(Clone)]
pub(super) enum Ended {
    /// With these outputs.
    Well(Arc<[Tensor]>),
    /// With an error that is about the question.
    Badly {
        error: Arc<dyn Any + Send + Sync>,
        /// Nobody shall try the same again.
        surely: bool,
    },
    /// Without a word about the question.
    Abandoned,
}

type News = watch::Receiver<Option<Ended>>;
type Table = HashMap<CacheKey, News>;

/// As many tables as keep threads out of each other's way.
const TABLES: usize = 16;

/// All computations in flight on this node.
#[derive(Default)]
pub(super) struct Flights([Mutex<Table>; TABLES]);

/// Where a caller sits.
pub(super) enum Seat<'a> {
    /// It computes.
    Front(Front<'a>),
    /// It waits.
    Behind(Behind),
}

/// The caller that computes. Dropped without landing, it gives the seat up.
pub(super) struct Front<'a> {
    flights: &'a Flights,
    key: CacheKey,
    news: watch::Sender<Option<Ended>>,
    landed: bool,
}

/// A caller that waits.
pub(super) struct Behind(News);

impl Flights {
    fn table(&self, key: &CacheKey) -> MutexGuard<'_, Table> {
        let at = usize::from(key.digest().as_bytes()[0]) % TABLES;
        self.0[at].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the seat in front when it is free, else one behind.
    pub fn board(&self, key: CacheKey) -> Seat<'_> {
        let mut table = self.table(&key);
        if let Some(news) = table.get(&key) {
            return Seat::Behind(Behind(news.clone()));
        }
        let (news, watch) = watch::channel(None);
        table.insert(key, watch);
        Seat::Front(Front { flights: self, key, news, landed: false })
    }

    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.0.iter().map(|table| table.lock().unwrap().len()).sum()
    }
}

impl Front<'_> {
    /// Tells everybody behind; `ended` is asked only when somebody is there.
    pub fn land(mut self, ended: impl FnOnce() -> Ended) {
        self.end(ended);
    }

    fn end(&mut self, ended: impl FnOnce() -> Ended) {
        self.landed = true;
        // From here on nobody can sit down behind.
        drop(self.flights.table(&self.key).remove(&self.key));
        if self.news.receiver_count() > 0 {
            self.news.send_replace(Some(ended()));
        }
    }
}

impl Drop for Front<'_> {
    fn drop(&mut self) {
        if !self.landed {
            self.end(|| Ended::Abandoned);
        }
    }
}

impl Behind {
    /// How it ended. Cancel safe.
    pub async fn ended(mut self) -> Ended {
        let ended = self.0.wait_for(Option::is_some).await;
        ended.ok().and_then(|ended| ended.clone()).unwrap_or(Ended::Abandoned)
    }
}
