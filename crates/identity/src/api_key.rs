//! An API key as its owner holds it: `plinth_<id>_<secret>`.
//!
//! The id is public: 16 hexadecimal digits. The secret has 64 hexadecimal digits, 256 random bits,
//! so that a plain SHA-256 is enough to keep it: there is nothing to guess. The fixed prefix lets
//! secret scanners find a key that leaked.

use plinth_runtime::Random;
use plinth_store::resources::{KeyRecord, Role};
use plinth_types::{Digest, Error, KeyId, Reason, Result, Timestamp};

const PREFIX: &str = "plinth";
const ID_BYTES: usize = 8;
const SECRET_BYTES: usize = 32;

/// A key with its secret. Its `Debug` shows the id alone.
pub struct ApiKey {
    id: KeyId,
    secret: String,
}

impl ApiKey {
    /// Draws a new key.
    ///
    /// # Errors
    /// [`Reason::Internal`] never in practice: hexadecimal digits are a good id.
    pub fn generate(random: &dyn Random) -> Result<Self> {
        let id = hexadecimal::<ID_BYTES>(random);
        let id = id.parse().map_err(|e| Error::internal("a drawn key id is malformed").source(e))?;
        Ok(Self { id, secret: hexadecimal::<SECRET_BYTES>(random) })
    }

    /// Reads a key as its owner sends it.
    ///
    /// # Errors
    /// [`Reason::CredentialsInvalid`]; the text does not repeat what was sent.
    pub fn parse(text: &str) -> Result<Self> {
        let malformed = || Error::new(Reason::CredentialsInvalid, "the key is not valid; a key looks like plinth_<id>_<secret>");
        let shown = ShownKey::read(text.trim()).ok_or_else(malformed)?;
        Ok(Self { id: format!("{:016x}", shown.id).parse().map_err(|_| malformed())?, secret: shown.secret.to_owned() })
    }

    /// The public id.
    #[must_use]
    pub const fn id(&self) -> &KeyId {
        &self.id
    }

    /// The whole key, to be shown once.
    #[must_use]
    pub fn reveal(&self) -> String {
        format!("{PREFIX}_{}_{}", self.id, self.secret)
    }

    /// What is kept of the secret.
    #[must_use]
    pub fn secret_hash(&self) -> Digest {
        Digest::of(self.secret.as_bytes())
    }

    /// The record that recognises this key.
    #[must_use]
    pub fn record(&self, role: Role, description: impl Into<String>, now: Timestamp, expires_at: Option<Timestamp>) -> KeyRecord {
        KeyRecord {
            secret_hash: self.secret_hash(),
            role,
            description: description.into(),
            created_at: now,
            expires_at,
            models: Vec::new(),
            replaced_by: None,
        }
    }
}

impl std::fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ApiKey({})", self.id)
    }
}

/// A key as it stands in a request: the parts of its text, nothing copied.
pub(crate) struct ShownKey<'t> {
    pub id: u64,
    pub secret: &'t str,
}

impl<'t> ShownKey<'t> {
    /// The parts of `plinth_<id>_<secret>`; `None` for anything else.
    pub(crate) fn read(text: &'t str) -> Option<Self> {
        let (id, secret) = text.strip_prefix(PREFIX)?.strip_prefix('_')?.split_once('_')?;
        let well_formed = secret.len() == SECRET_BYTES * 2 && secret.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        Some(Self { id: number(id).filter(|_| well_formed)?, secret })
    }
}

/// The number that an id stands for; `None` when no key could show it.
pub(crate) fn number_of(id: &KeyId) -> Option<u64> {
    number(id.as_str())
}

fn number(id: &str) -> Option<u64> {
    let well_formed = id.len() == ID_BYTES * 2 && id.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    if well_formed { u64::from_str_radix(id, 16).ok() } else { None }
}

fn hexadecimal<const N: usize>(random: &dyn Random) -> String {
    let mut bytes = [0; N];
    random.fill(&mut bytes);
    bytes.iter().fold(String::with_capacity(N * 2), |mut text, byte| {
        text.push(char::from_digit(u32::from(byte >> 4), 16).unwrap_or('0'));
        text.push(char::from_digit(u32::from(byte & 15), 16).unwrap_or('0'));
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use plinth_runtime::SeededRandom;

    #[test]
    fn a_key_reads_back_and_hides_its_secret() {
        let key = ApiKey::generate(&SeededRandom::new(1)).unwrap();
        let read = ApiKey::parse(&key.reveal()).unwrap();
        assert_eq!((read.id(), read.secret_hash()), (key.id(), key.secret_hash()));
        assert!(!format!("{key:?}").contains(&key.secret));
    }

    #[test]
    fn nothing_else_is_a_key() {
        let good = ApiKey::generate(&SeededRandom::new(1)).unwrap().reveal();
        for bad in ["", "plinth", "plinth__", "plinth_x_y", &good[1..], &good[..good.len() - 1], &good.to_uppercase(), &format!("{good}0")]
        {
            let error = ApiKey::parse(bad).unwrap_err();
            assert_eq!(error.reason(), Reason::CredentialsInvalid, "{bad:?}");
        }
    }
}
