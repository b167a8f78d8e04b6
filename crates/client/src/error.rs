//! Why a call failed, and what its user can do about it.
//!
//! Invariant: a failure of the network, an answer of the node and an answer that no node gives are three different
//! things; nothing of the key ever stands in a text. Exit codes and colours are left to the command line.

use std::time::Duration;

use plinth_types::{ArtifactPath, Digest};

use crate::{plan, wire};

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The node could not be reached, or the connection broke before the answer was complete.
    #[error("{0}")]
    Transport(#[from] TransportError),
    /// The node refused or failed, and said why.
    #[error("{}", .0.problem.detail)]
    Problem(Box<Refusal>),
    /// Something answered that is not a Plinth node of this release.
    #[error("{server} gave an answer that is not a Plinth node's: {what}")]
    Protocol {
        /// Who answered.
        server: String,
        /// What was wrong with it.
        what: String,
    },
    /// The address or the key cannot be used at all.
    #[error("{0}")]
    Settings(String),
    /// The directory cannot become a version.
    #[error(transparent)]
    Plan(#[from] plan::Error),
    /// A file is not what it was when its digest was taken; nothing was registered.
    #[error("the file '{0}' changed while it was pushed")]
    Changed(ArtifactPath),
    /// The bytes to upload cannot be read, or are not the announced ones.
    #[error("blob {}: {what}", .digest.short())]
    Source {
        /// The announced digest.
        digest: Digest,
        /// Whether they are other bytes than announced.
        changed: bool,
        /// What went wrong.
        what: String,
    },
    /// A tensor cannot be carried by the chosen encoding, or does not hold together.
    #[error("the tensor '{tensor}' {what}")]
    Tensor {
        /// Its name.
        tensor: String,
        /// What is wrong with it.
        what: String,
    },
}

/// An error answer of a node.
#[derive(Debug, Clone)]
pub struct Refusal {
    /// What the node said.
    pub problem: wire::Problem,
    /// When it asked to be tried again.
    pub retry_after: Option<Duration>,
}

/// What went wrong between here and the node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TransportKind {
    /// Nobody answers at that address.
    Unreachable,
    /// A deadline passed, or no byte moved for too long.
    TimedOut,
    /// The connection broke before the answer was complete.
    Interrupted,
    /// A secure connection could not be made.
    Tls,
}

/// A failure of the network.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{}", self.text())]
pub struct TransportError {
    /// What went wrong.
    pub kind: TransportKind,
    /// The address that was asked.
    pub server: String,
    /// The operating system's words, for `-v`.
    pub detail: String,
}

impl TransportError {
    fn text(&self) -> String {
        let server = &self.server;
        match self.kind {
            TransportKind::Unreachable => format!("no node answers at {server}"),
            TransportKind::TimedOut => format!("{server} did not answer in time"),
            TransportKind::Interrupted => format!("the connection to {server} broke before the answer was complete"),
            TransportKind::Tls => format!("no secure connection to {server} could be made: {}", self.detail),
        }
    }

    /// From reqwest's error, whose own text would repeat the whole URL.
    pub(crate) fn from_reqwest(server: &str, error: reqwest::Error) -> Self {
        let detail = chain(&error.without_url());
        let tls = detail.contains("certificate") || detail.contains("tls handshake") || detail.contains("InvalidContentType");
        Self { kind: if tls { TransportKind::Tls } else { TransportKind::Interrupted }, server: server.to_owned(), detail }
    }
}

/// The texts of an error and of what caused it, each once.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}

impl Error {
    /// The stable word of the node's refusal, such as `model_not_found`.
    #[must_use]
    pub fn reason(&self) -> Option<&str> {
        match self {
            Self::Problem(refusal) => Some(&refusal.problem.reason),
            _ => None,
        }
    }

    /// The HTTP status of the node's refusal.
    #[must_use]
    pub fn status(&self) -> Option<u16> {
        match self {
            Self::Problem(refusal) => Some(refusal.problem.status),
            _ => None,
        }
    }

    /// What the user can do next, one sentence each.
    #[must_use]
    pub fn advice(&self) -> Vec<String> {
        let one = |text: &str| vec![text.to_owned()];
        match self {
            Self::Transport(TransportError { kind: TransportKind::Unreachable, .. }) => {
                one("start a node with `plinth up`, or name another one with `--server URL`")
            }
            Self::Transport(TransportError { kind: TransportKind::Tls, .. }) => {
                one("check whether the address begins with http:// or https://, and whether this machine trusts the certificate")
            }
            Self::Transport(_) => one("try again; `plinth status` says how the node is, and its log what happened"),
            Self::Problem(refusal) => problem_advice(refusal),
            Self::Protocol { .. } => one("check the address; `--server URL` names another one"),
            Self::Changed(_) | Self::Source { changed: true, .. } => one("let whatever writes the directory finish, then push again"),
            Self::Plan(error) => error.advice().into_iter().map(str::to_owned).collect(),
            Self::Settings(_) | Self::Source { .. } | Self::Tensor { .. } => Vec::new(),
        }
    }
}

fn problem_advice(refusal: &Refusal) -> Vec<String> {
    let problem = &refusal.problem;
    let mut advice = Vec::new();
    match (problem.status, problem.reason.as_str()) {
        (401, _) => {
            advice.push("give a key with `--key`, in PLINTH_KEY, or once with `plinth login`; `plinth up` printed the first one".to_owned())
        }
        (403, _) => advice.push("this needs a key with the role admin; `plinth key create` makes one".to_owned()),
        (_, "model_not_found") => advice.push("`plinth model list` shows what there is".to_owned()),
        (_, "version_not_found" | "alias_not_found") => advice.push("`plinth model show NAME` lists versions and aliases".to_owned()),
        (_, "version_retired") => advice.push("`plinth model restore NAME@VERSION` makes it usable again".to_owned()),
        (_, "edit_conflict") => advice.push("look at what changed with `plinth history`, then try again".to_owned()),
        (_, "signature_missing" | "signature_invalid" | "signer_not_trusted" | "content_altered") => {
            advice.push("`plinth model verify NAME@VERSION` says what the node finds wrong".to_owned());
        }
        _ => {}
    }
    if problem.retriable {
        advice.push(match refusal.retry_after {
            Some(delay) => format!("try again in {} s", delay.as_secs().max(1)),
            None => "try again later".to_owned(),
        });
    }
    advice
}
