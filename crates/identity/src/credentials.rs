//! Every way to show who one is, and how each becomes a [`Principal`].
//!
//! A bearer token is an API key or, with two dots, a signed token of an issuer. A client certificate speaks for itself.
//! Whatever it is, its tenant must be there, and not suspended, in the ring of the moment.

use std::sync::Arc;

use arc_swap::ArcSwap;
use plinth_net::ClientCertificate;
use plinth_types::{Digest, Error, Reason, Result, TenantName, Timestamp};

use crate::key_ring::suspended;
use crate::principal::{Caller, UserKey};
use crate::token::Tokens;
use crate::{CertificateRole, KeyRing, Principal};

/// Judges what callers show.
pub struct Credentials {
    ring: Arc<ArcSwap<KeyRing>>,
    tokens: Option<Tokens>,
    certificates: bool,
}

impl Credentials {
    /// By API keys alone.
    #[must_use]
    pub const fn keys(ring: Arc<ArcSwap<KeyRing>>) -> Self {
        Self { ring, tokens: None, certificates: false }
    }

    /// By the tokens of issuers too.
    #[must_use]
    pub fn with_tokens(self, tokens: Tokens) -> Self {
        Self { tokens: Some(tokens), ..self }
    }

    /// By client certificates too.
    #[must_use]
    pub fn with_certificates(self) -> Self {
        Self { certificates: true, ..self }
    }

    /// The ring of the moment, which knows the tenants.
    #[must_use]
    pub const fn ring(&self) -> &Arc<ArcSwap<KeyRing>> {
        &self.ring
    }

    /// Who shows this bearer token.
    ///
    /// # Errors
    /// [`Reason::CredentialsInvalid`], [`Reason::TenantSuspended`], [`Reason::IssuerUnavailable`].
    pub async fn bearer(&self, token: &str, now: Timestamp) -> Result<Principal> {
        let Some(tokens) = self.tokens.as_ref().filter(|_| token.contains('.')) else {
            return self.ring.load().authenticate(token, now);
        };
        let verified = tokens.verify(token, now).await?;
        let (tenant, tenant_index) = self.tenant(&verified.tenant)?;
        let caller = Caller::Token(verified.subject.clone());
        Ok(Principal { tenant, tenant_index, user: verified.user, role: verified.role, caller, models: None, acting: false })
    }

    /// Whom a verified client certificate names.
    ///
    /// # Errors
    /// [`Reason::CredentialsMissing`] when it names nobody, [`Reason::CredentialsInvalid`], [`Reason::TenantSuspended`].
    pub fn certificate(&self, certificate: &ClientCertificate) -> Result<Principal> {
        let found = CertificateRole::of(&certificate.uris).filter(|_| self.certificates);
        let named = found.ok_or_else(|| Error::new(Reason::CredentialsMissing, "show a key: Authorization: Bearer plinth_…"))?;
        let (tenant, tenant_index) = self.tenant(&named.tenant)?;
        let user = user(&["certificate", &certificate.fingerprint.hex()]);
        let caller = Caller::Certificate(named.to_string().into());
        Ok(Principal { tenant, tenant_index, user, role: named.role, caller, models: None, acting: false })
    }

    /// The tenant, when it is there and may be served.
    fn tenant(&self, name: &TenantName) -> Result<(TenantName, u32)> {
        let ring = self.ring.load();
        match ring.tenant(name.as_str()) {
            None => Err(invalid("no such tenant")),
            Some((_, tenant)) if tenant.suspended => Err(suspended()),
            Some((index, tenant)) => Ok((tenant.name.clone(), index)),
        }
    }
}

/// What bad credentials that are no key are told, whatever is wrong with them.
pub(crate) fn invalid(why: impl Into<String>) -> Error {
    Error::new(Reason::CredentialsInvalid, "the credentials are not valid").diagnostic(why)
}

/// The user of these words.
pub(crate) fn user(words: &[&str]) -> UserKey {
    let digest = Digest::of(words.join("\0").as_bytes());
    UserKey(digest.as_bytes().iter().take(8).fold(0, |sum, byte| sum << 8 | u64::from(*byte)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use plinth_store::resources::Role;

    #[test]
    fn a_certificate_counts_where_certificates_do_and_for_tenants_that_are_there() {
        let ring = Arc::new(ArcSwap::from_pointee(KeyRing::default()));
        let certificate = |uri: &str| ClientCertificate {
            common_name: None,
            dns_names: Vec::new(),
            uris: vec![uri.to_owned()],
            fingerprint: Digest::of(b"certificate"),
        };
        let with = Credentials::keys(ring.clone()).with_certificates();
        let principal = with.certificate(&certificate("plinth://default/operator")).unwrap();
        assert_eq!((principal.role, principal.actor().as_str()), (Role::Operator, "certificate:plinth://default/operator"));
        let reason = |credentials: &Credentials, uri: &str| credentials.certificate(&certificate(uri)).unwrap_err().reason();
        assert_eq!(reason(&with, "plinth://acme/admin"), Reason::CredentialsInvalid);
        assert_eq!(reason(&with, "spiffe://x"), Reason::CredentialsMissing);
        assert_eq!(reason(&Credentials::keys(ring), "plinth://default/admin"), Reason::CredentialsMissing);
    }
}
