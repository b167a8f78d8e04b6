//! Regions of shared memory, and what is left of those on a GPU.
//!
//! Memory of a GPU cannot be registered: there is nothing to show and nothing to forget, which is what clients ask first.

use plinth_identity::Principal;
use plinth_types::{Error, Reason, Result};

use super::pb::inference as pb;
use crate::Services;

/// The region that a message names; none for all of them.
fn named(region: &str) -> Option<&str> {
    (!region.is_empty()).then_some(region)
}

pub(super) async fn system_status(
    services: Services,
    who: Principal,
    asked: pb::SystemSharedMemoryStatusRequest,
) -> Result<pb::SystemSharedMemoryStatusResponse> {
    let regions = services.regions.status(&who.tenant, named(&asked.name))?.into_iter().map(|r| {
        let status = pb::system_shared_memory_status_response::RegionStatus {
            name: r.name.clone(),
            key: r.key,
            offset: r.offset,
            byte_size: r.byte_size,
        };
        (r.name, status)
    });
    Ok(pb::SystemSharedMemoryStatusResponse { regions: regions.collect() })
}

pub(super) async fn system_register(
    services: Services,
    who: Principal,
    asked: pb::SystemSharedMemoryRegisterRequest,
) -> Result<pb::SystemSharedMemoryRegisterResponse> {
    services.regions.register(&who.tenant, &asked.name, &asked.key, asked.offset, asked.byte_size)?;
    Ok(pb::SystemSharedMemoryRegisterResponse {})
}

pub(super) async fn system_unregister(
    services: Services,
    who: Principal,
    asked: pb::SystemSharedMemoryUnregisterRequest,
) -> Result<pb::SystemSharedMemoryUnregisterResponse> {
    services.regions.unregister(&who.tenant, named(&asked.name));
    Ok(pb::SystemSharedMemoryUnregisterResponse {})
}

pub(super) async fn cuda_status(
    _: Services,
    _: Principal,
    _: pb::CudaSharedMemoryStatusRequest,
) -> Result<pb::CudaSharedMemoryStatusResponse> {
    Ok(pb::CudaSharedMemoryStatusResponse::default())
}

pub(super) async fn cuda_register(
    _: Services,
    _: Principal,
    _: pb::CudaSharedMemoryRegisterRequest,
) -> Result<pb::CudaSharedMemoryRegisterResponse> {
    let text =
        "memory of a GPU cannot be registered with this server; send tensors with the request, or place them in system shared memory";
    Err(Error::new(Reason::NotImplemented, text))
}

pub(super) async fn cuda_unregister(
    _: Services,
    _: Principal,
    _: pb::CudaSharedMemoryUnregisterRequest,
) -> Result<pb::CudaSharedMemoryUnregisterResponse> {
    Ok(pb::CudaSharedMemoryUnregisterResponse {})
}
