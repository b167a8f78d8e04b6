//! The snapshot as a value: what a node needs in order to serve, as of one revision of the ledger.
//!
//! Invariant: a snapshot never changes once it is made. The next one shares with it all that did not change: each map,
//! each tenant's part and each record stands behind an `Arc`, so that a million keys are not copied because one of them
//! was revoked, and so that who builds something from a snapshot can tell by the pointer what is still the same
//! ([`Shared`]). How one is made from records and from later commits is in `build`.

mod build;

use std::collections::BTreeMap;
use std::sync::Arc;

use plinth_store::metadata::Revision;
use plinth_store::resources::gateway::{AddressesRecord, FilterRecord, IssuerRecord, PlanRecord, RouteRecord, UpstreamRecord};
use plinth_store::resources::{DeploymentRecord, KeyRecord, ModelRecord, TenantRecord, VersionRecord};
use plinth_types::{Digest, KeyId, Label, ModelName, TenantName, VersionNumber};
use serde::{Deserialize, Serialize};

pub use build::SnapshotBuilder;
pub(crate) use build::mark;

/// Records by name. Two snapshots between which none of them changed have the same pointer.
pub type Shared<K, V> = Arc<BTreeMap<K, Arc<V>>>;

/// Records by tenant and name; each tenant's part is shared by itself.
pub type OfTenants<K, V> = Shared<TenantName, BTreeMap<K, Arc<V>>>;

/// Everything that a node needs in order to serve, as of one revision of the ledger.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Snapshot {
    /// The ledger's revision that it shows.
    pub revision: Revision,
    /// The digest of the audit entry of that revision: by it another ledger, or a restored one that went another way, is
    /// recognised.
    #[serde(default)]
    pub mark: Option<Digest>,
    /// The tenants.
    pub tenants: Shared<TenantName, TenantRecord>,
    /// The keys, by tenant and id.
    pub keys: OfTenants<KeyId, KeyRecord>,
    /// The models, by tenant and name.
    pub models: OfTenants<ModelName, ModelEntry>,
    /// The plans that were written; the built-in ones are not among them
    /// ([`plinth_store::resources::gateway::builtin_plans`]).
    #[serde(default)]
    pub plans: Shared<Label, PlanRecord>,
    /// The upstreams, by tenant and name.
    #[serde(default)]
    pub upstreams: OfTenants<Label, UpstreamRecord>,
    /// The routes, by tenant and name.
    #[serde(default)]
    pub routes: OfTenants<Label, RouteRecord>,
    /// The issuers of tokens.
    #[serde(default)]
    pub issuers: Shared<Label, IssuerRecord>,
    /// The filters, by tenant and name.
    #[serde(default)]
    pub filters: OfTenants<Label, FilterRecord>,
    /// Which addresses are let in.
    #[serde(default)]
    pub addresses: Arc<AddressesRecord>,
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
    /// The plan of this name: as it was written, else the built-in one.
    #[must_use]
    pub fn plan(&self, name: &Label) -> Option<Arc<PlanRecord>> {
        let written = self.plans.get(name).cloned();
        written.or_else(|| plinth_store::resources::gateway::builtin_plan(name.as_str()).map(Arc::new))
    }
}
