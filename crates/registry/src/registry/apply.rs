//! Applying resources from a file: what they say becomes so, all or none, in one commit.
//!
//! Invariant: a resource says everything about the thing that a user may say; what it leaves out takes its default, so
//! the same file always leads to the same state. Nothing is deleted by leaving it out of the file.

use std::collections::{BTreeMap, BTreeSet};

use plinth_store::metadata::Revision;
use plinth_store::resources::{DeploymentRecord, ModelRecord, Tags};
use plinth_types::{Error, ModelName, Reason, Result};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::{Actor, Draft, Registry, deployments};
use crate::ledger::{Label, as_read, deployment_key, model_key};
use crate::words::{check_comment, check_description, check_tags};

const MAX_RESOURCES: usize = 1_000;
const KINDS: [&str; 2] = ["model", "deployment"];
const MODEL_FIELDS: [&str; 2] = ["description", "tags"];
const DEPLOYMENT_FIELDS: [&str; 11] =
    ["desired", "alias", "versions", "memory", "threads", "config_override", "instances", "pinned", "on_demand", "idle_seconds", "cache"];

/// One resource as it stands in a file.
#[derive(Debug, Clone, PartialEq)]
pub struct ResourceSpec {
    /// `model` or `deployment`.
    pub kind: String,
    /// Its name.
    pub name: String,
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
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AppliedResource {
    /// `model` or `deployment`.
    pub kind: &'static str,
    /// Its name.
    pub name: ModelName,
    /// What was done.
    pub outcome: ApplyOutcome,
}

/// What applying did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Applied {
    /// The commit; `None` when nothing changed or on a dry run.
    pub revision: Option<Revision>,
    /// In the order of the request.
    pub resources: Vec<AppliedResource>,
}

#[derive(Debug, Clone, Default, Deserialize)]
struct ModelSpec {
    #[serde(default)]
    description: String,
    #[serde(default)]
    tags: Tags,
}

enum Wanted {
    Model(ModelSpec),
    Deployment(DeploymentRecord),
}

impl Wanted {
    const fn kind(&self) -> &'static str {
        match self {
            Self::Model(_) => KINDS[0],
            Self::Deployment(_) => KINDS[1],
        }
    }
}

impl Registry {
    /// Applies resources as a whole; on a dry run only says what would change.
    ///
    /// # Errors
    /// `InvalidResource` with the field, such as `resources[2].spec.alias`; `ModelNotFound`, `VersionNotFound`,
    /// `VersionRetired` for what a deployment names; `EditConflict`.
    pub async fn apply(&self, actor: &Actor, resources: &[ResourceSpec], dry_run: bool) -> Result<Applied> {
        check_comment(&actor.comment)?;
        let wanted = parse_all(resources)?;
        let mut attempts = self.attempts();
        loop {
            attempts.next().await?;
            let (draft, outcomes) = self.draft(actor, &wanted).await?;
            if dry_run || draft.is_empty() {
                return Ok(Applied { revision: None, resources: outcomes });
            }
            let subject = if let [(name, _)] = wanted.as_slice() { name.to_string() } else { "apply".to_owned() };
            if let Some(revision) = self.ledger.commit(actor, self.now(), Label::new(actor, "apply", subject), draft).await? {
                return Ok(Applied { revision: Some(revision), resources: outcomes });
            }
        }
    }

    async fn draft(&self, actor: &Actor, wanted: &[(ModelName, Wanted)]) -> Result<(Draft, Vec<AppliedResource>)> {
        let new_models: BTreeSet<_> = wanted.iter().filter(|(_, w)| matches!(w, Wanted::Model(_))).map(|(name, _)| name).collect();
        let (mut draft, mut outcomes) = (Draft::default(), Vec::with_capacity(wanted.len()));
        for (at, (name, resource)) in wanted.iter().enumerate() {
            let outcome = match resource {
                Wanted::Model(spec) => self.draft_model(actor, name, spec, &mut draft).await,
                Wanted::Deployment(record) => self.draft_deployment(actor, name, record, new_models.contains(name), &mut draft).await,
            };
            let outcome = outcome.map_err(|e| place(e, at))?;
            outcomes.push(AppliedResource { kind: resource.kind(), name: name.clone(), outcome });
        }
        Ok((draft, outcomes))
    }

    async fn draft_model(&self, actor: &Actor, name: &ModelName, spec: &ModelSpec, draft: &mut Draft) -> Result<ApplyOutcome> {
        let key = model_key(&actor.tenant, name);
        let found = self.ledger.get::<ModelRecord>(&key).await?;
        let expect = as_read(found.as_ref());
        let ModelSpec { description, tags } = spec.clone();
        let (record, outcome) = match found {
            None => {
                let (created_by, created_at) = (actor.id.clone(), self.now());
                let last_version = self.former_number(&actor.tenant, name, draft).await?;
                let record = ModelRecord { description, tags, aliases: BTreeMap::new(), last_version, created_by, created_at };
                (record, ApplyOutcome::Created)
            }
            Some(found) if found.value.description == description && found.value.tags == tags => return Ok(ApplyOutcome::Unchanged),
            Some(found) => (ModelRecord { description, tags, ..found.value }, ApplyOutcome::Changed),
        };
        draft.put(key, expect, &record)?;
        Ok(outcome)
    }

