//! The list itself.

use std::net::IpAddr;
use std::sync::Arc;

use http::header::{ACCESS_CONTROL_REQUEST_METHOD, ALLOW, HOST, ORIGIN};
use http::{HeaderMap, HeaderValue, Method};
use plinth_api::{Context, Dialect};
use plinth_identity::{Principal, Refusal, Refusals, Who, authorise};
use plinth_net::router::NoRoute;
use plinth_net::{Access, HostRules, Match, Peer, Request, Response, Route, Router, RouterError, Service};
use plinth_runtime::World;
use plinth_store::resources::gateway::CostSpec;
use plinth_telemetry::Catalogue;
use plinth_types::{Class, Error, Reason, RequestId, Result};

use crate::authenticate::Authentication;
use crate::dispatch::{self, Origin};
use crate::edge::Edge;
use crate::limits::{Caller, Cost, Entry};
use crate::record::Counted;
use crate::routes::{self, Asked, Cors, Named};
use crate::upstream::ForwardedFor;
use crate::{answer, record, request_id};

/// Everything that stands between a connection and a handler.
pub struct Gateway {
    router: Arc<Router<Context>>,
    /// Handles beside the routes, and one for requests without a route.
    counted: (Vec<Option<Arc<Counted>>>, Option<Arc<Counted>>),
    catalogue: Arc<Catalogue>,
    authentication: Authentication,
    hosts: HostRules,
    world: World,
    /// Where refusals are noted.
    refusals: Option<Refusals>,
    /// Users' routes, limits and load; `None` for listeners that have none.
    edge: Option<Arc<Edge>>,
    /// The protocol of every path; `None` where the path decides.
    dialect: Option<Dialect>,
}

impl Gateway {
    /// A gateway in front of these routes.
    ///
    /// # Errors
    /// When two routes clash: a mistake in the program.
    pub fn new(
        routes: Vec<Route<Context>>,
        authentication: Authentication,
        hosts: HostRules,
        catalogue: Arc<Catalogue>,
        world: World,
    ) -> Result<Self, RouterError> {
        let router = Router::new(routes)?;
        let of = |route: &str| Counted::new(&catalogue, route, &world.clock);
        let counted = (router.routes().iter().map(|route| of(route.name)).collect(), of("none"));
        let router = Arc::new(router);
        Ok(Self { router, counted, catalogue, authentication, hosts, world, refusals: None, edge: None, dialect: None })
    }

    /// The same for a listener on which everything is of one protocol, also what has no route.
    #[must_use]
    pub fn speaking(self, dialect: Dialect) -> Self {
        Self { dialect: Some(dialect), ..self }
    }

    /// The same with a log of refusals.
    #[must_use]
    pub fn noting(self, refusals: Refusals) -> Self {
        Self { refusals: Some(refusals), ..self }
    }

    /// The same with users' routes, limits and load.
    #[must_use]
    pub fn behind(self, edge: Arc<Edge>) -> Self {
        Self { edge: Some(edge), ..self }
    }

    /// Notes who was not let in. `peer` is who is connected.
    fn note(&self, error: &Error, who: Option<Who>, peer: &Peer, route: &'static str) {
        if let (Some(refusals), Class::Unauthenticated | Class::Forbidden) = (&self.refusals, error.class()) {
            refusals.note(Refusal { who, address: peer.remote.ip(), route, reason: error.reason() });
        }
    }

