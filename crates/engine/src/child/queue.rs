//! The requests that wait inside a runner, between the thread that reads and the one that executes.
//!
//! Bounded by count and bytes like the node's own book of them, which is why it is never full unless the node is wrong.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use plinth_types::Tensor;

/// A request that has not begun.
pub(super) struct Job {
    pub id: u64,
    pub inputs: Vec<Tensor>,
    pub outputs: Vec<String>,
    /// On the monotonic clock of this process.
    pub expires: Duration,
    pub bytes: u64,
}

pub(super) struct Queue {
    waiting: Mutex<Waiting>,
    arrived: Condvar,
    max_requests: u64,
    max_bytes: u64,
}

#[derive(Default)]
struct Waiting {
    jobs: VecDeque<Job>,
    bytes: u64,
}

impl Queue {
    pub(super) fn new(max_requests: u64, max_bytes: u64) -> Self {
        Self { waiting: Mutex::default(), arrived: Condvar::new(), max_requests, max_bytes }
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts a request in; false when it is full.
    pub(super) fn push(&self, job: Job) -> bool {
        let mut waiting = self.lock();
        let bytes = waiting.bytes.saturating_add(job.bytes);
        if waiting.jobs.len() as u64 >= self.max_requests || bytes > self.max_bytes {
            return false;
        }
        waiting.bytes = bytes;
        waiting.jobs.push_back(job);
        self.arrived.notify_one();
        true
    }

    /// Takes the oldest out; waits for one.
    pub(super) fn pop(&self) -> Job {
        let mut waiting = self.lock();
        loop {
            if let Some(job) = waiting.jobs.pop_front() {
                waiting.bytes = waiting.bytes.saturating_sub(job.bytes);
                return job;
            }
            waiting = self.arrived.wait(waiting).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Takes one out whose caller has gone; false when it has begun.
    pub(super) fn remove(&self, id: u64) -> bool {
        let mut waiting = self.lock();
        let Some(job) = waiting.jobs.iter().position(|job| job.id == id).and_then(|at| waiting.jobs.remove(at)) else {
            return false;
        };
        waiting.bytes = waiting.bytes.saturating_sub(job.bytes);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(id: u64, bytes: u64) -> Job {
        Job { id, inputs: vec![], outputs: vec![], expires: Duration::ZERO, bytes }
    }

    #[test]
    fn first_come_first_served_within_bounds() {
        let queue = Queue::new(3, 10);
        assert!(queue.push(job(1, 4)) && queue.push(job(2, 4)));
        assert!(!queue.push(job(3, 3)), "too many bytes");
        assert!(queue.push(job(3, 2)));
        assert!(!queue.push(job(4, 0)), "too many requests");
        assert!(queue.remove(2) && !queue.remove(2));
        assert!(queue.push(job(4, 4)));
        assert_eq!([queue.pop().id, queue.pop().id, queue.pop().id], [1, 3, 4]);
        assert!(queue.push(job(5, 10)), "bytes are given back");
    }
}
