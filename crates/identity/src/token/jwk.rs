//! The public keys of an issuer (JWK Set, RFC 7517) and what each verifies.
//!
//! Invariant: a key verifies the algorithms of its kind, and only the one that its `alg` names when it has one. Keys that are
//! not for signatures, or of a kind that is not known, are passed over; a document that is no set is refused.

use ring::signature::{self, RsaParameters, RsaPublicKeyComponents, UnparsedPublicKey, VerificationAlgorithm};
use serde::Deserialize;

use super::wire::Algorithm;
use super::{MAX_KEYS, base64url};

/// A key that verifies signatures.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Key {
    pub kid: Option<String>,
    /// The only algorithm, when the document says so.
    only: Option<Algorithm>,
    material: Material,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Material {
    Rsa { n: Vec<u8>, e: Vec<u8> },
    P256(Vec<u8>),
    P384(Vec<u8>),
    Ed25519(Vec<u8>),
}

#[derive(Deserialize)]
struct Document {
    keys: Vec<serde_json::Value>,
}

#[derive(Deserialize)]
struct Jwk {
    kty: String,
    #[serde(default)]
    kid: Option<String>,
    #[serde(default)]
    alg: Option<String>,
    #[serde(default, rename = "use")]
    usage: Option<String>,
    #[serde(default)]
    key_ops: Option<Vec<String>>,
    #[serde(default)]
    crv: Option<String>,
    #[serde(default)]
    n: Option<String>,
    #[serde(default)]
    e: Option<String>,
    #[serde(default)]
    x: Option<String>,
    #[serde(default)]
    y: Option<String>,
}

/// The keys of a document that verify signatures; why there are none, for the log.
pub(super) fn keys(document: &[u8]) -> Result<Vec<Key>, String> {
    let document: Document = serde_json::from_slice(document).map_err(|error| format!("the document is no set of keys: {error}"))?;
    if document.keys.len() > MAX_KEYS {
        return Err(format!("the document has {} keys, at most {MAX_KEYS} are taken", document.keys.len()));
    }
    // One key that is not understood does not make the others bad.
    let keys = document.keys.into_iter().filter_map(|value| serde_json::from_value(value).ok().and_then(Key::read));
    let keys: Vec<_> = keys.collect();
    if keys.is_empty() { Err("the document has no key that is understood".to_owned()) } else { Ok(keys) }
}

impl Key {
    fn read(jwk: Jwk) -> Option<Self> {
        let for_signatures = jwk.usage.as_deref().is_none_or(|usage| usage == "sig")
            && jwk.key_ops.as_ref().is_none_or(|operations| operations.iter().any(|operation| operation == "verify"));
        if !for_signatures {
            return None;
        }
        let part = |text: &Option<String>| text.as_deref().and_then(base64url::decode);
        let coordinate = |text, length: usize| part(text).filter(|bytes| bytes.len() == length);
        let point = |length| Some([&[4][..], &coordinate(&jwk.x, length)?, &coordinate(&jwk.y, length)?].concat());
        let material = match (jwk.kty.as_str(), jwk.crv.as_deref()) {
            ("RSA", None) => {
                let (n, e) = (part(&jwk.n)?, part(&jwk.e)?);
                // 2048 to 8192 bits: what `ring` takes.
                (256..=1024).contains(&n.len()).then_some(Material::Rsa { n, e })?
            }
            ("EC", Some("P-256")) => Material::P256(point(32)?),
            ("EC", Some("P-384")) => Material::P384(point(48)?),
            ("OKP", Some("Ed25519")) => Material::Ed25519(coordinate(&jwk.x, 32)?),
            _ => return None,
        };
        let only = match jwk.alg {
            None => None,
            Some(word) => Some(serde_json::from_value(word.into()).ok()?),
        };
        Some(Self { kid: jwk.kid, only, material })
    }

    /// Whether a token with this algorithm can be of this key.
    pub(super) fn fits(&self, algorithm: Algorithm) -> bool {
        use Algorithm::{ES256, ES384, EdDSA, PS256, PS384, PS512, RS256, RS384, RS512};
        let kind = match self.material {
            Material::Rsa { .. } => matches!(algorithm, RS256 | RS384 | RS512 | PS256 | PS384 | PS512),
            Material::P256(_) => algorithm == ES256,
            Material::P384(_) => algorithm == ES384,
            Material::Ed25519(_) => algorithm == EdDSA,
        };
        kind && self.only.is_none_or(|only| only == algorithm)
    }

    /// Whether the signature is one of this key over `signed`.
    pub(super) fn verifies(&self, algorithm: Algorithm, signed: &[u8], signature: &[u8]) -> bool {
        if !self.fits(algorithm) {
            return false;
        }
        let by = |how: &'static dyn VerificationAlgorithm, key: &[u8]| UnparsedPublicKey::new(how, key).verify(signed, signature).is_ok();
        match &self.material {
            Material::Rsa { n, e } => {
                rsa(algorithm).is_some_and(|how| RsaPublicKeyComponents { n, e }.verify(how, signed, signature).is_ok())
            }
            Material::P256(point) => by(&signature::ECDSA_P256_SHA256_FIXED, point),
            Material::P384(point) => by(&signature::ECDSA_P384_SHA384_FIXED, point),
            Material::Ed25519(point) => by(&signature::ED25519, point),
        }
    }
}

fn rsa(algorithm: Algorithm) -> Option<&'static RsaParameters> {
    match algorithm {
        Algorithm::RS256 => Some(&signature::RSA_PKCS1_2048_8192_SHA256),
        Algorithm::RS384 => Some(&signature::RSA_PKCS1_2048_8192_SHA384),
        Algorithm::RS512 => Some(&signature::RSA_PKCS1_2048_8192_SHA512),
        Algorithm::PS256 => Some(&signature::RSA_PSS_2048_8192_SHA256),
        Algorithm::PS384 => Some(&signature::RSA_PSS_2048_8192_SHA384),
        Algorithm::PS512 => Some(&signature::RSA_PSS_2048_8192_SHA512),
        Algorithm::ES256 | Algorithm::ES384 | Algorithm::EdDSA => None,
    }
}
