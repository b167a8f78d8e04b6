//! The routes under `/v2`. Each handler translates and asks one service.
//!
//! Probes need no key, everything that reads or infers needs one for inference, and loading, unloading and changing what is
//! logged and traced needs an admin's.
//! A query string plays no part, as the protocol wants.

mod generate;
mod health;
mod infer;
mod logging;
mod models;
mod repository;
mod shared_memory;
mod statistics;
mod trace;

use http::Method;
use plinth_net::{Access, Route};
use plinth_types::{Error, Reason, Result, VersionNumber};
use serde_json::{Map, Value};

use crate::call::{Call, route};
use crate::{Context, Services};

/// The routes of this protocol.
#[must_use]
pub fn routes(services: &Services) -> Vec<Route<Context>> {
    use Access::{Infer, Operate, Platform, Public, Read};
    macro_rules! routes {
        ($($method:ident $pattern:literal $access:ident $name:literal => $handler:path;)*) => {
            vec![$(route(services, Method::$method, $pattern, $access, $name, $handler)),*]
        };
    }
    routes! {
        GET "/v2" Read "oip.server" => health::server;
        GET "/v2/health/live" Public "oip.live" => health::live;
        GET "/v2/health/ready" Public "oip.ready" => health::ready;
        GET "/v2/models/{model}" Read "oip.metadata" => models::metadata;
        GET "/v2/models/{model}/versions/{version}" Read "oip.metadata" => models::metadata;
        GET "/v2/models/{model}/ready" Read "oip.model_ready" => models::ready;
        GET "/v2/models/{model}/versions/{version}/ready" Read "oip.model_ready" => models::ready;
        GET "/v2/models/{model}/config" Read "oip.config" => models::config;
        GET "/v2/models/{model}/versions/{version}/config" Read "oip.config" => models::config;
        POST "/v2/models/{model}/infer" Infer "oip.infer" => infer::infer;
        POST "/v2/models/{model}/versions/{version}/infer" Infer "oip.infer" => infer::infer;
        POST "/v2/models/{model}/generate" Infer "oip.generate" => generate::generate;
        POST "/v2/models/{model}/versions/{version}/generate" Infer "oip.generate" => generate::generate;
        POST "/v2/models/{model}/generate_stream" Infer "oip.generate_stream" => generate::generate_stream;
        POST "/v2/models/{model}/versions/{version}/generate_stream" Infer "oip.generate_stream" => generate::generate_stream;
        GET "/v2/models/stats" Read "oip.statistics" => statistics::all;
        GET "/v2/models/{model}/stats" Read "oip.statistics" => statistics::of_model;
        GET "/v2/models/{model}/versions/{version}/stats" Read "oip.statistics" => statistics::of_model;
        GET "/v2/trace/setting" Read "oip.trace" => trace::get;
        POST "/v2/trace/setting" Operate "oip.trace.set" => trace::set;
        GET "/v2/models/{model}/trace/setting" Read "oip.trace" => trace::get;
        POST "/v2/models/{model}/trace/setting" Operate "oip.trace.set" => trace::set;
        GET "/v2/logging" Read "oip.logging" => logging::get;
        POST "/v2/logging" Platform "oip.logging.set" => logging::set;
        GET "/v2/systemsharedmemory/status" Infer "oip.shared_memory" => shared_memory::status;
        GET "/v2/systemsharedmemory/region/{region}/status" Infer "oip.shared_memory" => shared_memory::status;
        POST "/v2/systemsharedmemory/region/{region}/register" Infer "oip.shared_memory.register" => shared_memory::register;
        POST "/v2/systemsharedmemory/unregister" Infer "oip.shared_memory.unregister" => shared_memory::unregister;
        POST "/v2/systemsharedmemory/region/{region}/unregister" Infer "oip.shared_memory.unregister" => shared_memory::unregister;
        GET "/v2/cudasharedmemory/status" Infer "oip.cuda_shared_memory" => shared_memory::cuda_status;
        GET "/v2/cudasharedmemory/region/{region}/status" Infer "oip.cuda_shared_memory" => shared_memory::cuda_status;
        POST "/v2/cudasharedmemory/region/{region}/register" Infer "oip.cuda_shared_memory" => shared_memory::cuda_register;
        POST "/v2/cudasharedmemory/unregister" Infer "oip.cuda_shared_memory" => shared_memory::cuda_unregister;
        POST "/v2/cudasharedmemory/region/{region}/unregister" Infer "oip.cuda_shared_memory" => shared_memory::cuda_unregister;
        POST "/v2/repository/index" Read "oip.repository.index" => repository::index;
        POST "/v2/repository/models/{model}/load" Operate "oip.repository.load" => repository::load;
        POST "/v2/repository/models/{model}/unload" Operate "oip.repository.unload" => repository::unload;
        POST "/v2/repository/{repository}/index" Read "oip.repository.named" => repository::named;
        POST "/v2/repository/{repository}/models/{model}/load" Operate "oip.repository.named" => repository::named;
        POST "/v2/repository/{repository}/models/{model}/unload" Operate "oip.repository.named" => repository::named;
    }
}

/// The version that the path names, if its pattern has one.
fn version(call: &Call) -> Result<Option<VersionNumber>> {
    match call.params.get("version") {
        None => Ok(None),
        Some(_) => call.version().map(Some),
    }
}

/// The longest body that changes settings, in bytes: it is read as a tree.
const MAX_SETTINGS: usize = 64 << 10;

/// A body that is one JSON object of settings.
async fn settings_body(call: &mut Call) -> Result<Map<String, Value>> {
    let body = call.body().await?;
    if body.len() > MAX_SETTINGS {
        return Err(Error::new(Reason::BodyTooLarge, format!("settings are at most {MAX_SETTINGS} bytes")));
    }
    let text = if body.is_empty() { &b"{}"[..] } else { &body[..] };
    serde_json::from_slice(text)
        .map_err(|e| Error::new(Reason::MalformedRequest, format!("the body must be a JSON object of settings: {e}")).field("body"))
}
