//! Which requests a route is for: hosts, paths and conditions.
//!
//! Invariant: no route can take a path that is Plinth's own. Model routes may name paths of the Open Inference Protocol,
//! because what answers there is a model either way.

use plinth_store::resources::gateway::{MatchSpec, TextMatch};

use super::{Asker, at_most, headers, no_twins, shown};
use crate::problems::Problems;

const MAX_PATH: usize = 1 << 10;
const MAX_LISTED: usize = 1_000;
/// Paths, with all below them, that Plinth answers itself.
const RESERVED: [&str; 4] = ["/v1", "/health", "/metrics", "/console"];
/// The Open Inference Protocol.
pub(super) const INFERENCE: &str = "/v2";

/// Checks the conditions of a route; `models_only` when nothing but models answers it.
pub(super) fn matches(problems: &mut Problems, matches: &MatchSpec, models_only: bool, asker: Asker<'_>) {
    let MatchSpec { hosts, path, methods, headers, tenants, models } = matches;
    at_most(problems, "hosts", hosts, 64);
    no_twins(problems, "hosts", hosts);
    problems.each("hosts", hosts, |p, host| {
        p.must(is_host(host), "", || {
            format!("'{}' is not a host such as api.example or *.example, in small letters and without port", shown(host))
        });
    });
    match path {
        Some(TextMatch::Exact(path)) => whole_path(problems, "path.exact", path, models_only),
        Some(TextMatch::Prefix(path)) => whole_path(problems, "path.prefix", path, models_only),
        Some(TextMatch::Regex(pattern)) => headers::expression(problems, "path.regex", pattern),
        None => {}
    }
    headers::methods(problems, "methods", methods);
    at_most(problems, "headers", headers, 32);
    problems.each("headers", headers, headers::condition);
    at_most(problems, "tenants", tenants, MAX_LISTED);
    no_twins(problems, "tenants", tenants);
    if !asker.is_default() && tenants.iter().any(|tenant| tenant != asker.tenant) {
        problems.add("tenants", format!("a route of the tenant '{}' sees the requests of no other tenant", asker.tenant));
    }
    at_most(problems, "models", models, MAX_LISTED);
    no_twins(problems, "models", models);
}

fn whole_path(problems: &mut Problems, field: &str, text: &str, models_only: bool) {
    path(problems, field, text);
    let below = |root: &str| text == root || text.strip_prefix(root).is_some_and(|rest| rest.starts_with('/'));
    if let Some(root) = RESERVED.into_iter().find(|root| below(root)) {
        problems.add(field, format!("{root} and what lies below it are Plinth's own paths"));
    } else if below(INFERENCE) && !models_only {
        problems.add(field, format!("below {INFERENCE} only models answer; name models as targets, or choose another path"));
    }
}

/// Checks a path, without regard to whose it is.
pub(super) fn path(problems: &mut Problems, field: &str, text: &str) {
    let strange = |b: u8| !b.is_ascii_graphic() || matches!(b, b'?' | b'#' | b'\\');
    if !text.starts_with('/') {
        problems.add(field, format!("a path begins with '/'; here is '{}'", shown(text)));
    } else if text.len() > MAX_PATH {
        problems.add(field, format!("a path has at most {MAX_PATH} bytes"));
    } else if text.bytes().any(strange) {
        problems.add(field, "a path holds visible ASCII characters without '?', '#' and '\\'");
    } else if text.contains("//") || text.split('/').any(|segment| matches!(segment, "." | "..")) {
        problems.add(field, "a path holds no empty segments and no '.' and '..'");
    }
}

/// A name of the DNS in small letters, one with `*.` in front, or an address of IPv4 or, in brackets, of IPv6.
pub(super) fn is_host(text: &str) -> bool {
    if let Some(inner) = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        return inner.parse::<std::net::Ipv6Addr>().is_ok();
    }
    let name = text.strip_prefix("*.").unwrap_or(text);
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'_'))
    };
    name.len() <= 253 && name.split('.').all(label)
}
