//! The parameters of a request: a small map of plain values, whichever protocol brought them.
//!
//! How many there may be is for the parser of each protocol.

use std::collections::BTreeMap;

/// A parameter's value.
#[derive(Debug, Clone, PartialEq)]
pub enum Parameter {
    /// `true` or `false`.
    Bool(bool),
    /// A whole number below 0.
    Int(i64),
    /// A whole number from 0 on.
    Uint(u64),
    /// Another number.
    Double(f64),
    /// A text.
    Text(String),
}

/// Parameters by name.
pub type Parameters = BTreeMap<String, Parameter>;
