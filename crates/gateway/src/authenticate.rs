//! Who asks: the key in `Authorization: Bearer …`, against the keys of the snapshot.

use std::sync::Arc;

use arc_swap::ArcSwap;
use http::HeaderMap;
use http::header::AUTHORIZATION;
use plinth_identity::{KeyRing, Principal};
use plinth_types::{Error, Reason, Result, Timestamp};

/// How callers are told apart.
#[derive(Clone)]
pub enum Authentication {
    /// Everybody may do everything: `plinth up --dev`, on loopback only.
    Open,
    /// By their keys. The ring is replaced with each snapshot.
    Keys(Arc<ArcSwap<KeyRing>>),
}

impl Authentication {
    /// Who shows these headers.
    ///
    /// # Errors
    /// [`Reason::CredentialsMissing`], [`Reason::CredentialsInvalid`].
    pub fn check(&self, headers: &HeaderMap, now: Timestamp) -> Result<Principal> {
        let Self::Keys(ring) = self else { return Ok(Principal::anybody()) };
        let mut values = headers.get_all(AUTHORIZATION).iter();
        let (Some(value), None) = (values.next(), values.next()) else {
            return Err(Error::new(Reason::CredentialsMissing, "show a key: Authorization: Bearer plinth_…").field("Authorization"));
        };
        let token = value.to_str().ok().and_then(bearer);
        let token = token.ok_or_else(|| {
            Error::new(Reason::CredentialsMissing, "the Authorization header must be: Bearer plinth_…").field("Authorization")
        })?;
        ring.load().authenticate(token, now)
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

    #[test]
    fn the_scheme_is_bearer_in_any_case() {
        assert_eq!(bearer("Bearer abc"), Some("abc"));
        assert_eq!(bearer("bearer  abc "), Some("abc"));
        assert_eq!(bearer("Basic abc"), None);
        assert_eq!(bearer("abc"), None);
    }

    #[test]
    fn without_a_header_nobody_passes_and_two_are_none() {
        let authentication = Authentication::Keys(Arc::default());
        let now = Timestamp::from_millis(0).unwrap();
        let mut headers = HeaderMap::new();
        assert_eq!(authentication.check(&headers, now).unwrap_err().reason(), Reason::CredentialsMissing);
        headers.append(AUTHORIZATION, "Bearer a".parse().unwrap());
        assert_eq!(authentication.check(&headers, now).unwrap_err().reason(), Reason::CredentialsInvalid);
        headers.append(AUTHORIZATION, "Bearer b".parse().unwrap());
        assert_eq!(authentication.check(&headers, now).unwrap_err().reason(), Reason::CredentialsMissing);
    }
}
