//! DSSE envelopes: a payload, its type, and a signature over both.
//!
//! Source: Dead Simple Signing Envelope v1.0, "Signature Definition". Invariant: a payload leaves
//! [`Envelope::verify`] only after a trusted key's signature over its exact bytes and type held.
//! What the payload says is left to the callers.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use plinth_types::{Error, Reason, Result};
use serde::{Deserialize, Serialize};

use super::invalid;
use super::key::{PublicKey, SigningKey};

/// An envelope as JSON carries it. Fields that we do not know are refused: nothing signs them.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Envelope {
    payload: String,
    payload_type: String,
    signatures: Vec<EnvelopeSignature>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct EnvelopeSignature {
    sig: String,
    #[serde(default)]
    keyid: String,
}

/// The bytes that are signed: the pre-authentication encoding.
fn pae(payload_type: &str, payload: &[u8]) -> Vec<u8> {
    let mut message = format!("DSSEv1 {} {payload_type} {} ", payload_type.len(), payload.len()).into_bytes();
    message.extend_from_slice(payload);
    message
}

impl Envelope {
    /// Signs a payload.
    pub fn sign(payload_type: &str, payload: &[u8], key: &SigningKey, keyid: &str) -> Self {
        let sig = BASE64_STANDARD.encode(key.sign(&pae(payload_type, payload)));
        Self {
            payload: BASE64_STANDARD.encode(payload),
            payload_type: payload_type.to_owned(),
            signatures: vec![EnvelopeSignature { sig, keyid: keyid.to_owned() }],
        }
    }

    /// The payload and the trusted key that signed it. `hint` is the fingerprint of the key that claims to have.
    pub fn verify<'k>(&self, payload_type: &str, hint: Option<&str>, trusted: &'k [PublicKey]) -> Result<(Vec<u8>, &'k PublicKey)> {
        let payload = self.unverified_payload(payload_type)?;
        let [signature] = self.signatures.as_slice() else {
            return Err(invalid("the envelope must carry exactly one signature"));
        };
        if let (Some(hint), keyid @ [_, ..]) = (hint, signature.keyid.as_bytes())
            && keyid != hint.as_bytes()
        {
            return Err(invalid("the envelope and the bundle name different keys"));
        }
        let hint = hint.or(if signature.keyid.is_empty() { None } else { Some(signature.keyid.as_str()) });
        let der = BASE64_STANDARD.decode(&signature.sig).map_err(|_| invalid("the signature is not base64"))?;
        let message = pae(payload_type, &payload);
        let mut candidates = trusted.iter().filter(|key| hint.is_none_or(|hint| key.fingerprint() == hint)).peekable();
        if candidates.peek().is_none() {
            return Err(not_trusted(hint));
        }
        match candidates.find(|key| key.verifies(&message, &der)) {
            Some(key) => Ok((payload, key)),
            None if hint.is_some() => Err(invalid("the signature does not hold: the statement or the signature was altered")),
            None => Err(not_trusted(None)),
        }
    }

    /// The payload without any proof of who wrote it.
    pub fn unverified_payload(&self, payload_type: &str) -> Result<Vec<u8>> {
        if self.payload_type != payload_type {
            return Err(invalid(format!("the envelope must hold a payload of type '{payload_type}'")));
        }
        BASE64_STANDARD.decode(&self.payload).map_err(|_| invalid("the payload is not base64"))
    }

    /// Whether the payload holds this text; only for choosing a better error.
    pub fn holds(&self, text: &str) -> bool {
        let payload = BASE64_STANDARD.decode(&self.payload).unwrap_or_default();
        payload.windows(text.len()).any(|window| window == text.as_bytes())
    }

    /// The fingerprint of the key that claims to have signed.
    pub fn keyid(&self) -> Option<&str> {
        self.signatures.first().map(|s| s.keyid.as_str()).filter(|id| !id.is_empty())
    }
}

fn not_trusted(hint: Option<&str>) -> Error {
    let who = match hint {
        // Only what looks like a fingerprint is repeated; the text is the sender's.
        Some(hint) if hint.len() == 64 && hint.bytes().all(|b| b.is_ascii_hexdigit()) => format!("the key {}… signed this", &hint[..12]),
        _ => "none of the trusted keys signed this".to_owned(),
    };
    Error::new(
        Reason::SignerNotTrusted,
        format!("{who}, and it is not trusted here: sign with a trusted key, or have its public key added"),
    )
    .field("signature")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_encoding_is_the_specification_s_own_example() {
        assert_eq!(pae("http://example.com/HelloWorld", b"hello world"), b"DSSEv1 29 http://example.com/HelloWorld 11 hello world");
    }
}
