//! The table of routes: what is not in it does not exist.
//!
//! Invariants: every route says who may call it; a path is matched as it was sent, so an encoded
//! slash never makes a new segment; path parameters are decoded exactly once, here; the query plays
//! no part. Enforcing [`Access`] is left to the gateway, reading parameters into types to the handlers.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use http::Method;
use plinth_types::{Error, Reason};

use crate::{Request, Response};

/// Who may call a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Access {
    /// Everybody, without a key.
    Public,
    /// Who may look: role viewer.
    Read,
    /// Who may use models: role developer.
    Infer,
    /// Who may change what is served: role operator.
    Operate,
    /// Who may do everything within a tenant: role admin.
    Admin,
    /// Who looks after all tenants: role admin in the default tenant.
    Platform,
}

/// What a handler gives back.
pub type HandlerFuture = Pin<Box<dyn Future<Output = Result<Response, Error>> + Send>>;

/// Answers the requests of a route. `C` is what the gateway knows of the request: who calls, its id, its deadline.
///
/// Dropping the future is how a request is cancelled: when the client goes away and when a deadline passes.
pub trait Handler<C>: Send + Sync {
    /// Answers one request.
    fn call(&self, request: Request, params: Params, context: C) -> HandlerFuture;
}

impl<C, F, Fut> Handler<C> for F
where
    F: Fn(Request, Params, C) -> Fut + Send + Sync,
    Fut: Future<Output = Result<Response, Error>> + Send + 'static,
{
    fn call(&self, request: Request, params: Params, context: C) -> HandlerFuture {
        Box::pin(self(request, params, context))
    }
}

/// One route.
pub struct Route<C> {
    /// The method. A GET route also answers HEAD.
    pub method: Method,
    /// The path, with parameters in braces: `/v2/models/{model}/infer`.
    pub pattern: &'static str,
    /// Who may call it.
    pub access: Access,
    /// Its name in metrics and logs: `infer`.
    pub name: &'static str,
    /// What answers it.
    pub handler: Arc<dyn Handler<C>>,
}

impl<C> Route<C> {
    /// A route.
    pub fn new(method: Method, pattern: &'static str, access: Access, name: &'static str, handler: impl Handler<C> + 'static) -> Self {
        Self { method, pattern, access, name, handler: Arc::new(handler) }
    }
}

impl<C> std::fmt::Debug for Route<C> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {} {:?} {}", self.method, self.pattern, self.access, self.name)
    }
}

/// The parameters of a path, decoded.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Params(Vec<(&'static str, String)>);

impl Params {
    /// Parameters, for tests of handlers.
    #[must_use]
    pub fn from_pairs(pairs: &[(&'static str, &str)]) -> Self {
        Self(pairs.iter().map(|(name, value)| (*name, (*value).to_owned())).collect())
    }

    /// The parameter with this name, when the pattern has it.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(known, _)| *known == name).map(|(_, value)| value.as_str())
    }

    /// The parameter with this name.
    ///
    /// # Errors
    /// `internal` when the route's pattern does not have it, which is a mistake in the table of routes.
    pub fn require(&self, name: &str) -> Result<&str, Error> {
        self.get(name).ok_or_else(|| Error::internal(format!("the route has no parameter '{name}'")))
    }
}

/// The route of a request.
#[derive(Debug)]
pub struct Match<'r, C> {
    /// The route.
    pub route: &'r Route<C>,
    /// Its place in [`Router::routes`]: an index for tables kept beside, such as handles of metrics.
    pub index: usize,
    /// The parameters of the path.
    pub params: Params,
}

/// Why a request has no route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NoRoute {
    /// No route has this path.
    NotFound,
    /// Routes have this path, but not this method.
    MethodNotAllowed {
        /// The methods that they have, as the Allow header wants them.
        allow: String,
    },
    /// The path is not properly percent-encoded UTF-8.
    MalformedPath,
}

