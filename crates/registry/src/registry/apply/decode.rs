//! From the spec of a file to a record, with every misspelt field named.

use plinth_store::resources::gateway::{AddressesRecord, IssuerRecord, PlanRecord, RouteRecord, UpstreamRecord};
use plinth_store::resources::{DeploymentRecord, ModelRecord, Tags, TenantRecord};
use plinth_types::{Label, Timestamp};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::problems::Problems;
use crate::registry::resource::{Resource, ResourceKind};

/// What a file says of a tenant.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TenantSpec {
    #[serde(default)]
    description: String,
    #[serde(default)]
    plan: Option<Label>,
    #[serde(default)]
    suspended: bool,
}

/// What a file says of a model.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ModelSpec {
    #[serde(default)]
    description: String,
    #[serde(default)]
    tags: Tags,
}

/// Reads a spec. What cannot be read is among the problems then, and the answer is `None`.
pub(crate) fn decode(kind: ResourceKind, spec: &Map<String, Value>, now: Timestamp, problems: &mut Problems) -> Option<Resource> {
    Some(match kind {
        ResourceKind::Tenant => {
            let TenantSpec { description, plan, suspended } = read(spec, &[], problems)?;
            Resource::Tenant(TenantRecord { description, created_at: now, plan, suspended })
        }
        ResourceKind::Model => {
            let ModelSpec { description, tags } = read(spec, &[], problems)?;
            let (aliases, created_by) = Default::default();
            Resource::Model(ModelRecord { description, tags, aliases, last_version: None, created_by, created_at: now })
        }
        ResourceKind::Deployment => Resource::Deployment(read::<Box<DeploymentRecord>>(spec, &["generation"], problems)?),
        ResourceKind::Plan => Resource::Plan(read::<PlanRecord>(spec, &[], problems)?),
        ResourceKind::Issuer => Resource::Issuer(read::<Box<IssuerRecord>>(spec, &[], problems)?),
        ResourceKind::Addresses => Resource::Addresses(read::<AddressesRecord>(spec, &[], problems)?),
        ResourceKind::Upstream => Resource::Upstream(read::<Box<UpstreamRecord>>(spec, &[], problems)?),
        ResourceKind::Route => Resource::Route(read::<Box<RouteRecord>>(spec, &[], problems)?),
        ResourceKind::Filter => {
            problems.add("", "a filter's module does not fit into a file: push it with `plinth filter push`, then name it in routes");
            return None;
        }
    })
}

/// Reads a type; after a field that is wrong it goes on without that field, so that all of them are named.
fn read<T: DeserializeOwned>(spec: &Map<String, Value>, hidden: &[&str], problems: &mut Problems) -> Option<T> {
    let mut left = spec.clone();
    let mut failed = false;
    for field in hidden {
        if left.remove(*field).is_some() {
            problems.add(field, format!("the field '{field}' is kept by the registry and cannot be set"));
            failed = true;
        }
    }
    loop {
        let error = match serde_path_to_error::deserialize::<_, T>(Value::Object(left.clone())) {
            Ok(value) => return (!failed).then_some(value),
            Err(error) => error,
        };
        let path = error.path().to_string();
        let said = error.into_inner().to_string();
        let words = Words::of(&said, hidden);
        let missing = words.subject.filter(|_| said.starts_with("missing field"));
        // What was taken out because it is wrong is missing now; that was not its writer's doing.
        if missing.is_some_and(|field| path == "." && spec.contains_key(field)) {
            return None;
        }
        let field = full_path(&path, &said, &words, &left);
        problems.add(&field, words.text);
        failed = true;
        let first = field.split(['.', '[']).next().unwrap_or_default();
        left.remove(first)?;
    }
}

/// The path of what is wrong; that of an unknown field is the field itself, not what it stands in.
fn full_path(path: &str, said: &str, words: &Words<'_>, spec: &Map<String, Value>) -> String {
    let path = if path == "." { "" } else { path.trim_end_matches(".?") };
    let unknown = words.subject.filter(|_| said.starts_with("unknown field"));
    match unknown {
        Some(field) if path.is_empty() && spec.contains_key(field) => field.to_owned(),
        Some(field) if !path.is_empty() && !path.ends_with(field) => format!("{path}.{field}"),
        _ => path.to_owned(),
    }
}

/// What serde says, for people.
struct Words<'a> {
    /// The word that it is about.
    subject: Option<&'a str>,
    text: String,
}

impl<'a> Words<'a> {
    fn of(said: &'a str, hidden: &[&str]) -> Self {
        let mut quoted = said.split('`').skip(1).step_by(2);
        let subject = quoted.next();
        let known: Vec<&str> = quoted.filter(|word| !hidden.contains(word)).collect();
        let text = match subject {
            Some(subject) if said.starts_with("unknown field") => unknown("field", subject, &known),
            Some(subject) if said.starts_with("unknown variant") => unknown("word", subject, &known),
            Some(subject) if said.starts_with("missing field") => format!("the field '{subject}' is missing"),
            _ => format!("this cannot be read: {}", shorten(said, 200)),
        };
        Self { subject, text }
    }
}

/// The refusal of an unknown word, with the nearest that is known.
pub(crate) fn unknown(what: &str, word: &str, known: &[&str]) -> String {
    let shown = shorten(word, 40);
    let near = known.iter().map(|k| (strsim::damerau_levenshtein(k, &shown), k)).min().filter(|(distance, _)| *distance <= 3);
    let advice = match near {
        Some((_, near)) => format!("did you mean '{near}'?"),
        None if known.is_empty() => "there is none here".to_owned(),
        None => format!("known are {}", known.join(", ")),
    };
    format!("unknown {what} '{shown}': {advice}")
}

/// A text of others, harmless to print and no longer than so many characters.
fn shorten(text: &str, most: usize) -> String {
    text.chars().take(most).flat_map(char::escape_debug).collect()
}