    async fn pass(
        &self,
        request: Request,
        peer: &Peer,
        id: &RequestId,
        found: Result<Match<'_, Context>, NoRoute>,
        seen: &mut Seen,
    ) -> Result<Response> {
        let host = self.hosts.check(&request);
        if found.as_ref().is_ok_and(|m| m.route.access == Access::Public) {
            host?;
            let found = found?;
            let context = Context { principal: Principal::stranger(), request_id: id.clone() };
            return found.route.handler.call(request, found.params, context).await;
        }
        let Some(edge) = self.edge.as_ref() else {
            host?;
            let principal = self.authenticate(request.headers(), peer).await?;
            seen.who = Some(Who::from(&principal));
            return self.native(request, principal, id, found?).await;
        };
        let address = edge.address(peer, request.headers());
        edge.limits.door(address, self.world.clock.monotonic())?;
        seen.address = Some(address);
        let host = match host {
            Err(refusal) if !edge.routes().welcomes_strangers() => return Err(refusal),
            host => host,
        };
        if Cors::is_preflight(request.method(), request.headers())
            && let Some(route) = preflight(edge, &request)
            && let Some(cors) = &route.cors
        {
            welcome(host, Some(&route), request.headers())?;
            return Ok(cors.preflight(request.headers()));
        }
        seen.origin = request.headers().get(ORIGIN).cloned();
        let mut principal = routes::everybody();
        let mut route = users_route(edge, &request, &principal, true);
        if route.is_none() {
            principal = self.authenticate(request.headers(), peer).await?;
            seen.who = Some(Who::from(&principal));
            route = users_route(edge, &request, &principal, false);
        }
        welcome(host, route.as_deref(), request.headers())?;
        authorise(
            &principal,
            if route.is_some() { Access::Infer } else { found.as_ref().map_or(Access::Read, |found| found.route.access) },
        )?;
        let (operation, cost) = match (&route, &found) {
            (Some(route), _) => (route.operation.as_ref().map_or("proxy", |word| word.as_str()), route.cost),
            (None, Ok(found)) => (operation(found), CostSpec::default()),
            (None, Err(_)) => ("none", CostSpec::default()),
        };
        let cost = Cost { spec: cost, body: plinth_net::content_length(request.headers()).unwrap_or(0) };
        let entered = edge.limits.enter(Caller::of(&principal, address), operation, cost, self.world.clock.monotonic()).await;
        let entry = entered.map_err(|refused| seen.refused(refused))?;
        if let Err(refusal) = edge.admit(&request, entry.criticality_bounds(), route.as_ref().and_then(|route| route.criticality)) {
            // Who is refused because of load pays nothing.
            entry.give_back();
            return Err(refusal);
        }
        let answer = match route {
            Some(route) => {
                let proto = if peer.encrypted { "https" } else { "http" };
                let forwarded = ForwardedFor {
                    address,
                    proto,
                    host: request.headers().get(HOST).cloned(),
                    peer: peer.remote.ip(),
                    trusted: address != peer.remote.ip(),
                };
                let context = Context { principal, request_id: id.clone() };
                let origin = Origin { context, forwarded, level: edge.overload.level() };
                let answer = edge.dispatch.answer(&self.router, &route, origin, request).await;
                answer.map(|mut answer| {
                    if let (Some(cors), Some(asked)) = (&route.cors, &seen.origin) {
                        cors.finish(asked, answer.headers_mut());
                    }
                    answer
                })
            }
            None => self.native(request, principal, id, found?).await,
        };
        answer.map(|answer| held(answer, entry))
    }

    /// Counts refusals for bans: who is let in may come as often as its limits allow.
    fn blame(&self, error: &Error, address: Option<IpAddr>) {
        if let (Some(edge), Some(address), Class::Unauthenticated | Class::Forbidden | Class::OverQuota) =
            (&self.edge, address, error.class())
        {
            edge.limits.blame(address, self.world.clock.monotonic());
        }
    }

    async fn native(&self, request: Request, principal: Principal, id: &RequestId, found: Match<'_, Context>) -> Result<Response> {
        authorise(&principal, found.route.access)?;
        let context = Context { principal, request_id: id.clone() };
        found.route.handler.call(request, found.params, context).await
    }

    async fn authenticate(&self, headers: &HeaderMap, peer: &Peer) -> Result<Principal> {
        let result = self.authentication.check(headers, peer, self.world.clock.now()).await;
        if result.is_err() {
            self.catalogue.auth_refused.inc();
        }
        result
    }
}

