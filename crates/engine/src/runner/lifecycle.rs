//! The task that sees a runner to its end.
//!
//! It waits for whatever comes first: the process ends; the channel ends or is broken; one execution takes too long;
//! somebody wants it stopped or gone. Invariant: whichever it was, the process is dead and reaped, its lanes take no more,
//! and only then the exit is published.

use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use plinth_runtime::CancellationToken;
use tokio::sync::{Notify, mpsc, watch};

use super::process::Process;
use crate::lane::{LaneEnd, Shared};
use crate::spec::RunnerExit;

/// How long a process may take to end after it was asked, or after its channel ended.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// What the owner of a runner wants of it. Later wishes are stronger.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wish {
    Run,
    Stop { grace: Duration },
    Kill,
}

pub(crate) struct Watch {
    pub label: String,
    pub process: Process,
    pub lanes: Vec<Arc<Shared>>,
    pub execution_timeout: Duration,
    /// What the stream and the lanes say of their ends.
    pub ends: mpsc::Receiver<LaneEnd>,
    /// Asks for the word that ends the process.
    pub say_stop: Arc<Notify>,
    pub wish: watch::Receiver<Wish>,
    pub cancelled: CancellationToken,
    pub exit: watch::Sender<Option<RunnerExit>>,
    /// Ends the tasks beside this one.
    pub over: CancellationToken,
}

impl Watch {
    /// Runs until the process has ended.
    pub(crate) async fn run(mut self) {
        let verdict = self.until_verdict().await;
        if verdict.is_some() {
            self.process.kill();
        }
        let status = self.process.ended().await;
        // What was answered before the death can still be received.
        self.close();
        let exit = verdict.unwrap_or(status);
        if exit == RunnerExit::Stopped {
            tracing::debug!(runner = self.label, pid = self.process.pid(), "runner stopped");
        } else {
            tracing::warn!(runner = self.label, pid = self.process.pid(), ?exit, "runner ended");
        }
        self.exit.send_replace(Some(exit));
    }

    fn close(&self) {
        self.lanes.iter().for_each(|lane| lane.close());
    }

    /// Says what the end is to be called, `None` for the process's own status.
    async fn until_verdict(&mut self) -> Option<RunnerExit> {
        tokio::select! {
            biased;
            _ = self.process.ended() => None,
            () = self.cancelled.cancelled() => Some(RunnerExit::Stopped),
            wish = wished(&mut self.wish) => match wish {
                Wish::Stop { grace } => self.stop(grace).await,
                _ => Some(RunnerExit::Stopped),
            },
            end = ended(&mut self.ends) => self.after(end).await,
            () = hung(&self.lanes, self.execution_timeout) => Some(RunnerExit::Hung),
        }
    }

    /// Lets the batches finish, asks the process to end, and is not patient.
    async fn stop(&mut self, grace: Duration) -> Option<RunnerExit> {
        self.close();
        let lanes = self.lanes.clone();
        let polite = async {
            let _ = tokio::time::timeout(grace, drained(&lanes)).await;
        };
        let killed = async {
            let _ = self.wish.wait_for(|wish| *wish == Wish::Kill).await;
        };
        tokio::select! {
            biased;
            _ = self.process.ended() => return Some(RunnerExit::Stopped),
            end = ended(&mut self.ends) => return self.after(end).await.or(Some(RunnerExit::Stopped)),
            () = self.cancelled.cancelled() => {}
            () = killed => {}
            () = hung(&lanes, self.execution_timeout) => {}
            () = polite => {
                if lanes.iter().all(|lane| lane.outstanding() == 0) {
                    self.say_stop.notify_one();
                    let _ = tokio::time::timeout(LAST_WORDS, self.process.ended()).await;
                }
            }
        }
        Some(RunnerExit::Stopped)
    }

    /// The channel has ended: a process that is dying may die of what it dies of; one that broke the protocol is killed.
    async fn after(&mut self, end: LaneEnd) -> Option<RunnerExit> {
        match end {
            LaneEnd::Broken(why) => {
                tracing::warn!(runner = self.label, why, "runner broke the protocol");
                Some(RunnerExit::BrokeProtocol)
            }
            LaneEnd::Closed => tokio::time::timeout(LAST_WORDS, self.process.ended()).await.err().map(|_| RunnerExit::BrokeProtocol),
        }
    }
}

impl Drop for Watch {
    /// Also when the task is aborted nothing more is sent; the process is killed by its own drop.
    fn drop(&mut self) {
        self.close();
        self.over.cancel();
    }
}

/// Returns when the owner wants something else than a running process; a dropped owner wants it gone.
async fn wished(wish: &mut watch::Receiver<Wish>) -> Wish {
    wish.wait_for(|wish| *wish != Wish::Run).await.map_or(Wish::Kill, |wish| *wish)
}

/// Returns when the stream or a lane has ended.
async fn ended(ends: &mut mpsc::Receiver<LaneEnd>) -> LaneEnd {
    match ends.recv().await {
        Some(end) => end,
        // Nobody is left who could say anything; the process itself is watched.
        None => pending().await,
    }
}

/// Returns when the runner holds nothing.
async fn drained(lanes: &[Arc<Shared>]) {
    for lane in lanes {
        lane.drained().await;
    }
}

/// Returns when one lane's oldest batch has been in execution for `limit`.
async fn hung(lanes: &[Arc<Shared>], limit: Duration) {
    loop {
        // Whatever begins while we sleep cannot be overdue before we wake.
        let oldest = lanes.iter().filter_map(|lane| lane.oldest_for()).max();
        let left = match oldest {
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
