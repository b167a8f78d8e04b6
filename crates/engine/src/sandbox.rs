//! The walls around a runner.
//!
//! They go up in two steps, both before any byte of a model is parsed: [`Sandbox::begin`] while the process is still
//! young and has one thread (namespaces), and [`Sandbox::close`] once the engine's library is mapped and the model's
//! files are in memory. After that the process needs nothing from outside but its channel, so it is left nothing: an
//! empty file system, no network, no other process, no new executable memory, and a short list of system calls.
//!
//! Invariants: a wall that could not be put up is reported with the reason and never in silence; the walls are never
//! taken down. Which missing wall is too many is left to the operator.

mod filesystem;
mod filter;
pub(crate) mod limits;
mod namespaces;
mod privileges;

use std::fmt::Display;

use crate::spec::SandboxReport;
use limits::Limits;
use namespaces::Namespaces;

/// A sandbox that is being built around this process.
pub(crate) struct Sandbox {
    report: SandboxReport,
    namespaces: Namespaces,
}

impl Sandbox {
    /// Leaves the node's namespaces. The process must have one thread.
    pub(crate) fn begin() -> Self {
        let mut report = Report::default();
        let namespaces = Namespaces::leave(&mut report);
        Self { report: report.0, namespaces }
    }

    /// Puts up all other walls. From here on no file can be opened and no thread is privileged.
    pub(crate) fn close(self, limits: &Limits) -> SandboxReport {
        let mut report = Report(self.report);
        filesystem::empty(&self.namespaces, &mut report);
        let own_user = privileges::drop_all(&self.namespaces, &mut report);
        filesystem::landlock(&mut report);
        limits.apply(own_user, &mut report);
        filter::install(&mut report);
        report.0
    }
}

/// Collects what stands and what does not.
#[derive(Default)]
pub(crate) struct Report(SandboxReport);

impl Report {
    /// Notes how putting up `wall` went, and says whether it stands.
    pub(crate) fn note<E: Display>(&mut self, wall: &str, result: Result<(), E>) -> bool {
        match result {
            Ok(()) => self.0.applied.push(wall.to_owned()),
            Err(ref reason) => self.0.missing.push(format!("{wall}: {reason}")),
        }
        result.is_ok()
    }
}
