//! How long an upstream may take, and the watch over the body of an answer.
//!
//! Invariant: a timer is made only when something is waited for, and is not moved with each piece: it rings, and only then is
//! looked at when the last piece came.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep_until};

use super::error::{Kind, OutboundError, Reached, Stage};

/// How long an upstream may take for one request.
#[derive(Debug, Clone, Copy)]
pub struct Deadlines {
    /// Until the answer begins, from when the last byte of the request was taken.
    pub first_byte: Duration,
    /// Between two pieces of the answer.
    pub idle: Duration,
    /// Until which moment everything has to be done, the last byte of the answer too.
    pub total: Option<Instant>,
}

impl Default for Deadlines {
    fn default() -> Self {
        Self { first_byte: Duration::from_secs(60), idle: Duration::from_secs(60), total: None }
    }
}

impl Deadlines {
    /// The end of a stage that began at `since`, and what to call it when it is over.
    pub(super) fn end(&self, since: Instant, allowed: Duration, stage: Stage) -> (Instant, Stage) {
        let until = since + allowed;
        match self.total {
            Some(total) if total < until => (total, Stage::Total),
            _ => (until, stage),
        }
    }
}

/// Watches the pauses of a body.
pub(super) struct Pauses {
    deadlines: Deadlines,
    /// Since when something is waited for. While nobody asks for the next piece, the upstream is not to blame.
    since: Option<Instant>,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Pauses {
    pub(super) const fn new(deadlines: Deadlines) -> Self {
        Self { deadlines, since: None, timer: None }
    }

    /// Something came.
    ///
    /// # Errors
    /// When it came after the end of everything.
    pub(super) fn passed(&mut self) -> Result<(), OutboundError> {
        self.since = None;
        let late = self.deadlines.total.is_some_and(|total| Instant::now() >= total);
        if late { Err(OutboundError::new(Kind::Timeout(Stage::Total), Reached::FirstByte)) } else { Ok(()) }
    }

    /// To be asked while nothing comes; ready when that took too long.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<OutboundError> {
        let since = *self.since.get_or_insert_with(Instant::now);
        let (until, stage) = self.deadlines.end(since, self.deadlines.idle, Stage::Idle);
        loop {
            let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(until)));
            ready!(timer.as_mut().poll(cx));
            if Instant::now() >= until {
                return Poll::Ready(OutboundError::new(Kind::Timeout(stage), Reached::FirstByte));
            }
            timer.as_mut().reset(until);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    const IDLE: Duration = Duration::from_secs(10);

    async fn wait(pauses: &mut Pauses, time: Duration) -> Option<Kind> {
        tokio::time::timeout(time, poll_fn(|cx| pauses.poll(cx))).await.ok().map(|error| error.kind)
    }

    #[tokio::test(start_paused = true)]
    async fn a_pause_counts_from_when_somebody_waits() {
        let mut pauses = Pauses::new(Deadlines { idle: IDLE, ..Deadlines::default() });
        for _ in 0..3 {
            // Its reader does not come for a long time.
            tokio::time::advance(IDLE * 5).await;
            assert_eq!(wait(&mut pauses, IDLE / 2).await, None);
            pauses.passed().unwrap();
        }
        assert_eq!(wait(&mut pauses, IDLE * 2).await, Some(Kind::Timeout(Stage::Idle)));
    }

    #[tokio::test(start_paused = true)]
    async fn the_end_of_everything_comes_also_when_pieces_do() {
        let total = Some(Instant::now() + IDLE);
        let mut pauses = Pauses::new(Deadlines { idle: IDLE, total, ..Deadlines::default() });
        assert_eq!(wait(&mut pauses, IDLE / 2).await, None);
        pauses.passed().unwrap();
        assert_eq!(wait(&mut pauses, IDLE).await, Some(Kind::Timeout(Stage::Total)));
        assert_eq!(pauses.passed().unwrap_err().kind, Kind::Timeout(Stage::Total));
    }
}
