//! Inputs that have killed a runner twice, the second time alone: refused for a while.
//!
//! The list outlives the instance; it is asked only when there is something on it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use plinth_policy::poison::PoisonList;
use plinth_types::{Digest, DigestHasher, Tensor};

/// The most inputs that are remembered.
const MOST: usize = 1024;
/// For how long.
const LASTS: Duration = Duration::from_secs(300);

/// The poisonous inputs of one node.
pub(crate) struct Poison {
    list: Mutex<PoisonList>,
    any: AtomicBool,
}

impl Poison {
    pub fn new() -> Self {
        Self { list: Mutex::new(PoisonList::new(MOST, LASTS)), any: AtomicBool::new(false) }
    }

    /// Notes an input that has killed a runner on its own.
    pub fn add(&self, digest: Digest, now: Duration) {
        self.list.lock().unwrap_or_else(PoisonError::into_inner).add(digest, now);
        self.any.store(true, Ordering::Release);
    }

    /// Whether an input is refused. Costs nothing as long as nothing has died.
    pub fn refuses(&self, content: &Digest, inputs: &[Tensor], now: Duration) -> bool {
        if !self.any.load(Ordering::Acquire) {
            return false;
        }
        let mut list = self.list.lock().unwrap_or_else(PoisonError::into_inner);
        list.forget(now);
        if list.is_empty() {
            self.any.store(false, Ordering::Release);
            return false;
        }
        list.check(&digest(content, inputs), now).is_some()
    }
}

/// Names an input to the version with this content.
pub(crate) fn digest(content: &Digest, inputs: &[Tensor]) -> Digest {
    let mut hasher = DigestHasher::new();
    let mut part = |bytes: &[u8]| {
        hasher.update(&(bytes.len() as u64).to_le_bytes());
        hasher.update(bytes);
    };
    part(content.as_bytes());
    for tensor in inputs {
        part(tensor.name().as_bytes());
        for dim in tensor.shape().dims() {
            part(&dim.to_le_bytes());
        }
        part(tensor.data());
    }
    hasher.finish()
}
