//! Signing and verifying versions as OpenSSF Model Signing 1.0 does, with P-256 keys.
//!
//! Owns the path from a list of files to a Sigstore bundle and back. Invariant: a verdict is always
//! about the files at hand: [`verify`] holds the signed list against the list that it is given, so a
//! good signature over other files is never taken for one over these. The PyPI tool `model-signing`
//! accepts what [`sign`] makes, and [`verify`] accepts what that tool makes with a P-256 key.
//!
//! Pure: no store, no clock, no file. Which keys are trusted, and what a verdict leads to, is for
//! [`crate::trust`]; that the bytes have the digests in the list is for whoever loads them.

mod bundle;
mod dsse;
pub mod filter;
mod key;
mod permission;
mod statement;

use plinth_store::resources::{FileEntry, content_digest};
use plinth_types::{ArtifactPath, Error, ModelName, Reason, Result, TenantName, VersionNumber};

use bundle::Bundle;
use dsse::Envelope;
use statement::{SealedKind, Statement};

pub use key::{PrivatePem, PublicKey, SigningKey};
pub use permission::RollbackPermission;

/// The file name under which a bundle usually lies beside the files that it signs.
pub const SIGNATURE_FILE: &str = "model.sig";

/// The largest bundle in bytes, written or read.
pub const MAX_BUNDLE_BYTES: usize = 4 << 20;

/// The most files that one signature covers.
pub const MAX_RESOURCES: usize = 10_000;

/// Which version a signature was made for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Binding {
    /// Whose; any tenant's when `None`.
    pub tenant: Option<TenantName>,
    /// The model.
    pub model: ModelName,
    /// The number.
    pub version: VersionNumber,
}

impl std::fmt::Display for Binding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if let Some(tenant) = &self.tenant {
            write!(f, "{tenant}/")?;
        }
        write!(f, "{}/{}", self.model, self.version)
    }
}

impl Binding {
    /// Whether a signature made for `self` may stand on this version.
    ///
    /// # Errors
    /// `SignatureInvalid` saying what it was made for.
    pub fn must_name(&self, tenant: &TenantName, model: &ModelName, version: VersionNumber) -> Result<()> {
        let same_tenant = self.tenant.as_ref().is_none_or(|t| t == tenant);
        if same_tenant && &self.model == model && self.version == version {
            return Ok(());
        }
        let presented = Self { tenant: self.tenant.as_ref().map(|_| tenant.clone()), model: model.clone(), version };
        let text = format!("signed as {self}, presented as {presented}: sign it again for this version");
        Err(Error::new(Reason::SignatureInvalid, text).field("signature"))
    }
}

/// What [`verify`] found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified {
    /// The fingerprint of the key that signed.
    pub signer: String,
    /// Which version it was made for; `None` when made by another tool than Plinth.
    pub binding: Option<Binding>,
    /// Files that the signature does not cover and that the signed statement allows beside it: the signature itself and
    /// files of git. Nothing may load them.
    pub unlisted: Vec<ArtifactPath>,
}

/// What [`inspect`] found. Nothing of this is proven: no key was asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inspected {
    /// The fingerprint of the key that claims to have signed, when the bundle names one.
    pub claimed_signer: Option<String>,
    /// Which version it claims to be made for.
    pub binding: Option<Binding>,
    /// As in [`Verified`].
    pub unlisted: Vec<ArtifactPath>,
}

/// Signs files; the answer is a Sigstore bundle as JSON text. `name` is for people; the PyPI tool puts the directory's
/// name there. With a binding the signature holds for that version only.
///
/// # Errors
/// `InvalidResource` when there are no files, too many, or the bundle would be too large.
pub fn sign(name: &str, files: &[FileEntry], binding: Option<&Binding>, key: &SigningKey) -> Result<String> {
    sign_as(None, name, files, binding, key)
}

fn sign_as(kind: Option<SealedKind>, name: &str, files: &[FileEntry], binding: Option<&Binding>, key: &SigningKey) -> Result<String> {
    if files.is_empty() || files.len() > MAX_RESOURCES {
        return Err(Error::new(
            Reason::InvalidResource,
            format!("a signature covers 1 to {MAX_RESOURCES} files, here are {}", files.len()),
        ));
    }
    let statement = Statement::new(name, files, binding, kind);
    let payload = serde_json::to_vec(&statement).map_err(|e| Error::internal("encoding a statement").source(e))?;
    let envelope = Envelope::sign(statement::PAYLOAD_TYPE, &payload, key, "");
    let text = Bundle::new(&key.public(), envelope).to_json()?;
    if text.len() > MAX_BUNDLE_BYTES {
        return Err(Error::new(Reason::InvalidResource, "the signature would be too large: use fewer files or shorter paths"));
    }
    Ok(text)
}

