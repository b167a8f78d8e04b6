//! An answer that comes in pieces of text.
//!
//! Invariant: it holds its place among the requests in flight until it is dropped or has ended, and ends by its deadline.

use std::sync::Arc;

use tokio::sync::watch;
use tokio::time::Instant;

use super::Shared;
use super::flight::Flight;
use super::protocol::Opened;
use crate::spec::{RunnerError, RunnerExit};

/// An answer that comes in pieces of text. Dropping it closes its connection to the server.
pub struct TextStream {
    opened: Opened,
    flight: Option<Flight>,
    shared: Arc<Shared>,
    exit: watch::Receiver<Option<RunnerExit>>,
    until: Instant,
}

impl TextStream {
    pub(super) const fn new(
        opened: Opened,
        flight: Flight,
        shared: Arc<Shared>,
        exit: watch::Receiver<Option<RunnerExit>>,
        until: Instant,
    ) -> Self {
        Self { opened, flight: Some(flight), shared, exit, until }
    }

    /// The next piece, never empty; `None` after the last, and after an error. Cancel safe.
    pub async fn next(&mut self) -> Option<Result<String, RunnerError>> {
        self.flight.as_ref()?;
        let next = tokio::time::timeout_at(self.until, self.opened.next());
        let outcome = match next.await {
            Ok(Some(Ok(piece))) => {
                self.shared.answered();
                return Some(Ok(piece));
            }
            Ok(None) => None,
            Ok(Some(Err(failure))) => {
                let died = tokio::time::timeout(super::LAST_BREATH, self.exit.wait_for(Option::is_some));
                Some(Err(self.shared.error(failure, died).await))
            }
            Err(_) => Some(Err(RunnerError::Deadline("running"))),
        };
        self.flight = None;
        outcome
    }
}

impl std::fmt::Debug for TextStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TextStream").field("open", &self.flight.is_some()).finish_non_exhaustive()
    }
}
