//! Routes: conditions that can hold, targets that can answer, changes that do no harm.

use plinth_store::resources::gateway::{CompressionSpec, DegradeSpec, PinSpec, RewriteSpec, RouteAccess, RouteRecord, Target, TextMatch};

use super::{Asker, at_most, between, cors, headers, matching, millis, patterns, targets};
use crate::problems::Problems;

const MAX_PARAMETERS: usize = 64;

/// Checks a route.
pub(crate) fn route(problems: &mut Problems, route: &RouteRecord, asker: Asker<'_>) {
    let models_only = route.targets.iter().all(|target| matches!(target.to, Target::Model(_)));
    let names_model = targets::names_model(route);
    problems.within("matches", |p| matching::matches(p, &route.matches, models_only, asker));
    if route.access == RouteAccess::Public && !asker.is_default() {
        problems.add("access", "only routes of the default tenant can be public");
    }
    targets::targets(problems, &route.targets, names_model);
    pins(problems, route, asker);
    if let Some(key) = &route.sticky {
        problems.within("sticky", |p| headers::sticky(p, key));
    }
    if let Some(shadow) = &route.shadow {
        problems.within("shadow", |p| {
            targets::target(p, "to", &shadow.to, names_model);
            percent(p, "percent", shadow.percent);
        });
    }
    if let Some(rewrite) = &route.rewrite {
        problems.within("rewrite", |p| self::rewrite(p, rewrite, route));
    }
    problems.within("request_headers", |p| headers::changes(p, &route.request_headers));
    problems.within("response_headers", |p| headers::changes(p, &route.response_headers));
    millis(problems, "timeout_ms", route.timeout_ms);
    targets::fallbacks(problems, route, names_model);
    degrade(problems, &route.degrade, names_model);
    targets::filters(problems, &route.filters);
    if let Some(cors) = &route.cors {
        problems.within("cors", |p| cors::cors(p, cors));
    }
    if let Some(CompressionSpec::Types(types)) = &route.compression {
        compression(problems, types);
    }
}

/// Content types, such as `application/json` or `text/*`.
fn compression(problems: &mut Problems, types: &[String]) {
    at_most(problems, "compression", types, 64);
    let word =
        |text: &str| !text.is_empty() && text.len() <= 64 && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$&^_.+-".contains(&b));
    problems.each("compression", types, |p, kind| {
        let good = kind.split_once('/').is_some_and(|(family, kind)| word(family) && (kind == "*" || word(kind)));
        p.must(good, "", || "a content type is such as 'application/json' or 'text/*'".into());
    });
}

fn percent(problems: &mut Problems, field: &str, value: f64) {
    problems.must((0.0..=100.0).contains(&value), field, || format!("{value} is not between 0 and 100"));
}

fn pins(problems: &mut Problems, route: &RouteRecord, asker: Asker<'_>) {
    at_most(problems, "pins", &route.pins, 32);
    let names: Vec<_> = route.targets.iter().map(targets::known_as).collect();
    problems.each("pins", &route.pins, |p, pin| {
        let PinSpec { target, header, cookie, tenant } = pin;
        p.must(names.iter().any(|name| name == target.as_str()), "target", || {
            format!("no target is called '{target}'; there are {}", names.join(", "))
        });
        p.must(header.is_some() || cookie.is_some() || tenant.is_some(), "", || "a pin has a header, a cookie or a tenant".into());
        if let Some(header) = header {
            p.within("header", |p| headers::condition(p, header));
        }
        if let Some((name, value)) = cookie {
            headers::cookie(p, "cookie[0]", name);
            headers::cookie_value(p, "cookie[1]", value);
        }
        if tenant.as_ref().is_some_and(|tenant| !asker.is_default() && tenant != asker.tenant) {
            p.add("tenant", format!("a route of the tenant '{}' sees the requests of no other tenant", asker.tenant));
        }
    });
}

fn rewrite(problems: &mut Problems, rewrite: &RewriteSpec, route: &RouteRecord) {
    match rewrite {
        RewriteSpec::Prefix(prefix) => {
            matching::path(problems, "prefix", prefix);
            let matched = matches!(route.matches.path, Some(TextMatch::Prefix(_) | TextMatch::Exact(_)));
            problems.must(matched, "prefix", || "it replaces what 'matches.path' names, and that names no path or prefix".into());
        }
        RewriteSpec::Regex { pattern, replacement } => {
            if let Err(error) = patterns::part(pattern) {
                problems.add("regex.pattern", error.to_string());
            }
            let strange = |b: u8| !b.is_ascii_graphic() || matches!(b, b'?' | b'#' | b'\\');
            if replacement.len() > patterns::MAX_PATTERN {
                problems.add("regex.replacement", format!("a replacement has at most {} bytes", patterns::MAX_PATTERN));
            } else if replacement.bytes().any(strange) {
                problems.add("regex.replacement", "a path holds visible ASCII characters without '?', '#' and '\\'");
            }
        }
    }
}

fn degrade(problems: &mut Problems, steps: &[DegradeSpec], names_model: bool) {
    at_most(problems, "degrade", steps, 4);
    let mut seen = std::collections::BTreeSet::new();
    problems.each("degrade", steps, |p, step| {
        between(p, "level", Some(step.level), 1, 4);
        p.must(seen.insert(step.level), "level", || format!("level {} is there twice", step.level));
        if let Some(model) = &step.model {
            targets::model(p, "model", model, names_model);
        }
        p.must(step.parameters.len() <= MAX_PARAMETERS, "parameters", || format!("there are at most {MAX_PARAMETERS} parameters"));
        between(p, "stale_seconds", step.stale_seconds, 1, 7 * 86_400);
        let something = step.model.is_some() || !step.parameters.is_empty() || step.stale_seconds.is_some() || step.asynchronous;
        p.must(something, "", || "it changes nothing: give a model, parameters, stale_seconds or asynchronous".into());
    });
}
