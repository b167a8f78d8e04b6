//! Resources: what users write in files and read back, and the records that they become.
//!
//! Invariant: what is read back can be applied again and changes nothing. A spec says all that a user may say and nothing
//! that the registry keeps for itself (times, counters, aliases).

mod shortest;

use std::str::FromStr;

use plinth_store::metadata::{Kind, RecordKey};
use plinth_store::resources::gateway::{AddressesRecord, FilterRecord, IssuerRecord, PlanRecord, RouteRecord, UpstreamRecord};
use plinth_store::resources::{DeploymentRecord, ModelRecord, TenantRecord};
use plinth_types::{Error, Label, ModelName, Reason, Result, TenantName};
use serde_json::{Map, Value};

pub(crate) use shortest::shortest;

/// The name of the one record of its kind.
pub(crate) const ADDRESSES: &str = "addresses";

/// What a resource is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ResourceKind {
    /// A tenant.
    Tenant,
    /// What requests may cost.
    Plan,
    /// Who issues tokens.
    Issuer,
    /// Which addresses are let in.
    Addresses,
    /// A model's words and tags.
    Model,
    /// The wish that a model be served.
    Deployment,
    /// A service outside.
    Upstream,
    /// A module that requests pass.
    Filter,
    /// How requests find what answers them.
    Route,
}

impl ResourceKind {
    /// All of them, each after those that it may name.
    pub const ALL: [Self; 9] =
        [Self::Plan, Self::Tenant, Self::Issuer, Self::Addresses, Self::Model, Self::Deployment, Self::Upstream, Self::Filter, Self::Route];

    /// The word in files.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Tenant => "tenant",
            Self::Plan => "plan",
            Self::Issuer => "issuer",
            Self::Addresses => "addresses",
            Self::Model => "model",
            Self::Deployment => "deployment",
            Self::Upstream => "upstream",
            Self::Filter => "filter",
            Self::Route => "route",
        }
    }

    /// The record that it becomes.
    #[must_use]
    pub const fn record(self) -> Kind {
        match self {
            Self::Tenant => Kind::Tenant,
            Self::Plan => Kind::Plan,
            Self::Issuer => Kind::Issuer,
            Self::Addresses => Kind::Addresses,
            Self::Model => Kind::Model,
            Self::Deployment => Kind::Deployment,
            Self::Upstream => Kind::Upstream,
            Self::Filter => Kind::Filter,
            Self::Route => Kind::Route,
        }
    }

    /// What the record became from; `None` for those that users do not write as resources.
    #[must_use]
    pub fn of_record(kind: Kind) -> Option<Self> {
        Self::ALL.into_iter().find(|one| one.record() == kind)
    }

    /// Whether it concerns all tenants. Such records lie in the default tenant, and only its administrators change them.
    #[must_use]
    pub const fn concerns_all(self) -> bool {
        matches!(self, Self::Tenant | Self::Plan | Self::Issuer | Self::Addresses)
    }

    /// Where the record of this name lies.
    pub(crate) fn key(self, tenant: &TenantName, name: &str) -> RecordKey {
        let home = if self.concerns_all() { TenantName::default_tenant() } else { tenant.clone() };
        RecordKey::new(self.record(), home, name)
    }

    /// Refuses what cannot be the name of such a resource.
    pub(crate) fn check_name(self, name: &str) -> Result<()> {
        let parsed = match self {
            Self::Tenant => name.parse::<TenantName>().map(drop),
            Self::Model | Self::Deployment => name.parse::<ModelName>().map(drop),
            Self::Addresses if name != ADDRESSES => {
                let text = format!("there is one list of addresses, and its name is '{ADDRESSES}'");
                return Err(Error::new(Reason::InvalidName, text).field("name"));
            }
            _ => name.parse::<Label>().map(drop),
        };
        parsed.map_err(|e| Error::new(Reason::InvalidName, e.to_string()).field("name"))
    }
}

