//! The protocols, a module each: translation only.
//!
//! A handler reads a request into types, asks one service, and writes the answer down. Invariants: no
//! decision is taken here; every error leaves in its protocol's own shape, from one table; a handler
//! sees requests that the gateway has let through. Who may call what stands in each route's `Access`.

pub mod admin;
mod call;
mod dialect;
pub mod oip;
mod problem;
mod reply;
mod services;

pub use call::{Call, Context};
pub use dialect::Dialect;
pub use services::{Parts, Probe, Services, Settings, Verifier};

use plinth_net::Route;

/// Every route of this release.
#[must_use]
pub fn routes(services: &Services) -> Vec<Route<Context>> {
    let mut routes = oip::routes(services);
    routes.extend(admin::routes(services));
    routes
}
