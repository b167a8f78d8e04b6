//! How a snapshot is made: from every record at one revision, or from the one before and what was committed since.
//!
//! Invariant: both ways lead to the same value; a test follows random histories. A record that cannot be read makes
//! no snapshot at all: no snapshot is better than half of one, the last good one goes on.

use std::collections::BTreeMap;
use std::sync::Arc;

use plinth_store::metadata::{AuditEntry, Kind, Record, RecordKey, Revision};
use plinth_store::resources::gateway::AddressesRecord;
use plinth_types::{Digest, ModelName, TenantName, VersionNumber};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::{ModelEntry, OfTenants, Shared, Snapshot};

/// Makes a snapshot from records that come page by page.
#[derive(Default)]
pub struct SnapshotBuilder {
    snapshot: Snapshot,
    /// Parts of models, which come after their models whatever the order of the ledger.
    later: Vec<Record>,
}

impl SnapshotBuilder {
    /// Takes some records in.
    ///
    /// # Errors
    /// Names the record that cannot be read.
    pub fn take(&mut self, records: Vec<Record>) -> Result<(), String> {
        for record in records {
            match record.key.kind {
                Kind::Version | Kind::Deployment => self.later.push(record),
                _ => self.snapshot.put(&record.key, Some(&record.value))?,
            }
        }
        Ok(())
    }

    /// The snapshot of this revision, when all records were taken in.
    ///
    /// # Errors
    /// Names the record that cannot be read.
    pub fn finish(mut self, revision: Revision, mark: Option<Digest>) -> Result<Snapshot, String> {
        for record in self.later {
            self.snapshot.put(&record.key, Some(&record.value))?;
        }
        Ok(Snapshot { revision, mark, ..self.snapshot })
    }
}

impl Snapshot {
    /// Builds a snapshot from every record at one revision.
    ///
    /// # Errors
    /// Names the record that cannot be read.
    pub fn from_records(revision: Revision, records: Vec<Record>) -> Result<Self, String> {
        let mut builder = SnapshotBuilder::default();
        builder.take(records)?;
        builder.finish(revision, None)
    }

    /// Takes in one more commit. A copy that was made before shares with this one what the commit did not touch.
    ///
    /// # Errors
    /// When the entry is not the one that follows, or names a record that cannot be read; the snapshot is worth nothing then.
    pub fn follow(&mut self, entry: &AuditEntry) -> Result<(), String> {
        if entry.revision.0 != self.revision.0 + 1 {
            return Err(format!("revision {} does not follow {}", entry.revision, self.revision));
        }
        // A model comes before its parts and goes after them.
        let rank = |kind, there: bool| match kind {
            Kind::Version | Kind::Deployment if there => 2,
            Kind::Version | Kind::Deployment => 0,
            _ => 1,
        };
        let mut changes: Vec<_> = entry.changes.iter().collect();
        changes.sort_by_key(|change| rank(change.key.kind, change.after.is_some()));
        for change in changes {
            self.put(&change.key, change.after.as_ref())?;
        }
        self.revision = entry.revision;
        self.mark = Some(mark(entry)?);
        Ok(())
    }

    /// Takes in what a record says; `None` when it is gone.
    fn put(&mut self, key: &RecordKey, value: Option<&Value>) -> Result<(), String> {
        match key.kind {
            Kind::Tenant => put(&mut self.tenants, name(key)?, read(key, value)?),
            Kind::Key => put_of(&mut self.keys, key, value)?,
            Kind::Plan => put(&mut self.plans, name(key)?, read(key, value)?),
            Kind::Upstream => put_of(&mut self.upstreams, key, value)?,
            Kind::Route => put_of(&mut self.routes, key, value)?,
            Kind::Issuer => put(&mut self.issuers, name(key)?, read(key, value)?),
            Kind::Filter => put_of(&mut self.filters, key, value)?,
            Kind::Addresses => self.addresses = Arc::new(read::<AddressesRecord>(key, value)?.unwrap_or_default()),
            Kind::Model => self.put_model(key, value)?,
            Kind::Version => {
                let (model, number) = version_name(key)?;
                let record = read(key, value)?;
                self.change_model(key, &model, record.is_none(), |entry| match record {
                    Some(record) => drop(entry.versions.insert(number, record)),
                    None => drop(entry.versions.remove(&number)),
                })?;
            }
            Kind::Deployment => {
                let record = read(key, value)?;
                self.change_model(key, &name(key)?, record.is_none(), |entry| entry.deployment = record)?;
            }
            Kind::Collection | Kind::FormerModel => {}
        }
        Ok(())
    }

