//! The task that sees a runner to its end.
//!
//! It waits for whatever comes first: the process ends; the channel ends or is broken; one execution takes too long;
//! somebody wants it stopped or gone. Invariant: whichever it was, the process is dead and reaped, every request it
//! held has ended, and only then the exit is published.

use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use plinth_runtime::CancellationToken;
use tokio::sync::{oneshot, watch};

use super::process::Process;
use crate::channel::node::NodeEnd;
use crate::spec::{RunnerError, RunnerExit};

/// How long a process may take to end after it was asked, or after its channel ended.
const LAST_WORDS: Duration = Duration::from_secs(2);
/// How long the reader may take to read what a dead process has left in the channel.
const LEFT_OVER: Duration = Duration::from_millis(250);

/// What the owner of a runner wants of it. Later wishes are stronger.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wish {
    Run,
    Stop { grace: Duration },
    Kill,
}

/// How the reader of the channel ended.
#[derive(Debug)]
pub(crate) enum ChannelEnd {
    Closed,
    Broken(String),
}

pub(crate) struct Watch {
    pub label: String,
    pub process: Process,
    pub end: Arc<NodeEnd>,
    pub execution_timeout: Duration,
    pub channel: oneshot::Receiver<ChannelEnd>,
    pub wish: watch::Receiver<Wish>,
    pub cancelled: CancellationToken,
    pub exit: watch::Sender<Option<RunnerExit>>,
    /// Ends the writer, which would otherwise wait for requests as long as the [`Runner`](super::Runner) is kept.
    pub over: CancellationToken,
}

impl Watch {
    /// Runs until the process has ended.
    pub(crate) async fn run(mut self) {
        let (verdict, channel_open) = self.until_verdict().await;
        if verdict.is_some() {
            self.process.kill();
        }
        let status = self.process.ended().await;
        if channel_open {
            // What was answered before the death still counts.
            let _ = tokio::time::timeout(LEFT_OVER, &mut self.channel).await;
        }
        let exit = verdict.unwrap_or(status);
        let stopped = exit == RunnerExit::Stopped;
        self.end.pending().close(&if stopped { RunnerError::Stopping } else { RunnerError::Crashed });
        if stopped {
            tracing::debug!(runner = self.label, pid = self.process.pid(), "runner stopped");
        } else {
            tracing::warn!(runner = self.label, pid = self.process.pid(), ?exit, "runner ended");
        }
        self.exit.send_replace(Some(exit));
    }

    /// Says what the end is to be called, `None` for the process's own status, and whether the channel is still read.
    async fn until_verdict(&mut self) -> (Option<RunnerExit>, bool) {
        tokio::select! {
            biased;
            _ = self.process.ended() => (None, true),
            () = self.cancelled.cancelled() => (Some(RunnerExit::Stopped), true),
            wish = wished(&mut self.wish) => match wish {
                Wish::Stop { grace } => self.stop(grace).await,
                _ => (Some(RunnerExit::Stopped), true),
            },
            end = &mut self.channel => (self.after(end).await, false),
            () = hung(&self.end, self.execution_timeout) => (Some(RunnerExit::Hung), true),
        }
    }

    /// Lets the requests finish, asks the process to end, and is not patient.
    async fn stop(&mut self, grace: Duration) -> (Option<RunnerExit>, bool) {
        self.end.pending().refuse(RunnerError::Stopping);
        let end = self.end.clone();
        let polite = async {
            let _ = tokio::time::timeout(grace, end.pending().drained()).await;
        };
        let killed = async {
            let _ = self.wish.wait_for(|wish| *wish == Wish::Kill).await;
        };
        tokio::select! {
            biased;
            _ = self.process.ended() => return (Some(RunnerExit::Stopped), true),
            end = &mut self.channel => return (self.after(end).await.or(Some(RunnerExit::Stopped)), false),
            () = self.cancelled.cancelled() => {}
            () = killed => {}
            () = hung(&end, self.execution_timeout) => {}
            () = polite => {
                if end.pending().len() == 0 {
                    end.send_stop();
                    let _ = tokio::time::timeout(LAST_WORDS, self.process.ended()).await;
                }
            }
        }
        (Some(RunnerExit::Stopped), true)
    }

    /// The channel has ended: a process that is dying may die of what it dies of; one that broke the protocol is killed.
    async fn after(&mut self, end: Result<ChannelEnd, oneshot::error::RecvError>) -> Option<RunnerExit> {
        match end {
            Ok(ChannelEnd::Broken(why)) => {
                tracing::warn!(runner = self.label, why, "runner broke the protocol");
                Some(RunnerExit::BrokeProtocol)
            }
            _ => tokio::time::timeout(LAST_WORDS, self.process.ended()).await.err().map(|_| RunnerExit::BrokeProtocol),
        }
    }
}

impl Drop for Watch {
    /// Also when the task is aborted nobody waits for an answer that cannot come; the process is killed by its own drop.
    fn drop(&mut self) {
        self.end.pending().close(&RunnerError::Crashed);
        self.over.cancel();
    }
}

/// Returns when the owner wants something else than a running process; a dropped owner wants it gone.
async fn wished(wish: &mut watch::Receiver<Wish>) -> Wish {
    wish.wait_for(|wish| *wish != Wish::Run).await.map_or(Wish::Kill, |wish| *wish)
}

/// Returns when the oldest request has been in execution for `limit`.
async fn hung(end: &NodeEnd, limit: Duration) {
    loop {
        // Whatever begins while we sleep cannot be overdue before we wake.
        let left = match end.pending().oldest_for() {
            None => limit,
            Some(since) if since < limit => limit - since,
            Some(_) => return,
        };
        if left == Duration::MAX {
            pending::<()>().await;
        }
        tokio::time::sleep(left).await;
    }
}
