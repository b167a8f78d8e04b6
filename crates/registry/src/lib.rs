//! Models, immutable versions, aliases, signatures and the audit of every change.
//!
//! [`Registry`] is the service: every change goes through it, is one audited commit of the ledger, and keeps
//! the invariants that `testing::check` verifies. [`signing`] makes and verifies signatures, [`trust`]
//! decides whether a node may load a version. Nothing here serves a model: nodes read the ledger through a snapshot.
#![warn(missing_docs)]

pub mod checks;
mod content;
mod ledger;
mod problems;
pub mod registry;
pub mod signing;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
pub mod trust;
mod words;

pub use plinth_store::resources::gateway::{builtin_plan, builtin_plans};
pub use registry::{
    Actor, Applied, AppliedResource, ApplyOutcome, AuditPage, AuditReport, CollectGarbage, Edit, Filter, Garbage, Model, MoveAlias,
    NewFilter, NewVersion, Page, PageQuery, PushOutcome, Pushed, PushedFilter, Registry, ResourceKind, ResourceSpec, RollBack,
    StoredResource, Version,
};
pub use signing::filter::FilterFacts;
pub use signing::{Binding, PublicKey, RollbackPermission, SigningKey, Verified};
pub use trust::{Doubt, Floor, FloorBook, Known, TrustPolicy, Verdict, VersionFacts};