impl From<NoRoute> for Error {
    fn from(no_route: NoRoute) -> Self {
        match no_route {
            NoRoute::NotFound => Self::new(Reason::RouteNotFound, "there is no such path; check its spelling"),
            NoRoute::MethodNotAllowed { allow } => Self::new(Reason::MethodNotAllowed, format!("this path takes {allow}")),
            NoRoute::MalformedPath => Self::new(Reason::MalformedRequest, "the path is not properly percent-encoded UTF-8").field("path"),
        }
    }
}

/// Why a table of routes is no table: always a mistake in the program.
#[derive(Debug, thiserror::Error)]
pub enum RouterError {
    /// A pattern is malformed or clashes with another.
    #[error("the pattern {pattern} cannot be added")]
    Pattern {
        /// The pattern.
        pattern: &'static str,
        /// The cause.
        #[source]
        source: matchit::InsertError,
    },
    /// Two routes have the same method and pattern.
    #[error("there are two routes {method} {pattern}")]
    Twice {
        /// The method.
        method: Method,
        /// The pattern.
        pattern: &'static str,
    },
}

/// All routes.
#[derive(Debug)]
pub struct Router<C> {
    routes: Vec<Route<C>>,
    paths: matchit::Router<usize>,
    /// For each pattern: the names of its parameters in order, and the routes that have it.
    patterns: Vec<Pattern>,
}

#[derive(Debug)]
struct Pattern {
    text: &'static str,
    params: Vec<&'static str>,
    routes: Vec<usize>,
}

impl<C> Router<C> {
    /// The table of these routes.
    ///
    /// # Errors
    /// When two of them clash.
    pub fn new(routes: Vec<Route<C>>) -> Result<Self, RouterError> {
        let mut paths = matchit::Router::new();
        let mut patterns: Vec<Pattern> = Vec::new();
        for (index, route) in routes.iter().enumerate() {
            let pattern = route.pattern;
            if let Some(known) = patterns.iter_mut().find(|known| known.text == pattern) {
                if known.routes.iter().any(|other| routes[*other].method == route.method) {
                    return Err(RouterError::Twice { method: route.method.clone(), pattern });
                }
                known.routes.push(index);
                continue;
            }
            paths.insert(pattern, patterns.len()).map_err(|source| RouterError::Pattern { pattern, source })?;
            patterns.push(Pattern { text: pattern, params: param_names(pattern), routes: vec![index] });
        }
        Ok(Self { routes, paths, patterns })
    }

    /// All routes, in the order in which they were given.
    #[must_use]
    pub fn routes(&self) -> &[Route<C>] {
        &self.routes
    }

    /// The route of a method and a path (without the query).
    ///
    /// # Errors
    /// When there is none.
    pub fn find(&self, method: &Method, path: &str) -> Result<Match<'_, C>, NoRoute> {
        let found = self.paths.at(path).map_err(|_| NoRoute::NotFound)?;
        let pattern = &self.patterns[*found.value];
        let with = |method: &Method| pattern.routes.iter().copied().find(|index| self.routes[*index].method == *method);
        let index = with(method).or_else(|| if method == Method::HEAD { with(&Method::GET) } else { None });
        let Some(index) = index else {
            return Err(NoRoute::MethodNotAllowed { allow: self.allow(pattern) });
        };
        let decoded = pattern.params.iter().zip(found.params.iter()).map(|(name, (_, value))| Some((*name, decode(value)?)));
        let params = decoded.collect::<Option<Vec<_>>>().ok_or(NoRoute::MalformedPath)?;
        Ok(Match { route: &self.routes[index], index, params: Params(params) })
    }

    fn allow(&self, pattern: &Pattern) -> String {
        let mut methods: Vec<_> = pattern.routes.iter().map(|index| self.routes[*index].method.as_str()).collect();
        if methods.contains(&"GET") && !methods.contains(&"HEAD") {
            methods.push("HEAD");
        }
        methods.sort_unstable();
        methods.join(", ")
    }
}

