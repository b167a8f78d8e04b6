//! The ledger of jobs in simulated time: one seed is one history of nodes, workers, clients and faults, judged step by step.
//!
//! It runs the very statements of the SQLite ledger ([`crate::jobs::sqlite::simulated`]) under a clock of its own: minutes of leases,
//! pauses, crashes and lost answers take milliseconds. Invariants: the same seed gives the same history, on every machine; at some moment all
//! faults end, and then everything must come to an end. The judge ([`Checker`]) knows no adapter and serves tests over real processes too.
//! What a file and a disk can do wrong is tested elsewhere.

mod chance;
mod checker;
mod client;
mod engine;
mod node;
mod plan;
mod seen;
#[cfg(test)]
mod tests;

use std::fmt;

use engine::Run;

pub use checker::{Bounds, Broken, Checker, Verdict};
pub use seen::{Change, Offer, Op, Seen};

use crate::jobs::sqlite::simulated::{Mutation, Simulated};

/// A seed whose history broke a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The seed.
    pub seed: u64,
    /// The rule.
    pub broken: Broken,
    /// The last lines of the history, the oldest first.
    pub tail: Vec<String>,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "seed {}: {}", self.seed, self.broken)?;
        self.tail.iter().try_for_each(|line| writeln!(f, "  {line}"))
    }
}

/// What a seed's history was made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Report {
    /// Calls that reached the ledger.
    pub calls: u64,
    /// Jobs that were stored.
    pub jobs: u64,
    /// Simulated milliseconds.
    pub millis: u64,
}

/// Runs seeds, one after the other, on one ledger that is emptied between them.
pub struct Simulation {
    ledger: Simulated,
}

impl Simulation {
    /// With an empty ledger in memory.
    ///
    /// # Errors
    /// Those of SQLite.
    pub fn new() -> rusqlite::Result<Self> {
        Ok(Self { ledger: Simulated::new()? })
    }

    /// Runs the history of a seed, with a rule broken when there is a mutation.
    ///
    /// # Errors
    /// The first rule that did not hold; the history is then run again to be written down.
    pub fn run(&mut self, seed: u64, mutation: Option<Mutation>) -> Result<Report, Failure> {
        let (outcome, report, _) = self.once(seed, mutation, false);
        let Err(first) = outcome else { return Ok(report) };
        let (again, _, tail) = self.once(seed, mutation, true);
        let broken = match again {
            Err(again) if again == first => first,
            other => Broken(format!("{first}; and the second run of the seed ended otherwise: {other:?}")),
        };
        Err(Failure { seed, broken, tail })
    }

    fn once(&mut self, seed: u64, mutation: Option<Mutation>, record: bool) -> (Verdict, Report, Vec<String>) {
        if let Err(error) = self.ledger.reset(mutation) {
            return (Err(engine::sqlite(error)), Report::default(), Vec::new());
        }
        let mut run = Run::new(&mut self.ledger, seed, record);
        let outcome = run.run();
        let report = Report { calls: run.calls, jobs: run.checker.jobs() as u64, millis: run.now };
        (outcome, report, run.tail())
    }
}
