//! Who asks, and what it may do: keys of tenants, tokens of OIDC providers, client certificates, roles.
//!
//! Invariants: a key is shown when it is made and never again; what is kept is the SHA-256 of its 256 random bits.
//! Checking credentials reads what was built from the snapshot and, for tokens, keys that were fetched before: no
//! database, and no provider but for a key that is new. What does not pass is refused with one text, whatever was wrong.
//!
//! Where credentials stand in a request is for the gateway to know.
#![warn(missing_docs)]

mod api_key;
mod authorise;
mod certificate;
mod credentials;
mod files;
mod key_ring;
mod principal;
pub mod refusals;
pub mod token;

pub use api_key::ApiKey;
pub use authorise::{authorise, role, word};
pub use certificate::CertificateRole;
pub use credentials::Credentials;
pub use key_ring::{KeyRecords, KeyRing, Refused, Tenant, TenantRecords};
pub use principal::{Caller, Principal, UserKey};
pub use refusals::{Refusal, Refusals, Who};
pub use token::Tokens;
