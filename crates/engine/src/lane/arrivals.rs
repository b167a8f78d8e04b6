//! How the node waits for a runner's answers: looking first, where that pays, then asleep.
//!
//! Invariants: while somebody looks, the socket is not registered with the runtime, because a registered one wakes a
//! sleeping thread of it with every packet; who looks does so in turn with whatever else this thread has to do.

use std::io;
use std::sync::atomic::Ordering;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::shared::{Shared, Watched, registered};
use crate::active_wait::{self, ActiveWait, Pushes};
use crate::channel::packet;

#[derive(Default)]
pub(super) struct Arrivals {
    active: ActiveWait,
    asleep: Option<AsyncFd<Watched>>,
}

impl Arrivals {
    /// The next packet; its length, 0 at the end. Cancel safe.
    pub(super) async fn next(&mut self, shared: &Shared, buffer: &mut [u8]) -> io::Result<usize> {
        if self.active.may(shared.wiring.clock.monotonic(), pushes) {
            if shared.outstanding() == 0 {
                self.begins(shared).await?;
            }
            if shared.outstanding() > 0
                && let Some(received) = self.look(shared, buffer).await
            {
                return received;
            }
        }
        let asleep = self.asleep(shared)?;
        asleep.async_io(Interest::READABLE, |socket| packet::receive(&socket.0, buffer, false)).await
    }

    fn asleep(&mut self, shared: &Shared) -> io::Result<&AsyncFd<Watched>> {
        if self.asleep.is_none() {
            self.asleep = Some(registered(&shared.socket, Interest::READABLE)?);
        }
        self.asleep.as_ref().ok_or_else(|| io::Error::other("the socket is not watched"))
    }

    /// Waits for a batch to be sent, or for a sign of the runner without one: its end.
    async fn begins(&mut self, shared: &Shared) -> io::Result<()> {
        shared.looks.store(true, Ordering::SeqCst);
        // One that came in between has not called.
        if shared.outstanding() == 0 {
            let asleep = self.asleep(shared)?;
            tokio::select! {
                () = shared.begun.notified() => {}
                readable = asleep.readable() => drop(readable?),
            }
        }
        shared.looks.store(false, Ordering::Relaxed);
        Ok(())
    }

    async fn look(&mut self, shared: &Shared, buffer: &mut [u8]) -> Option<io::Result<usize>> {
        self.asleep = None;
        let begun = shared.wiring.clock.monotonic();
        loop {
            match packet::receive(&shared.socket, buffer, false) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                received => {
                    self.active.found(begun, pushes);
                    return Some(received);
                }
            }
            let now = shared.wiring.clock.monotonic();
            if now.saturating_sub(begun) >= active_wait::LONGEST {
                self.active.found_nothing(now, pushes);
                return None;
            }
            tokio::task::yield_now().await;
        }
    }
}

/// The task that waits changes its thread.
fn pushes() -> i64 {
    Pushes::Process.count()
}
