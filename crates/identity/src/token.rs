//! Signed tokens of OIDC providers (JWT, RFC 7519; signatures RFC 7515 and 7518; keys RFC 7517).
//!
//! Invariants: the header of a token chooses among keys and algorithms that its issuer's record and keys allow, and brings
//! none of its own; an algorithm belongs to a kind of key, so that a public key is never taken for a secret; nothing of a
//! token is believed before its signature holds, but the name of the issuer by which the keys are found. A token that
//! does not pass is refused with one text.
//!
//! The request path waits for a provider only when a token names a key that is not known, for at most two seconds, and at most
//! once a minute for each issuer; everybody else goes on with the keys that are there. Those are good for a day without the
//! provider, also over a restart.
//!
//! The signatures are checked by `ring`, which the TLS of this program uses too.

mod base64url;
mod claims;
mod issuer;
mod jwk;
mod key_files;
mod key_set;
mod tokens;
mod wire;

use std::io;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use plinth_types::Label;

pub use issuer::{InvalidIssuer, IssuerSpec};
pub use key_files::KeyFiles;
pub use tokens::{Tokens, TokensParts, Verified};

/// The longest token in bytes.
pub const MAX_TOKEN: usize = 8 << 10;

/// The most issuers.
pub const MAX_ISSUERS: usize = 64;

/// The most keys of one issuer; a document with more is refused.
pub const MAX_KEYS: usize = 64;

/// The longest document of a provider, in bytes.
pub const MAX_DOCUMENT: usize = 1 << 20;

/// By how much the provider's clock may differ from the node's.
pub const LEEWAY: Duration = Duration::from_secs(60);

/// How long keys are good without the provider.
pub const KEEP: Duration = Duration::from_secs(24 * 3600);

/// How often keys are fetched anyway, so that one that was withdrawn goes.
pub const REFRESH: Duration = Duration::from_secs(600);

/// How often a key that is not known may make us ask.
pub const ASK_AGAIN: Duration = Duration::from_secs(60);

/// How long a request waits for a key that is not known.
pub const WAIT: Duration = Duration::from_secs(2);

/// Fetches the documents of providers.
#[async_trait]
pub trait FetchJwks: Send + Sync {
    /// The body of a GET of `url` that was answered with 200: at most [`MAX_DOCUMENT`] bytes, no redirect followed. A name
    /// that resolves to a private address is refused unless `allow_networks` (CIDR notation) has it. Ends within ten
    /// seconds. Cancel safe.
    ///
    /// # Errors
    /// Anything else, in words for the log.
    async fn fetch(&self, url: &str, allow_networks: &[String]) -> Result<Bytes, FetchError>;
}

/// Why a document was not fetched, for the log.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct FetchError(pub String);

/// Keeps the keys of issuers over a restart. The calls block.
pub trait KeyStore: Send + Sync {
    /// What was kept last for an issuer of this name.
    ///
    /// # Errors
    /// When it cannot be read.
    fn load(&self, issuer: &Label) -> io::Result<Option<Vec<u8>>>;

    /// Keeps this, whole or not at all.
    ///
    /// # Errors
    /// When it cannot be written; what was there stays.
    fn save(&self, issuer: &Label, bytes: &[u8]) -> io::Result<()>;
}

#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
