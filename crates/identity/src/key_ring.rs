//! The keys that a node knows, as a table built from the snapshot.

use std::collections::HashMap;

use plinth_store::resources::{KeyRecord, Role};
use plinth_types::{Digest, Error, KeyId, Reason, Result, TenantName, Timestamp};

use crate::ApiKey;

/// Who asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Principal {
    /// Whose things the request is about.
    pub tenant: TenantName,
    /// The key that was shown; `None` on an open node.
    pub key: Option<KeyId>,
    /// What it allows.
    pub role: Role,
}

impl Principal {
    /// Everybody on an open node (`plinth up --dev`).
    #[must_use]
    pub fn anybody() -> Self {
        Self { tenant: TenantName::default_tenant(), key: None, role: Role::Admin }
    }

    /// The name under which the audit knows it.
    #[must_use]
    pub fn actor(&self) -> String {
        self.key.as_ref().map_or_else(|| "anybody".to_owned(), |id| format!("key:{id}"))
    }
}

/// All keys. Immutable; a new snapshot makes a new ring.
#[derive(Debug, Default)]
pub struct KeyRing {
    keys: HashMap<KeyId, (TenantName, KeyRecord)>,
}

impl KeyRing {
    /// A ring of these keys.
    #[must_use]
    pub fn new(keys: impl IntoIterator<Item = (KeyId, TenantName, KeyRecord)>) -> Self {
        Self { keys: keys.into_iter().map(|(id, tenant, record)| (id, (tenant, record))).collect() }
    }

    /// Whether there is no key at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Who shows this key.
    ///
    /// # Errors
    /// [`Reason::CredentialsInvalid`], with one text for malformed, unknown, wrong and expired keys.
    pub fn authenticate(&self, token: &str, now: Timestamp) -> Result<Principal> {
        let refused = |why: &'static str| {
            Error::new(Reason::CredentialsInvalid, "the key is not valid; `plinth key create` makes a new one").diagnostic(why)
        };
        let shown = ApiKey::parse(token).map_err(|_| refused("malformed"))?;
        // An unknown id is compared too, so that it takes as long as a wrong secret.
        let nobody = Digest::from_bytes([0; 32]);
        let known = self.keys.get(shown.id());
        let expected = known.map_or(&nobody, |(_, record)| &record.secret_hash);
        let equal = same(expected, &shown.secret_hash());
        match known {
            Some((_, record)) if equal && record.expires_at.is_some_and(|end| end <= now) => Err(refused("expired")),
            Some((tenant, record)) if equal => Ok(Principal { tenant: tenant.clone(), key: Some(shown.id().clone()), role: record.role }),
            Some(_) => Err(refused("wrong secret")),
            None => Err(refused("unknown id")),
        }
    }
}

/// Compares without stopping at the first difference.
fn same(a: &Digest, b: &Digest) -> bool {
    let difference = a.as_bytes().iter().zip(b.as_bytes()).fold(0, |sum, (x, y)| sum | (x ^ y));
    std::hint::black_box(difference) == 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use plinth_runtime::SeededRandom;

    fn at(millis: u64) -> Timestamp {
        Timestamp::from_millis(millis).unwrap()
    }

    #[test]
    fn only_the_right_secret_within_its_time_passes() {
        let random = SeededRandom::new(3);
        let (key, other) = (ApiKey::generate(&random).unwrap(), ApiKey::generate(&random).unwrap());
        let tenant: TenantName = "acme".parse().unwrap();
        let ring = KeyRing::new([(key.id().clone(), tenant.clone(), key.record(Role::Infer, "", at(0), Some(at(100))))]);

        let principal = ring.authenticate(&key.reveal(), at(99)).unwrap();
        assert_eq!((principal.tenant, principal.role), (tenant, Role::Infer));

        let wrong_secret = format!("plinth_{}_{}", key.id(), other.reveal().rsplit('_').next().unwrap());
        let texts: Vec<_> = [(other.reveal(), 1), (wrong_secret, 1), (key.reveal(), 100), ("nonsense".into(), 1)]
            .into_iter()
            .map(|(token, now)| ring.authenticate(&token, at(now)).unwrap_err().to_string())
            .collect();
        assert!(texts.windows(2).all(|w| w[0] == w[1]), "{texts:?}");
    }
}
