//! Signing and verifying for the command line: key files in, verdicts out.
//!
//! The one file that touches `plinth_registry::signing`. Invariant: a private key is read from a file that only its
//! owner can read, is never printed, and never leaves this machine.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use plinth_client::{plan, wire};
use plinth_registry::FilterFacts;
use plinth_registry::signing::{self, Binding, PublicKey, RollbackPermission, SigningKey};
use plinth_runtime::{Clock, SystemClock, SystemRandom};
use plinth_store::resources::FileEntry;
use plinth_types::{AliasName, Digest, ModelName, TenantName, VersionNumber};

use crate::exit::{Exit, Failure};
use crate::files;

const MAX_KEY_BYTES: u64 = 64 << 10;

/// The options that name a private signing key.
#[derive(Debug, Clone, clap::Args)]
pub struct KeyArgs {
    /// Private key to sign with, as `plinth key new` makes it
    #[arg(long, value_name = "PEM")]
    pub sign_key: Option<PathBuf>,

    /// File with the passphrase of the private key, when it has one
    #[arg(long, value_name = "FILE", requires = "sign_key")]
    pub passphrase_file: Option<PathBuf>,
}

impl KeyArgs {
    /// The key, when one was named.
    pub fn load(&self) -> Result<Option<Signer>, Failure> {
        self.sign_key.as_deref().map(|path| Signer::open(path, self.passphrase_file.as_deref())).transpose()
    }
}

/// A private key that is ready to sign.
pub struct Signer(SigningKey);

impl Signer {
    fn open(path: &Path, passphrase: Option<&Path>) -> Result<Self, Failure> {
        let mode = path.metadata().map(|m| m.mode()).unwrap_or(0);
        if mode & 0o077 != 0 {
            let message = format!("the private key '{}' can be read by other users", path.display());
            return Err(Failure::new(Exit::Failed, message).next(format!("chmod 600 '{}'", path.display())));
        }
        let pem = files::read_text(path, MAX_KEY_BYTES)?;
        let passphrase = passphrase.map(|p| files::read_text(p, MAX_KEY_BYTES)).transpose()?;
        let key = SigningKey::from_pem(&pem, passphrase.as_deref().map(|p| p.trim_end_matches(['\r', '\n'])));
        key.map(Self).map_err(|e| {
            let failure = Failure::new(Exit::Failed, format!("'{}': {e}", path.display()));
            if pem.contains("ENCRYPTED") { failure.next("give its passphrase with `--passphrase-file FILE`") } else { failure }
        })
    }

    /// The name of the key, under which a node knows it.
    pub fn fingerprint(&self) -> String {
        self.0.public().fingerprint().to_owned()
    }

    /// Signs files as one version of a model.
    pub fn sign(&self, model: &ModelName, version: VersionNumber, files: &[wire::File]) -> Result<String, Failure> {
        let binding = Binding { tenant: Some(TenantName::default_tenant()), model: model.clone(), version };
        Ok(signing::sign(model.as_str(), &entries(files), Some(&binding), &self.0)?)
    }

    /// Signs a module with its settings as one version of a filter.
    pub fn sign_filter(&self, facts: FilterFacts<'_>, files: &[FileEntry]) -> Result<String, Failure> {
        Ok(signing::filter::sign(facts, files, &self.0)?)
    }

    /// Signs that an alias may move to an older version.
    pub fn permit(&self, model: &ModelName, alias: &AliasName, version: VersionNumber, content: Digest) -> Result<String, Failure> {
        let now = SystemClock.now();
        let permission = RollbackPermission {
            tenant: TenantName::default_tenant(),
            model: model.clone(),
            alias: alias.clone(),
            version,
            content,
            sequence: now.millis(),
            issued_at: now,
        };
        Ok(permission.sign(&self.0)?)
    }
}

fn entries(files: &[wire::File]) -> Vec<FileEntry> {
    files.iter().map(|f| FileEntry { path: f.path.clone(), size: f.size, digest: f.digest }).collect()
}

