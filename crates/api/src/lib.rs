//! The protocols, a module each: translation only.
//!
//! A handler reads a request into types, asks one service, and writes the answer down. Invariants: no
//! decision is taken here; every error leaves in its protocol's own shape, from one table; a handler
//! sees requests that the gateway has let through. Who may call what stands in each route's `Access`.

pub mod admin;
pub mod bulk;
mod call;
mod dialect;
pub mod files;
pub mod jobs;
pub mod oip;
mod problem;
mod reply;
mod services;
pub mod streams;

pub use call::{Call, Context, Routed};
pub use dialect::Dialect;
pub use services::{FilterHost, FilterState, GrpcSettings, Parts, Probe, Services, Settings, Verifier, WeakServices};

use http::Method;
use plinth_client::wire;
use plinth_net::{Access, Route};

/// Every route of this release.
#[must_use]
pub fn routes(services: &Services) -> Vec<Route<Context>> {
    let mut routes = public_routes(services);
    routes.extend(admin::routes(services));
    with_inventory(services, routes)
}

/// The routes for those who use models: inference, jobs, streams of events.
#[must_use]
pub fn public_routes(services: &Services) -> Vec<Route<Context>> {
    let mut routes = oip::routes(services);
    routes.extend(jobs::routes(services));
    routes.extend(files::routes(services));
    routes.extend(bulk::routes(services));
    routes.extend(streams::routes(services));
    routes
}

/// The routes of the admin API alone, for a listener of its own.
#[must_use]
pub fn admin_routes(services: &Services) -> Vec<Route<Context>> {
    with_inventory(services, admin::routes(services))
}

/// Adds the route that lists them all: what is not on the list does not exist.
fn with_inventory(services: &Services, mut routes: Vec<Route<Context>>) -> Vec<Route<Context>> {
    let pattern = "/v1/routes";
    let mut list: Vec<_> = routes.iter().map(|r| describe(&r.method, r.pattern, r.access)).collect();
    list.push(describe(&Method::GET, pattern, Access::Admin));
    let list = std::sync::Arc::new(list);
    let handler = move |_: Services, _: Call| {
        let list = list.clone();
        async move { reply::json(&*list) }
    };
    routes.push(call::route(services, Method::GET, pattern, Access::Admin, "admin.routes", handler));
    routes
}

fn describe(method: &Method, pattern: &str, access: Access) -> wire::RouteInfo {
    let access = match access {
        Access::Public => "public",
        Access::Read => "read",
        Access::Infer => "infer",
        Access::Operate => "operate",
        Access::Admin => "admin",
        Access::Platform => "platform",
    };
    wire::RouteInfo { method: method.to_string(), pattern: pattern.to_owned(), access: access.to_owned() }
}
