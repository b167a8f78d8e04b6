//! How a command ends: its exit code, and what it says when it fails.
//!
//! Invariant: the numbers are part of the interface (`plinth help exit-codes`, `docs/cli.md`) and never change their
//! meaning. A failure is one line `error: …` and then lines `next: …` with what to do about it.

use std::process::ExitCode;

use anstyle::{AnsiColor, Style};
use plinth_client::error::{Refusal, TransportKind};
use plinth_client::{Error, wire};

use crate::output::{Output, plain};

/// What `plinth help exit-codes` says.
pub const HELP: &str = "\
What the exit codes mean. They are the same for every command and do not change between releases.

  0  it worked
  1  it failed for a reason that has no code of its own; of `plinth diff`: there are differences
  2  the command line itself is wrong: an unknown option, a missing or malformed value
  3  the node cannot be reached, or the connection broke
  4  the node wants a key, or the key does not allow this
  5  there is no such model, version, alias or other thing
  6  the state does not allow it now: in use, changed by somebody else, there already
  7  verification failed: a signature, a signer or a digest does not hold
  8  the node is out of capacity or not ready; the same command may work later";

/// The kinds of ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    Failed = 1,
    Usage = 2,
    Unreachable = 3,
    Refused = 4,
    NotFound = 5,
    Conflict = 6,
    Unverified = 7,
    TryLater = 8,
}

impl Exit {
    /// What a registered reason means by itself, whatever status it came with.
    pub fn of_reason(reason: &str) -> Option<Self> {
        let signature = ["signature_missing", "signature_invalid", "signer_not_trusted", "content_altered", "downgrade_refused"];
        signature.contains(&reason).then_some(Self::Unverified)
    }
}

/// Why a command did not do what it was asked.
#[derive(Debug)]
pub struct Failure {
    pub exit: Exit,
    pub message: String,
    /// What else is wrong, each on its own line.
    also: Vec<String>,
    /// What to do about it; each is shown on its own line.
    pub next: Vec<String>,
    /// What only `-v` shows.
    detail: Option<String>,
    /// The node's own words, for `--json`.
    problem: Option<Box<wire::Problem>>,
    /// The answer was printed already; only the code remains.
    silent: bool,
    /// The message says where already.
    placed: bool,
}

impl Failure {
    pub fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self {
            exit,
            message: message.into(),
            also: Vec::new(),
            next: Vec::new(),
            detail: None,
            problem: None,
            silent: false,
            placed: false,
        }
    }

    /// A command line that cannot be carried out.
    pub fn usage(message: impl Into<String>) -> Self {
        Self::new(Exit::Usage, message)
    }

    /// Ends with `exit` and says nothing more: the answer told it all.
    pub fn silent(exit: Exit) -> Self {
        Self { silent: true, ..Self::new(exit, "") }
    }

    /// Adds lines with what else is wrong.
    #[must_use]
    pub fn also(mut self, lines: Vec<String>) -> Self {
        self.also = lines;
        self
    }

    /// The same, told by these lines; the node's own words stay what `--json` writes.
    #[must_use]
    pub fn instead(mut self, mut lines: Vec<String>) -> Self {
        if !lines.is_empty() {
            self.message = lines.remove(0);
            self.also = lines;
            self.placed = true;
        }
        self
    }

    #[must_use]
    pub fn next(mut self, step: impl Into<String>) -> Self {
        self.next.push(step.into());
        self
    }

    /// Says it on standard error: for people, or as one line of JSON.
    pub fn report(&self, output: &Output) -> ExitCode {
        if self.silent {
            return ExitCode::from(self.exit as u8);
        }
        if output.is_json() {
            let problem = self.problem.as_deref().cloned().unwrap_or_else(|| self.as_problem());
            output.raw_error(&serde_json::to_string(&problem).unwrap_or_default());
            return ExitCode::from(self.exit as u8);
        }
        let (red, dim) = (Style::new().fg_color(Some(AnsiColor::Red.into())).bold(), Style::new().bold());
        output.raw_error(&format!("{red}error:{red:#} {}", plain(&self.message)));
        for line in &self.also {
            output.raw_error(&format!("       {}", plain(line)));
        }
        if let Some(problem) = &self.problem {
            if let (false, Some(field)) = (self.placed, &problem.field) {
                output.raw_error(&format!("       in {}", plain(field)));
            }
            if let (true, Some(id)) = (output.verbose(), &problem.request_id) {
                output.raw_error(&format!("       request {}", plain(id)));
            }
        }
        if let (true, Some(detail)) = (output.verbose(), &self.detail) {
            output.raw_error(&format!("       {}", plain(detail)));
        }
        for step in &self.next {
            output.raw_error(&format!("{dim}next:{dim:#}  {}", plain(step)));
        }
        ExitCode::from(self.exit as u8)
    }

    /// What did not come from a node, in the same shape: status 0, the exit code's word as the reason.
    fn as_problem(&self) -> wire::Problem {
        let reason = match self.exit {
            Exit::Failed => "failed",
            Exit::Usage => "usage",
            Exit::Unreachable => "unreachable",
            Exit::Refused => "refused",
            Exit::NotFound => "not_found",
            Exit::Conflict => "conflict",
            Exit::Unverified => "unverified",
            Exit::TryLater => "try_later",
        };
        wire::Problem {
            kind: "about:blank".into(),
            title: "The command failed".into(),
            status: 0,
            detail: self.message.clone(),
            reason: reason.into(),
            field: None,
            request_id: None,
            retriable: matches!(self.exit, Exit::Unreachable | Exit::TryLater),
            problems: self
                .also
                .iter()
                .map(|line| wire::FieldProblem { field: String::new(), reason: String::new(), detail: line.clone() })
                .collect(),
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let exit = match &error {
            Error::Transport(_) => Exit::Unreachable,
            Error::Problem(refusal) => of_problem(refusal),
            Error::Settings(_) => Exit::Usage,
            _ => Exit::Failed,
        };
        let detail = match &error {
            Error::Transport(transport) if transport.kind != TransportKind::Tls => Some(transport.detail.clone()),
            _ => None,
        };
        let (message, next) = (error.to_string(), error.advice());
        let also = if let Error::Problem(refusal) = &error { fields(&refusal.problem) } else { Vec::new() };
        let problem = if let Error::Problem(refusal) = error { Some(Box::new(refusal.problem)) } else { None };
        Self { exit, message, also, next, detail, problem, silent: false, placed: false }
    }
}

