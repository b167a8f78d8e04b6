//! A signed permission to let an alias go back to an older version.
//!
//! OpenSSF Model Signing proves what a version is, not that it is the one to use now: an old, genuine
//! version carries a genuine signature. So a node that requires signatures goes back only with this: a DSSE envelope of
//! our own payload type, by the same keys. Invariant: a permission is for one tenant, model, alias, version and content,
//! and its sequence only ever rises, so an old permission is not used twice (the node keeps the last one: [`crate::trust`]).

use plinth_types::{AliasName, Digest, ModelName, Result, TenantName, Timestamp, VersionNumber};
use serde::{Deserialize, Serialize};

use super::dsse::Envelope;
use super::invalid;
use super::key::{PublicKey, SigningKey};

const PAYLOAD_TYPE: &str = "application/vnd.plinth.alias+json";
const MAX_BYTES: usize = 64 << 10;

/// What a permission says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RollbackPermission {
    /// Whose model.
    pub tenant: TenantName,
    /// The model.
    pub model: ModelName,
    /// The alias that may move.
    pub alias: AliasName,
    /// Where to.
    pub version: VersionNumber,
    /// What that version must consist of.
    pub content: Digest,
    /// Higher than that of every earlier permission for this model; the milliseconds of `issued_at` will do.
    pub sequence: u64,
    /// When it was given.
    pub issued_at: Timestamp,
}

impl RollbackPermission {
    /// Signs the permission; the answer is a DSSE envelope as JSON text.
    ///
    /// # Errors
    /// `Internal`; does not happen.
    pub fn sign(&self, key: &SigningKey) -> Result<String> {
        let encode = |e: serde_json::Error| plinth_types::Error::internal("encoding a permission").source(e);
        let payload = serde_json::to_vec(self).map_err(encode)?;
        serde_json::to_string(&Envelope::sign(PAYLOAD_TYPE, &payload, key, key.public().fingerprint())).map_err(encode)
    }

    /// What the text permits, when one of the trusted keys signed it; with that key's fingerprint.
    ///
    /// # Errors
    /// `SignatureInvalid` or `SignerNotTrusted`.
    pub fn verify(text: &str, trusted: &[PublicKey]) -> Result<(Self, String)> {
        let (payload, signer) = envelope(text)?.verify(PAYLOAD_TYPE, None, trusted)?;
        Ok((parse(&payload)?, signer.fingerprint().to_owned()))
    }

    /// What the text claims to permit, without asking for a key: for what can be said when an alias is moved.
    ///
    /// # Errors
    /// `SignatureInvalid` when it is not a permission at all.
    pub fn inspect(text: &str) -> Result<Self> {
        parse(&envelope(text)?.unverified_payload(PAYLOAD_TYPE)?)
    }
}

fn envelope(text: &str) -> Result<Envelope> {
    if text.len() > MAX_BYTES {
        return Err(invalid(format!("a permission has at most {MAX_BYTES} bytes")).field("permission"));
    }
    let malformed = |e: serde_json::Error| invalid("not a permission to roll back").field("permission").diagnostic(e.to_string());
    serde_json::from_str(text).map_err(malformed)
}

fn parse(payload: &[u8]) -> Result<RollbackPermission> {
    let malformed = |e: serde_json::Error| invalid("the permission is malformed").field("permission").diagnostic(e.to_string());
    serde_json::from_slice(payload).map_err(malformed)
}