impl std::fmt::Display for ResourceKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for ResourceKind {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let known = Self::ALL.map(Self::as_str);
        let kind = Self::ALL.into_iter().find(|kind| kind.as_str() == text);
        kind.ok_or_else(|| Error::new(Reason::InvalidResource, super::apply::unknown("kind", text, &known)).field("kind"))
    }
}

/// A record that a resource becomes.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Resource {
    Tenant(TenantRecord),
    Plan(PlanRecord),
    Issuer(Box<IssuerRecord>),
    Addresses(AddressesRecord),
    Model(ModelRecord),
    Deployment(Box<DeploymentRecord>),
    Upstream(Box<UpstreamRecord>),
    Filter(Box<FilterRecord>),
    Route(Box<RouteRecord>),
}

impl Resource {
    /// From what the ledger holds.
    pub fn read(kind: ResourceKind, value: Value) -> Result<Self> {
        let read = match kind {
            ResourceKind::Tenant => serde_json::from_value(value).map(Self::Tenant),
            ResourceKind::Plan => serde_json::from_value(value).map(Self::Plan),
            ResourceKind::Issuer => serde_json::from_value(value).map(Self::Issuer),
            ResourceKind::Addresses => serde_json::from_value(value).map(Self::Addresses),
            ResourceKind::Model => serde_json::from_value(value).map(Self::Model),
            ResourceKind::Deployment => serde_json::from_value(value).map(Self::Deployment),
            ResourceKind::Upstream => serde_json::from_value(value).map(Self::Upstream),
            ResourceKind::Filter => serde_json::from_value(value).map(Self::Filter),
            ResourceKind::Route => serde_json::from_value(value).map(Self::Route),
        };
        read.map_err(|e| Error::internal(format!("reading the record of a {kind}")).source(e))
    }

    /// What the ledger shall hold.
    pub fn value(&self) -> Result<Value> {
        let written = match self {
            Self::Tenant(record) => serde_json::to_value(record),
            Self::Plan(record) => serde_json::to_value(record),
            Self::Issuer(record) => serde_json::to_value(record),
            Self::Addresses(record) => serde_json::to_value(record),
            Self::Model(record) => serde_json::to_value(record),
            Self::Deployment(record) => serde_json::to_value(record),
            Self::Upstream(record) => serde_json::to_value(record),
            Self::Filter(record) => serde_json::to_value(record),
            Self::Route(record) => serde_json::to_value(record),
        };
        written.map_err(|e| Error::internal("encoding a record").source(e))
    }

    /// The same with what users cannot say taken from the record that stands.
    pub fn keeping(self, found: Option<&Self>) -> Self {
        match (self, found) {
            (Self::Tenant(new), Some(Self::Tenant(old))) => Self::Tenant(TenantRecord { created_at: old.created_at, ..new }),
            (Self::Model(new), Some(Self::Model(old))) => {
                Self::Model(ModelRecord { description: new.description, tags: new.tags, ..old.clone() })
            }
            (Self::Deployment(mut new), Some(Self::Deployment(old))) => {
                new.generation = old.generation;
                Self::Deployment(new)
            }
            (new, _) => new,
        }
    }

    /// What users say of it.
    pub fn spec(&self) -> Result<Map<String, Value>> {
        let kept: &[&str] = match self {
            Self::Tenant(_) => &["created_at"],
            Self::Model(_) => &["aliases", "last_version", "created_by", "created_at"],
            Self::Deployment(_) => &["generation"],
            Self::Filter(_) => &["last_version", "created_by", "created_at"],
            Self::Plan(_) | Self::Issuer(_) | Self::Addresses(_) | Self::Upstream(_) | Self::Route(_) => &[],
        };
        let Value::Object(mut spec) = self.value()? else { return Ok(Map::new()) };
        kept.iter().for_each(|field| drop(spec.remove(*field)));
        Ok(spec)
    }
}
