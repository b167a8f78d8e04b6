//! Signatures of filters: as those of models, over a filter's two files, and bound to the filter and its number.
//!
//! Invariant: a signature made for a filter never passes for one made for a model, or the other way round, and a filter's
//! always names which version it is for.

use plinth_store::resources::FileEntry;
use plinth_types::{Label, ModelName, Result, TenantName, VersionNumber};

use super::statement::SealedKind;
use super::{Binding, PublicKey, SigningKey, cover_everything, inspect_as, invalid, sign_as, verify_as};

/// Which version of which filter.
#[derive(Debug, Clone, Copy)]
pub struct FilterFacts<'a> {
    /// Whose.
    pub tenant: &'a TenantName,
    /// The filter.
    pub name: &'a Label,
    /// The number.
    pub version: VersionNumber,
}

impl FilterFacts<'_> {
    /// The same as the statement says it. Names of filters are made as those of models are.
    fn binding(&self) -> Result<Binding> {
        let name: ModelName = self.name.as_str().parse().map_err(|_| invalid("the name of the filter cannot stand in a signature"))?;
        Ok(Binding { tenant: Some(self.tenant.clone()), model: name, version: self.version })
    }

    fn must_be(&self, bound: Option<&Binding>) -> Result<()> {
        let bound = bound.ok_or_else(|| invalid("the signature names no filter: sign it with 'plinth filter push --sign-key'"))?;
        let own = self.binding()?;
        bound.must_name(self.tenant, &own.model, own.version)
    }
}

/// Signs the files of a version of a filter.
///
/// # Errors
/// As [`super::sign`].
pub fn sign(facts: FilterFacts<'_>, files: &[FileEntry], key: &SigningKey) -> Result<String> {
    sign_as(Some(SealedKind::Filter), facts.name.as_str(), files, Some(&facts.binding()?), key)
}

/// Verifies a bundle over exactly these files, for exactly this version; the signer's fingerprint.
///
/// # Errors
/// As [`super::verify`]; `SignatureInvalid` when it was made for something else.
pub fn verify(facts: FilterFacts<'_>, bundle: &str, files: &[FileEntry], trusted: &[PublicKey]) -> Result<String> {
    let verified = verify_as(Some(SealedKind::Filter), bundle, files, trusted)?;
    cover_everything(&verified.unlisted)?;
    facts.must_be(verified.binding.as_ref())?;
    Ok(verified.signer)
}

/// Holds a bundle against files and version without asking for a key.
///
/// # Errors
/// As [`verify`], but never `SignerNotTrusted`, and a forged signature passes.
pub fn inspect(facts: FilterFacts<'_>, bundle: &str, files: &[FileEntry]) -> Result<()> {
    let seen = inspect_as(Some(SealedKind::Filter), bundle, files)?;
    cover_everything(&seen.unlisted)?;
    facts.must_be(seen.binding.as_ref())
}

#[cfg(test)]
mod tests {
    use plinth_runtime::SeededRandom;
    use plinth_store::resources::gateway::filter::{FilterSettings, files};
    use plinth_types::{Digest, Reason};

    use super::*;

    #[test]
    fn a_signature_holds_for_this_filter_these_settings_and_this_number_alone() {
        let key = SigningKey::generate(&SeededRandom::new(1));
        let (tenant, name) = (TenantName::default_tenant(), "mask".parse::<Label>().unwrap());
        let facts = |version: u64| FilterFacts { tenant: &tenant, name: &name, version: VersionNumber::try_from(version).unwrap() };
        let settings = FilterSettings { timeout_ms: Some(5), ..FilterSettings::default() };
        let sealed = files(&Digest::of(b"module"), 6, &settings);
        let bundle = sign(facts(3), &sealed, &key).unwrap();
        let trusted = [key.public()];
        assert_eq!(verify(facts(3), &bundle, &sealed, &trusted).unwrap(), key.public().fingerprint());
        inspect(facts(3), &bundle, &sealed).unwrap();
        let reason = |result: Result<String>| result.unwrap_err().reason();
        assert_eq!(reason(verify(facts(2), &bundle, &sealed, &trusted)), Reason::SignatureInvalid);
        let (other, others) = ("other".parse::<Label>().unwrap(), "acme".parse::<TenantName>().unwrap());
        assert_eq!(reason(verify(FilterFacts { name: &other, ..facts(3) }, &bundle, &sealed, &trusted)), Reason::SignatureInvalid);
        assert_eq!(reason(verify(FilterFacts { tenant: &others, ..facts(3) }, &bundle, &sealed, &trusted)), Reason::SignatureInvalid);
        let altered = [files(&Digest::of(b"other"), 6, &settings), files(&Digest::of(b"module"), 6, &FilterSettings::default())];
        for altered in altered {
            assert_eq!(reason(verify(facts(3), &bundle, &altered, &trusted)), Reason::ContentAltered);
        }
        let stranger = SigningKey::generate(&SeededRandom::new(2)).public();
        assert_eq!(reason(verify(facts(3), &bundle, &sealed, &[stranger])), Reason::SignerNotTrusted);
        // A model's signature is none of a filter, nor the other way round.
        let binding = facts(3).binding().unwrap();
        let model = super::super::sign("mask", &sealed, Some(&binding), &key).unwrap();
        assert_eq!(reason(verify(facts(3), &model, &sealed, &trusted)), Reason::SignatureInvalid);
        assert_eq!(super::super::verify(&bundle, &sealed, &trusted).unwrap_err().reason(), Reason::SignatureInvalid);
        let unbound = super::super::sign("mask", &sealed, None, &key).unwrap();
        assert_eq!(reason(verify(facts(3), &unbound, &sealed, &trusted)), Reason::SignatureInvalid);
    }
}
