//! Whether this node may load a version.
//!
//! Owns the rule, as a pure decision: [`TrustPolicy::judge`] takes what is known of a version and what this node has
//! served before, and says yes with the new floor, or no with the reason. Invariant: with `require_signature` a yes
//! means: a trusted key signed exactly these files for exactly this tenant, model and number, and the node does not go
//! back to an older version without a signed permission newer than the last one it used.
//!
//! It judges the list of files. That the bytes have the digests in the list is for whoever loads them; where floors are
//! kept is [`FloorBook`]'s business.

mod filter;
mod floor;

use plinth_store::resources::gateway::FilterVersion;
use plinth_store::resources::{VersionRecord, content_digest};
use plinth_types::{AliasName, Error, ModelName, Reason, Result, TenantName, VersionNumber};

use crate::signing::filter::FilterFacts;
use crate::signing::{self, PublicKey, RollbackPermission, Verified};

pub use floor::{Floor, FloorBook, Known};

/// What this node demands of a version.
#[derive(Debug, Clone, Default)]
pub struct TrustPolicy {
    /// Whether only signed versions are loaded.
    pub require_signature: bool,
    /// The keys whose signatures count.
    pub trusted: Vec<PublicKey>,
    /// Whether a signature that names no version (made by another tool than Plinth) is enough. It lets every version of
    /// every model with the same files pass for each other.
    pub accept_unbound: bool,
}

/// A version that is about to be loaded.
#[derive(Debug, Clone, Copy)]
pub struct VersionFacts<'a> {
    /// Whose.
    pub tenant: &'a TenantName,
    /// The model.
    pub model: &'a ModelName,
    /// The number.
    pub number: VersionNumber,
    /// What the registry says of it.
    pub record: &'a VersionRecord,
    /// The alias by which it is served.
    pub alias: &'a AliasName,
    /// The permission that stands at that alias.
    pub alias_permission: Option<&'a str>,
}

/// Something that is wrong and does not matter under this policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Doubt {
    /// Why.
    pub reason: Reason,
    /// The same for people.
    pub text: String,
}

/// A yes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// Whether the version carries a signature.
    pub signed: bool,
    /// The fingerprint of the trusted key that signed it.
    pub signer: Option<String>,
    /// What is wrong with the signature that it carries; only without `require_signature`.
    pub doubt: Option<Doubt>,
    /// The floor to record once the version serves.
    pub floor: Floor,
}

impl TrustPolicy {
    /// Decides. `floor` is about what answers requests that name no version; for a version that is only reachable by its
    /// number pass `Floor::default()`: whoever names a number gets that number. Takes some milliseconds of computing.
    ///
    /// # Errors
    /// `ContentAltered` when the record contradicts itself or the signature; with `require_signature` also
    /// `SignatureMissing`, `SignatureInvalid`, `SignerNotTrusted`, `DowngradeRefused`.
    pub fn judge(&self, facts: &VersionFacts<'_>, floor: Floor) -> Result<Verdict> {
        if content_digest(&facts.record.files) != facts.record.content {
            let text = format!("the record of {}/{} names another content than its files have", facts.model, facts.number);
            return Err(Error::new(Reason::ContentAltered, text));
        }
        let signed = facts.record.signature.is_some();
        let (signer, doubt) = match self.signer(facts) {
            Ok(verified) => (Some(verified.signer), None),
            Err(error) if self.require_signature => return Err(error),
            Err(error) => (None, signed.then(|| Doubt { reason: error.reason(), text: error.public_text().to_owned() })),
        };
        Ok(Verdict { signed, signer, doubt, floor: self.next_floor(facts, floor)? })
    }

    /// Decides about a version of a filter; the signer's fingerprint, when a trusted key signed it.
    ///
    /// # Errors
    /// With `require_signature`: `SignatureMissing`, `SignatureInvalid`, `SignerNotTrusted`, `ContentAltered`.
    pub fn judge_filter(&self, facts: FilterFacts<'_>, version: &FilterVersion) -> Result<Option<String>> {
        filter::judge(self, facts, version)
    }

    fn signer(&self, facts: &VersionFacts<'_>) -> Result<Verified> {
        let bundle = facts.record.signature.as_ref().ok_or_else(|| {
            let text = format!(
                "{}/{} is not signed, and this node serves signed versions only: sign it with 'plinth model sign'",
                facts.model, facts.number
            );
            Error::new(Reason::SignatureMissing, text)
        })?;
        let verified = signing::verify(bundle, &facts.record.files, &self.trusted)?;
        signing::cover_everything(&verified.unlisted)?;
        match &verified.binding {
            Some(binding) => binding.must_name(facts.tenant, facts.model, facts.number)?,
            None if self.accept_unbound => {}
            None => {
                let text = "the signature names no version, so it could stand on any: sign it with 'plinth model sign', or have the node accept unbound signatures";
                return Err(Error::new(Reason::SignatureInvalid, text).field("signature"));
            }
        }
        Ok(verified)
    }

    /// The floor after this version serves.
    fn next_floor(&self, facts: &VersionFacts<'_>, floor: Floor) -> Result<Floor> {
        let Some(highest) = floor.version.filter(|highest| facts.number < *highest) else {
            return Ok(Floor { version: Some(facts.number), ..floor });
        };
        match self.permitted(facts, highest, floor) {
            Ok(sequence) => Ok(Floor { version: Some(facts.number), permission_sequence: sequence, ..floor }),
            Err(error) if self.require_signature => Err(error),
            Err(_) => Ok(floor),
        }
    }

    /// The sequence of the permission to go back to this version.
    fn permitted(&self, facts: &VersionFacts<'_>, highest: VersionNumber, floor: Floor) -> Result<u64> {
        let refuse = |why: &str| {
            let text = format!(
                "this node has served version {highest} of '{}' and may not go back to {}: {why}; sign a permission with 'plinth model rollback --sign-key'",
                facts.model, facts.number
            );
            Error::new(Reason::DowngradeRefused, text)
        };
        let text = facts.alias_permission.ok_or_else(|| refuse("the alias carries no permission"))?;
        let (said, _) = RollbackPermission::verify(text, &self.trusted).map_err(|error| refuse(error.public_text()))?;
        let place = said.tenant == *facts.tenant && said.model == *facts.model && said.alias == *facts.alias;
        if !place || said.version != facts.number || said.content != facts.record.content {
            return Err(refuse("the permission at the alias is for something else"));
        }
        if said.sequence <= floor.permission_sequence {
            return Err(refuse("the permission at the alias was used before"));
        }
        Ok(said.sequence)
    }
}

#[cfg(test)]
mod tests;
