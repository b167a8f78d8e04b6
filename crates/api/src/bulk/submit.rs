//! Submitting a bulk job, and reading its output.

use std::collections::BTreeMap;

use futures_util::{StreamExt, stream};
use http::header::{CONTENT_TYPE, LOCATION, RETRY_AFTER};
use http::{HeaderValue, StatusCode};
use plinth_client::wire::jobs as wire;
use plinth_jobs::{Blobs, Input, JobRequest, META_TYPE, Meta};
use plinth_net::Response;
use plinth_types::{Digest, Error, Reason, Result};
use serde_json::Value;

use super::KIND;
use super::run::{Manifest, Part};
use super::spec::{Asked, OWN, Spec};
use crate::call::Call;
use crate::jobs::{self, infer_kind};
use crate::{Services, files, reply};

/// How long an attempt may take when nobody says: a day, because it goes on where it stopped in any case.
const TIMEOUT_SECONDS: f64 = 86_400.0;

pub(super) async fn submit(services: Services, mut call: Call) -> Result<Response> {
    let service = jobs::jobs(&services)?;
    let key = jobs::key(call.request.headers())?;
    let body: BTreeMap<String, Value> = call.json().await?;
    let (own, rest): (BTreeMap<_, _>, BTreeMap<_, _>) = body.into_iter().partition(|(name, _)| OWN.contains(&name.as_str()));
    let asked: Asked = read(own)?;
    call.principal.must_use(&asked.model)?;
    let mut request: JobRequest = read(rest)?;
    if !request.kind.is_empty() && request.kind != KIND {
        return Err(Error::new(Reason::MalformedRequest, "this route submits jobs of kind bulk").field("kind"));
    }
    KIND.clone_into(&mut request.kind);
    request.class.get_or_insert_with(|| "background".to_owned());
    request.timeout_seconds.get_or_insert(TIMEOUT_SECONDS);
    request.labels.insert(jobs::MODEL_LABEL.into(), asked.model.to_string());
    let file = files::find(service, &call.principal.tenant, &asked.file).await.map_err(|error| error.field("file"))?;
    let mut meta = Meta::of(META_TYPE);
    infer_kind::name(&mut meta, &asked.model, asked.version, None);
    let spec = Spec::new(asked, &file)?;
    let bytes = serde_json::to_vec(&spec).map_err(|error| Error::internal("the input of a bulk job").source(error))?;
    let asked = vec![(request, Input { meta, bytes: bytes.into() })];
    let submitted = service.submit(&call.principal.tenant, &call.principal.actor(), key.as_deref(), asked).await?;
    let ids: Vec<String> = submitted.ids.iter().map(ToString::to_string).collect();
    let id = ids.first().cloned().unwrap_or_default();
    let place = HeaderValue::from_str(&format!("/api/v1/jobs/{id}"));
    let mut response = reply::json_with(StatusCode::ACCEPTED, &wire::Submitted { id, ids, replayed: submitted.replayed })?;
    if let Ok(place) = place {
        response.headers_mut().insert(LOCATION, place);
    }
    response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
    Ok(response)
}

/// Fields as what they must be.
fn read<T: serde::de::DeserializeOwned>(fields: BTreeMap<String, Value>) -> Result<T> {
    let fields = Value::Object(fields.into_iter().collect());
    serde_json::from_value(fields)
        .map_err(|error| Error::new(Reason::MalformedRequest, format!("the body is not what this route takes: {error}")).field("body"))
}

pub(super) async fn output(services: Services, call: Call) -> Result<Response> {
    let service = jobs::jobs(&services)?;
    let (id, tenant) = (jobs::id(&call)?, &call.principal.tenant);
    let job = service.get(tenant, id).await?;
    jobs::must_see(&call, &job)?;
    if job.kind != KIND {
        let text = format!("a job of kind {} has a result and no output; see /api/v1/jobs/{id}/result", job.kind);
        return Err(Error::new(Reason::MalformedRequest, text).field("job"));
    }
    let Some((_, bytes)) = service.result(tenant, id).await? else {
        let mut response = reply::json_with(StatusCode::ACCEPTED, &jobs::show::job(job))?;
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
        return Ok(response);
    };
    let manifest: Manifest = serde_json::from_slice(&bytes).map_err(|error| Error::internal("the result of a bulk job").source(error))?;
    let mut response = reply::stream(manifest.bytes, parts(service.blobs().clone(), manifest.parts));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(manifest.format.content_type()));
    Ok(response)
}

/// The bytes of all parts, one after another. Each is opened when the one before has been sent.
pub(super) fn parts(blobs: Blobs, parts: Vec<Part>) -> plinth_store::objects::ByteStream<'static> {
    let open = move |part: Part| {
        let blobs = blobs.clone();
        async move {
            let opened = async {
                let digest: Digest = part.digest.parse().map_err(|_| Error::internal("the digest of a part"))?;
                blobs.open(&digest).await
            };
            match opened.await {
                Ok(reader) => reader.stream,
                Err(error) => stream::iter([Err(std::io::Error::other(error.log_text()))]).boxed(),
            }
        }
    };
    stream::iter(parts).then(open).flatten().boxed()
}
