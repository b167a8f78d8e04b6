//! Whether this node may run a version of a filter: the rule of models without floors.
//!
//! A filter has no permission to go back: taking the newest version away is an audited change of its own, and a route may name
//! the version that it wants.

use plinth_store::resources::gateway::FilterVersion;
use plinth_types::{Error, Reason, Result};

use super::TrustPolicy;
use crate::signing::filter::{FilterFacts, verify};

/// Judges a version; the signer's fingerprint, when a trusted key signed it. Takes some milliseconds of computing.
///
/// # Errors
/// With `require_signature`: `SignatureMissing`, `SignatureInvalid`, `SignerNotTrusted`, `ContentAltered`. Without: never.
pub(super) fn judge(policy: &TrustPolicy, facts: FilterFacts<'_>, version: &FilterVersion) -> Result<Option<String>> {
    let verified = match &version.signature {
        None => {
            let text = format!(
                "version {} of the filter '{}' is not signed, and this node runs signed filters only: push it with --sign-key",
                facts.version, facts.name
            );
            Err(Error::new(Reason::SignatureMissing, text))
        }
        Some(bundle) => verify(facts, bundle, &version.files(), &policy.trusted),
    };
    match verified {
        Ok(signer) => Ok(Some(signer)),
        Err(error) if policy.require_signature => Err(error),
        Err(error) => {
            if version.signature.is_some() {
                let (reason, doubt) = (error.reason(), error.public_text());
                tracing::warn!(tenant = %facts.tenant, filter = %facts.name, version = facts.version.get(), %reason, doubt, "a signature does not hold, but this node does not ask for one");
            }
            Ok(None)
        }
    }
}
