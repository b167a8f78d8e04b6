//! P-256 keys: making them, and their two text forms.
//!
//! Invariant: a [`PublicKey`] is a point on the curve and has one PEM text, whatever text it was read
//! from, so its fingerprint names the key and not a file. Private keys are wiped from memory when dropped and are
//! never printed. Where a key file lies and with which mode is the caller's business.

use p256::ecdsa::signature::{Signer as _, Verifier as _};
use p256::ecdsa::{Signature, SigningKey as EcdsaKey, VerifyingKey};
use p256::elliptic_curve::zeroize::Zeroizing;
use pkcs8::pkcs5::pbes2;
use pkcs8::{DecodePrivateKey as _, DecodePublicKey as _, EncodePrivateKey as _, EncodePublicKey as _, LineEnding, PrivateKeyInfoRef};
use plinth_runtime::Random;
use plinth_types::{Digest, Error, Reason, Result};

/// PKCS#8 text; wiped from memory when dropped.
pub type PrivatePem = Zeroizing<String>;

/// The longest PEM text that is looked at.
const MAX_PEM_BYTES: usize = 16 << 10;

/// Rounds of PBKDF2-HMAC-SHA-256 for a passphrase: OWASP's recommendation, "Password Storage Cheat Sheet".
const PASSPHRASE_ROUNDS: u32 = 600_000;

/// A private P-256 key.
pub struct SigningKey(EcdsaKey);

impl SigningKey {
    /// A new key. `random` must be fit for keys.
    pub fn generate(random: &dyn Random) -> Self {
        loop {
            let mut scalar = Zeroizing::new([0; 32]);
            random.fill(&mut *scalar);
            // Refused are zero and what lies past the group's order: about one draw in 2^32.
            if let Ok(key) = EcdsaKey::from_slice(&*scalar) {
                return Self(key);
            }
        }
    }

    /// Reads PKCS#8 PEM text; the passphrase is needed when the text is encrypted.
    ///
    /// # Errors
    /// `MalformedRequest` saying what is wrong with the text or the passphrase.
    pub fn from_pem(text: &str, passphrase: Option<&str>) -> Result<Self> {
        let refuse = |text: &str| Error::new(Reason::MalformedRequest, text);
        if text.len() > MAX_PEM_BYTES {
            return Err(refuse("this is too long for a private key"));
        }
        let text = text.trim();
        if text.starts_with("-----BEGIN EC PRIVATE KEY-----") {
            return Err(refuse("the key is in the older SEC1 form: convert it with 'openssl pkcs8 -topk8 -nocrypt'"));
        }
        if text.starts_with("-----BEGIN ENCRYPTED PRIVATE KEY-----") {
            let passphrase = passphrase.ok_or_else(|| refuse("the key is encrypted: give its passphrase"))?;
            let key = EcdsaKey::from_pkcs8_encrypted_pem(text, passphrase);
            return key.map(Self).map_err(|_| refuse("the passphrase does not open the key, or it is not a P-256 key"));
        }
        let key = EcdsaKey::from_pkcs8_pem(text);
        key.map(Self)
            .map_err(|_| refuse("not a private P-256 key in PKCS#8 PEM form ('BEGIN PRIVATE KEY'): make one with 'plinth key new'"))
    }

    /// The key as PKCS#8 PEM text.
    ///
    /// # Errors
    /// `Internal`; does not happen with a key of this type.
    pub fn to_pem(&self) -> Result<PrivatePem> {
        self.0.to_pkcs8_pem(LineEnding::LF).map_err(|e| Error::internal(format!("encoding a private key: {e}")))
    }

    /// The key as PKCS#8 PEM text, encrypted with a passphrase (PBES2: PBKDF2-HMAC-SHA-256, AES-256-CBC), which OpenSSL
    /// and the PyPI tool read too. Takes some tenths of a second on purpose.
    ///
    /// # Errors
    /// `Internal`; does not happen with a key of this type.
    pub fn to_encrypted_pem(&self, passphrase: &str, random: &dyn Random) -> Result<PrivatePem> {
        let fail = |what: &'static str| move |e: &dyn std::fmt::Display| Error::internal(format!("{what}: {e}"));
        let (mut salt, mut iv) = ([0; 16], [0; 16]);
        random.fill(&mut salt);
        random.fill(&mut iv);
        let scheme = pbes2::Parameters::generate_pbkdf2_sha256_aes256cbc(PASSPHRASE_ROUNDS, &salt, iv)
            .map_err(|e| fail("choosing the encryption of a key")(&e))?;
        let plain = self.0.to_pkcs8_der().map_err(|e| fail("encoding a private key")(&e))?;
        let info = PrivateKeyInfoRef::try_from(plain.as_bytes()).map_err(|e| fail("encoding a private key")(&e))?;
        let sealed = info.encrypt_with_params(scheme, passphrase).map_err(|e| fail("encrypting a private key")(&e))?;
        sealed.to_pem("ENCRYPTED PRIVATE KEY", LineEnding::LF).map_err(|e| fail("encoding a private key")(&e))
    }

    /// The public half.
    #[must_use]
    pub fn public(&self) -> PublicKey {
        PublicKey::new(*self.0.verifying_key())
    }

    /// ECDSA with SHA-256, deterministic (RFC 6979), in DER form.
    pub(super) fn sign(&self, message: &[u8]) -> Vec<u8> {
        let signature: Signature = self.0.sign(message);
        signature.to_der().as_bytes().to_vec()
    }
}

impl std::fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SigningKey(of {})", self.public().fingerprint)
    }
}

/// A public P-256 key.
#[derive(Clone, PartialEq, Eq)]
pub struct PublicKey {
    key: VerifyingKey,
    pem: String,
    fingerprint: String,
}

impl PublicKey {
    #[allow(clippy::expect_used, reason = "a point on the curve always has a text form")]
    fn new(key: VerifyingKey) -> Self {
        let pem = key.to_public_key_pem(LineEnding::LF).expect("a point on the curve has a PEM form");
        let fingerprint = Digest::of(pem.as_bytes()).hex();
        Self { key, pem, fingerprint }
    }

    /// Reads SubjectPublicKeyInfo PEM text.
    ///
    /// # Errors
    /// `MalformedRequest` when it is not the text of a P-256 key.
    pub fn from_pem(text: &str) -> Result<Self> {
        let key = if text.len() > MAX_PEM_BYTES { None } else { VerifyingKey::from_public_key_pem(text.trim()).ok() };
        let refuse = || Error::new(Reason::MalformedRequest, "not a public P-256 key in PEM form ('BEGIN PUBLIC KEY')");
        key.map(Self::new).ok_or_else(refuse)
    }

    /// The key as PEM text.
    #[must_use]
    pub fn to_pem(&self) -> &str {
        &self.pem
    }

    /// Names the key: SHA-256 of its PEM text, in hexadecimal; what the PyPI tool writes as the key's hint.
    #[must_use]
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// Whether this key signed the message; any malformed signature is no.
    pub(super) fn verifies(&self, message: &[u8], der: &[u8]) -> bool {
        Signature::from_der(der).is_ok_and(|signature| self.key.verify(message, &signature).is_ok())
    }
}

impl std::fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "PublicKey({})", self.fingerprint)
    }
}
