//! A token as text: three parts, the first two of them JSON.

use serde::Deserialize;

use super::{MAX_TOKEN, base64url};

/// The algorithms that are accepted. There is none without a signature and none with a shared secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Deserialize)]
pub(super) enum Algorithm {
    RS256,
    RS384,
    RS512,
    PS256,
    PS384,
    PS512,
    ES256,
    ES384,
    EdDSA,
}

/// What of the header is looked at. `jku`, `jwk`, `x5u` and `x5c`, with which a token would bring its own key, are not.
#[derive(Debug, Deserialize)]
pub(super) struct Header {
    pub alg: Algorithm,
    #[serde(default)]
    pub kid: Option<String>,
    #[serde(default)]
    typ: Option<String>,
    /// Extensions that must be understood; none is.
    #[serde(default)]
    crit: Option<serde::de::IgnoredAny>,
    /// A payload that is not encoded (RFC 7797).
    #[serde(default)]
    b64: Option<serde::de::IgnoredAny>,
    /// Encryption.
    #[serde(default)]
    enc: Option<serde::de::IgnoredAny>,
}

/// A token whose parts were told apart. Nothing of it is to be believed.
pub(super) struct Parted<'t> {
    pub header: Header,
    pub payload: Vec<u8>,
    pub signature: Vec<u8>,
    /// What was signed.
    pub signed: &'t [u8],
}

/// The longest name of a key.
const MAX_KID: usize = 256;

impl<'t> Parted<'t> {
    /// Takes a token apart; why not, for the log.
    pub(super) fn read(token: &'t str) -> Result<Self, &'static str> {
        if token.len() > MAX_TOKEN {
            return Err("longer than a token may be");
        }
        let (signed, signature) = token.rsplit_once('.').ok_or("not three parts")?;
        let (header, payload) = signed.split_once('.').ok_or("not three parts")?;
        if payload.contains('.') {
            return Err("not three parts");
        }
        let decode = |text| base64url::decode(text).ok_or("not base64url");
        let header: Header = serde_json::from_slice(&decode(header)?).map_err(|_| "the header is not one that is accepted")?;
        header.check()?;
        Ok(Self { header, payload: decode(payload)?, signature: decode(signature)?, signed: signed.as_bytes() })
    }
}

impl Header {
    fn check(&self) -> Result<(), &'static str> {
        if self.crit.is_some() || self.b64.is_some() || self.enc.is_some() {
            return Err("the header asks for what is not supported");
        }
        if self.kid.as_ref().is_some_and(|kid| kid.is_empty() || kid.len() > MAX_KID) {
            return Err("the name of the key is empty or too long");
        }
        // RFC 8725, 3.11: a signed statement of another kind, such as a logout token, is no access token.
        let typ = self.typ.as_deref().map(str::to_ascii_lowercase);
        match typ.as_deref().map(|typ| typ.strip_prefix("application/").unwrap_or(typ)) {
            None | Some("jwt" | "at+jwt") => Ok(()),
            Some(_) => Err("the header is that of another kind of token"),
        }
    }
}
