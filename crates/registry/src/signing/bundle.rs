//! The Sigstore bundle around an envelope, in the one form that Plinth writes and reads: version 0.3
//! with a key's hint.
//!
//! Source: Sigstore protobuf specification, `dev.sigstore.bundle.v1`, as the PyPI tool `model-signing` 1.1 writes it.
//! Invariant: what nothing signs (all but the payload) is either exactly as expected or refused.

use plinth_types::{Error, Result};
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};

use super::dsse::Envelope;
use super::key::PublicKey;
use super::{MAX_BUNDLE_BYTES, invalid};

const MEDIA_TYPE: &str = "application/vnd.dev.sigstore.bundle.v0.3+json";

/// A bundle that has been parsed; nothing in it is proven.
#[derive(Debug)]
pub(super) struct Bundle {
    pub envelope: Envelope,
    hint: Option<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Written<'a> {
    media_type: &'static str,
    verification_material: WrittenMaterial<'a>,
    dsse_envelope: &'a Envelope,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct WrittenMaterial<'a> {
    public_key: WrittenKey<'a>,
    tlog_entries: [(); 0],
}

#[derive(Serialize)]
struct WrittenKey<'a> {
    hint: &'a str,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Read {
    media_type: String,
    verification_material: ReadMaterial,
    dsse_envelope: Option<Envelope>,
    message_signature: Option<IgnoredAny>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ReadMaterial {
    public_key: Option<ReadKey>,
    certificate: Option<IgnoredAny>,
    x509_certificate_chain: Option<IgnoredAny>,
    #[serde(default, rename = "tlogEntries")]
    _tlog_entries: Vec<IgnoredAny>,
    #[serde(rename = "timestampVerificationData")]
    _timestamps: Option<IgnoredAny>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ReadKey {
    hint: Option<String>,
    // Written by model-signing before 1.1 in place of the hint.
    #[serde(rename = "rawBytes")]
    _raw_bytes: Option<IgnoredAny>,
    #[serde(rename = "keyDetails")]
    _key_details: Option<IgnoredAny>,
}

impl Bundle {
    pub fn new(signer: &PublicKey, envelope: Envelope) -> Self {
        Self { envelope, hint: Some(signer.fingerprint().to_owned()) }
    }

    pub fn to_json(&self) -> Result<String> {
        let key = WrittenKey { hint: self.hint.as_deref().unwrap_or_default() };
        let written = Written {
            media_type: MEDIA_TYPE,
            verification_material: WrittenMaterial { public_key: key, tlog_entries: [] },
            dsse_envelope: &self.envelope,
        };
        serde_json::to_string(&written).map_err(|e| Error::internal("encoding a bundle").source(e))
    }

    pub fn parse(text: &str) -> Result<Self> {
        if text.len() > MAX_BUNDLE_BYTES {
            return Err(invalid(format!("a signature has at most {MAX_BUNDLE_BYTES} bytes")));
        }
        let not_a_bundle =
            |e: serde_json::Error| invalid("not a Sigstore bundle (version 0.3, JSON) signed with a key").diagnostic(e.to_string());
        let read: Read = serde_json::from_str(text).map_err(not_a_bundle)?;
        if read.media_type != MEDIA_TYPE {
            return Err(invalid(format!("the bundle's media type is not '{MEDIA_TYPE}': sign again with model-signing 1.0 or newer")));
        }
        let material = read.verification_material;
        if material.certificate.is_some() || material.x509_certificate_chain.is_some() {
            return Err(invalid("signed with a certificate: Plinth reads signatures made with a key ('sign key')"));
        }
        let key = material.public_key.ok_or_else(|| invalid("the bundle names no key: sign with a key ('sign key')"))?;
        let envelope = match (read.dsse_envelope, read.message_signature) {
            (Some(envelope), None) => envelope,
            _ => return Err(invalid("the bundle holds no signed statement")),
        };
        Ok(Self { envelope, hint: key.hint.filter(|hint| !hint.is_empty()) })
    }

    /// The fingerprint of the key that claims to have signed.
    pub fn hint(&self) -> Option<&str> {
        self.hint.as_deref().or_else(|| self.envelope.keyid())
    }
}
