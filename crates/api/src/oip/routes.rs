//! The routes under `/v2`. Each handler translates and asks one service.
//!
//! Probes need no key, everything that reads or infers needs one for inference, and loading and unloading needs an admin's.
//! A query string plays no part, as the protocol wants.

mod health;
mod infer;
mod models;
mod repository;

use http::Method;
use plinth_net::{Access, Route};
use plinth_types::{Result, VersionNumber};

use crate::call::{Call, route};
use crate::{Context, Services};

/// The routes of this protocol.
#[must_use]
pub fn routes(services: &Services) -> Vec<Route<Context>> {
    use Access::{Admin, Infer, Public};
    macro_rules! routes {
        ($($method:ident $pattern:literal $access:ident $name:literal => $handler:path;)*) => {
            vec![$(route(services, Method::$method, $pattern, $access, $name, $handler)),*]
        };
    }
    routes! {
        GET "/v2" Infer "oip.server" => health::server;
        GET "/v2/health/live" Public "oip.live" => health::live;
        GET "/v2/health/ready" Public "oip.ready" => health::ready;
        GET "/v2/models/{model}" Infer "oip.metadata" => models::metadata;
        GET "/v2/models/{model}/versions/{version}" Infer "oip.metadata" => models::metadata;
        GET "/v2/models/{model}/ready" Infer "oip.model_ready" => models::ready;
        GET "/v2/models/{model}/versions/{version}/ready" Infer "oip.model_ready" => models::ready;
        GET "/v2/models/{model}/config" Infer "oip.config" => models::config;
        GET "/v2/models/{model}/versions/{version}/config" Infer "oip.config" => models::config;
        POST "/v2/models/{model}/infer" Infer "oip.infer" => infer::infer;
        POST "/v2/models/{model}/versions/{version}/infer" Infer "oip.infer" => infer::infer;
        POST "/v2/repository/index" Infer "oip.repository.index" => repository::index;
        POST "/v2/repository/models/{model}/load" Admin "oip.repository.load" => repository::load;
        POST "/v2/repository/models/{model}/unload" Admin "oip.repository.unload" => repository::unload;
        POST "/v2/repository/{repository}/index" Infer "oip.repository.named" => repository::named;
        POST "/v2/repository/{repository}/models/{model}/load" Admin "oip.repository.named" => repository::named;
        POST "/v2/repository/{repository}/models/{model}/unload" Admin "oip.repository.named" => repository::named;
    }
}

/// The version that the path names, if its pattern has one.
fn version(call: &Call) -> Result<Option<VersionNumber>> {
    match call.params.get("version") {
        None => Ok(None),
        Some(_) => call.version().map(Some),
    }
}
