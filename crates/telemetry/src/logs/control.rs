//! The switches of the log that can be moved while the process runs.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use tracing::Level;
use tracing_subscriber::Registry;
use tracing_subscriber::reload::Handle;

use super::gate::Gate;

/// What is logged now, by level.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogSwitches {
    /// Whether errors are.
    pub error: bool,
    /// Whether warnings are.
    pub warning: bool,
    /// Whether information is.
    pub info: bool,
    /// 0: nothing further; 1: debugging; 2 and more: everything.
    pub verbose: u32,
    /// Whether lines for people begin with date and time (ISO 8601), not with the time of day.
    pub whole_time: bool,
}

impl LogSwitches {
    pub(super) fn passes(&self, level: &Level) -> bool {
        match *level {
            Level::ERROR => self.error,
            Level::WARN => self.warning,
            Level::INFO => self.info,
            Level::DEBUG => self.verbose >= 1,
            Level::TRACE => self.verbose >= 2,
        }
    }
}

/// Moves the switches. Cheap to clone; clones move the same ones.
#[derive(Clone)]
pub struct LogControl(Arc<Shared>);

struct Shared {
    /// `None` when nothing is logged by this process.
    gate: Option<Handle<Gate, Registry>>,
    switches: Mutex<LogSwitches>,
    whole_time: Arc<AtomicBool>,
}

impl LogControl {
    pub(super) fn new(gate: Handle<Gate, Registry>, switches: LogSwitches) -> Self {
        Self::over(Some(gate), switches)
    }

    /// Switches that move nothing, for a process that did not set up its log: tests.
    #[must_use]
    pub fn detached() -> Self {
        Self::over(None, LogSwitches { error: true, warning: true, info: true, verbose: 0, whole_time: false })
    }

    fn over(gate: Option<Handle<Gate, Registry>>, switches: LogSwitches) -> Self {
        Self(Arc::new(Shared { gate, switches: Mutex::new(switches), whole_time: Arc::default() }))
    }

    pub(super) fn whole_time(&self) -> Arc<AtomicBool> {
        self.0.whole_time.clone()
    }

    /// How the switches stand.
    #[must_use]
    pub fn get(&self) -> LogSwitches {
        *self.0.switches.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts the switches so; it counts for every event from then on.
    ///
    /// # Errors
    /// When the log was taken down: at the end of the process.
    pub fn set(&self, switches: LogSwitches) -> Result<(), tracing_subscriber::reload::Error> {
        // Held over the change, so that two callers do not end with one's switches shown and the other's in force.
        let mut shown = self.0.switches.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(gate) = &self.0.gate {
            gate.modify(|gate| gate.set(switches))?;
        }
        self.0.whole_time.store(switches.whole_time, Ordering::Relaxed);
        *shown = switches;
        Ok(())
    }
}
