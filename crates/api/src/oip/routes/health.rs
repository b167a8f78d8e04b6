//! Whether the server lives and is ready, and what it is.

use http::StatusCode;
use plinth_net::Response;
use plinth_types::Result;

use crate::Services;
use crate::call::Call;
use crate::oip::metadata::{EXTENSIONS, SYSTEM_SHARED_MEMORY, ServerLive, ServerMetadata, ServerReady};
use crate::reply;

/// Answers as long as requests are answered at all.
pub async fn live(_services: Services, _call: Call) -> Result<Response> {
    reply::json(&ServerLive { live: true })
}

/// 200 once everything wished has been loaded or has failed, until the node is asked to end; 400 otherwise, as Triton.
pub async fn ready(services: Services, _call: Call) -> Result<Response> {
    let ready = services.ready();
    reply::json_with(if ready { StatusCode::OK } else { StatusCode::BAD_REQUEST }, &ServerReady { live: ready, ready })
}

pub async fn server(services: Services, _call: Call) -> Result<Response> {
    let name = services.settings.server_name.as_str();
    let mut extensions = EXTENSIONS.to_vec();
    extensions.extend(services.regions.enabled().then_some(SYSTEM_SHARED_MEMORY));
    reply::json(&ServerMetadata { name, version: env!("CARGO_PKG_VERSION"), extensions })
}
