//! The list itself.

use std::net::IpAddr;
use std::sync::Arc;

use http::header::{ACCEPT_ENCODING, ACCESS_CONTROL_REQUEST_METHOD, ALLOW, HOST, ORIGIN};
use http::{HeaderMap, HeaderValue, Method};
use plinth_api::{Context, Dialect, Routed};
use plinth_identity::{Principal, Refusal, Refusals, Who, authorise};
use plinth_net::router::NoRoute;
use plinth_net::{Access, HostRules, Match, Peer, Request, Response, Route, Router, RouterError, Service};
use plinth_policy::overload::Level;
use plinth_runtime::World;
use plinth_store::resources::gateway::CostSpec;
use plinth_telemetry::Catalogue;
use plinth_types::{Class, Error, Reason, RequestId, Result};

use crate::access_log::AccessLog;
use crate::authenticate::Authentication;
use crate::compression::{Rule, Wish};
use crate::dispatch::{self, Origin, grpc};
use crate::edge::{self, Edge};
use crate::limits::{Caller, Cost, Entry};
use crate::record::{Counted, Facts, Record, Seen};
use crate::request_id::Drawn;
use crate::routes::{self, Asked, Cors, Named};
use crate::trace::{PARENT, Tracing};
use crate::upstream::ForwardedFor;
use crate::{answer, compression, record};

/// What the requests of each route are counted into, and those without a route.
type AllCounted = (Vec<Option<Arc<Counted>>>, Option<Arc<Counted>>);

fn counted(router: &Router<Context>, catalogue: &Catalogue, world: &World, log: Option<&Arc<AccessLog>>) -> AllCounted {
    let of = |route: &str| Counted::new(catalogue, route, &world.clock, log);
    (router.routes().iter().map(|route| of(route.name)).collect(), of("none"))
}

