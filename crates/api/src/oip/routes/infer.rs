//! Inference. A client that goes away cancels its request.

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderName, HeaderValue};
use plinth_net::{Body, Coding, Response};
use plinth_serving::{InferAnswer, InferRequest, Instance};
use plinth_store::resources::VersionState;
use plinth_types::{Error, Reason, Result};

use super::version;
use crate::Services;
use crate::call::Call;
use crate::oip::HEADER_LENGTH;
use crate::oip::request::{InferCall, header_length};
use crate::oip::response::{InferReply, InferResult};

/// JSON above this size, in bytes, is read and written on a blocking thread: some milliseconds of work.
const INLINE_JSON: usize = 256 << 10;

pub async fn infer(services: Services, mut call: Call) -> Result<Response> {
    let (tenant, model, version) = (call.principal.tenant.clone(), call.model()?, version(&call)?);
    // Before the body: whoever asks for what is not there need not send it.
    let instance = services.serving.resolve(&tenant, &model, version).map_err(|error| retired(&services, &call, error))?;
    let coding = Coding::accepted(call.request.headers());
    let length = header_length(call.request.headers())?;
    let body = call.body().await?;
    let mut asked = parse(body, length, &instance).await?;
    let deadline = asked.timeout.map_or(services.settings.request_timeout, |t| t.min(services.settings.request_timeout));
    let inputs = std::mem::take(&mut asked.inputs);
    let request = InferRequest {
        tenant,
        model,
        version,
        inputs,
        outputs: asked.output_names(),
        deadline,
        queue_timeout: asked.timeout,
        priority: asked.priority,
        sequence: None,
        parameters: asked.parameters.clone(),
    };
    let mut answer = services.serving.infer(request).await?;
    if asked.outputs.is_empty() {
        // A configuration may show fewer outputs than the model gives.
        let shown = answer.instance.outputs();
        answer.outputs.retain(|output| shown.iter().any(|s| s.name() == output.name()));
    }
    let reply = render(answer, asked).await?;
    Ok(plinth_net::encoding::compress(response(reply), coding).await)
}

/// Says of a version that is not there that it was retired, when it was.
fn retired(services: &Services, call: &Call, error: Error) -> Error {
    let (Ok(model), Ok(Some(number))) = (call.model(), version(call)) else { return error };
    let view = services.snapshot.view();
    let entry = view.snapshot.models.get(&call.principal.tenant).and_then(|models| models.get(&model));
    let record = entry.and_then(|entry| entry.versions.get(&number));
    if record.is_some_and(|record| record.state == VersionState::Retired) {
        return Error::new(
            Reason::VersionRetired,
            format!("version {number} of model '{model}' is retired; ask for another, or have it restored"),
        );
    }
    error
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

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
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
