//! From the snapshot to what each service needs of it.

use std::sync::Arc;

use plinth_cluster::Snapshot;
use plinth_registry::FloorBook;
use plinth_serving::ModelWish;

/// The models that shall be served: those with a deployment. The node's own book says what answered last.
pub fn models(snapshot: &Snapshot, floors: &FloorBook) -> Vec<ModelWish> {
    let all = snapshot.models.iter().flat_map(|(tenant, models)| models.iter().map(move |(name, entry)| (tenant, name, entry)));
    all.filter_map(|(tenant, name, entry)| {
        Some(ModelWish {
            tenant: tenant.clone(),
            model: name.clone(),
            deployment: entry.deployment.clone()?,
            aliases: entry.model.aliases.clone(),
            last_good: floors.floor(tenant, name).answering.map(|known| known.version),
            versions: entry.versions.iter().map(|(number, record)| (*number, Arc::new(record.clone()))).collect(),
        })
    })
    .collect()
}
