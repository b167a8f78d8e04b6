//! Whether the peer of an HTTP/2 connection takes its answers.
//!
//! On HTTP/1 a peer that does not read shows at the socket. On HTTP/2 it need only leave a stream's window shut: it answers pings, the socket
//! stays free, and the answer, with all that is held for it, waits for ever. So each answer counts the bytes that were handed to the connection
//! and not written yet, since when there are any, and how many have been written since.
//!
//! Invariants: an answer is watched until its last piece is written or thrown away, also when everything else of the request is over; what waits
//! for its own source (a stream that has nothing to say) is not the peer's fault and does not count. The peer must take as much as on HTTP/1,
//! shared evenly by the answers that wait; one that takes less loses the connection, because a single stream cannot be reset from outside, nor its
//! queued bytes be freed, without the peer's window.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::time::Instant;

/// The answers of one connection that are on their way.
#[derive(Default)]
pub struct Answers(Mutex<Places>);

#[derive(Default)]
struct Places {
    answers: Vec<Weak<Answer>>,
    free: Vec<usize>,
}

/// One of them. Each of its pieces that is on its way holds it.
pub struct Answer {
    answers: Arc<Answers>,
    place: usize,
    start: Instant,
    /// Bytes that were handed on and not written.
    waiting: AtomicU64,
    /// Since when there are some: in microseconds since `start`, plus one; 0: there are none.
    since: AtomicU64,
    /// Bytes that were written since then.
    taken: AtomicU64,
}

impl Answers {
    fn lock(&self) -> MutexGuard<'_, Places> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An answer that will come.
    pub fn begin(self: &Arc<Self>) -> Arc<Answer> {
        let mut places = self.lock();
        let place = places.free.pop().unwrap_or(places.answers.len());
        let answer = Arc::new(Answer {
            answers: self.clone(),
            place,
            start: Instant::now(),
            waiting: AtomicU64::new(0),
            since: AtomicU64::new(0),
            taken: AtomicU64::new(0),
        });
        let weak = Arc::downgrade(&answer);
        match places.answers.get_mut(place) {
            Some(free) => *free = weak,
            None => places.answers.push(weak),
        }
        answer
    }

    /// When to look again: now or earlier, if an answer was not taken in time. `None` when none waits. `min_taken` bytes are to be taken in each
    /// stretch of `write` by all of them together.
    pub fn judge(&self, write: Duration, min_taken: u64) -> Option<Instant> {
        // Whose last holder this is takes the lock when it is dropped.
        let answers: Vec<_> = self.lock().answers.iter().filter_map(Weak::upgrade).collect();
        let waiting = || answers.iter().filter(|answer| answer.waits());
        let share = (min_taken / waiting().count().max(1) as u64).max(1);
        waiting().map(|answer| answer.judge(write, share)).min()
    }
}

impl Answer {
    fn now(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_micros()).unwrap_or(u64::MAX - 1).saturating_add(1)
    }

    fn waits(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) > 0
    }

    fn wait(&self) {
        self.taken.store(0, Ordering::Relaxed);
        self.since.store(self.now(), Ordering::Relaxed);
    }

    /// Bytes wait for the peer from now on.
    pub fn handed(&self, bytes: usize) {
        if bytes > 0 && self.waiting.fetch_add(bytes as u64, Ordering::Relaxed) == 0 {
            self.wait();
        }
    }

    /// Bytes were written.
    pub fn took(&self, bytes: usize) {
        self.taken.fetch_add(bytes as u64, Ordering::Relaxed);
        if bytes > 0 && self.waiting.fetch_sub(bytes as u64, Ordering::Relaxed) == bytes as u64 {
            self.since.store(0, Ordering::Relaxed);
        }
    }

    fn judge(&self, write: Duration, share: u64) -> Instant {
        let Some(since) = self.since.load(Ordering::Relaxed).checked_sub(1) else {
            // What was handed on when the last byte before it was just written.
            self.wait();
            return Instant::now() + write;
        };
        let until = self.start + Duration::from_micros(since) + write;
        if until > Instant::now() || self.taken.load(Ordering::Relaxed) < share {
            return until;
        }
        // Another stretch.
        self.wait();
        Instant::now() + write
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        self.answers.lock().free.push(self.place);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WRITE: Duration = Duration::from_secs(30);

    async fn pass(seconds: u64) {
        tokio::time::advance(Duration::from_secs(seconds)).await;
    }

    fn cut(answers: &Answers) -> bool {
        answers.judge(WRITE, 3_000).is_some_and(|until| until <= Instant::now())
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_not_taken_is_noticed_and_what_waits_for_its_source_is_not() {
        let answers = Arc::new(Answers::default());
        let answer = answers.begin();
        pass(1_000).await;
        assert_eq!(answers.judge(WRITE, 3_000), None, "it is not there yet");
        answer.handed(5);
        pass(29).await;
        assert_eq!(answers.judge(WRITE, 3_000), Some(Instant::now() + Duration::from_secs(1)));
        answer.took(5);
        pass(1_000).await;
        assert_eq!(answers.judge(WRITE, 3_000), None, "its source has nothing");
        answer.handed(5);
        answer.took(4);
        pass(29).await;
        answer.handed(100);
        assert!(!cut(&answers));
        pass(1).await;
        assert!(cut(&answers));
        drop(answer);
        assert_eq!(answers.judge(WRITE, 3_000), None);
    }

    #[tokio::test(start_paused = true)]
    async fn those_that_wait_share_what_a_peer_must_take() {
        let answers = Arc::new(Answers::default());
        let mut waiting: Vec<_> = (0..3).map(|_| answers.begin()).collect();
        waiting.iter().for_each(|answer| answer.handed(1 << 20));
        for bytes in [1_000, 1_000, 999] {
            assert!(!cut(&answers));
            pass(30).await;
            waiting.iter().for_each(|answer| answer.took(bytes));
            assert_eq!(cut(&answers), bytes == 999, "{bytes}");
        }
        waiting.truncate(1);
        waiting.push(answers.begin());
        assert_eq!(answers.lock().answers.len(), 3, "a place is used again");
    }
}
