//! What a connection is doing, and until when it may.
//!
//! States, seen from the deadlines:
//!   nothing asked yet ──first byte──► head arriving ──whole head──► request in flight
//!   request in flight ──last byte of the answer──► idle ──first byte──► head arriving
//! and, at any time, bytes that wait for a peer that does not take them, or takes them too slowly.
//!
//! Invariant: in every state but "in flight" one deadline runs; in flight, the deadlines are those of the
//! body's reader, of the handler, and of writing. HTTP/2 sends housekeeping between requests, so there a
//! byte does not begin a head; and there each answer waits for its own peer's window, see [`Answers`]. Until its
//! first whole head a connection is half open.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::Poll;
use std::time::Duration;

use tokio::time::Instant;

use crate::answers::{Answer, Answers};
use crate::half_open::Entry;
use crate::head::Refusal;
use crate::rest::Rest;

/// How long each state may last.
#[derive(Debug, Clone, Copy)]
pub struct Deadlines {
    pub header: Duration,
    pub idle: Duration,
    pub write: Duration,
    /// The bytes that a peer for which bytes wait must take in each stretch of `write`.
    pub min_taken: u64,
}

/// What the watchdog of a connection does next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Look again then.
    Wait(Instant),
    /// Close in order: nothing is in flight.
    Idle,
    /// Cut: the peer is too slow.
    Cut(&'static str),
}

/// The state of a connection, shared by its task, its requests and its bodies.
pub struct Activity {
    start: Instant,
    in_flight: AtomicUsize,
    requests: AtomicU64,
    /// Of the request in flight on HTTP/1; on HTTP/2 requests overwrite each other's, and nobody asks.
    body_unread: AtomicBool,
    /// Takes what its handler leaves of it.
    pub rest: Rest,
    half_open: Entry,
    /// Why the head behind the requests so far is not handled.
    refusal: OnceLock<Refusal>,
    /// Those of HTTP/2.
    answers: Arc<Answers>,
    /// Since `waiting_since`.
    taken: AtomicU64,
    // Moments in microseconds since `start`, plus one; 0 means "not now".
    idle_since: AtomicU64,
    head_since: AtomicU64,
    blocked_since: AtomicU64,
    /// Of the stretch in which bytes have waited without a break.
    waiting_since: AtomicU64,
}

impl Activity {
    /// Of a connection that has just come.
    pub fn new(half_open: Entry) -> Arc<Self> {
        Arc::new(Self {
            start: Instant::now(),
            in_flight: AtomicUsize::new(0),
            requests: AtomicU64::new(0),
            body_unread: AtomicBool::new(false),
            rest: Rest::default(),
            half_open,
            refusal: OnceLock::new(),
            answers: Arc::default(),
            taken: AtomicU64::new(0),
            idle_since: AtomicU64::new(0),
            head_since: AtomicU64::new(0),
            blocked_since: AtomicU64::new(0),
            waiting_since: AtomicU64::new(0),
        })
    }

    /// Of a connection that is the only one.
    #[cfg(test)]
    pub fn alone() -> Arc<Self> {
        Self::new(crate::half_open::HalfOpen::new(1).enter())
    }

