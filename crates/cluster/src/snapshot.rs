//! The snapshot as a value, and how it is built from the ledger's records.

use std::collections::BTreeMap;

use plinth_store::metadata::{Kind, Record, Revision};
use plinth_store::resources::{DeploymentRecord, KeyRecord, ModelRecord, TenantRecord, VersionRecord};
use plinth_types::{Digest, KeyId, ModelName, TenantName, VersionNumber};
use serde::{Deserialize, Serialize};

/// Everything that a node needs in order to serve, as of one revision of the ledger.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Snapshot {
    /// The ledger's revision that it shows.
    pub revision: Revision,
    /// The digest of the audit entry of that revision: by it another ledger, or a restored one that went another way, is
    /// recognised.
    #[serde(default)]
    pub mark: Option<Digest>,
    /// The tenants.
    pub tenants: BTreeMap<TenantName, TenantRecord>,
    /// The keys, by tenant and id.
    pub keys: BTreeMap<TenantName, BTreeMap<KeyId, KeyRecord>>,
    /// The models, by tenant and name.
    pub models: BTreeMap<TenantName, BTreeMap<ModelName, ModelEntry>>,
}

/// A model with all that belongs to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelEntry {
    /// The model and its aliases.
    pub model: ModelRecord,
    /// Its versions.
    pub versions: BTreeMap<VersionNumber, VersionRecord>,
    /// The wish that it be served, if there is one.
    pub deployment: Option<DeploymentRecord>,
}

impl Snapshot {
    /// Builds a snapshot from every record at one revision.
    ///
    /// # Errors
    /// Names the record that cannot be read. No snapshot is better than half of one: the last good one goes on.
    pub fn from_records(revision: Revision, records: Vec<Record>) -> Result<Self, String> {
        let mut snapshot = Self { revision, ..Self::default() };
        let (mut versions, mut deployments) = (Vec::new(), Vec::new());
        for record in records {
            match record.key.kind {
                Kind::Tenant => {
                    let (name, value) = read(record, |name| name.parse().ok())?;
                    snapshot.tenants.insert(name, value);
                }
                Kind::Key => {
                    let tenant = record.key.tenant.clone();
                    let (id, value) = read(record, |name| name.parse().ok())?;
                    snapshot.keys.entry(tenant).or_default().insert(id, value);
                }
                Kind::Model => {
                    let tenant = record.key.tenant.clone();
                    let (name, model) = read(record, |name| name.parse::<ModelName>().ok())?;
                    let entry = ModelEntry { model, versions: BTreeMap::new(), deployment: None };
                    snapshot.models.entry(tenant).or_default().insert(name, entry);
                }
                Kind::Version => versions.push(record),
                Kind::Deployment => deployments.push(record),
                Kind::Collection | Kind::FormerModel => {}
            }
        }
        for record in versions {
            let tenant = record.key.tenant.clone();
            let ((model, number), value) = read(record, parse_version_name)?;
            snapshot.entry(&tenant, &model)?.versions.insert(number, value);
        }
        for record in deployments {
            let tenant = record.key.tenant.clone();
            let (model, value) = read(record, |name| name.parse::<ModelName>().ok())?;
            snapshot.entry(&tenant, &model)?.deployment = Some(value);
        }
        Ok(snapshot)
    }

    fn entry(&mut self, tenant: &TenantName, model: &ModelName) -> Result<&mut ModelEntry, String> {
        let entry = self.models.get_mut(tenant).and_then(|models| models.get_mut(model));
        entry.ok_or_else(|| format!("a version or deployment of '{model}' has no model"))
    }
}

fn parse_version_name(name: &str) -> Option<(ModelName, VersionNumber)> {
    let (model, number) = name.split_once('/')?;
    Some((model.parse().ok()?, number.trim_start_matches('0').parse().ok()?))
}

fn read<N, V: serde::de::DeserializeOwned>(record: Record, name: impl Fn(&str) -> Option<N>) -> Result<(N, V), String> {
    let subject = || format!("record {} '{}'", record.key.kind.as_str(), record.key.name);
    let parsed = name(&record.key.name).ok_or_else(|| format!("{} has a malformed name", subject()))?;
    let value = V::deserialize(&record.value).map_err(|e| format!("{} cannot be read: {e}", subject()))?;
    Ok((parsed, value))
}