/// Everything that stands between a connection and a handler.
pub struct Gateway {
    router: Arc<Router<Context>>,
    /// Handles beside the routes, and one for requests without a route.
    counted: AllCounted,
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
    /// Where requests stand in their traces.
    tracing: Arc<Tracing>,
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
        let router = Arc::new(router);
        let (counted, tracing) = (counted(&router, &catalogue, &world, None), Arc::default());
        Ok(Self { router, counted, catalogue, authentication, hosts, world, refusals: None, edge: None, dialect: None, tracing })
    }

    /// The same with a log of requests.
    #[must_use]
    pub fn logging(self, log: &Arc<AccessLog>) -> Self {
        Self { counted: counted(&self.router, &self.catalogue, &self.world, Some(log)), ..self }
    }

    /// The same with these rules of tracing; listeners share them, because some are bounds.
    #[must_use]
    pub fn tracing(self, tracing: Arc<Tracing>) -> Self {
        Self { tracing, ..self }
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
        mut request: Box<Request>,
        peer: &Peer,
        id: &RequestId,
        found: Result<Match<'_, Context>, NoRoute>,
        seen: &mut Seen,
    ) -> Result<Response> {
        let host = self.hosts.check(&request);
        if found.as_ref().is_ok_and(|m| m.route.access == Access::Public) {
            host?;
            let found = found?;
            let context = Context { principal: Principal::stranger(), request_id: id.clone(), trace: None, routed: None };
            return found.route.handler.call(*request, found.params, context).await;
        }
        let Some(edge) = self.edge.as_ref() else {
            host?;
            let principal = self.authenticate(request.headers(), peer).await?;
            self.known(&principal, seen);
            return self.native(request, self.context(principal, id, seen), found?, Level::Normal).await;
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
        self.peek(edge, &mut request, &principal, true, seen).await?;
        let mut route = users_route(edge, &request, &principal, true, seen.model.as_deref());
        if route.is_none() {
            principal = self.authenticate(request.headers(), peer).await?;
            self.known(&principal, seen);
            self.peek(edge, &mut request, &principal, false, seen).await?;
            route = users_route(edge, &request, &principal, false, seen.model.as_deref());
        }
        seen.route = route;
        welcome(host, seen.route.as_deref(), request.headers())?;
        authorise(
            &principal,
            if seen.route.is_some() { Access::Infer } else { found.as_ref().map_or(Access::Read, |found| found.route.access) },
        )?;
        let (operation, cost) = match (&seen.route, &found) {
            (Some(route), _) => (route.operation.as_ref().map_or("proxy", |word| word.as_str()), route.cost),
            (None, Ok(found)) => (operation(found), CostSpec::default()),
            (None, Err(_)) => ("none", CostSpec::default()),
        };
        let cost = Cost { spec: cost, body: plinth_net::content_length(request.headers()).unwrap_or(0) };
        let entered = edge.limits.enter(Caller::of(&principal, address), operation, cost, self.world.clock.monotonic()).await;
        let entry = entered.map_err(|refused| seen.refused(refused))?;
        let admitted = if seen.route.is_none() && found.as_ref().is_ok_and(|found| changes_the_node(found.route.access)) {
            Ok(edge::control(&entry, principal.tenant_index))
        } else {
            edge.admit(&request, &entry, principal.tenant_index, seen.route.as_ref().and_then(|route| route.criticality))
        };
        let urgency = match admitted {
            Ok(urgency) => urgency,
            Err(refusal) => {
                // Who is refused because of load pays nothing.
                entry.give_back();
                return Err(refusal);
            }
        };
        let answer = match &seen.route {
            Some(route) => {
                let proto = if peer.encrypted { "https" } else { "http" };
                let forwarded = ForwardedFor {
                    address,
                    proto,
                    host: request.headers().get(HOST).cloned(),
                    peer: peer.remote.ip(),
                    trusted: address != peer.remote.ip(),
                    trace: Some(seen.trace.context()).filter(|_| !route.request_headers.removes(&PARENT)),
                    request: Some(id.clone()),
                };
                let (context, wish, level) = (self.context(principal, id, seen), Wish::of(&request), edge.overload.level());
                let origin = Origin { context, forwarded, urgency, level };
                let answer = edge.dispatch.answer(&self.router, route, &origin, request).await;
                let answer = match answer {
                    Ok(answer) => Ok(compression::finish(&route.compression, wish, level, answer).await),
                    Err(error) => Err(error),
                };
                answer.map(|mut answer| {
                    if let (Some(cors), Some(asked)) = (&route.cors, &seen.origin) {
                        cors.finish(asked, answer.headers_mut());
                    }
                    answer
                })
            }
            None => self.native(request, self.context(principal, id, seen), found?, edge.overload.level()).await,
        };
        match answer {
            Ok(answer) => Ok(held(answer, entry)),
            Err(error) => {
                if error.reason() == Reason::UpstreamUnavailable {
                    // It was not sent: the same holds as above.
                    entry.give_back();
                }
                Err(error)
            }
        }
    }

    /// Counts refusals for bans: who is let in may come as often as its limits allow.
    fn blame(&self, error: &Error, address: Option<IpAddr>) {
        if let (Some(edge), Some(address), Class::Unauthenticated | Class::Forbidden | Class::OverQuota) =
            (&self.edge, address, error.class())
        {
            edge.limits.blame(address, self.world.clock.monotonic());
        }
    }

    async fn native(&self, mut request: Box<Request>, context: Context, found: Match<'_, Context>, level: Level) -> Result<Response> {
        authorise(&context.principal, found.route.access)?;
        let wish = Wish::of(&request);
        if level > Level::Normal {
            // Handlers that compress by themselves do not know of the load.
            request.headers_mut().remove(ACCEPT_ENCODING);
        }
        let answer = found.route.handler.call(*request, found.params, context).await?;
        Ok(compression::finish(&Rule::Usual, wish, level, answer).await)
    }

    /// The caller has shown who it is.
    fn known(&self, principal: &Principal, seen: &mut Seen) {
        seen.who = Some(Who::from(principal));
        self.tracing.identified(&mut seen.trace, self.world.clock.monotonic());
    }

    /// What handlers are told.
    fn context(&self, principal: Principal, id: &RequestId, seen: &Seen) -> Context {
        let routed = seen.model.clone().map(|said| Arc::new(Routed { said, target: None }));
        Context { principal, request_id: id.clone(), trace: Some(seen.trace.context()), routed }
    }

    /// Finds the model of an inference over gRPC, where routes go by it: there it stands in the message.
    async fn peek(&self, edge: &Edge, request: &mut Request, who: &Principal, public: bool, seen: &mut Seen) -> Result<()> {
        let wanted = self.dialect == Some(Dialect::Grpc) && seen.model.is_none() && grpc::is_inference(request.uri().path());
        if wanted && edge.routes().goes_by_models(&who.tenant, public) {
            seen.model = Some(grpc::model_of(request, edge.dispatch.bodies()).await?);
        }
        Ok(())
    }

    async fn authenticate(&self, headers: &HeaderMap, peer: &Peer) -> Result<Principal> {
        let result = self.authentication.check(headers, peer, self.world.clock.now()).await;
        if result.is_err() {
            self.catalogue.auth_refused.inc();
        }
        result
    }
}

