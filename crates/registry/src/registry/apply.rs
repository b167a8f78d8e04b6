//! Applying resources from a file: what they say becomes so, all or none, in one commit.
//!
//! Invariants: a resource says everything about the thing that a user may say; what it leaves out takes its default, so
//! the same file always leads to the same state. Nothing is deleted by leaving it out of the file. All resources are judged
//! together, by the state that they would lead to, and all that is wrong with them is said at once.

mod decode;
mod draft;

use std::collections::BTreeSet;

use plinth_store::metadata::Revision;
use plinth_types::{Error, Reason, Result};
use serde_json::{Map, Value};

use super::deployments;
use super::resource::{Resource, ResourceKind};
use super::{Actor, Registry};
use crate::checks::{self, Asker};
use crate::ledger::Label;
use crate::problems::Problems;
use crate::words::{check_comment, check_description, check_tags};

pub(crate) use decode::{decode, unknown};

const MAX_RESOURCES: usize = 1_000;

/// One resource as it stands in a file.
#[derive(Debug, Clone, PartialEq)]
pub struct ResourceSpec {
    /// A [`ResourceKind`].
    pub kind: String,
    /// Its name.
    pub name: String,
    /// The commit that must have changed it last, 0 for none: somebody else's change is not overwritten then.
    pub expect: Option<Revision>,
    /// What it shall say; an object, or null for all defaults.
    pub spec: Value,
}

/// What applying does to one resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ApplyOutcome {
    /// It was not there.
    Created,
    /// It said something else.
    Changed,
    /// It says so already.
    Unchanged,
}

impl ApplyOutcome {
    /// The word for programs.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Changed => "changed",
            Self::Unchanged => "unchanged",
        }
    }
}

/// What applying did to one resource.
#[derive(Debug, Clone, PartialEq)]
pub struct AppliedResource {
    /// What it is about.
    pub kind: ResourceKind,
    /// Its name.
    pub name: String,
    /// What was done.
    pub outcome: ApplyOutcome,
    /// What it said before; only on a dry run, and `None` when it was not there.
    pub before: Option<Value>,
    /// What it would say; only on a dry run.
    pub after: Option<Value>,
}

/// What applying did.
#[derive(Debug, Clone, PartialEq)]
pub struct Applied {
    /// The commit; `None` when nothing changed or on a dry run.
    pub revision: Option<Revision>,
    /// In the order of the request.
    pub resources: Vec<AppliedResource>,
}

/// A resource that can be read.
struct Wanted {
    /// Its place in the request.
    at: usize,
    kind: ResourceKind,
    name: String,
    expect: Option<Revision>,
    resource: Resource,
}

impl Registry {
    /// Applies resources as a whole; on a dry run only says what would change.
    ///
    /// # Errors
    /// All that is wrong ([`Error::flaw_list`]), each with its field, such as `resources[2].spec.alias`: `InvalidResource`,
    /// `InvalidName`, `NotPermitted`; `ModelNotFound`, `VersionNotFound`, `VersionRetired`, `RecordNotFound` for what they
    /// name; `EditConflict`.
    pub async fn apply(&self, actor: &Actor, resources: &[ResourceSpec], dry_run: bool) -> Result<Applied> {
        check_comment(&actor.comment)?;
        if resources.is_empty() || resources.len() > MAX_RESOURCES {
            let text = format!("one call applies 1 to {MAX_RESOURCES} resources, here are {}", resources.len());
            return Err(Error::new(Reason::InvalidResource, text).field("resources"));
        }
        let mut attempts = self.attempts();
        loop {
            attempts.next().await?;
            let mut problems = Problems::default();
            let wanted = self.parse_all(actor, resources, &mut problems);
            let (draft, outcomes) = self.draft_all(actor, &wanted, dry_run, &mut problems).await?;
            problems.into_result()?;
            if dry_run || draft.is_empty() {
                return Ok(Applied { revision: None, resources: outcomes });
            }
            if let Some(revision) = self.ledger.commit(actor, self.now(), Label::new(actor, "apply", subject(&wanted)), draft).await? {
                return Ok(Applied { revision: Some(revision), resources: outcomes });
            }
        }
    }

