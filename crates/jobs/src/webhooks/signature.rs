//! Signing a delivery, and verifying one as its receiver does (Standard Webhooks 1.0.0, "Signature scheme").
//!
//! Invariants: what is signed is `{id}.{timestamp}.{body}`, and an id has no dot, so two different deliveries never have the same
//! text; signatures are compared in constant time; nothing about a secret is in an error.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use http::{HeaderMap, HeaderName, HeaderValue};
use plinth_types::Timestamp;
use ring::hmac;

use super::secret::{Secret, Secrets};

/// By how much the clocks of sender and receiver may differ, and how old a delivery may be, before it is refused as a replay.
pub const TOLERANCE: Duration = Duration::from_secs(300);

const ID: &str = "webhook-id";
const TIMESTAMP: &str = "webhook-timestamp";
const SIGNATURE: &str = "webhook-signature";
/// The version of HMAC-SHA256.
const VERSION: &str = "v1,";
/// The signatures of one delivery that are looked at.
const MAX_SIGNATURES: usize = 16;

/// Names a delivery, the same at each attempt, so that a receiver can tell that it knows it already: 1 to 64 characters out of A-Z,
/// a-z, 0-9, `-` and `_`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct MessageId(Arc<str>);

/// Why a text is no id of a delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the id of a delivery has 1 to 64 characters out of A-Z, a-z, 0-9, '-' and '_'")]
pub struct MessageIdError;

impl MessageId {
    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for MessageId {
    type Err = MessageIdError;

    fn from_str(text: &str) -> Result<Self, MessageIdError> {
        let known = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        if (1..=64).contains(&text.len()) && text.bytes().all(known) { Ok(Self(text.into())) } else { Err(MessageIdError) }
    }
}

impl fmt::Display for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The three headers of a delivery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signed {
    /// `webhook-id`.
    pub id: String,
    /// `webhook-timestamp`: the moment of the attempt, in whole seconds since 1970.
    pub timestamp: String,
    /// `webhook-signature`: one `v1,<base64>` for each secret, with a space between them.
    pub signature: String,
}

impl Signed {
    /// Adds the headers to those of a request.
    pub fn write(&self, headers: &mut HeaderMap) {
        for (name, value) in [(ID, &self.id), (TIMESTAMP, &self.timestamp), (SIGNATURE, &self.signature)] {
            // Letters, digits and signs of base64 alone: always a value of a header.
            if let Ok(value) = HeaderValue::from_str(value) {
                headers.insert(HeaderName::from_static(name), value);
            }
        }
    }
}

/// Signs one attempt at a delivery with every secret.
#[must_use]
pub fn sign(secrets: &Secrets, id: &MessageId, at: Timestamp, body: &[u8]) -> Signed {
    let timestamp = (at.millis() / 1000).to_string();
    let signatures: Vec<String> = secrets
        .iter()
        .map(|secret| {
            let mut mac = hmac::Context::with_key(secret.key());
            for part in [id.as_str().as_bytes(), b".", timestamp.as_bytes(), b".", body] {
                mac.update(part);
            }
            format!("{VERSION}{}", BASE64_STANDARD.encode(mac.sign()))
        })
        .collect();
    Signed { id: id.to_string(), timestamp, signature: signatures.join(" ") }
}

/// Why a delivery is not believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum VerifyError {
    /// A header is missing, or there twice, or not what it has to be.
    #[error("the header {0} is missing or malformed")]
    Header(&'static str),
    /// More than [`TOLERANCE`] before or after the receiver's time.
    #[error("the delivery was signed more than 300 s ago, or in the future")]
    Time,
    /// No signature is by one of the secrets.
    #[error("no signature is right")]
    Signature,
}

/// Verifies a delivery as its receiver: the headers, the body as it came and the receiver's time. Any of the secrets will do. To
/// notice a delivery that comes twice within [`TOLERANCE`] is left to the receiver, by the id that is returned.
///
/// # Errors
/// [`VerifyError`].
pub fn verify<'s>(
    secrets: impl IntoIterator<Item = &'s Secret>,
    headers: &HeaderMap,
    body: &[u8],
    now: Timestamp,
) -> Result<MessageId, VerifyError> {
    let id: MessageId = only(headers, ID)?.parse().map_err(|_| VerifyError::Header(ID))?;
    let timestamp = only(headers, TIMESTAMP)?;
    let seconds = timestamp.parse::<u64>().ok().filter(|seconds| seconds.to_string() == timestamp);
    let at = seconds.ok_or(VerifyError::Header(TIMESTAMP))?;
    if at.abs_diff(now.millis() / 1000) > TOLERANCE.as_secs() {
        return Err(VerifyError::Time);
    }
    let list = only(headers, SIGNATURE)?;
    let tags = list.split(' ').take(MAX_SIGNATURES).filter_map(|entry| BASE64_STANDARD.decode(entry.strip_prefix(VERSION)?).ok());
    let tags: Vec<Vec<u8>> = tags.collect();
    let text = [id.as_str().as_bytes(), b".", timestamp.as_bytes(), b".", body].concat();
    let right = |secret: &Secret| tags.iter().any(|tag| hmac::verify(secret.key(), &text, tag).is_ok());
    if secrets.into_iter().any(right) { Ok(id) } else { Err(VerifyError::Signature) }
}

/// A header that is there once.
fn only<'h>(headers: &'h HeaderMap, name: &'static str) -> Result<&'h str, VerifyError> {
    let mut values = headers.get_all(name).into_iter();
    match (values.next().map(HeaderValue::to_str), values.next()) {
        (Some(Ok(value)), None) => Ok(value),
        _ => Err(VerifyError::Header(name)),
    }
}