/// Whether a route is for those who operate the node.
const fn changes_the_node(access: Access) -> bool {
    matches!(access, Access::Operate | Access::Admin | Access::Platform)
}

/// The word of limits for Plinth's own routes.
fn operation(found: &Match<'_, Context>) -> &'static str {
    match found.route.access {
        Access::Infer if found.route.name.contains("generate") => "generate",
        Access::Infer => "infer",
        _ => "admin",
    }
}

/// The users' route of a request. `named`: the model that its message names, by which gRPC finds the routes of that model's path.
fn users_route(edge: &Edge, request: &Request, principal: &Principal, public: bool, named: Option<&str>) -> Option<Arc<routes::Route>> {
    let table = edge.routes();
    if !table.may_have(&principal.tenant, public) {
        return None;
    }
    let host = dispatch::host(request);
    let path = request.uri().path();
    let model = Named::of(path).map(|named| named.model);
    let asked = Asked { method: request.method(), path, host: &host, headers: request.headers(), tenant: &principal.tenant, model };
    let find = |asked: &Asked<'_>| if public { table.public(asked) } else { table.of(&principal.tenant, asked) }.cloned();
    let found = find(&asked);
    let Some(named) = named else { return found };
    let path = grpc::path_of(named);
    first_of(found, find(&Asked { path: &path, model: Some(named), ..asked }))
}

/// The route of two that comes first in the table's order.
fn first_of(one: Option<Arc<routes::Route>>, other: Option<Arc<routes::Route>>) -> Option<Arc<routes::Route>> {
    match (one, other) {
        (Some(one), Some(other)) => Some(if other.before(&one) { other } else { one }),
        (one, other) => one.or(other),
    }
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
    async fn call(&self, mut request: Request, peer: Peer) -> Response {
        let drawn = Drawn::draw(self.world.random.as_ref());
        let place = self.tracing.place(request.headers_mut(), &drawn);
        let found = self.router.find(request.method(), request.uri().path());
        let counted = found.as_ref().ok().and_then(|m| self.counted.0.get(m.index)).unwrap_or(&self.counted.1);
        let allow = match &found {
            Err(NoRoute::MethodNotAllowed { allow }) => HeaderValue::from_str(allow).ok(),
            _ => None,
        };
        let route = found.as_ref().map_or(("none", None), |found| (found.route.name, Some(found.route.pattern)));
        let mut record = Record::begin(counted.as_ref(), Facts::of(&request, &peer, route, &drawn, place));
        // In one place from here on: many hands pass it on.
        let result = self.pass(Box::new(request), &peer, &record.facts.id, found, &mut record.facts.seen).await;
        let (mut status, mut reason) = (None, None);
        let answer = match result {
            Ok(response) => response,
            Err(error) => {
                let facts = &mut record.facts;
                record::log(&error, facts);
                self.note(&error, facts.seen.who.clone(), &peer, route.0);
                self.blame(&error, facts.seen.address);
                let dialect = self.dialect.unwrap_or_else(|| Dialect::of_path(&facts.path));
                // A gRPC answer is always 200; what is counted is what has happened.
                status = (dialect == Dialect::Grpc).then(|| error.class().status());
                reason = Some(error.reason());
                let mut answer = answer::refuse(dialect, &error, &facts.id, self.world.random.as_ref());
                answer.headers_mut().extend(std::mem::take(&mut facts.seen.limits));
                // Only where the refusal is about the method: who shows no key learns nothing of the routes.
                if let Some(allow) = allow.filter(|_| error.reason() == Reason::MethodNotAllowed) {
                    answer.headers_mut().insert(ALLOW, allow);
                }
                answer
            }
        };
        let answer = answer::finish(answer, &record.facts.id);
        record.until_sent(answer, reason, status)
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

    #[test]
    fn only_who_operates_the_node_is_let_in_under_any_load() {
        let let_in = |access: &Access| changes_the_node(*access);
        assert!([Access::Operate, Access::Admin, Access::Platform].iter().all(let_in));
        assert!(![Access::Public, Access::Read, Access::Infer].iter().any(let_in));
    }
}
