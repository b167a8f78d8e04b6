//! What is wrong with a configuration, and where it was written.
//!
//! Invariant: a problem never repeats the value of a secret key.

use std::fmt;
use std::path::PathBuf;

/// Where a value comes from.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    /// A line of the file; lines count from 1.
    File {
        /// The file.
        path: PathBuf,
        /// The line of the key.
        line: usize,
    },
    /// A variable of the environment.
    Environment(String),
    /// A key that the command line set.
    CommandLine(String),
    /// Nobody set it.
    Default,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File { path, line } => write!(f, "{}:{line}", path.display()),
            Self::Environment(name) => write!(f, "environment {name}"),
            Self::CommandLine(key) => write!(f, "command line {key}"),
        }
    }
}

/// One thing that keeps a configuration from being used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{origin}: {text}")]
pub struct Problem {
    /// Where it was written.
    pub origin: Origin,
    /// The key, such as `listen.http`; empty when the file as a whole is at fault.
    pub key: String,
    /// What is wrong and what to write instead.
    pub text: String,
}

impl Problem {
    pub(crate) fn new(origin: Origin, key: impl Into<String>, text: impl Into<String>) -> Self {
        Self { origin, key: key.into(), text: text.into() }
    }
}