/// Says what the node would say of files and a signature, by these public keys.
pub fn verify(files: &[wire::File], bundle: &str, public_keys: &[PathBuf]) -> Result<wire::Verification, Failure> {
    let mut trusted = Vec::with_capacity(public_keys.len());
    for path in public_keys {
        let pem = files::read_text(path, MAX_KEY_BYTES)?;
        trusted.push(PublicKey::from_pem(&pem).map_err(|e| Failure::new(Exit::Failed, format!("'{}': {e}", path.display())))?);
    }
    let verdict = signing::verify(bundle, &entries(files), &trusted).and_then(|v| signing::cover_everything(&v.unlisted).map(|()| v));
    Ok(match verdict {
        Ok(verified) => {
            let detail = verified.binding.map_or_else(|| "signed, for no particular version".to_owned(), |b| format!("signed as {b}"));
            wire::Verification { accepted: true, signed: true, signer: Some(verified.signer), reason: None, detail }
        }
        Err(error) => wire::Verification {
            accepted: false,
            signed: true,
            signer: None,
            reason: Some(error.reason().slug().to_owned()),
            detail: error.to_string(),
        },
    })
}

/// A new key pair: the private and the public PEM text, and the public key's fingerprint.
pub struct KeyPair {
    pub private: signing::PrivatePem,
    pub public: String,
    pub fingerprint: String,
}

/// Draws a key pair.
pub fn new_pair(passphrase_file: Option<&Path>) -> Result<KeyPair, Failure> {
    let key = SigningKey::generate(&SystemRandom);
    let private = match passphrase_file {
        None => key.to_pem()?,
        Some(path) => {
            let text = files::read_text(path, MAX_KEY_BYTES)?;
            let passphrase = text.trim_end_matches(['\r', '\n']);
            if passphrase.is_empty() {
                return Err(Failure::usage(format!("'{}' holds no passphrase", path.display())));
            }
            key.to_encrypted_pem(passphrase, &SystemRandom)?
        }
    };
    let public = key.public();
    Ok(KeyPair { private, public: public.to_pem().to_owned(), fingerprint: public.fingerprint().to_owned() })
}

/// What a plan's own signature says, when there is one.
pub fn bundle_of(plan: &plinth_client::Plan) -> Result<&str, Failure> {
    plan.signature().ok_or_else(|| {
        let message = format!("'{}' holds no {}", plan.root().display(), plan::SIGNATURE_FILE);
        Failure::new(Exit::Unverified, message).next("sign it: `plinth model sign DIR --name NAME --version VERSION --sign-key PEM`")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(path: &str, text: &str) -> wire::File {
        wire::File { path: path.parse().unwrap(), size: text.len() as u64, digest: Digest::of(text.as_bytes()) }
    }

    #[test]
    fn what_is_signed_verifies_and_what_is_altered_does_not() {
        let root = tempfile::tempdir().unwrap();
        let pair = new_pair(None).unwrap();
        let (private, public) = (root.path().join("k.pem"), root.path().join("k.pub.pem"));
        files::create(&private, pair.private.as_bytes(), 0o600).unwrap();
        files::create(&public, pair.public.as_bytes(), 0o644).unwrap();
        let args = KeyArgs { sign_key: Some(private.clone()), passphrase_file: None };
        let signer = args.load().unwrap().unwrap();
        assert_eq!(signer.fingerprint(), pair.fingerprint);
        let good = [file("model.onnx", "graph")];
        let bundle = signer.sign(&"digits".parse().unwrap(), VersionNumber::FIRST, &good).unwrap();
        let verdict = verify(&good, &bundle, std::slice::from_ref(&public)).unwrap();
        assert!(verdict.accepted);
        assert_eq!(verdict.detail, "signed as default/digits/1");
        let verdict = verify(&[file("model.onnx", "grapX")], &bundle, std::slice::from_ref(&public)).unwrap();
        assert_eq!((verdict.accepted, verdict.reason.as_deref()), (false, Some("content_altered")));
        std::fs::set_permissions(&private, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
        assert!(args.load().err().unwrap().next[0].starts_with("chmod 600"));
    }
}
