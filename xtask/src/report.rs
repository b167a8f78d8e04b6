//! What a check found, and how it is shown.
//!
//! Invariant: a finding says where, what is wrong and how to put it right. No colours: the text is read in logs.

use std::fmt;
use std::process::ExitCode;

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The file or package.
    pub place: String,
    /// What is wrong with it.
    pub problem: String,
    /// How to put it right.
    pub fix: String,
}

impl Finding {
    /// A finding out of its three texts.
    pub fn new(place: impl Into<String>, problem: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { place: place.into(), problem: problem.into(), fix: fix.into() }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}\n    fix: {}", self.place, self.problem, self.fix)
    }
}

/// Whether a check or a command passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outcome {
    /// Its name, as on the command line.
    pub name: &'static str,
    /// Whether it did.
    pub passed: bool,
}

/// Prints the findings of one check.
pub fn print_findings(name: &str, findings: &[Finding]) {
    println!("== {name}");
    for finding in findings {
        println!("  {finding}");
    }
    if findings.is_empty() {
        println!("  ok");
    }
}

/// Prints one line for each outcome and gives the exit status.
pub fn summary(outcomes: &[Outcome]) -> ExitCode {
    println!();
    for outcome in outcomes {
        println!("{:<14}{}", outcome.name, if outcome.passed { "ok" } else { "FAILED" });
    }
    if outcomes.iter().all(|o| o.passed) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
