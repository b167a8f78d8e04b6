//! What a connection is doing, and until when it may.
//!
//! States, seen from the deadlines:
//!   nothing asked yet ──first byte──► head arriving ──whole head──► request in flight
//!   request in flight ──last byte of the answer──► idle ──first byte──► head arriving
//! and, at any time, bytes that wait for a peer that does not take them.
//!
//! Invariant: in every state but "in flight" one deadline runs; in flight, the deadlines are those of the
//! body's reader, of the handler, and of writing. HTTP/2 sends housekeeping between requests, so there a
//! byte does not begin a head.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use crate::rest::Rest;

/// How long each state may last.
#[derive(Debug, Clone, Copy)]
pub struct Deadlines {
    pub header: Duration,
    pub idle: Duration,
    pub write: Duration,
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
    // Moments in microseconds since `start`, plus one; 0 means "not now".
    idle_since: AtomicU64,
    head_since: AtomicU64,
    blocked_since: AtomicU64,
}

impl Activity {
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            start: Instant::now(),
            in_flight: AtomicUsize::new(0),
            requests: AtomicU64::new(0),
            body_unread: AtomicBool::new(false),
            rest: Rest::default(),
            idle_since: AtomicU64::new(0),
            head_since: AtomicU64::new(0),
            blocked_since: AtomicU64::new(0),
        })
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
        self.requests.fetch_add(1, Ordering::Relaxed);
        self.head_since.store(0, Ordering::Relaxed);
        self.body_unread.store(false, Ordering::Relaxed);
        RequestGuard(self.clone())
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
        if blocked != known {
            self.blocked_since.store(if blocked { self.now() } else { 0 }, Ordering::Relaxed);
        }
    }

    /// What to do now. `streams`: whether this is HTTP/2.
    pub fn judge(&self, deadlines: &Deadlines, streams: bool) -> Verdict {
        let now = Instant::now();
        // What begins after this look cannot be over before this, so looking again then is soon enough.
        let mut next = now + deadlines.header.min(deadlines.idle).min(deadlines.write);
        let mut over = |since: Instant, allowed: Duration| {
            next = next.min(since + allowed);
            now >= since + allowed
        };
        let blocked = self.blocked_since.load(Ordering::Relaxed);
        if blocked != 0 && over(self.at(blocked), deadlines.write) {
            return Verdict::Cut("answer not taken");
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
pub struct RequestGuard(Arc<Activity>);

impl Drop for RequestGuard {
    fn drop(&mut self) {
        self.0.idle_since.store(self.0.now(), Ordering::Relaxed);
        self.0.head_since.store(0, Ordering::Relaxed);
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEADLINES: Deadlines =
        Deadlines { header: Duration::from_secs(10), idle: Duration::from_secs(60), write: Duration::from_secs(30) };

    fn waits(verdict: Verdict) -> bool {
        matches!(verdict, Verdict::Wait(_))
    }

    async fn pass(seconds: u64) {
        tokio::time::advance(Duration::from_secs(seconds)).await;
    }

    #[tokio::test(start_paused = true)]
    async fn silence_and_slow_heads_are_cut() {
        let activity = Activity::new();
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
        let activity = Activity::new();
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
        let activity = Activity::new();
        let _guard = activity.begin();
        activity.blocked(true);
        pass(29).await;
        activity.blocked(true);
        assert!(waits(activity.judge(&DEADLINES, false)));
        activity.blocked(false);
        activity.blocked(true);
        pass(29).await;
        assert!(waits(activity.judge(&DEADLINES, false)), "a byte that left starts the time anew");
        pass(1).await;
        assert_eq!(activity.judge(&DEADLINES, false), Verdict::Cut("answer not taken"));
    }
}