/// All that is wrong, where the node has listed it.
fn fields(problem: &wire::Problem) -> Vec<String> {
    problem.problems.iter().map(|one| format!("{}: {}", one.field, one.detail)).collect()
}

fn of_problem(refusal: &Refusal) -> Exit {
    Exit::of_reason(&refusal.problem.reason).unwrap_or(match refusal.problem.status {
        401 | 403 => Exit::Refused,
        404 => Exit::NotFound,
        409 => Exit::Conflict,
        429 | 502 | 503 | 504 => Exit::TryLater,
        _ => Exit::Failed,
    })
}

impl From<plinth_client::plan::Error> for Failure {
    fn from(error: plinth_client::plan::Error) -> Self {
        Error::Plan(error).into()
    }
}

impl From<plinth_types::Error> for Failure {
    fn from(error: plinth_types::Error) -> Self {
        use plinth_types::Reason;
        let exit = match error.reason() {
            Reason::SignatureMissing | Reason::SignatureInvalid | Reason::SignerNotTrusted | Reason::ContentAltered => Exit::Unverified,
            _ => Exit::Failed,
        };
        let detail = error.log_text();
        Self { detail: (!detail.is_empty()).then_some(detail), ..Self::new(exit, error.to_string()) }
    }
}

/// Prints what clap has to say: help on standard output, complaints on standard error.
pub fn usage(error: &clap::Error) -> ExitCode {
    // A closed pipe is the reader's choice; the code says the rest.
    let _ = error.print();
    u8::try_from(error.exit_code()).map_or(ExitCode::FAILURE, ExitCode::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(status: u16, reason: &str) -> Failure {
        let problem = wire::Problem {
            kind: String::new(),
            title: String::new(),
            status,
            detail: "d".into(),
            reason: reason.into(),
            field: None,
            request_id: None,
            retriable: false,
            problems: Vec::new(),
        };
        Error::Problem(Box::new(Refusal { problem, retry_after: None })).into()
    }

    #[test]
    fn every_kind_of_refusal_has_its_code() {
        for (status, reason, exit) in [
            (401, "credentials_missing", Exit::Refused),
            (403, "not_permitted", Exit::Refused),
            (404, "model_not_found", Exit::NotFound),
            (409, "version_in_use", Exit::Conflict),
            (422, "signature_invalid", Exit::Unverified),
            (422, "model_load_failed", Exit::Failed),
            (400, "malformed_request", Exit::Failed),
            (503, "over_capacity", Exit::TryLater),
            (502, "runner_crashed", Exit::TryLater),
        ] {
            assert_eq!(problem(status, reason).exit, exit, "{reason}");
        }
        assert_eq!(Failure::from(Error::Settings(String::new())).exit, Exit::Usage);
    }

    #[test]
    fn the_help_names_every_code() {
        for code in 0..=Exit::TryLater as u8 {
            assert!(HELP.contains(&format!("\n  {code}  ")), "{code}");
        }
    }
}