/// The names between braces, in order.
fn param_names(pattern: &'static str) -> Vec<&'static str> {
    let inside = pattern.split('{').skip(1).filter_map(|part| part.split_once('}'));
    inside.map(|(name, _)| name.trim_start_matches('*')).collect()
}

/// Percent-decodes once; `None` when an escape is broken or the result is not UTF-8.
fn decode(text: &str) -> Option<String> {
    if !text.contains('%') {
        return Some(text.to_owned());
    }
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes().iter().copied();
    while let Some(byte) = rest.next() {
        bytes.push(if byte == b'%' { digit(rest.next()?)? << 4 | digit(rest.next()?)? } else { byte });
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Body, RequestBody};
    use proptest::prelude::*;

    async fn answer(_: Request, params: Params, context: u8) -> Result<Response, Error> {
        Ok(Response::new(Body::full(format!("{context} {}", params.get("model").unwrap_or("-")))))
    }

    fn route(method: Method, pattern: &'static str) -> Route<u8> {
        Route::new(method, pattern, Access::Infer, "test", answer)
    }

    fn router() -> Router<u8> {
        Router::new(vec![
            route(Method::GET, "/v2"),
            route(Method::GET, "/v2/models/{model}"),
            route(Method::POST, "/v2/models/{model}/infer"),
            route(Method::POST, "/v2/models/{model}/versions/{version}/infer"),
            route(Method::PUT, "/v2/blobs/{digest}"),
            route(Method::GET, "/v2/blobs/{digest}"),
            route(Method::GET, "/files/{*path}"),
        ])
        .unwrap()
    }

    #[tokio::test]
    async fn routes_are_found_and_called() {
        let router = router();
        let found = router.find(&Method::POST, "/v2/models/digits/versions/3/infer").unwrap();
        assert_eq!((found.index, found.params.get("model"), found.params.get("version")), (3, Some("digits"), Some("3")));
        assert!(found.params.require("nothing").is_err());
        let answer = found.route.handler.call(Request::new(RequestBody::empty()), found.params, 7).await.unwrap();
        assert_eq!(answer.into_body().into_bytes().await.unwrap(), "7 digits");
        assert_eq!(router.find(&Method::HEAD, "/v2").unwrap().route.method, Method::GET);
        assert_eq!(router.find(&Method::GET, "/files/a/b").unwrap().params.get("path"), Some("a/b"));
    }

    #[test]
    fn what_is_not_there_is_refused() {
        let router = router();
        for path in ["/", "/v1", "/v2/", "//v2", "/V2", "/v2/models", "/v2/models//infer", "/v2/models/a/infer/", "/%76%32", "*", ""] {
            assert_eq!(router.find(&Method::GET, path).unwrap_err(), NoRoute::NotFound, "{path}");
        }
        let refused = router.find(&Method::DELETE, "/v2/blobs/x").unwrap_err();
        assert_eq!(refused, NoRoute::MethodNotAllowed { allow: "GET, HEAD, PUT".into() });
        assert_eq!(Error::from(refused).reason(), Reason::MethodNotAllowed);
    }

    #[test]
    fn parameters_are_decoded_exactly_once() {
        let router = router();
        let model = |path: &str| router.find(&Method::GET, path).map(|found| found.params.get("model").unwrap().to_owned());
        assert_eq!(model("/v2/models/a%2Fb").unwrap(), "a/b");
        assert_eq!(model("/v2/models/%252e%252e").unwrap(), "%2e%2e");
        assert_eq!(model("/v2/models/%2e%2E").unwrap(), "..");
        assert_eq!(model("/v2/models/a+b%20c").unwrap(), "a+b c");
        for bad in ["%", "%2", "%zz", "%ff", "a%e2%82"] {
            assert_eq!(model(&format!("/v2/models/{bad}")), Err(NoRoute::MalformedPath), "{bad}");
        }
    }

    #[test]
    fn clashes_are_mistakes() {
        assert!(matches!(Router::new(vec![route(Method::GET, "/a"), route(Method::GET, "/a")]), Err(RouterError::Twice { .. })));
        assert!(matches!(Router::new(vec![route(Method::GET, "/{a}"), route(Method::GET, "/{b}")]), Err(RouterError::Pattern { .. })));
    }

    proptest! {
        #[test]
        fn any_path_is_judged_without_a_panic(path in "/[ -~é]{0,40}|/v2/models/[ -~]{0,20}") {
            let _ = router().find(&Method::GET, &path);
        }
    }
}
