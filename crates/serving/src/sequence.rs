//! Sequences: requests that belong together and are executed one after another (Triton's sequence batcher).
//!
//! A sequence has a place while it is open; its requests take turns, get the control inputs and the states that the model
//! asks for, and then go the way of all requests: those of different sequences share batches.

mod feed;
mod table;

use std::fmt;

pub(crate) use table::{AllSequences, Sequences, Turn};

/// Names a sequence of one model.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum SequenceId {
    /// By a number other than 0.
    Number(u64),
    /// By a text that is not empty.
    Text(String),
}

/// Where a request stands in its sequence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SequenceControl {
    /// Which sequence.
    pub id: SequenceId,
    /// Whether it is the first.
    pub start: bool,
    /// Whether it is the last.
    pub end: bool,
}

impl fmt::Display for SequenceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(n) => n.fmt(f),
            Self::Text(text) => text.chars().filter(|c| !c.is_control()).take(64).collect::<String>().fmt(f),
        }
    }
}
