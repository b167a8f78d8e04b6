//! The list itself.

use std::sync::Arc;

use http::header::ALLOW;
use http::{HeaderValue, Method};
use plinth_api::{Context, Dialect};
use plinth_identity::Principal;
use plinth_net::router::NoRoute;
use plinth_net::{Access, HostRules, Match, Peer, Request, Response, Route, Router, RouterError, Service};
use plinth_runtime::World;
use plinth_store::resources::Role;
use plinth_telemetry::Catalogue;
use plinth_types::{Error, Reason, Result};

use crate::authenticate::Authentication;
use crate::record::Counted;
use crate::{answer, record, request_id};

/// Everything that stands between a connection and a handler.
pub struct Gateway {
    router: Router<Context>,
    /// Handles beside the routes, and one for requests without a route.
    counted: (Vec<Option<Arc<Counted>>>, Option<Arc<Counted>>),
    catalogue: Arc<Catalogue>,
    authentication: Authentication,
    hosts: HostRules,
    world: World,
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
        Ok(Self { router, counted, catalogue, authentication, hosts, world, dialect: None })
    }

    /// The same for a listener on which everything is of one protocol, also what has no route.
    #[must_use]
    pub fn speaking(self, dialect: Dialect) -> Self {
        Self { dialect: Some(dialect), ..self }
    }

    async fn pass(&self, request: Request, id: &plinth_types::RequestId, found: Result<Match<'_, Context>, NoRoute>) -> Result<Response> {
        self.hosts.check(&request)?;
        let public = found.as_ref().is_ok_and(|m| m.route.access == Access::Public);
        let principal = if public { Principal::anybody() } else { self.authenticate(&request)? };
        let found = found?;
        authorise(&principal, found.route.access)?;
        let context = Context { principal, request_id: id.clone() };
        found.route.handler.call(request, found.params, context).await
    }

    fn authenticate(&self, request: &Request) -> Result<Principal> {
        let result = self.authentication.check(request.headers(), self.world.clock.now());
        if result.is_err() {
            self.catalogue.auth_refused.inc();
        }
        result
    }
}

fn authorise(principal: &Principal, access: Access) -> Result<()> {
    match (access, principal.role) {
        (Access::Public | Access::Infer, _) | (Access::Admin, Role::Admin) => Ok(()),
        (Access::Admin, Role::Infer) => {
            Err(Error::new(Reason::NotPermitted, "this key may use models and not change them; an admin key may"))
        }
    }
}

impl Service for Gateway {
    async fn call(&self, request: Request, _peer: Peer) -> Response {
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
        let result = self.pass(request, &id, found).await;
        let mut status = None;
        let answer = match result {
            Ok(response) => response,
            Err(error) => {
                record::log(&error, &id, &method, &path);
                let dialect = self.dialect.unwrap_or_else(|| Dialect::of_path(&path));
                // A gRPC answer is always 200; what is counted is what has happened.
                status = (dialect == Dialect::Grpc).then(|| error.class().status());
                let mut answer = answer::refuse(dialect, &error, &id, self.world.random.as_ref());
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
        gateway.call(request, Peer { remote: ([127, 0, 0, 1], 1).into(), listener: "test" }).await
    }

    #[tokio::test]
    async fn a_wrong_method_is_answered_with_the_right_ones() {
        let open = gateway(Authentication::Open);
        let refused = ask(&open, Method::POST, "/v1/thing").await;
        assert_eq!((refused.status().as_u16(), refused.headers().get(ALLOW).unwrap().as_bytes()), (405, &b"DELETE, GET, HEAD"[..]));
        assert_eq!(ask(&open, Method::HEAD, "/v1/thing").await.status(), 200);
        let elsewhere = ask(&open, Method::POST, "/v1/other").await;
        assert_eq!((elsewhere.status().as_u16(), elsewhere.headers().get(ALLOW)), (404, None));
    }

    #[tokio::test]
    async fn grpc_is_refused_in_metadata_alone() {
        let closed = gateway(Authentication::Keys(Arc::default())).speaking(Dialect::Grpc);
        let open = gateway(Authentication::Open).speaking(Dialect::Grpc);
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
        let closed = gateway(Authentication::Keys(Arc::new(arc_swap::ArcSwap::from_pointee(KeyRing::default()))));
        for (method, path) in [(Method::GET, "/v1/thing"), (Method::POST, "/v1/thing"), (Method::GET, "/v1/other")] {
            let refused = ask(&closed, method, path).await;
            assert_eq!((refused.status().as_u16(), refused.headers().get(ALLOW)), (401, None), "{path}");
        }
    }
}
