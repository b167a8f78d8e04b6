//! An issuer as its record describes it, ready for use: where its keys are, and what its tokens mean here.

use plinth_store::resources::Role;
use plinth_store::resources::gateway::IssuerRecord;
use plinth_types::{Label, TenantName};
use serde_json::Value;
use url::Url;

use super::claims::{claim, words};

/// An issuer's record that makes sense.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IssuerSpec {
    pub(super) name: Label,
    pub(super) record: IssuerRecord,
}

/// Why an issuer's record is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {text}")]
pub struct InvalidIssuer {
    /// The field of the record.
    pub field: &'static str,
    /// What is wrong with it.
    pub text: &'static str,
}

impl IssuerSpec {
    /// Takes a record that makes sense.
    ///
    /// # Errors
    /// The first field that does not.
    pub fn new(name: Label, record: IssuerRecord) -> Result<Self, InvalidIssuer> {
        let wrong = |field, text| Err(InvalidIssuer { field, text });
        if record.issuer.is_empty() {
            return wrong("issuer", "must be the 'iss' of its tokens");
        }
        if record.audiences.is_empty() || record.audiences.iter().any(String::is_empty) {
            return wrong("audiences", "must name at least one audience: else tokens for other services would be good here");
        }
        match &record.jwks_url {
            Some(url) if !callable(url) => return wrong("jwks_url", "must be an http or https address without user name and fragment"),
            None if !callable(&record.issuer) => {
                return wrong("issuer", "must be an http or https address by which its keys are found, or 'jwks_url' be given");
            }
            _ => {}
        }
        if record.tenant_claim.is_none() && record.tenant.is_none() {
            return wrong("tenant", "must be given when there is no 'tenant_claim': nobody would know whose its tokens are");
        }
        if record.roles.is_empty() && record.default_role.is_none() {
            return wrong("roles", "must say what words of 'roles_claim' mean, or 'default_role' be given: else no token is good");
        }
        if !record.roles.is_empty() && record.roles_claim.is_none() {
            return wrong("roles_claim", "must be given when 'roles' is");
        }
        Ok(Self { name, record })
    }

    /// Where the description of the provider is (OpenID Connect Discovery 1.0, 4).
    pub(super) fn discovery_url(&self) -> String {
        format!("{}/.well-known/openid-configuration", self.record.issuer.trim_end_matches('/'))
    }

    /// Whether keys may be fetched from this address: one of our record, or one that the provider names and that is no
    /// less safe than the provider's own.
    pub(super) fn may_fetch(&self, url: &str) -> bool {
        callable(url) && (url.starts_with("https://") || self.record.issuer.starts_with("http://"))
    }

    /// The tenant of a token's claims. A claim never leads into the default tenant, whose administrators look after all,
    /// unless the record itself names that.
    pub(super) fn tenant(&self, claims: &Value) -> Result<TenantName, &'static str> {
        let named = self.record.tenant_claim.as_ref().and_then(|name| claim(claims, name));
        match (named, &self.record.tenant) {
            (None, Some(tenant)) => Ok(tenant.clone()),
            (None, None) => Err("no tenant"),
            (Some(named), home) => {
                let tenant: TenantName = named.as_str().and_then(|text| text.parse().ok()).ok_or("the tenant's name is malformed")?;
                if tenant == TenantName::default_tenant() && home.as_ref() != Some(&tenant) {
                    return Err("a claim does not lead into the default tenant");
                }
                Ok(tenant)
            }
        }
    }

    /// The highest role that a token's claims mean.
    pub(super) fn role(&self, claims: &Value) -> Option<Role> {
        let found = self.record.roles_claim.as_ref().and_then(|name| claim(claims, name));
        let named = found.into_iter().flat_map(words).filter_map(|word| self.record.roles.get(word)).max();
        named.copied().or(self.record.default_role)
    }
}

fn callable(text: &str) -> bool {
    let Ok(url) = Url::parse(text) else { return false };
    matches!(url.scheme(), "http" | "https") && url.username().is_empty() && url.password().is_none() && url.fragment().is_none()
}
