//! Whether the server lives and is ready, what it is, and what its models are.

use plinth_identity::Principal;
use plinth_types::{Dim, Error, Result, TensorSpec};
use prost::bytes::Bytes;

use super::pb::inference as pb;
use super::request::{its, version};
use crate::Services;
use crate::oip::metadata::{EXTENSIONS, SYSTEM_SHARED_MEMORY};

/// Answers as long as calls are answered at all.
pub(super) async fn live(_: Services, _: Principal, _: pb::ServerLiveRequest) -> Result<pb::ServerLiveResponse> {
    Ok(pb::ServerLiveResponse { live: true })
}

pub(super) async fn ready(services: Services, _: Principal, _: pb::ServerReadyRequest) -> Result<pb::ServerReadyResponse> {
    Ok(pb::ServerReadyResponse { ready: services.ready() })
}

/// A model that is not there is not ready, as for Triton; that is no error.
pub(super) async fn model_ready(services: Services, who: Principal, asked: pb::ModelReadyRequest) -> Result<pb::ModelReadyResponse> {
    let found = services.serving.resolve(&who.tenant, &its(&who, &asked.name)?, version(&asked.version)?);
    Ok(pb::ModelReadyResponse { ready: found.is_ok() })
}

pub(super) async fn server(services: Services, _: Principal, _: pb::ServerMetadataRequest) -> Result<pb::ServerMetadataResponse> {
    let shared = services.regions.enabled().then_some(SYSTEM_SHARED_MEMORY);
    Ok(pb::ServerMetadataResponse {
        name: services.settings.server_name.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        extensions: EXTENSIONS.iter().copied().chain(shared).map(str::to_owned).collect(),
    })
}

pub(super) async fn metadata(services: Services, who: Principal, asked: pb::ModelMetadataRequest) -> Result<pb::ModelMetadataResponse> {
    let (model, version) = (its(&who, &asked.name)?, version(&asked.version)?);
    let table = services.serving.table();
    let instance = table.resolve(&who.tenant, &model, version)?;
    let row = table.row(&who.tenant, &model);
    let versions = row.into_iter().flat_map(|row| &row.versions).filter(|(_, v)| v.instance.is_some()).map(|(n, _)| n.to_string());
    Ok(pb::ModelMetadataResponse {
        name: model.to_string(),
        versions: versions.collect(),
        platform: instance.config().platform().to_owned(),
        inputs: instance.inputs().iter().map(tensor).collect(),
        outputs: instance.outputs().iter().map(tensor).collect(),
    })
}

fn tensor(spec: &TensorSpec) -> pb::model_metadata_response::TensorMetadata {
    let dim = |dim: &Dim| match dim {
        Dim::Any => -1,
        Dim::Fixed(n) => i64::try_from(*n).unwrap_or(i64::MAX),
    };
    pb::model_metadata_response::TensorMetadata {
        name: spec.name().to_owned(),
        datatype: spec.datatype().name().to_owned(),
        shape: spec.shape().iter().map(dim).collect(),
    }
}

/// What a response without a configuration would be is no answer, so it is there in any case.
pub(super) async fn config(services: Services, who: Principal, asked: pb::ModelConfigRequest) -> Result<pb::ModelConfigResponse> {
    let instance = services.serving.resolve(&who.tenant, &its(&who, &asked.name)?, version(&asked.version)?)?;
    let config = Bytes::from(instance.config().to_protobuf());
    if config.is_empty() {
        return Err(Error::internal("the configuration of a loaded model is empty"));
    }
    Ok(pb::ModelConfigResponse { config })
}
