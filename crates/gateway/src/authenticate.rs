//! Who asks: where credentials stand in a request. What they are worth is `identity`'s to say.
//!
//! A bearer token in `Authorization` counts first: an API key, or a token of an issuer. Without one, a client certificate
//! that the listener has verified may speak for itself. `X-Plinth-Tenant` lets an administrator of the default tenant act
//! for another tenant; it is never looked at before the caller is known.

use std::sync::Arc;

use arc_swap::ArcSwap;
use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderName};
use plinth_identity::{Credentials, KeyRing, Principal};
use plinth_net::Peer;
use plinth_types::{Error, Reason, Result, Timestamp};

/// Names the tenant for which an administrator of the default tenant acts.
pub const TENANT_HEADER: HeaderName = HeaderName::from_static("x-plinth-tenant");

/// How callers are told apart. Cheap to clone.
#[derive(Clone)]
pub enum Authentication {
    /// Everybody may do everything: `plinth up --dev`, on loopback only. The ring knows the tenants.
    Open(Arc<ArcSwap<KeyRing>>),
    /// By what they show.
    Closed(Arc<Credentials>),
}

impl Authentication {
    /// By keys alone. The ring is replaced with each snapshot.
    #[must_use]
    pub fn keys(ring: Arc<ArcSwap<KeyRing>>) -> Self {
        Self::Closed(Arc::new(Credentials::keys(ring)))
    }

    /// An open node.
    #[must_use]
    pub fn open() -> Self {
        Self::Open(Arc::default())
    }

    /// Who sends these headers. Ends within some seconds; waits only for the keys of a token whose key is not known. Cancel
    /// safe.
    ///
    /// # Errors
    /// [`Reason::CredentialsMissing`], [`Reason::CredentialsInvalid`], [`Reason::TenantSuspended`],
    /// [`Reason::IssuerUnavailable`]; of the tenant header [`Reason::NotPermitted`] and [`Reason::RecordNotFound`].
    pub async fn check(&self, headers: &HeaderMap, peer: &Peer, now: Timestamp) -> Result<Principal> {
        let (principal, ring) = match self {
            Self::Open(ring) => (Principal::anybody(), ring),
            Self::Closed(credentials) => (known(credentials, headers, peer, now).await?, credentials.ring()),
        };
        match only(headers, &TENANT_HEADER) {
            Ok(None) => Ok(principal),
            Ok(Some(tenant)) => ring.load().acting_for(principal, tenant),
            Err(()) => Err(Error::new(Reason::MalformedRequest, "X-Plinth-Tenant names one tenant").field("X-Plinth-Tenant")),
        }
    }
}

async fn known(credentials: &Credentials, headers: &HeaderMap, peer: &Peer, now: Timestamp) -> Result<Principal> {
    match only(headers, &AUTHORIZATION) {
        Ok(Some(value)) => {
            let token = bearer(value).ok_or_else(|| missing("the Authorization header must be: Bearer plinth_…"))?;
            credentials.bearer(token, now).await
        }
        Ok(None) => match &peer.certificate {
            Some(certificate) => credentials.certificate(certificate),
            None => Err(missing("show a key: Authorization: Bearer plinth_…")),
        },
        Err(()) => Err(missing("there must be one Authorization header: Bearer plinth_…")),
    }
}

fn missing(text: &str) -> Error {
    Error::new(Reason::CredentialsMissing, text).field("Authorization")
}

/// The one value of a header, `None` without; an error when there are several, or one that is no text.
fn only<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Result<Option<&'h str>, ()> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (None, _) => Ok(None),
        (Some(value), None) => value.to_str().map(Some).map_err(|_| ()),
        (Some(_), Some(_)) => Err(()),
    }
}

/// The token of a Bearer header; the scheme's case does not matter (RFC 9110, 11.1).
fn bearer(value: &str) -> Option<&str> {
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

#[cfg(test)]
mod tests {
    use super::*;
    use plinth_identity::ApiKey;
    use plinth_runtime::SeededRandom;
    use plinth_store::resources::Role;
    use plinth_types::TenantName;

    fn now() -> Timestamp {
        Timestamp::from_millis(0).unwrap()
    }

    async fn reason(authentication: &Authentication, headers: &HeaderMap) -> Reason {
        let peer = Peer::new(([127, 0, 0, 1], 1).into(), "test");
        authentication.check(headers, &peer, now()).await.unwrap_err().reason()
    }

    #[test]
    fn the_scheme_is_bearer_in_any_case() {
        assert_eq!(bearer("Bearer abc"), Some("abc"));
        assert_eq!(bearer("bearer  abc "), Some("abc"));
        assert_eq!(bearer("Basic abc"), None);
        assert_eq!(bearer("abc"), None);
    }

    #[tokio::test]
    async fn without_a_header_nobody_passes_and_two_are_none() {
        let authentication = Authentication::keys(Arc::default());
        let mut headers = HeaderMap::new();
        assert_eq!(reason(&authentication, &headers).await, Reason::CredentialsMissing);
        headers.append(AUTHORIZATION, "Bearer a".parse().unwrap());
        assert_eq!(reason(&authentication, &headers).await, Reason::CredentialsInvalid);
        headers.append(AUTHORIZATION, "Bearer b".parse().unwrap());
        assert_eq!(reason(&authentication, &headers).await, Reason::CredentialsMissing);
    }

    #[tokio::test]
    async fn the_tenant_header_is_for_the_platform_alone() {
        let random = SeededRandom::new(9);
        let home = TenantName::default_tenant();
        let keys: Vec<_> = [(home.clone(), Role::Admin), (home, Role::Operator), ("acme".parse().unwrap(), Role::Admin)]
            .into_iter()
            .map(|(tenant, role)| (ApiKey::generate(&random).unwrap(), tenant, role))
            .collect();
        let records = keys.iter().map(|(key, tenant, role)| (key.id().clone(), tenant.clone(), key.record(*role, "", now(), None)));
        let authentication = Authentication::keys(Arc::new(ArcSwap::from_pointee(KeyRing::new(records))));
        let peer = Peer::new(([127, 0, 0, 1], 1).into(), "test");
        let ask = async |key: &ApiKey, tenant: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(AUTHORIZATION, format!("Bearer {}", key.reveal()).parse().unwrap());
            headers.insert(TENANT_HEADER, tenant.parse().unwrap());
            authentication.check(&headers, &peer, now()).await.map(|p| p.tenant.to_string()).map_err(|e| e.reason())
        };
        let [platform, operator, other] = [&keys[0].0, &keys[1].0, &keys[2].0];
        assert_eq!(ask(platform, "acme").await.unwrap(), "acme");
        assert_eq!(ask(platform, "nobody").await, Err(Reason::RecordNotFound));
        assert_eq!(ask(platform, "default").await.unwrap(), "default");
        for stranger in ["default", "nobody"] {
            assert_eq!(ask(other, stranger).await, Err(Reason::NotPermitted));
        }
        assert_eq!(ask(operator, "acme").await, Err(Reason::NotPermitted));
        assert_eq!(ask(other, "acme").await.unwrap(), "acme");
    }
}
