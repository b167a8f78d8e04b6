//! Numbers of versions, beyond the life of their model.
//!
//! Invariant: a number that was handed out under a name is not handed out again, also when the model is deleted and
//! made anew. Nodes refuse versions below the newest that they have served, and caches know versions by their numbers.
//! While a model stands, its record holds the newest number; this file is about the time after.

use plinth_store::metadata::{AuditChange, Kind};
use plinth_store::resources::gateway::FilterRecord;
use plinth_store::resources::{FormerModelRecord, ModelRecord};
use plinth_types::{Error, ModelName, Result, TenantName, VersionNumber};
use serde_json::Value;

use super::after::decode;
use super::{Draft, Registry, models};
use crate::ledger::{as_read, former_model_key};

impl Registry {
    /// The newest number of the models that had this name before. The commit happens only if that still holds.
    pub(super) async fn former_number(&self, tenant: &TenantName, model: &ModelName, draft: &mut Draft) -> Result<Option<VersionNumber>> {
        let key = former_model_key(tenant, model);
        let former = self.ledger.get::<FormerModelRecord>(&key).await?;
        draft.guard(key, as_read(former.as_ref()));
        Ok(former.map(|former| former.value.last_version))
    }

    /// Notes, in the commit that takes a model away, the newest number that it handed out.
    pub(super) async fn retain_number(
        &self,
        tenant: &TenantName,
        model: &ModelName,
        last: Option<VersionNumber>,
        draft: &mut Draft,
    ) -> Result<()> {
        let key = former_model_key(tenant, model);
        let former = self.ledger.get::<FormerModelRecord>(&key).await?;
        match last {
            Some(last_version) if former.as_ref().is_none_or(|former| former.value.last_version < last_version) => {
                draft.put(key, as_read(former.as_ref()), &FormerModelRecord { last_version })
            }
            _ => Ok(()),
        }
    }

    /// What a record says after its change is undone: what it said before, but the newest number of a model neither
    /// falls nor goes with its record.
    pub(super) async fn before_but_numbers(&self, change: &AuditChange, draft: &mut Draft) -> Result<Option<Value>> {
        if change.key.kind == Kind::Filter {
            return self.filter_before(change, draft).await;
        }
        if change.key.kind != Kind::Model {
            return Ok(change.before.clone());
        }
        let (tenant, model) = (&change.key.tenant, models::parse_name(&change.key.name)?);
        let after: Option<ModelRecord> = change.after.clone().map(decode).transpose()?;
        let Some(before) = change.before.clone() else {
            self.retain_number(tenant, &model, after.and_then(|record| record.last_version), draft).await?;
            return Ok(None);
        };
        let newest = match after {
            Some(after) => after.last_version,
            None => self.former_number(tenant, &model, draft).await?,
        };
        let mut record: ModelRecord = decode(before)?;
        record.last_version = record.last_version.max(newest);
        serde_json::to_value(record).map(Some).map_err(|e| Error::internal("encoding a record").source(e))
    }
    /// The same of a filter.
    async fn filter_before(&self, change: &AuditChange, draft: &mut Draft) -> Result<Option<Value>> {
        let after: Option<FilterRecord> = change.after.clone().map(decode).transpose()?;
        let Some(before) = change.before.clone() else {
            if let Some(after) = after {
                self.retain_filter_number(&change.key, after.last_version, draft).await?;
            }
            return Ok(None);
        };
        let mut record: FilterRecord = decode(before)?;
        let newest = match after {
            Some(after) => Some(after.last_version),
            None => self.former_filter(&change.key.tenant, &models::parse_name(&change.key.name)?, draft).await?,
        };
        record.last_version = newest.map_or(record.last_version, |newest| newest.max(record.last_version));
        serde_json::to_value(record).map(Some).map_err(|e| Error::internal("encoding a record").source(e))
    }
}
