//! Runs filters: WebAssembly modules that read and change requests and answers.
//!
//! [`Host`] compiles a module once and tries it; a [`Filter`] is called with a [`Message`] and gives an [`Answer`], or a
//! [`Failure`] that says why it has none. The interface is in [`abi`].
//!
//! Invariants: every call gets an instance of its own, made from the module as it was pushed, so that nothing of one request is
//! ever seen by another; a call ends after its share of processor time and has no more memory than its limit, whatever the
//! module does; no thread is held for longer than a tick of [`clock`]; whatever a module says is looked at as hostile input.
//! A module is given nothing but the message and one function to write a line of text.
//!
//! Left to others: where modules come from and whether they may be trusted, what a failure means to a request, metrics.
#![warn(missing_docs)]

pub mod abi;
mod call;
mod clock;
mod failure;
mod filter;
mod host;
mod message;

pub use failure::{Failure, Invalid};
pub use filter::{Called, Filter, Hook, Wants};
pub use host::{Host, HostOptions, Limits, MAX_MODULE};
pub use message::{Answer, Change, Message};

#[cfg(test)]
mod tests;
