//! Blobs: is it there, and put it there.

use http::StatusCode;
use plinth_net::Response;
use plinth_store::objects::PutOutcome;
use plinth_types::{Digest, Error, Reason, Result};

use crate::Services;
use crate::call::Call;
use crate::reply;

pub async fn has(services: Services, call: Call) -> Result<Response> {
    let digest: Digest = call.param("digest")?;
    let there = services.registry.has_blob(&digest).await?.is_some();
    Ok(reply::empty(if there { StatusCode::OK } else { StatusCode::NOT_FOUND }))
}

pub async fn put(services: Services, call: Call) -> Result<Response> {
    let digest: Digest = call.param("digest")?;
    let length = call.content_length().ok_or_else(|| {
        Error::new(Reason::MalformedRequest, "an upload says its length beforehand: send Content-Length").field("Content-Length")
    })?;
    let stored = services.registry.put_blob(&digest, length, call.into_stream()).await?;
    Ok(reply::empty(if stored == PutOutcome::Stored { StatusCode::CREATED } else { StatusCode::OK }))
}