/// Verifies a bundle over exactly these files by one of the trusted keys.
///
/// # Errors
/// `SignatureInvalid` when it is no such bundle or its signature does not hold, `SignerNotTrusted` when another key made
/// it, `ContentAltered` naming a file that differs, is missing or is not covered.
pub fn verify(bundle: &str, files: &[FileEntry], trusted: &[PublicKey]) -> Result<Verified> {
    verify_as(None, bundle, files, trusted)
}

fn verify_as(kind: Option<SealedKind>, bundle: &str, files: &[FileEntry], trusted: &[PublicKey]) -> Result<Verified> {
    let bundle = Bundle::parse(bundle)?;
    let (payload, signer) =
        bundle.envelope.verify(statement::PAYLOAD_TYPE, bundle.hint(), trusted).map_err(|error| match error.reason() {
            Reason::SignatureInvalid if bundle.envelope.holds(statement::PREDICATE_TYPE_OLD) => statement::old_layout(),
            _ => error,
        })?;
    let statement = Statement::parse(&payload)?;
    let unlisted = statement.compare(files)?;
    Ok(Verified { signer: signer.fingerprint().to_owned(), binding: binding_of(kind, &statement, files, &unlisted)?, unlisted })
}

/// Holds a bundle against files without asking for a key: for what can be said when a version is pushed.
///
/// # Errors
/// As [`verify`], but never `SignerNotTrusted`, and a forged signature passes.
pub fn inspect(bundle: &str, files: &[FileEntry]) -> Result<Inspected> {
    inspect_as(None, bundle, files)
}

fn inspect_as(kind: Option<SealedKind>, bundle: &str, files: &[FileEntry]) -> Result<Inspected> {
    let bundle = Bundle::parse(bundle)?;
    let payload = bundle.envelope.unverified_payload(statement::PAYLOAD_TYPE)?;
    let statement = Statement::parse(&payload)?;
    let unlisted = statement.compare(files)?;
    Ok(Inspected { claimed_signer: bundle.hint().map(str::to_owned), binding: binding_of(kind, &statement, files, &unlisted)?, unlisted })
}

/// Refuses a version in which the signature does not cover every file: whatever is kept may be loaded.
///
/// # Errors
/// `ContentAltered` naming the first such file.
pub fn cover_everything(unlisted: &[ArtifactPath]) -> Result<()> {
    match unlisted.first() {
        None => Ok(()),
        Some(path) => {
            let text = format!("the file '{path}' is not covered by the signature: leave it out, or sign again with it");
            Err(Error::new(Reason::ContentAltered, text).field("files"))
        }
    }
}

fn binding_of(kind: Option<SealedKind>, statement: &Statement, files: &[FileEntry], unlisted: &[ArtifactPath]) -> Result<Option<Binding>> {
    let Some(extension) = statement.extension() else { return Ok(None) };
    if extension.kind != kind {
        let [what, wanted] = [extension.kind, kind].map(|kind| if kind.is_some() { "a filter" } else { "a model" });
        return Err(invalid(format!("the signature was made for {what}, not for {wanted}: sign it again as what it is")));
    }
    let signed: Vec<_> = files.iter().filter(|file| !unlisted.contains(&file.path)).cloned().collect();
    // The list was compared by digest; the content digest also holds the sizes.
    if extension.content != content_digest(&signed) {
        let text = "the signature names another content digest than its own files have: sign again";
        return Err(Error::new(Reason::SignatureInvalid, text).field("signature"));
    }
    let binding = Binding { tenant: extension.tenant.clone(), model: extension.model.clone(), version: extension.version };
    Ok(Some(binding))
}

/// The one shape of a refusal because of a malformed signature.
fn invalid(text: impl Into<String>) -> Error {
    Error::new(Reason::SignatureInvalid, text).field("signature")
}

#[cfg(test)]
mod tests;
