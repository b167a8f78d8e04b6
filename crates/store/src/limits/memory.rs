//! Counters in this process, for tests: the rule itself, with a clock that is handed in.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use plinth_policy::limits::lease::central::{CapState, RateState};
use plinth_policy::limits::{LeaseAnswer, LeaseRequest};
use plinth_runtime::Clock;

use super::{Central, LeaseStore, NoAnswer};

/// Counters in memory. Never forgets a key.
pub struct MemoryLeases {
    clock: Arc<dyn Clock>,
    states: Mutex<HashMap<String, (RateState, CapState)>>,
    down: AtomicBool,
}

impl MemoryLeases {
    /// No counters yet.
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self { clock, states: Mutex::default(), down: AtomicBool::new(false) }
    }

    /// From now on every question fails, or none.
    pub fn set_down(&self, down: bool) {
        self.down.store(down, Ordering::SeqCst);
    }
}

#[async_trait]
impl LeaseStore for MemoryLeases {
    async fn lease(&self, key: &str, rule: &Central, ask: &LeaseRequest) -> Result<LeaseAnswer, NoAnswer> {
        if self.down.load(Ordering::SeqCst) {
            return Err(NoAnswer);
        }
        let now = self.clock.now().millis() * 1000;
        let mut states = self.states.lock().unwrap_or_else(PoisonError::into_inner);
        let (rate_state, cap_state) = states.entry(key.to_owned()).or_default();
        Ok(match rule {
            Central::Rate(rate) => rate.lease(rate_state, ask, now),
            Central::Cap(cap) => cap.lease(cap_state, ask, now),
        })
    }

    fn is_up(&self) -> bool {
        !self.down.load(Ordering::SeqCst)
    }

    async fn until(&self, up: bool) {
        while self.is_up() != up {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    fn describe(&self) -> String {
        "memory".to_owned()
    }
}
