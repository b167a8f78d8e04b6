//! Inference. A client that goes away cancels its request.

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderName, HeaderValue};
use plinth_net::{Body, Coding, Response};
use plinth_serving::{InferAnswer, Instance};
use plinth_types::{Error, Result};

use super::version;
use crate::Services;
use crate::call::Call;
use crate::oip::HEADER_LENGTH;
pub(super) use crate::oip::execute::{Target, execute, traced};
use crate::oip::request::{InferCall, header_length};
use crate::oip::response::{InferReply, InferResult};

/// JSON above this size, in bytes, is read and written on a blocking thread: some milliseconds of work.
pub(super) const INLINE_JSON: usize = 256 << 10;

pub async fn infer(services: Services, mut call: Call) -> Result<Response> {
    // Before the body: whoever asks for what is not there need not send it.
    let target = target(&services, &call)?;
    let instance = target.ready(&services).await?;
    let coding = Coding::accepted(call.request.headers());
    let length = header_length(call.request.headers())?;
    let body = call.body().await?;
    let mut asked = parse(body, length, &instance).await?;
    let answer = if services.traces.on() {
        traced(&services, &call.request_id, &target, &asked.id.clone(), execute(&services, &target, &mut asked)).await?
    } else {
        execute(&services, &target, &mut asked).await?
    };
    let reply = render(answer, asked).await?;
    Ok(plinth_net::encoding::compress(response(reply), coding).await)
}

/// What the path names.
pub(super) fn target(services: &Services, call: &Call) -> Result<Target> {
    let (tenant, model, version) = (call.principal.tenant.clone(), call.model()?, version(call)?);
    Ok(Target { tenant, model, version, deadline: services.settings.request_timeout, trace: call.recorded() })
}

async fn parse(body: Bytes, length: Option<usize>, instance: &Instance) -> Result<InferCall> {
    if length == Some(0) {
        return InferCall::parse_raw(body, instance.inputs());
    }
    if length.unwrap_or(body.len()) <= INLINE_JSON {
        return InferCall::parse(&body, length);
    }
    blocking(move || InferCall::parse(&body, length)).await
}

async fn render(answer: InferAnswer, asked: InferCall) -> Result<InferReply> {
    let json: usize = answer.outputs.iter().filter(|o| !asked.is_binary(o.name())).map(|o| o.data().len()).sum();
    let render = move || {
        let instance = &answer.instance;
        let result = InferResult {
            model_name: instance.model().as_str(),
            model_version: &instance.version().to_string(),
            outputs: &answer.outputs,
            batched: instance.config().max_batch_size() > 0,
        };
        InferReply::render(result, &asked, &|output| instance.labels().of(output))
    };
    if json <= INLINE_JSON { render() } else { blocking(render).await }
}

pub(super) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(|e| Error::internal("JSON of an inference").source(e))?
}

fn response(reply: InferReply) -> Response {
    let (kind, length) = (reply.content_type(), reply.header_length);
    let mut response = Response::new(Body::chain(reply.pieces));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    if let Some(length) = length {
        response.headers_mut().insert(HeaderName::from_static(HEADER_LENGTH), length.into());
    }
    response
}
