//! What answers: targets, fallbacks, and circles of models that would fall back on each other.

use std::collections::{BTreeMap, BTreeSet};

use plinth_store::resources::gateway::{FallbackSpec, FilterRef, ModelTarget, RouteRecord, Target, TargetSpec};
use plinth_types::ModelName;

use super::upstream::MAX_WEIGHT;
use super::{at_most, between, headers};
use crate::problems::Problems;

/// The most targets of one route.
const MAX_TARGETS: usize = 32;
const MAX_FALLBACKS: usize = 8;
const MAX_BODY: usize = 64 << 10;
const WEEK: u32 = 7 * 86_400;

/// The name by which pins, metrics and headers know a target.
pub(super) fn known_as(target: &TargetSpec) -> String {
    match (&target.name, &target.to) {
        (Some(name), _) | (None, Target::Upstream(name)) => name.to_string(),
        (None, Target::Model(ModelTarget { name: Some(model), .. })) => model.to_string(),
        (None, Target::Model(_)) => "model".to_owned(),
    }
}

/// Checks the targets of a route; `names_model` when its requests name a model.
pub(super) fn targets(problems: &mut Problems, targets: &[TargetSpec], names_model: bool) {
    problems.must(!targets.is_empty(), "targets", || "a route has at least one target".into());
    at_most(problems, "targets", targets, MAX_TARGETS);
    let mut seen = BTreeSet::new();
    problems.each("targets", targets, |p, target| {
        between(p, "weight", Some(target.weight), 0, MAX_WEIGHT);
        self::target(p, "to", &target.to, names_model);
        let name = known_as(target);
        p.must(seen.insert(name.clone()), "name", || format!("two targets are called '{name}': give each a name of its own"));
    });
    if !targets.is_empty() && targets.iter().all(|target| target.weight == 0) {
        problems.add("targets", "the weights add up to 0; give at least one target a weight");
    }
}

/// Checks one answerer.
pub(super) fn target(problems: &mut Problems, field: &str, target: &Target, names_model: bool) {
    if let Target::Model(model) = target {
        self::model(problems, &format!("{field}.model"), model, names_model);
    }
}

/// Checks a model that answers.
pub(super) fn model(problems: &mut Problems, field: &str, model: &ModelTarget, names_model: bool) {
    if model.alias.is_some() && model.version.is_some() {
        problems.add(field, "give an alias or a version, not both");
    }
    if model.name.is_none() && !names_model {
        problems.add(field, "requests of this route name no model: give its name here");
    }
}

/// Checks what answers instead.
pub(super) fn fallbacks(problems: &mut Problems, route: &RouteRecord, names_model: bool) {
    at_most(problems, "fallbacks", &route.fallbacks, MAX_FALLBACKS);
    let mut ended = false;
    let mut seen: Vec<&FallbackSpec> = Vec::new();
    problems.each("fallbacks", &route.fallbacks, |p, fallback| {
        p.must(!ended, "", || "a static answer stands before it, so it is never reached".into());
        p.must(!seen.contains(&fallback), "", || "it is there twice".into());
        seen.push(fallback);
        match fallback {
            FallbackSpec::Model(model) => self::model(p, "model", model, names_model),
            FallbackSpec::Upstream(_) => {}
            FallbackSpec::Cached { max_age_seconds } => between(p, "cached.max_age_seconds", Some(*max_age_seconds), 1, WEEK),
            FallbackSpec::Static { status, content_type, body } => {
                ended = true;
                between(p, "static.status", Some(*status), 200, 599);
                headers::content_type(p, "static.content_type", content_type);
                p.must(body.len() <= MAX_BODY, "static.body", || format!("a static answer has at most {MAX_BODY} bytes"));
            }
        }
    });
    if let [only] = route.targets.as_slice() {
        problems.each("fallbacks", &route.fallbacks, |p, fallback| {
            let same = match (fallback, &only.to) {
                (FallbackSpec::Model(fallback), Target::Model(target)) => fallback == target,
                (FallbackSpec::Upstream(fallback), Target::Upstream(target)) => fallback == target,
                _ => false,
            };
            p.must(!same, "", || "the route would fall back on what has just failed".into());
        });
    }
}

/// Whether the requests of a route name a model themselves.
pub(super) fn names_model(route: &RouteRecord) -> bool {
    use plinth_store::resources::gateway::TextMatch::{Exact, Prefix};
    let inference = match &route.matches.path {
        None => true,
        Some(Exact(path) | Prefix(path)) => path.starts_with(super::matching::INFERENCE),
        Some(_) => false,
    };
    !route.matches.models.is_empty() || inference
}

/// A circle of models that fall back on each other: `[a, b, a]`.
///
/// A request for `a` that a route sends to `b` when `a` fails would come back to `a` when `b` fails too.
pub(crate) fn model_cycle<'a>(routes: impl Iterator<Item = &'a RouteRecord>) -> Option<Vec<ModelName>> {
    let mut next: BTreeMap<&ModelName, BTreeSet<&ModelName>> = BTreeMap::new();
    for route in routes {
        let instead = route.fallbacks.iter().filter_map(|fallback| match fallback {
            FallbackSpec::Model(model) => model.name.as_ref(),
            _ => None,
        });
        let instead: BTreeSet<_> = instead.collect();
        for model in &route.matches.models {
            // Another version of the same model is no step.
            next.entry(model).or_default().extend(instead.iter().copied().filter(|other| *other != model));
        }
    }
    let mut done = BTreeSet::new();
    next.keys().copied().find_map(|start| circle(start, &next, &mut Vec::new(), &mut done))
}

fn circle<'a>(
    at: &'a ModelName,
    next: &BTreeMap<&'a ModelName, BTreeSet<&'a ModelName>>,
    way: &mut Vec<&'a ModelName>,
    done: &mut BTreeSet<&'a ModelName>,
) -> Option<Vec<ModelName>> {
    if let Some(from) = way.iter().position(|seen| *seen == at) {
        return Some(way.get(from..)?.iter().copied().chain([at]).cloned().collect());
    }
    if !done.insert(at) {
        return None;
    }
    way.push(at);
    let found = next.get(at).into_iter().flatten().find_map(|to| circle(to, next, way, done));
    way.pop();
    found
}

/// The filters of a route: named once each, and not too many.
pub(super) fn filters(problems: &mut Problems, filters: &[FilterRef]) {
    at_most(problems, "filters", filters, 16);
    super::no_twins(problems, "filters", filters.iter().map(|filter| &filter.name));
}
