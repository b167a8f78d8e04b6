//! The typed client of the admin API, used by the command line and by tests.
//!
//! [`wire`] is the contract: the bodies that the admin API takes and gives. The server's side
//! (`api::admin`) builds the same types, so the two cannot drift apart.

pub mod wire;
