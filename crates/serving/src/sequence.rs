//! Sequences: requests that belong together and are executed one after another.

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