/// What becomes known of a request on its way.
#[derive(Default)]
struct Seen {
    who: Option<Who>,
    /// Where it comes from, once the door has let it pass.
    address: Option<IpAddr>,
    origin: Option<HeaderValue>,
    /// What a refused caller is told of its limits.
    limits: HeaderMap,
}

impl Seen {
    fn refused(&mut self, refused: crate::limits::Refused) -> Error {
        refused.headers(&mut self.limits);
        refused.error
    }
}

/// The word of limits for Plinth's own routes.
fn operation(found: &Match<'_, Context>) -> &'static str {
    match found.route.access {
        Access::Infer if found.route.name.contains("generate") => "generate",
        Access::Infer => "infer",
        _ => "admin",
    }
}

/// The users' route of a request.
fn users_route(edge: &Edge, request: &Request, principal: &Principal, public: bool) -> Option<Arc<routes::Route>> {
    let table = edge.routes();
    if !table.may_have(&principal.tenant, public) {
        return None;
    }
    let host = dispatch::host(request);
    let path = request.uri().path();
    let model = Named::of(path).map(|named| named.model);
    let asked = Asked { method: request.method(), path, host: &host, headers: request.headers(), tenant: &principal.tenant, model };
    if public { table.public(&asked) } else { table.of(&principal.tenant, &asked) }.cloned()
}

/// Whether a request with a foreign host or origin may go on: a users' route may be for that host, or for pages of that origin.
fn welcome(host: Result<()>, route: Option<&routes::Route>, headers: &HeaderMap) -> Result<()> {
    let Err(refusal) = host else { return Ok(()) };
    let Some(route) = route else { return Err(refusal) };
    let origin = headers.get(ORIGIN).is_none_or(|origin| route.cors.as_ref().is_some_and(|cors| cors.allows(origin)));
    match refusal.field_name() {
        Some("Origin") if origin => Ok(()),
        Some("Host") if origin && route.names_hosts() => Ok(()),
        _ => Err(refusal),
    }
}

/// The route that a browser asks about, when one of anybody has this path: the question carries no credentials.
fn preflight(edge: &Edge, request: &Request) -> Option<Arc<routes::Route>> {
    let method = request.headers().get(ACCESS_CONTROL_REQUEST_METHOD)?.to_str().ok()?.parse::<Method>().ok()?;
    let host = dispatch::host(request);
    let (path, tenant) = (request.uri().path(), plinth_types::TenantName::default_tenant());
    let model = Named::of(path).map(|named| named.model);
    let asked = Asked { method: &method, path, host: &host, headers: request.headers(), tenant: &tenant, model };
    edge.routes().for_pages(&asked).cloned()
}

/// The answer, holding what was reserved until its last byte.
fn held(mut answer: Response, entry: Entry) -> Response {
    entry.headers(answer.headers_mut());
    answer.map(|body| body.with_guard(entry))
}

impl Service for Gateway {
    async fn call(&self, request: Request, peer: Peer) -> Response {
        let id = request_id::of(&request, self.world.random.as_ref());
        let method: Method = request.method().clone();
        let path = request.uri().path().to_owned();
        let found = self.router.find(&method, &path);
        let counted = found.as_ref().ok().and_then(|m| self.counted.0.get(m.index)).unwrap_or(&self.counted.1);
        let record = counted.as_ref().map(record::begin);
        let allow = match &found {
            Err(NoRoute::MethodNotAllowed { allow }) => HeaderValue::from_str(allow).ok(),
            _ => None,
        };
        let route = found.as_ref().map_or("none", |found| found.route.name);
        let mut seen = Seen::default();
        let result = self.pass(request, &peer, &id, found, &mut seen).await;
        let mut status = None;
        let answer = match result {
            Ok(response) => response,
            Err(error) => {
                record::log(&error, &id, &method, &path);
                self.note(&error, seen.who, &peer, route);
                self.blame(&error, seen.address);
                let dialect = self.dialect.unwrap_or_else(|| Dialect::of_path(&path));
                // A gRPC answer is always 200; what is counted is what has happened.
                status = (dialect == Dialect::Grpc).then(|| error.class().status());
                let mut answer = answer::refuse(dialect, &error, &id, self.world.random.as_ref());
                answer.headers_mut().extend(seen.limits);
                // Only where the refusal is about the method: who shows no key learns nothing of the routes.
                if let Some(allow) = allow.filter(|_| error.reason() == Reason::MethodNotAllowed) {
                    answer.headers_mut().insert(ALLOW, allow);
                }
                answer
            }
        };
        let answer = answer::finish(answer, &id);
        match record {
            Some(record) => record.until_sent(answer, status),
            None => answer,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use plinth_identity::KeyRing;
    use plinth_net::{Body, Params, RequestBody};
    use plinth_telemetry::BuildInfo;

    async fn answer(_: Request, _: Params, _: Context) -> Result<Response> {
        Ok(Response::new(Body::full("here")))
    }

    fn gateway(authentication: Authentication) -> Gateway {
        let route = |method, access| Route::new(method, "/v1/thing", access, "test", answer);
        let routes = vec![route(Method::GET, Access::Infer), route(Method::DELETE, Access::Admin)];
        let catalogue = Arc::new(Catalogue::new(BuildInfo { version: "0", commit: "unknown" }));
        Gateway::new(routes, authentication, HostRules::new([""; 0]), catalogue, World::real()).unwrap()
    }

    async fn ask(gateway: &Gateway, method: Method, path: &str) -> Response {
        let request = http::Request::builder().method(method).uri(path).header("host", "localhost").body(RequestBody::empty()).unwrap();
        gateway.call(request, Peer::new(([127, 0, 0, 1], 1).into(), "test")).await
    }

    #[tokio::test]
    async fn a_wrong_method_is_answered_with_the_right_ones() {
        let open = gateway(Authentication::open());
        let refused = ask(&open, Method::POST, "/v1/thing").await;
        assert_eq!((refused.status().as_u16(), refused.headers().get(ALLOW).unwrap().as_bytes()), (405, &b"DELETE, GET, HEAD"[..]));
        assert_eq!(ask(&open, Method::HEAD, "/v1/thing").await.status(), 200);
        let elsewhere = ask(&open, Method::POST, "/v1/other").await;
        assert_eq!((elsewhere.status().as_u16(), elsewhere.headers().get(ALLOW)), (404, None));
    }

    #[tokio::test]
    async fn grpc_is_refused_in_metadata_alone() {
        let closed = gateway(Authentication::keys(Arc::default())).speaking(Dialect::Grpc);
        let open = gateway(Authentication::open()).speaking(Dialect::Grpc);
        for (gateway, method, path, code) in [
            (&closed, Method::GET, "/v1/thing", "16"),
            (&open, Method::POST, "/v1/thing", "12"),
            (&open, Method::POST, "/other/Method", "12"),
        ] {
            let refused = ask(gateway, method, path).await;
            assert_eq!((refused.status().as_u16(), refused.headers()["grpc-status"].as_bytes()), (200, code.as_bytes()));
            assert_eq!(refused.headers()["content-type"], "application/grpc");
            assert!(refused.body().is_empty());
        }
    }

    #[tokio::test]
    async fn who_shows_no_key_learns_nothing_of_the_routes() {
        let closed = gateway(Authentication::keys(Arc::new(arc_swap::ArcSwap::from_pointee(KeyRing::default()))));
        for (method, path) in [(Method::GET, "/v1/thing"), (Method::POST, "/v1/thing"), (Method::GET, "/v1/other")] {
            let refused = ask(&closed, method, path).await;
            assert_eq!((refused.status().as_u16(), refused.headers().get(ALLOW)), (401, None), "{path}");
        }
    }
}
