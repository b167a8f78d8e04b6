//! Requests at a server: how many may be there, how many may wait, and when none is left.
//!
//! Invariant: count and bytes of what is admitted are bounded, and given back when a [`Flight`] is dropped, wherever its
//! call was.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use crate::spec::RunnerError;

#[derive(Debug, Default)]
struct Load {
    requests: usize,
    bytes: u64,
    closed: Option<RunnerError>,
}

pub(crate) struct Flights {
    load: watch::Sender<Load>,
    slots: Arc<Semaphore>,
    concurrency: usize,
    max_requests: usize,
    max_bytes: u64,
}

/// An admitted request.
pub(crate) struct Flight {
    flights: Arc<Flights>,
    bytes: u64,
    slot: Option<OwnedSemaphorePermit>,
}

impl Flights {
    pub(crate) fn new(concurrency: usize, max_requests: usize, max_bytes: u64) -> Arc<Self> {
        let slots = Arc::new(Semaphore::new(concurrency));
        Arc::new(Self { load: watch::Sender::default(), slots, concurrency, max_requests, max_bytes })
    }

    pub(crate) fn admit(self: &Arc<Self>, bytes: u64) -> Result<Flight, RunnerError> {
        let mut admitted = Ok(());
        self.load.send_if_modified(|load| {
            let total = load.bytes.saturating_add(bytes);
            admitted = match &load.closed {
                Some(why) => Err(why.clone()),
                None if load.requests >= self.max_requests || total > self.max_bytes => Err(RunnerError::QueueFull),
                None => {
                    (load.requests, load.bytes) = (load.requests + 1, total);
                    Ok(())
                }
            };
            // Nobody waits for more.
            false
        });
        admitted.map(|()| Flight { flights: self.clone(), bytes, slot: None })
    }

    /// Takes no more; what is there goes on.
    pub(crate) fn close(&self, why: RunnerError) {
        self.load.send_if_modified(|load| {
            load.closed.get_or_insert(why);
            false
        });
    }

    pub(crate) fn len(&self) -> usize {
        self.load.borrow().requests
    }

    /// How many are at the server now.
    pub(crate) fn running(&self) -> usize {
        self.concurrency.saturating_sub(self.slots.available_permits())
    }

    /// Returns when nothing is left.
    pub(crate) async fn drained(&self) {
        // The sender lives as long as this.
        let _ = self.load.subscribe().wait_for(|load| load.requests == 0).await;
    }
}

impl Flight {
    /// Waits for its turn, first come, first served. Cancel safe.
    pub(crate) async fn begin(&mut self) {
        self.slot = self.flights.slots.clone().acquire_owned().await.ok();
    }

    pub(crate) const fn began(&self) -> bool {
        self.slot.is_some()
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        self.slot = None;
        self.flights.load.send_if_modified(|load| {
            load.requests = load.requests.saturating_sub(1);
            load.bytes = load.bytes.saturating_sub(self.bytes);
            load.requests == 0
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn bounded_and_given_back() {
        let flights = Flights::new(1, 2, 10);
        let mut first = flights.admit(4).unwrap();
        assert!(matches!(flights.admit(7), Err(RunnerError::QueueFull)), "too many bytes");
        let mut second = flights.admit(6).unwrap();
        assert!(matches!(flights.admit(0), Err(RunnerError::QueueFull)), "too many requests");
        first.begin().await;
        assert!(first.began() && flights.running() == 1);
        let waited = tokio::time::timeout(std::time::Duration::from_secs(1), second.begin()).await;
        assert!(waited.is_err() && !second.began());
        drop(first);
        second.begin().await;
        flights.close(RunnerError::Stopping);
        assert!(matches!(flights.admit(0), Err(RunnerError::Stopping)));
        let (_, ()) = tokio::join!(flights.drained(), async { drop(second) });
        assert_eq!((flights.len(), flights.running()), (0, 0));
    }
}
