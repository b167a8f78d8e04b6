//! The task that sees a server to its end.
//!
//! It waits for whatever comes first: the server ends; it fails its checks, or is found hung by those who wait for it; it
//! takes more memory than it may; somebody wants it stopped or gone. Invariant: whichever it was, every process of the server
//! is dead, and only then the exit is published.

use std::sync::Arc;
use std::time::Duration;

use plinth_runtime::CancellationToken;
use plinth_types::ByteSize;
use tokio::sync::watch;

use super::Shared;
use super::client::CallError;
use super::guard::Guard;
use super::health::{Seen, State};
use super::manifest::{HealthChecks, StopSignal};
use super::start::Temporary;
use super::tree;
use crate::spec::{RunnerError, RunnerExit};

/// How often memory and processes are counted.
const COUNTING: Duration = Duration::from_secs(1);
/// The most processes of one server.
const MAX_PROCESSES: usize = 1024;
/// As if the kernel had ended it for want of memory.
const KILLED: RunnerExit = RunnerExit::Signal(9);

/// What the owner of a server wants of it. Later wishes are stronger.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wish {
    Run,
    Stop { grace: Duration },
    Kill,
}

pub(super) struct Watch {
    pub label: String,
    pub guard: Guard,
    pub shared: Arc<Shared>,
    pub checks: HealthChecks,
    pub stop_signal: StopSignal,
    pub stop_grace: Duration,
    pub memory: Option<ByteSize>,
    pub wish: watch::Receiver<Wish>,
    pub cancelled: CancellationToken,
    pub exit: watch::Sender<Option<RunnerExit>>,
    pub _temporary: Temporary,
}

impl Watch {
    /// Runs until no process of the server is left.
    pub(super) async fn run(mut self) {
        let exit = self.until_verdict().await;
        self.shared.flights.close(if exit == RunnerExit::Stopped { RunnerError::Stopping } else { RunnerError::Crashed });
        self.guard.end().await;
        if exit == RunnerExit::Stopped {
            tracing::debug!(server = self.label, "server stopped");
        } else {
            tracing::warn!(server = self.label, ?exit, "server ended");
        }
        self.exit.send_replace(Some(exit));
    }

    async fn until_verdict(&mut self) -> RunnerExit {
        let supervisor = self.guard.supervisor_pid();
        let wish = tokio::select! {
            biased;
            exit = self.guard.ended() => return exit,
            () = self.cancelled.cancelled() => return RunnerExit::Stopped,
            wish = wished(&mut self.wish) => wish,
            exit = ill(&self.shared, &self.checks, &self.label) => return exit,
            exit = greedy(supervisor, self.memory, &self.label) => return exit,
        };
        if let Wish::Stop { grace } = wish {
            self.stop(grace).await;
        }
        RunnerExit::Stopped
    }

    /// Lets the requests finish, asks the server to end, and is not patient.
    async fn stop(&mut self, grace: Duration) {
        self.shared.flights.close(RunnerError::Stopping);
        let Self { guard, shared, wish, cancelled, .. } = self;
        let drained = async {
            let _ = tokio::time::timeout(grace, shared.flights.drained()).await;
        };
        tokio::select! {
            biased;
            _ = guard.ended() => return,
            () = hurried(wish, cancelled) => return,
            () = drained => {}
        }
        guard.signal(self.stop_signal.number()).await;
        tokio::select! {
            biased;
            _ = guard.ended() => {}
            () = hurried(wish, cancelled) => {}
            () = tokio::time::sleep(self.stop_grace) => tracing::info!(server = self.label, "server did not end by its stop signal"),
        }
    }
}

impl Drop for Watch {
    /// Also when the task is aborted nobody is taken in any more; the processes are killed by the guard's own drop.
    fn drop(&mut self) {
        self.shared.flights.close(RunnerError::Crashed);
    }
}

/// Returns when the owner wants something else than a running server; a dropped owner wants it gone.
async fn wished(wish: &mut watch::Receiver<Wish>) -> Wish {
    wish.wait_for(|wish| *wish != Wish::Run).await.map_or(Wish::Kill, |wish| *wish)
}

/// Returns when a stop shall be no longer a polite one.
async fn hurried(wish: &mut watch::Receiver<Wish>, cancelled: &CancellationToken) {
    let killed = wish.wait_for(|wish| *wish == Wish::Kill);
    tokio::select! {
        () = cancelled.cancelled() => {}
        _ = killed => {}
    }
}

/// Checks again and again; returns when the server is hung, by these checks or by what calls have seen.
async fn ill(shared: &Shared, checks: &HealthChecks, label: &str) -> RunnerExit {
    let mut before = State::Healthy;
    loop {
        tokio::select! {
            biased;
            () = shared.hung.notified() => {
                tracing::warn!(server = label, "server is hung");
                return RunnerExit::Hung;
            }
            () = tokio::time::sleep(checks.interval) => {}
        }
        let seen = match tokio::time::timeout(checks.timeout, shared.speaker.is_well()).await {
            Ok(Ok(true)) => Seen::Well,
            Ok(Ok(false) | Err(CallError::Connect | CallError::Closed | CallError::TooLong(_) | CallError::Protocol(_))) => Seen::Ill,
            Err(_) => Seen::Silent,
        };
        let (running, now) = (shared.flights.running(), shared.clock.monotonic());
        let state = shared.judge(|health| health.checked(seen, running, now));
        if state != before {
            tracing::info!(server = label, ?seen, ?state, "health of a server");
        }
        before = state;
    }
}

/// Counts memory and processes; returns when there are too many.
async fn greedy(supervisor: u32, memory: Option<ByteSize>, label: &str) -> RunnerExit {
    loop {
        tokio::time::sleep(COUNTING).await;
        let counted = tokio::task::spawn_blocking(move || {
            let pids = tree::descendants(supervisor);
            (pids.len(), ByteSize(tree::resident(&pids)))
        });
        let Ok((processes, resident)) = counted.await else { continue };
        if processes > MAX_PROCESSES {
            tracing::warn!(server = label, processes, "server has too many processes");
            return KILLED;
        }
        if memory.is_some_and(|limit| resident > limit) {
            tracing::warn!(server = label, %resident, limit = ?memory, "server takes more memory than it may");
            return KILLED;
        }
    }
}
