//! What a client certificate says for itself: tenant and role, in a URI among its subject's alternative names.
//!
//! `plinth://<tenant>/<role>` and nothing more. Whoever issues certificates under the authority that a listener trusts for
//! clients thereby decides who may do what; that the certificate is good was checked by the handshake.

use std::fmt;
use std::str::FromStr;

use plinth_store::resources::Role;
use plinth_types::TenantName;

use crate::authorise;

/// The tenant and role in a certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateRole {
    /// Whose things.
    pub tenant: TenantName,
    /// What it may do.
    pub role: Role,
}

impl CertificateRole {
    /// What these names say; `None` when they say nothing, or more than one thing.
    #[must_use]
    pub fn of(uris: &[String]) -> Option<Self> {
        let mut ours = uris.iter().filter(|uri| uri.get(..9).is_some_and(|start| start.eq_ignore_ascii_case("plinth://")));
        match (ours.next(), ours.next()) {
            (Some(uri), None) => uri.parse().ok(),
            _ => None,
        }
    }
}

/// A text that is no `plinth://<tenant>/<role>`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("want plinth://<tenant>/<role>, with one of viewer, developer, operator, admin")]
pub struct ParseCertificateRoleError;

impl FromStr for CertificateRole {
    type Err = ParseCertificateRoleError;

    fn from_str(uri: &str) -> Result<Self, Self::Err> {
        let (tenant, role) = uri.strip_prefix("plinth://").and_then(|rest| rest.split_once('/')).ok_or(ParseCertificateRoleError)?;
        let tenant = tenant.parse().map_err(|_| ParseCertificateRoleError)?;
        Ok(Self { tenant, role: authorise::role(role).ok_or(ParseCertificateRoleError)? })
    }
}

impl fmt::Display for CertificateRole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "plinth://{}/{}", self.tenant, authorise::word(self.role))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(uris: &[&str]) -> Option<String> {
        CertificateRole::of(&uris.iter().map(|uri| (*uri).to_owned()).collect::<Vec<_>>()).map(|found| found.to_string())
    }

    #[test]
    fn one_uri_of_ours_says_who() {
        assert_eq!(of(&["spiffe://corp/web", "plinth://acme/operator"]).as_deref(), Some("plinth://acme/operator"));
        for nothing in [
            &[][..],
            &["spiffe://corp/plinth"],
            &["plinth://acme"],
            &["plinth://acme/"],
            &["plinth://acme/root"],
            &["plinth://acme/admin/"],
            &["plinth://acme/admin?x"],
            &["plinth://../admin"],
            &["plinth:///admin"],
            &["PLINTH://acme/admin"],
            &["plinth://a b/admin"],
            &["plinth://acme/viewer", "plinth://acme/admin"],
            &["plinth://acme/viewer", "PLINTH://acme/admin"],
        ] {
            assert_eq!(of(nothing), None, "{nothing:?}");
        }
    }
}
