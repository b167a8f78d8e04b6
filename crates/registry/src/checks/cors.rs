//! Which pages of other origins may use a route (the CORS protocol of the Fetch standard).

use plinth_store::resources::gateway::CorsSpec;

use super::{at_most, between, headers, no_twins, shown};
use crate::problems::Problems;

/// Checks it.
pub(super) fn cors(problems: &mut Problems, cors: &CorsSpec) {
    let CorsSpec { origins, methods, headers: request, expose, credentials, max_age_seconds } = cors;
    problems.must(!origins.is_empty(), "origins", || "name at least one origin, or '*' for all".into());
    at_most(problems, "origins", origins, 64);
    no_twins(problems, "origins", origins);
    problems.each("origins", origins, |p, origin| {
        p.must(origin == "*" || is_origin(origin), "", || format!("'{}' is not an origin such as https://app.example", shown(origin)));
    });
    let all = origins.iter().any(|origin| origin == "*");
    problems.must(!all || origins.len() == 1, "origins", || "'*' stands alone".into());
    // Every page could then act for whoever looks at it.
    problems.must(!all || !credentials, "credentials", || "cookies are not sent along for '*': name the origins".into());
    headers::methods(problems, "methods", methods);
    headers::names(problems, "headers", request);
    headers::names(problems, "expose", expose);
    between(problems, "max_age_seconds", *max_age_seconds, 0, 86_400);
}

/// Scheme, host and port as a browser writes them, and nothing else.
fn is_origin(text: &str) -> bool {
    let origin = url::Url::parse(text).map(|url| url.origin());
    matches!(origin, Ok(url::Origin::Tuple(ref scheme, ..)) if matches!(scheme.as_str(), "http" | "https"))
        && origin.is_ok_and(|origin| origin.ascii_serialization() == text)
}