    fn parse_all(&self, actor: &Actor, resources: &[ResourceSpec], problems: &mut Problems) -> Vec<Wanted> {
        let mut seen = BTreeSet::new();
        let mut wanted = Vec::with_capacity(resources.len());
        for (at, spec) in resources.iter().enumerate() {
            problems.within(&format!("resources[{at}]"), |problems| {
                let kind = match spec.kind.parse::<ResourceKind>() {
                    Ok(kind) => kind,
                    Err(error) => return problems.add("kind", error.public_text()),
                };
                if let Err(error) = kind.check_name(&spec.name) {
                    return problems.add_as(error.reason(), "name", error.public_text());
                }
                problems.must(seen.insert((kind, &spec.name)), "name", || format!("the {kind} '{}' is there twice", spec.name));
                if let Some(resource) = self.parse(actor, kind, spec, problems) {
                    wanted.push(Wanted { at, kind, name: spec.name.clone(), expect: spec.expect, resource });
                }
            });
        }
        wanted
    }

    /// Reads and checks one resource as far as it can be without looking at others.
    fn parse(&self, actor: &Actor, kind: ResourceKind, spec: &ResourceSpec, problems: &mut Problems) -> Option<Resource> {
        if kind.concerns_all() && !actor.may_change_all() {
            let text =
                format!("a {kind} concerns all tenants: only an administrator of the default tenant changes it, acting for that tenant");
            problems.add_as(Reason::NotPermitted, "kind", text);
        }
        let empty = Map::new();
        let fields = match &spec.spec {
            Value::Null => &empty,
            Value::Object(fields) => fields,
            _ => {
                problems.add("spec", "a spec is an object");
                return None;
            }
        };
        problems.within("spec", |problems| {
            let resource = decode(kind, fields, self.now(), problems)?;
            let asker = Asker { tenant: &actor.tenant, platform: actor.platform, own: &self.own_addresses };
            check(&resource, &spec.name, asker, problems);
            Some(resource)
        })
    }
}

/// What can be said of a resource by itself.
fn check(resource: &Resource, name: &str, asker: Asker<'_>, problems: &mut Problems) {
    let mut words = |result: Result<()>| {
        if let Err(error) = result {
            problems.add_as(error.reason(), error.field_name().unwrap_or_default(), error.public_text());
        }
    };
    match resource {
        Resource::Tenant(record) => words(check_description(&record.description)),
        Resource::Plan(record) => words(check_description(&record.description)),
        Resource::Issuer(record) => words(check_description(&record.description)),
        Resource::Upstream(record) => words(check_description(&record.description)),
        Resource::Route(record) => words(check_description(&record.description)),
        Resource::Model(record) => {
            words(check_description(&record.description));
            words(check_tags(&record.tags));
        }
        Resource::Deployment(record) => words(deployments::check(record)),
        // Filters are not applied, they are pushed.
        Resource::Addresses(_) | Resource::Filter(_) => {}
    }
    match resource {
        Resource::Tenant(record) => {
            let away = record.suspended && name == plinth_types::TenantName::default_tenant().as_str();
            problems.must(!away, "suspended", || "the default tenant cannot be suspended: nobody could bring it back".into());
        }
        Resource::Plan(record) => checks::plan(problems, record),
        Resource::Issuer(record) => checks::issuer(problems, record, asker),
        Resource::Addresses(record) => checks::addresses(problems, record),
        Resource::Upstream(record) => checks::upstream(problems, record, asker),
        Resource::Route(record) => checks::route(problems, record, asker),
        Resource::Model(_) | Resource::Deployment(_) | Resource::Filter(_) => {}
    }
}

/// What the audit says was changed.
fn subject(wanted: &[Wanted]) -> String {
    match wanted {
        [one] if matches!(one.kind, ResourceKind::Model | ResourceKind::Deployment) => one.name.clone(),
        [one] => format!("{}/{}", one.kind, one.name),
        _ => "apply".to_owned(),
    }
}
