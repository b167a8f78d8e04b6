//! What the node says of itself.

use plinth_client::wire;
use plinth_net::Response;
use plinth_types::Result;

use crate::Services;
use crate::admin::view;
use crate::call::Call;
use crate::reply;

pub async fn show(services: Services, call: Call) -> Result<Response> {
    let view = services.snapshot.view();
    let up = services.world.clock.monotonic().saturating_sub(services.started);
    let served = services.serving.table();
    reply::json(&wire::Status {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        ready: services.ready(),
        dev: services.settings.open,
        uptime_seconds: up.as_secs(),
        metadata: services.probe.metadata().await,
        // Where things lie on the machine is the operator's to know.
        objects: if call.principal.is_platform() { services.probe.objects() } else { "for admin keys of the default tenant".to_owned() },
        snapshot: wire::SnapshotStatus { revision: view.snapshot.revision.0, checked_at: view.checked_at, fresh: view.fresh },
        require_signature: services.settings.require_signature,
        memory_bytes: plinth_telemetry::process::ProcessSample::read().resident_bytes.unwrap_or_default(),
        model_memory: view::memory(services.serving.memory()),
        models: view::served(&call.principal, served.report()),
    })
}