    fn now(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_micros()).unwrap_or(u64::MAX - 1).saturating_add(1)
    }

    fn at(&self, moment: u64) -> Instant {
        self.start + Duration::from_micros(moment - 1)
    }

    /// The head of a request is whole.
    pub fn begin(self: &Arc<Self>) -> RequestGuard {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        if self.requests.fetch_add(1, Ordering::Relaxed) == 0 {
            self.half_open.leave();
        }
        self.head_since.store(0, Ordering::Relaxed);
        self.body_unread.store(false, Ordering::Relaxed);
        RequestGuard { activity: self.clone(), answer: None }
    }

    /// The same of HTTP/2, where whether an answer is taken is seen by the answer itself.
    pub fn begin_stream(self: &Arc<Self>) -> RequestGuard {
        let mut guard = self.begin();
        guard.answer = Some(self.answers.begin());
        guard
    }

    /// Waits until the connection, still half open, is to make room for another. Cancel safe.
    pub async fn given_up(&self) {
        let mut given_up = pin!(self.half_open.given_up());
        poll_fn(|cx| match self.requests.load(Ordering::Relaxed) {
            0 => given_up.as_mut().poll(cx),
            // Perhaps its head came at the last moment.
            _ => Poll::Pending,
        })
        .await;
    }

    /// The next head is not handled; nothing behind it is.
    pub fn refuse(&self, refusal: Refusal) {
        let _ = self.refusal.set(refusal);
    }

    /// Why a head of this connection is not handled.
    pub fn refusal(&self) -> Option<Refusal> {
        self.refusal.get().copied()
    }

    /// Bytes came in.
    pub fn received(&self) {
        if self.in_flight.load(Ordering::Relaxed) == 0 && self.head_since.load(Ordering::Relaxed) == 0 {
            self.head_since.store(self.now(), Ordering::Relaxed);
        }
    }

    /// The body of the request in flight is not read to its end, or now it is.
    pub fn body_unread(&self, unread: bool) {
        self.body_unread.store(unread, Ordering::Relaxed);
    }

    /// Whether bytes of a body are still to come, so that the connection cannot go on to another request.
    pub fn has_unread_body(&self) -> bool {
        self.body_unread.load(Ordering::Relaxed)
    }

    /// The peer takes no bytes at this moment, or does again.
    pub fn blocked(&self, blocked: bool) {
        let known = self.blocked_since.load(Ordering::Relaxed) != 0;
        if blocked == known {
            return;
        }
        let now = self.now();
        self.blocked_since.store(if blocked { now } else { 0 }, Ordering::Relaxed);
        if blocked && self.waiting_since.load(Ordering::Relaxed) == 0 {
            self.wait_from(now);
        }
    }

    fn wait_from(&self, moment: u64) {
        self.taken.store(0, Ordering::Relaxed);
        self.waiting_since.store(moment, Ordering::Relaxed);
    }

    /// The peer took bytes.
    pub fn took(&self, bytes: usize) {
        if self.waiting_since.load(Ordering::Relaxed) != 0 {
            self.taken.fetch_add(bytes as u64, Ordering::Relaxed);
        }
    }

    /// The peer has taken everything.
    pub fn took_all(&self) {
        if self.waiting_since.load(Ordering::Relaxed) != 0 {
            self.waiting_since.store(0, Ordering::Relaxed);
        }
    }

    /// What to do now. `streams`: whether this is HTTP/2.
    pub fn judge(&self, deadlines: &Deadlines, streams: bool) -> Verdict {
        let now = Instant::now();
        // What begins after this look cannot be over before this, so looking again then is soon enough.
        let mut next = now + deadlines.header.min(deadlines.idle).min(deadlines.write);
        if streams {
            match self.answers.judge(deadlines.write, deadlines.min_taken) {
                Some(until) if until <= now => return Verdict::Cut("answer of a stream not taken"),
                Some(until) => next = next.min(until),
                None => {}
            }
        }
        let mut over = |since: Instant, allowed: Duration| {
            next = next.min(since + allowed);
            now >= since + allowed
        };
        let blocked = self.blocked_since.load(Ordering::Relaxed);
        if blocked != 0 && over(self.at(blocked), deadlines.write) {
            return Verdict::Cut("answer not taken");
        }
        let waiting = self.waiting_since.load(Ordering::Relaxed);
        if waiting != 0 && over(self.at(waiting), deadlines.write) {
            if self.taken.load(Ordering::Relaxed) < deadlines.min_taken {
                return Verdict::Cut("answer taken too slowly");
            }
            self.wait_from(self.now());
        }
        if self.in_flight.load(Ordering::Relaxed) == 0 {
            let head = self.head_since.load(Ordering::Relaxed);
            let first = self.requests.load(Ordering::Relaxed) == 0;
            if first && over(self.start, deadlines.header) {
                return Verdict::Cut("no request");
            }
            if head != 0 && !streams && over(self.at(head), deadlines.header) {
                return Verdict::Cut("request head not complete");
            }
            let idle = self.idle_since.load(Ordering::Relaxed);
            if !first && idle != 0 && (streams || head == 0) && over(self.at(idle), deadlines.idle) {
                return Verdict::Idle;
            }
        }
        Verdict::Wait(next)
    }
}

