//! Regions of shared memory (system shared memory extension), and what is left of those on a GPU.
//!
//! Memory of a GPU cannot be registered: there is nothing to show and nothing to forget, which is what clients ask first.

use http::StatusCode;
use plinth_net::Response;
use plinth_types::{Error, Reason, Result};
use serde::{Deserialize, Serialize};

use crate::Services;
use crate::call::Call;
use crate::reply;

#[derive(Debug, Serialize)]
struct Region<'a> {
    name: &'a str,
    key: &'a str,
    offset: u64,
    byte_size: u64,
}

pub async fn status(services: Services, call: Call) -> Result<Response> {
    let regions = services.regions.status(&call.principal.tenant, call.params.get("region"))?;
    let shown = regions.iter().map(|r| Region { name: &r.name, key: &r.key, offset: r.offset, byte_size: r.byte_size });
    reply::json(&shown.collect::<Vec<_>>())
}

#[derive(Debug, Deserialize)]
struct RegisterBody {
    key: String,
    #[serde(default)]
    offset: u64,
    byte_size: u64,
}

pub async fn register(services: Services, mut call: Call) -> Result<Response> {
    let body: RegisterBody = call.json().await?;
    let name = call.params.require("region")?;
    services.regions.register(&call.principal.tenant, name, &body.key, body.offset, body.byte_size)?;
    Ok(reply::empty(StatusCode::OK))
}

pub async fn unregister(services: Services, mut call: Call) -> Result<Response> {
    // Clients send an empty body or none; it is read so that the connection can go on.
    call.body().await?;
    services.regions.unregister(&call.principal.tenant, call.params.get("region"));
    Ok(reply::empty(StatusCode::OK))
}

pub async fn cuda_status(_services: Services, _call: Call) -> Result<Response> {
    reply::json::<[Region<'_>; 0]>(&[])
}

pub async fn cuda_register(_services: Services, mut call: Call) -> Result<Response> {
    call.body().await?;
    let text =
        "memory of a GPU cannot be registered with this server; send tensors with the request, or place them in system shared memory";
    Err(Error::new(Reason::NotImplemented, text))
}

pub async fn cuda_unregister(_services: Services, mut call: Call) -> Result<Response> {
    call.body().await?;
    Ok(reply::empty(StatusCode::OK))
}
