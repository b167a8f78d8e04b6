//! What a model is, how it is configured, and whether it answers.

use http::StatusCode;
use plinth_net::Response;
use plinth_types::Result;

use super::version;
use crate::Services;
use crate::call::Call;
use crate::oip::error;
use crate::oip::metadata::{ModelMetadata, ModelReady};
use crate::reply;

pub async fn metadata(services: Services, call: Call) -> Result<Response> {
    let (model, version) = (call.model()?, version(&call)?);
    let table = services.serving.table();
    let instance = table.resolve(&call.principal.tenant, &model, version)?;
    let row = table.row(&call.principal.tenant, &model);
    let versions = row.into_iter().flat_map(|row| &row.versions).filter(|(_, v)| v.instance.is_some()).map(|(n, _)| n.to_string());
    reply::json(&ModelMetadata {
        name: model.as_str(),
        versions: versions.collect(),
        platform: instance.config().platform(),
        inputs: instance.inputs(),
        outputs: instance.outputs(),
    })
}

pub async fn config(services: Services, call: Call) -> Result<Response> {
    let instance = services.serving.resolve(&call.principal.tenant, &call.model()?, version(&call)?)?;
    reply::json(&instance.config().to_json()?)
}

/// 200 when it answers, 400 with the reason when not, as Triton.
pub async fn ready(services: Services, call: Call) -> Result<Response> {
    let model = call.model()?;
    match services.serving.resolve(&call.principal.tenant, &model, version(&call)?) {
        Ok(_) => reply::json(&ModelReady { name: model.as_str(), ready: true }),
        Err(why) => Ok(reply::with_body(StatusCode::BAD_REQUEST, "application/json", error::body(&why))),
    }
}
