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

use crate::spec::{Provider, SandboxReport};
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
    ///
    /// The driver of a GPU opens devices and libraries when it is first used, and makes code for the device: for a runner
    /// on a GPU those walls have doors, and the report says which.
    pub(crate) fn close(self, limits: &Limits, provider: Provider) -> SandboxReport {
        let gpu = provider != Provider::Cpu;
        let mut report = Report(self.report);
        if gpu {
            report.note("empty file system", Err("the GPU's driver opens its devices and libraries"));
        } else {
            filesystem::empty(&self.namespaces, &mut report);
        }
        let own_user = privileges::drop_all(&self.namespaces, &mut report);
        filesystem::landlock(gpu, &mut report);
        limits.apply(gpu, own_user, &mut report);
        filter::install(gpu, &mut report);
        report.0
    }
}

/// Collects what stands and what does not.
#[derive(Default)]
pub(crate) struct Report(pub(crate) SandboxReport);

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
