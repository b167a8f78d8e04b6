//! The rival: a first-in, first-out queue with a fixed delay and preferred sizes, after the documented behaviour of Triton's dynamic
//! batcher. A request is refused once it has waited for `timeout` (`default_timeout_microseconds` with `REJECT`).

use std::collections::VecDeque;

use super::{Request, Scheduler, Wish};

/// A fixed delay.
#[derive(Debug)]
pub struct FixedDelay {
    delay: u64,
    timeout: u64,
    preferred: Vec<u32>,
    max_rows: u32,
    queue: VecDeque<Request>,
    dropped: Vec<usize>,
}

impl FixedDelay {
    /// `delay` and `timeout` in nanoseconds; `preferred` ascending.
    #[must_use]
    pub fn new(delay: u64, timeout: u64, preferred: &[u32], max_rows: u32) -> Self {
        Self { delay, timeout, preferred: preferred.to_vec(), max_rows, queue: VecDeque::new(), dropped: Vec::new() }
    }
}

impl Scheduler for FixedDelay {
    fn push(&mut self, request: Request, _now: u64) -> bool {
        self.queue.push_back(request);
        true
    }

    fn next(&mut self, now: u64, _idle: usize, _lanes: usize, _busy: &[(u32, u64)]) -> Wish {
        while let Some(first) = self.queue.front().filter(|first| first.arrived + self.timeout <= now) {
            self.dropped.push(first.id);
            self.queue.pop_front();
        }
        let Some(oldest) = self.queue.front().map(|first| first.arrived) else { return Wish::Idle };
        let waiting = u32::try_from(self.queue.len()).unwrap_or(u32::MAX);
        let preferred = self.preferred.iter().copied().filter(|rows| *rows <= waiting).max();
        let rows = match preferred {
            Some(rows) => rows,
            None if waiting >= self.max_rows || now >= oldest + self.delay => waiting.min(self.max_rows),
            None => return Wish::Wait(oldest + self.delay),
        };
        Wish::Run(self.queue.drain(..rows as usize).map(|request| request.id).collect())
    }

    fn dropped(&mut self, _now: u64) -> Vec<usize> {
        std::mem::take(&mut self.dropped)
    }

    fn finished(&mut self, _rows: u32, _took: u64, _now: u64) {}
}
