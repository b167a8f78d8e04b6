//! Models, immutable versions, aliases, signatures and the audit of every change.
#![warn(missing_docs)]

pub mod signing;
