//! How many deliveries one host gets at a time.
//!
//! Invariants: at most [`PER_HOST`] for each host; a host is remembered only while a delivery to it is under way, so the memory is
//! bounded by the deliveries that are.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex, PoisonError};

/// The deliveries to one host at a time.
pub const PER_HOST: u32 = 2;

/// Who has how many.
#[derive(Debug, Clone, Default)]
pub(super) struct Hosts(Arc<Mutex<HashMap<Box<str>, u32>>>);

/// A delivery that is under way; given back when it is dropped.
#[derive(Debug)]
pub(super) struct Slot {
    hosts: Hosts,
    host: Box<str>,
}

impl Hosts {
    /// A slot of a host, if one is free. Nobody waits: a slow host must not hold up the workers.
    pub fn take(&self, host: &str) -> Option<Slot> {
        let mut hosts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let taken = hosts.entry(host.into()).or_default();
        if *taken >= PER_HOST {
            return None;
        }
        *taken += 1;
        Some(Slot { hosts: self.clone(), host: host.into() })
    }

    /// The hosts that are remembered.
    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.0.lock().unwrap().len()
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut hosts = self.hosts.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Entry::Occupied(mut taken) = hosts.entry(std::mem::take(&mut self.host)) {
            *taken.get_mut() -= 1;
            if *taken.get() == 0 {
                taken.remove();
            }
        }
    }
}
