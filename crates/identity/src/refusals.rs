//! The log of refusals: who was not let in, from where, to what, and why. Not in the ledger, which strangers must not
//! be able to fill.
//!
//! Invariants: noting never waits and never fails a request; what does not fit is counted and the count is in the next
//! line. Like refusals of one second are one line with a count, there are at most [`MAX_LINES`] lines in a second, and the
//! files take at most [`file::MAX_FILE`] times [`file::KEPT`] bytes; the oldest go. Each line carries the digest of
//! the one before it, over restarts and files, so that a line that was changed or taken out shows ([`verify`]).
//! Nothing of a request but what is named here is written: no credential, no path, no payload.

mod file;
mod line;

use std::collections::HashMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use plinth_runtime::{OnEnd, TaskGroup, World};
use plinth_telemetry::Counter;
use plinth_types::{Reason, TenantName, Timestamp};
use tokio::sync::mpsc;

use self::file::Chain;
use self::line::Entry;
use crate::{Caller, Principal};

pub use self::file::{Broken, RefusalsReport, verify};

/// The most lines of one second.
pub const MAX_LINES: usize = 256;

/// The most refusals that wait to be counted: about 400 KiB.
const QUEUE: usize = 4096;

/// How often lines are written.
const WINDOW: Duration = Duration::from_secs(1);

/// A refusal. Like ones are equal.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Refusal {
    /// Who asked, as far as that was proved; `None` for somebody unknown.
    pub who: Option<Who>,
    /// From where.
    pub address: IpAddr,
    /// The name of the route; `none` when there is no such path.
    pub route: &'static str,
    /// Why.
    pub reason: Reason,
}

/// Who asked.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Who {
    caller: Caller,
    tenant: TenantName,
}

impl Who {
    /// How it has identified.
    #[must_use]
    pub const fn caller(&self) -> &Caller {
        &self.caller
    }

    /// Whose things its request is about.
    #[must_use]
    pub const fn tenant(&self) -> &TenantName {
        &self.tenant
    }
}

impl From<&Principal> for Who {
    fn from(principal: &Principal) -> Self {
        Self { caller: principal.caller().clone(), tenant: principal.tenant.clone() }
    }
}

/// Takes refusals. Cheap to clone.
#[derive(Clone)]
pub struct Refusals {
    queue: mpsc::Sender<Refusal>,
    lost: Arc<Lost>,
}

/// What did not fit.
struct Lost {
    /// Since the last line.
    waiting: AtomicU64,
    /// Ever.
    total: Counter,
}

impl Lost {
    fn add(&self, count: u64) {
        self.waiting.fetch_add(count, Ordering::Relaxed);
        self.total.add(count);
    }
}

impl Refusals {
    /// Begins to write into `directory`, which is made when the first line is. `lost` counts what is not written.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    #[must_use]
    pub fn start(directory: PathBuf, lost: Counter, world: &World, tasks: &TaskGroup) -> Self {
        let (queue, noted) = mpsc::channel(QUEUE);
        let refusals = Self { queue, lost: Arc::new(Lost { waiting: AtomicU64::new(0), total: lost }) };
        let writer = Writer { chain: Some(Chain::new(directory)), lost: refusals.lost.clone(), world: world.clone(), failing: false };
        let stop = tasks.cancelled().clone();
        tasks.spawn("log of refusals", OnEnd::CancelGroup, async move {
            writer.run(noted, stop.clone()).await;
            stop.cancelled().await;
        });
        refusals
    }

    /// Notes a refusal. Never waits.
    pub fn note(&self, refusal: Refusal) {
        if self.queue.try_send(refusal).is_err() {
            self.lost.add(1);
        }
    }
}

/// The like refusals of one window: when the first came, and how many.
type Window = HashMap<Refusal, (Timestamp, u64)>;

struct Writer {
    /// Away while a blocking thread writes.
    chain: Option<Chain>,
    lost: Arc<Lost>,
    world: World,
    failing: bool,
}

impl Writer {
    async fn run(mut self, mut noted: mpsc::Receiver<Refusal>, stop: plinth_runtime::CancellationToken) {
        let mut window = Window::new();
        loop {
            let first = tokio::select! {
                first = noted.recv() => first,
                () = stop.cancelled() => None,
            };
            let Some(first) = first else { break };
            self.count(&mut window, first);
            let end = tokio::time::sleep(WINDOW);
            tokio::pin!(end);
            loop {
                tokio::select! {
                    next = noted.recv() => match next {
                        Some(refusal) => self.count(&mut window, refusal),
                        None => break,
                    },
                    () = &mut end => break,
                    () = stop.cancelled() => break,
                }
            }
            self.write(std::mem::take(&mut window)).await;
        }
        // What was noted before the end is not lost.
        while let Ok(refusal) = noted.try_recv() {
            self.count(&mut window, refusal);
        }
        self.write(window).await;
    }

    fn count(&self, window: &mut Window, refusal: Refusal) {
        if let Some((_, count)) = window.get_mut(&refusal) {
            *count += 1;
        } else if window.len() < MAX_LINES {
            window.insert(refusal, (self.world.clock.now(), 1));
        } else {
            self.lost.add(1);
        }
    }

    async fn write(&mut self, window: Window) {
        if window.is_empty() {
            return;
        }
        let Some(mut chain) = self.chain.take() else { return };
        let lost = self.lost.waiting.swap(0, Ordering::Relaxed);
        let refusals: u64 = window.values().map(|(_, count)| count).sum();
        let mut entries: Vec<_> = window.into_iter().map(|(refusal, (at, count))| Entry::new(&refusal, at, count)).collect();
        entries.sort_by(|a, b| (a.at, &a.address).cmp(&(b.at, &b.address)));
        if let Some(first) = entries.first_mut() {
            first.lost = lost;
        }
        let written = tokio::task::spawn_blocking(move || {
            let result = chain.append(&entries);
            (chain, result)
        });
        match written.await {
            Ok((chain, Ok(()))) => (self.chain, self.failing) = (Some(chain), false),
            Ok((chain, Err(error))) => {
                self.lost.waiting.fetch_add(lost, Ordering::Relaxed);
                self.lost.add(refusals);
                if !self.failing {
                    tracing::error!(%error, "the log of refusals cannot be written; what is missing is counted");
                }
                (self.chain, self.failing) = (Some(chain), true);
            }
            // The runtime ends.
            Err(_) => {}
        }
    }
}

#[cfg(test)]
mod tests;
