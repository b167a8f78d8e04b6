//! Keys of tenants: made once, kept as hashes, checked without a database.
//!
//! Invariant: a key is shown when it is made and never again; what is kept is the SHA-256 of its 256
//! random bits. Checking a key reads the [`KeyRing`] that was built from the snapshot and nothing
//! else, and says the same of a key that does not exist and of one whose secret is wrong.
//!
//! Where a key stands in a request, and what a route demands, is for the gateway to know.
#![warn(missing_docs)]

mod api_key;
mod key_ring;

pub use api_key::ApiKey;
pub use key_ring::{KeyRing, Principal};
