//! The filters of a route, and of one request.
//!
//! Invariant: what a request passes on its way in, its answer passes on its way out, in the reverse order, also when a newer version
//! has come meanwhile.

use std::sync::Arc;
use std::time::Duration;

use plinth_store::resources::gateway::FilterRef;
use plinth_types::{Error, Reason, Result};

use super::loaded::Loaded;
use super::slot::{Found, Slot};

/// How long a request waits for a filter that is being loaded.
const PATIENCE: Duration = Duration::from_secs(5);

/// A filter as a route names it.
#[derive(Debug)]
pub struct Handle {
    named: FilterRef,
    /// `None` when there is no such filter: what the ledger refuses, but a request must not pass without it.
    slot: Option<Arc<Slot>>,
}

impl Handle {
    pub(crate) const fn new(named: FilterRef, slot: Option<Arc<Slot>>) -> Self {
        Self { named, slot }
    }

    async fn get(&self) -> Result<Arc<Loaded>> {
        let refused = |why: &str| {
            let text = format!("the filter '{}' of the route cannot be run here: {why}", self.named);
            Err(Error::new(Reason::FilterUnavailable, text).retry_after(Duration::from_secs(2)))
        };
        let Some(slot) = &self.slot else { return refused("there is no such filter") };
        match slot.find(self.named.version) {
            Found::Ready(loaded) => return Ok(loaded),
            Found::Failed(why) => return refused(&why),
            Found::Coming => {}
        }
        let mut changes = slot.changes();
        let waiting = async {
            loop {
                match slot.find(self.named.version) {
                    Found::Ready(loaded) => return Ok(loaded),
                    Found::Failed(why) => return refused(&why),
                    Found::Coming => {}
                }
                if changes.changed().await.is_err() {
                    return refused("it is gone");
                }
            }
        };
        tokio::time::timeout(PATIENCE, waiting).await.unwrap_or_else(|_| refused("it is still being loaded"))
    }
}

/// The filters of one request, in the order in which it passes them.
#[derive(Debug, Default)]
pub(crate) struct Chain(pub(super) Vec<Arc<Loaded>>);

impl Chain {
    /// What stands in a route's slots now. Waits, for a bounded time, for what is being loaded.
    ///
    /// # Errors
    /// `filter_unavailable`.
    pub async fn of(handles: &[Handle]) -> Result<Self> {
        let mut chain = Vec::with_capacity(handles.len());
        for handle in handles {
            chain.push(handle.get().await?);
        }
        Ok(Self(chain))
    }
}
