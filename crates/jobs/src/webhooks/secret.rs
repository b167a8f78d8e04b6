//! The secrets that deliveries are signed with.
//!
//! Invariant: a secret has 24 to 64 bytes (Standard Webhooks: 192 to 512 bits) and is shown by nothing but [`Secret::reveal`].

use std::fmt;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use plinth_runtime::Random;
use ring::hmac;

/// What stands before the base64 of a secret.
const PREFIX: &str = "whsec_";
/// The bytes of a secret that is drawn here.
const DRAWN: usize = 32;

/// A secret that a receiver and this node share.
#[derive(Clone)]
pub struct Secret {
    bytes: Vec<u8>,
    key: hmac::Key,
}

/// Why a text is no secret. It does not repeat it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a webhook's secret is `whsec_` and the base64 of 24 to 64 bytes")]
pub struct SecretError;

impl Secret {
    /// A new one of 32 random bytes.
    #[must_use]
    pub fn draw(random: &dyn Random) -> Self {
        let mut bytes = vec![0; DRAWN];
        random.fill(&mut bytes);
        Self::of(bytes)
    }

    /// Reads `whsec_…`.
    ///
    /// # Errors
    /// When it is no base64, or too short or too long.
    pub fn parse(text: &str) -> Result<Self, SecretError> {
        let encoded = text.strip_prefix(PREFIX).filter(|encoded| encoded.len() <= 88).ok_or(SecretError)?;
        let bytes = BASE64_STANDARD.decode(encoded).map_err(|_| SecretError)?;
        if (24..=64).contains(&bytes.len()) { Ok(Self::of(bytes)) } else { Err(SecretError) }
    }

    fn of(bytes: Vec<u8>) -> Self {
        Self { key: hmac::Key::new(hmac::HMAC_SHA256, &bytes), bytes }
    }

    /// As `whsec_…`: to be shown once to its owner, and kept where secrets are kept.
    #[must_use]
    pub fn reveal(&self) -> String {
        format!("{PREFIX}{}", BASE64_STANDARD.encode(&self.bytes))
    }

    pub(super) const fn key(&self) -> &hmac::Key {
        &self.key
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// The secrets of one receiver: one, and during a rotation the one before it too.
#[derive(Debug, Clone)]
pub struct Secrets {
    /// The newest.
    pub current: Secret,
    /// The one that it replaces, while receivers may still know only that one.
    pub previous: Option<Secret>,
}

impl Secrets {
    /// One alone.
    #[must_use]
    pub const fn one(current: Secret) -> Self {
        Self { current, previous: None }
    }

    /// The next secret; the newest until now is still signed with.
    #[must_use]
    pub fn rotated(self, next: Secret) -> Self {
        Self { current: next, previous: Some(self.current) }
    }

    /// The newest first.
    pub fn iter(&self) -> impl Iterator<Item = &Secret> {
        std::iter::once(&self.current).chain(&self.previous)
    }
}
