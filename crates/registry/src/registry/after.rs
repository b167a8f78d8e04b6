//! The state after a change that is not committed yet: what the change says, and behind it the ledger.
//!
//! Invariant: what is read from the ledger here is guarded by the draft, so that the change happens only if it was judged
//! by what still stands. Lists cannot be guarded; who decides by a list says so with [`Draft::only_if_head`].

use std::collections::BTreeMap;

use plinth_store::metadata::{Kind, ListQuery, RecordKey};
use plinth_types::{Error, Result, TenantName};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::{Draft, Registry};
use crate::ledger::as_read;

/// What records would say; `None` for those that would be gone.
pub(super) type Overlay = BTreeMap<RecordKey, Option<Value>>;

/// More records than these are not looked through.
const MOST_LISTED: u32 = 1_000_000;

pub(super) struct After<'a> {
    pub registry: &'a Registry,
    pub overlay: &'a Overlay,
    pub draft: &'a mut Draft,
}

impl After<'_> {
    pub async fn get<T: DeserializeOwned>(&mut self, key: RecordKey) -> Result<Option<T>> {
        if let Some(value) = self.overlay.get(&key) {
            return value.clone().map(decode).transpose();
        }
        let found = self.registry.ledger.get::<T>(&key).await?;
        self.draft.guard(key, as_read(found.as_ref()));
        Ok(found.map(|found| found.value))
    }

    pub async fn is_there(&mut self, key: RecordKey) -> Result<bool> {
        Ok(self.get::<serde::de::IgnoredAny>(key).await?.is_some())
    }

    /// All of a kind; of all tenants when that is `None`.
    pub async fn list<T: DeserializeOwned>(&self, kind: Kind, tenant: Option<&TenantName>) -> Result<Vec<(RecordKey, T)>> {
        let query = ListQuery { kind, tenant: tenant.cloned(), prefix: String::new(), after: None, limit: MOST_LISTED };
        let found = self.registry.ledger.list::<T>(&query).await?;
        let mut all: Vec<_> =
            found.into_iter().filter(|(key, _)| !self.overlay.contains_key(key)).map(|(key, stored)| (key, stored.value)).collect();
        for (key, value) in self.overlay {
            if let (true, Some(value)) = (key.kind == kind && tenant.is_none_or(|tenant| *tenant == key.tenant), value) {
                all.push((key.clone(), decode(value.clone())?));
            }
        }
        Ok(all)
    }
}

pub(super) fn decode<T: DeserializeOwned>(value: Value) -> Result<T> {
    serde_json::from_value(value).map_err(|e| Error::internal("decoding a record from the audit").source(e))
}
