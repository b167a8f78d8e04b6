//! The access log: one line for each request that failed or was refused, and for a share of the others.
//!
//! Names of fields follow the semantic conventions of OpenTelemetry for HTTP where those have one; what only Plinth knows begins with `plinth.`.
//!
//! Invariants: noting never waits and never fails a request; there are at most so many lines in a second, and what has none is counted and said in
//! the next line, so that an attack fills no disk. No secret and no payload: of a request only what [`Line`] names is written, which
//! is no header, no query and no body; what it names of the path is bounded. Lines are written by a task of their own, in the order in which
//! requests ended.

mod file;
mod line;
mod writer;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use plinth_policy::limits::{Cell, Rate};
use plinth_runtime::{TaskGroup, World};
use plinth_telemetry::Counter;
use plinth_types::{ByteSize, Timestamp};
use tokio::sync::mpsc;

pub use line::{Line, bounded, path};

/// The most lines that wait to be written: about 1 MiB.
const QUEUE: usize = 2048;

/// What is logged, and where.
#[derive(Debug, Clone)]
pub struct AccessLogOptions {
    /// How many of the requests that were answered well are logged, of 2³².
    pub share: u32,
    /// The most lines of a second, for requests that were answered well and for the others each.
    pub lines: u32,
    /// Whether paths are written; else only the names of routes.
    pub paths: bool,
    /// Where lines go as JSON; into the log of the node when `None`.
    pub file: Option<PathBuf>,
    /// A file that has grown beyond this is put aside.
    pub file_size: ByteSize,
    /// How many files that were put aside are kept.
    pub files: u32,
}

impl Default for AccessLogOptions {
    fn default() -> Self {
        Self { share: u32::MAX / 100, lines: 200, paths: true, file: None, file_size: ByteSize::mib(64), files: 4 }
    }
}

/// How a request ended, as far as it decides whether it is logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// Answered well.
    Well,
    /// Refused, failed, or given up by its caller.
    Badly,
}

/// Takes lines.
pub struct AccessLog {
    share: u32,
    paths: bool,
    /// `None`: no line at all.
    rate: Option<Rate>,
    /// For requests that ended well, and badly.
    cells: [Cell; 2],
    queue: mpsc::Sender<Box<Line>>,
    lost: Arc<Lost>,
    world: World,
}

/// What has no line.
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

impl AccessLog {
    /// Begins to write. `lost` counts what should have a line and has none.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    #[must_use]
    pub fn start(options: AccessLogOptions, lost: Counter, world: &World, tasks: &TaskGroup) -> Arc<Self> {
        let (queue, lines) = mpsc::channel(QUEUE);
        let lost = Arc::new(Lost { waiting: AtomicU64::new(0), total: lost });
        writer::start(&options, lines, lost.clone(), tasks);
        let rate = Rate::parse(&format!("{}/s", options.lines), Some(options.lines.into())).ok();
        let (share, paths) = (options.share, options.paths);
        Arc::new(Self { share, paths, rate, cells: [Cell::new(), Cell::new()], queue, lost, world: world.clone() })
    }

    /// Whether a request that ends so is to have a line; `draw` is a number of 2³² that chance gave it. What is over the rate is counted.
    pub(crate) fn wants(&self, ended: Ended, draw: u32, now: Duration) -> bool {
        let (chosen, cell) = match ended {
            Ended::Well => (draw < self.share || self.share == u32::MAX, &self.cells[0]),
            Ended::Badly => (true, &self.cells[1]),
        };
        if !chosen {
            return false;
        }
        let allowed = self.rate.as_ref().is_some_and(|rate| cell.take(rate, 1, now).allowed());
        if !allowed {
            self.lost.add(1);
        }
        allowed
    }

    /// Whether lines name paths.
    pub(crate) const fn names_paths(&self) -> bool {
        self.paths
    }

    /// Of how many requests that ended well one has a line, as a number from 0 to 1: what counts made of lines are divided by.
    pub(crate) fn share(&self) -> f64 {
        f64::from(self.share) / f64::from(u32::MAX)
    }

    /// The time of day.
    pub(crate) fn now(&self) -> Timestamp {
        self.world.clock.now()
    }

    /// Writes a line, soon.
    pub(crate) fn note(&self, line: Box<Line>) {
        if self.queue.try_send(line).is_err() {
            self.lost.add(1);
        }
    }
}

#[cfg(test)]
mod tests;