    fn put_model(&mut self, key: &RecordKey, value: Option<&Value>) -> Result<(), String> {
        let model: ModelName = name(key)?;
        let entry = read(key, value)?.map(|record| {
            let old = self.models.get(&key.tenant).and_then(|models| models.get(&model));
            let (versions, deployment) = old.map_or_else(|| (BTreeMap::new(), None), |e| (e.versions.clone(), e.deployment.clone()));
            ModelEntry { model: record, versions, deployment }
        });
        put_in(&mut self.models, &key.tenant, model, entry);
        Ok(())
    }

    /// Changes what belongs to a model. What is deleted may belong to a model that is gone already.
    fn change_model(&mut self, key: &RecordKey, model: &ModelName, gone: bool, change: impl FnOnce(&mut ModelEntry)) -> Result<(), String> {
        let there = self.models.get(&key.tenant).is_some_and(|models| models.contains_key(model));
        if !there {
            return if gone { Ok(()) } else { Err(format!("{} has no model", subject(key))) };
        }
        let models = Arc::make_mut(&mut self.models).get_mut(&key.tenant).map(Arc::make_mut);
        if let Some(entry) = models.and_then(|models| models.get_mut(model)) {
            change(Arc::make_mut(entry));
        }
        Ok(())
    }
}

/// Stands for the ledger's history up to an entry: two ledgers that took different ways have different marks.
///
/// # Errors
/// Never in practice: an entry is plain data.
pub fn mark(entry: &AuditEntry) -> Result<Digest, String> {
    serde_json::to_vec(entry).map(|text| Digest::of(&text)).map_err(|e| format!("marking revision {}: {e}", entry.revision))
}

fn put<K: Ord + Clone, V>(map: &mut Shared<K, V>, name: K, value: Option<V>) {
    let map = Arc::make_mut(map);
    match value {
        Some(value) => drop(map.insert(name, Arc::new(value))),
        None => drop(map.remove(&name)),
    }
}

/// A tenant with nothing of a kind has no entry, however it came to that.
fn put_in<K: Ord + Clone, V>(map: &mut OfTenants<K, V>, tenant: &TenantName, name: K, value: Option<V>) {
    let map = Arc::make_mut(map);
    if value.is_none() && map.get(tenant).is_none_or(|part| part.len() == usize::from(part.contains_key(&name))) {
        map.remove(tenant);
        return;
    }
    put(map.entry(tenant.clone()).or_default(), name, value);
}

fn put_of<K: Ord + Clone + std::str::FromStr, V: DeserializeOwned>(
    map: &mut OfTenants<K, V>,
    key: &RecordKey,
    value: Option<&Value>,
) -> Result<(), String> {
    put_in(map, &key.tenant, name(key)?, read(key, value)?);
    Ok(())
}

fn name<N: std::str::FromStr>(key: &RecordKey) -> Result<N, String> {
    key.name.parse().map_err(|_| format!("{} has a malformed name", subject(key)))
}

fn version_name(key: &RecordKey) -> Result<(ModelName, VersionNumber), String> {
    let parsed =
        key.name.split_once('/').and_then(|(model, number)| Some((model.parse().ok()?, number.trim_start_matches('0').parse().ok()?)));
    parsed.ok_or_else(|| format!("{} has a malformed name", subject(key)))
}

fn read<V: DeserializeOwned>(key: &RecordKey, value: Option<&Value>) -> Result<Option<V>, String> {
    let value = value.map(V::deserialize).transpose();
    value.map_err(|e| format!("{} cannot be read: {e}", subject(key)))
}

fn subject(key: &RecordKey) -> String {
    format!("record {} '{}'", key.kind.as_str(), key.name)
}

#[cfg(test)]
mod tests;