    async fn draft_deployment(
        &self,
        actor: &Actor,
        name: &ModelName,
        record: &DeploymentRecord,
        model_applied: bool,
        draft: &mut Draft,
    ) -> Result<ApplyOutcome> {
        let key = deployment_key(&actor.tenant, name);
        let found = self.ledger.get::<DeploymentRecord>(&key).await?;
        let generation = found.as_ref().map_or(0, |f| f.value.generation);
        let record = DeploymentRecord { generation, ..record.clone() };
        // The model is guarded whether or not it is in the same file; a change of the same commit counts as the guard.
        if !model_applied {
            let model = self.find_model(&actor.tenant, name).await.map_err(|e| e.field("name"))?;
            draft.guard(model_key(&actor.tenant, name), as_read(Some(&model)));
        }
        self.guard_versions(&actor.tenant, name, &record.versions, draft).await?;
        if found.as_ref().is_some_and(|f| f.value == record) {
            return Ok(ApplyOutcome::Unchanged);
        }
        draft.put(key, as_read(found.as_ref()), &record)?;
        Ok(if found.is_some() { ApplyOutcome::Changed } else { ApplyOutcome::Created })
    }
}

fn parse_all(resources: &[ResourceSpec]) -> Result<Vec<(ModelName, Wanted)>> {
    if resources.is_empty() || resources.len() > MAX_RESOURCES {
        let text = format!("one call applies 1 to {MAX_RESOURCES} resources, here are {}", resources.len());
        return Err(Error::new(Reason::InvalidResource, text).field("resources"));
    }
    let mut seen = BTreeSet::new();
    let parse = |(at, resource): (usize, &ResourceSpec)| {
        let (name, wanted) = parse(resource).map_err(|e| place(e, at))?;
        if !seen.insert((wanted.kind(), name.clone())) {
            let text = format!("the {} '{name}' is there twice", wanted.kind());
            return Err(place(Error::new(Reason::InvalidResource, text).field("name"), at));
        }
        Ok((name, wanted))
    };
    resources.iter().enumerate().map(parse).collect()
}

fn parse(resource: &ResourceSpec) -> Result<(ModelName, Wanted)> {
    let kind = KINDS.into_iter().find(|kind| *kind == resource.kind);
    let kind = kind.ok_or_else(|| unknown("kind", &resource.kind, &KINDS).field("kind"))?;
    let name: ModelName = resource.name.parse().map_err(|e| Error::new(Reason::InvalidName, format!("{e}")).field("name"))?;
    let empty = Map::new();
    let spec = match &resource.spec {
        Value::Null => &empty,
        Value::Object(spec) => spec,
        _ => return Err(Error::new(Reason::InvalidResource, "a spec is an object").field("spec")),
    };
    if kind == KINDS[0] {
        let spec: ModelSpec = decode(spec, &MODEL_FIELDS)?;
        check_description(&spec.description).and_then(|()| check_tags(&spec.tags)).map_err(in_spec)?;
        return Ok((name, Wanted::Model(spec)));
    }
    let record: DeploymentRecord = decode(spec, &DEPLOYMENT_FIELDS)?;
    deployments::check(&record).map_err(in_spec)?;
    Ok((name, Wanted::Deployment(record)))
}

/// Reads a spec that may hold these fields only, field by field so that an error names its field.
fn decode<T: DeserializeOwned>(spec: &Map<String, Value>, fields: &[&str]) -> Result<T> {
    for (field, value) in spec {
        if !fields.contains(&field.as_str()) {
            return Err(unknown("field", field, fields).field("spec"));
        }
        let alone = Value::Object(Map::from_iter([(field.clone(), value.clone())]));
        if let Err(error) = serde_json::from_value::<T>(alone) {
            let text = format!("the field '{field}' cannot be read: {}", shorten(&error.to_string(), 200));
            return Err(Error::new(Reason::InvalidResource, text).field(format!("spec.{field}")));
        }
    }
    serde_json::from_value(Value::Object(spec.clone()))
        .map_err(|e| Error::new(Reason::InvalidResource, shorten(&e.to_string(), 200)).field("spec"))
}

/// The refusal of an unknown word, with the nearest that is known.
fn unknown(what: &str, word: &str, known: &[&str]) -> Error {
    let shown = shorten(word, 40);
    let near = known.iter().map(|k| (strsim::damerau_levenshtein(k, &shown), k)).min().filter(|(distance, _)| *distance <= 3);
    let advice = near.map_or_else(|| format!("known are {}", known.join(", ")), |(_, k)| format!("did you mean '{k}'?"));
    Error::new(Reason::InvalidResource, format!("unknown {what} '{shown}': {advice}"))
}

/// A text of others, harmless to print and no longer than so many characters.
fn shorten(text: &str, most: usize) -> String {
    text.chars().take(most).flat_map(char::escape_debug).collect()
}

/// Says that the field of an error stands in the spec.
fn in_spec(error: Error) -> Error {
    let field = format!("spec.{}", error.field_name().unwrap_or_default());
    error.field(field)
}

/// Says which resource of the request an error is about.
fn place(error: Error, at: usize) -> Error {
    let field = error.field_name().map_or_else(String::new, |field| format!(".{field}"));
    error.field(format!("resources[{at}]{field}"))
}