/// A request in flight, until its answer's last byte has left.
pub struct RequestGuard {
    activity: Arc<Activity>,
    /// On HTTP/2.
    answer: Option<Arc<Answer>>,
}

impl RequestGuard {
    /// What watches whether the answer is taken, where that is not the connection's to see.
    pub const fn answer(&self) -> Option<&Arc<Answer>> {
        self.answer.as_ref()
    }
}

impl Drop for RequestGuard {
    fn drop(&mut self) {
        self.activity.idle_since.store(self.activity.now(), Ordering::Relaxed);
        self.activity.head_since.store(0, Ordering::Relaxed);
        self.activity.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEADLINES: Deadlines =
        Deadlines { header: Duration::from_secs(10), idle: Duration::from_secs(60), write: Duration::from_secs(30), min_taken: 30 << 10 };

    fn waits(verdict: Verdict) -> bool {
        matches!(verdict, Verdict::Wait(_))
    }

    async fn pass(seconds: u64) {
        tokio::time::advance(Duration::from_secs(seconds)).await;
    }

    #[tokio::test(start_paused = true)]
    async fn silence_and_slow_heads_are_cut() {
        let activity = Activity::alone();
        pass(9).await;
        assert_eq!(activity.judge(&DEADLINES, false), Verdict::Wait(Instant::now() + Duration::from_secs(1)));
        pass(1).await;
        assert_eq!(activity.judge(&DEADLINES, false), Verdict::Cut("no request"));
        drop(activity.begin());
        activity.received();
        pass(9).await;
        activity.received();
        assert!(waits(activity.judge(&DEADLINES, false)));
        pass(1).await;
        assert_eq!(activity.judge(&DEADLINES, false), Verdict::Cut("request head not complete"));
        assert!(waits(activity.judge(&DEADLINES, true)), "between HTTP/2 requests bytes are housekeeping");
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_in_flight_is_left_alone_and_then_idleness_counts() {
        let activity = Activity::alone();
        let guard = activity.begin();
        pass(1000).await;
        assert!(waits(activity.judge(&DEADLINES, false)));
        drop(guard);
        pass(59).await;
        assert!(waits(activity.judge(&DEADLINES, false)));
        pass(1).await;
        assert_eq!(activity.judge(&DEADLINES, false), Verdict::Idle);
        assert_eq!(activity.judge(&DEADLINES, true), Verdict::Idle);
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_takes_nothing_is_cut() {
        let activity = Activity::alone();
        let _guard = activity.begin();
        activity.blocked(true);
        pass(29).await;
        activity.blocked(true);
        assert!(waits(activity.judge(&DEADLINES, false)));
        activity.blocked(false);
        activity.took(1 << 20);
        activity.blocked(true);
        pass(29).await;
        assert!(waits(activity.judge(&DEADLINES, false)), "a byte that left starts the time anew");
        pass(1).await;
        assert_eq!(activity.judge(&DEADLINES, false), Verdict::Cut("answer not taken"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_takes_a_byte_now_and_then_is_cut_and_a_slow_one_is_not() {
        for (bytes, cut) in [(1, true), (2047, true), (2048, false)] {
            let activity = Activity::alone();
            let _guard = activity.begin();
            activity.blocked(true);
            for _ in 0..15 {
                assert!(waits(activity.judge(&DEADLINES, false)), "{bytes}");
                pass(2).await;
                activity.blocked(false);
                activity.took(bytes);
                activity.blocked(true);
            }
            let verdict = activity.judge(&DEADLINES, false);
            assert_eq!(verdict == Verdict::Cut("answer taken too slowly"), cut, "{bytes}: {verdict:?}");
        }
        let activity = Activity::alone();
        let _guard = activity.begin();
        activity.blocked(true);
        pass(29).await;
        activity.blocked(false);
        activity.took_all();
        pass(10).await;
        assert!(waits(activity.judge(&DEADLINES, false)), "nothing waits");
    }
}
