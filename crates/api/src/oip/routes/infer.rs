//! Inference. A client that goes away cancels its request.

use http::header::CONTENT_TYPE;
use http::{HeaderName, HeaderValue};
use plinth_net::{Body, Coding, Response};
use plinth_types::Result;

use super::version;
use crate::Services;
use crate::call::Call;
use crate::oip::HEADER_LENGTH;
pub(super) use crate::oip::execute::{Target, execute, traced};
pub(super) use crate::oip::infer_bytes::{INLINE_JSON, blocking};
use crate::oip::infer_bytes::{parse, render};
use crate::oip::request::header_length;
use crate::oip::response::InferReply;

pub async fn infer(services: Services, mut call: Call) -> Result<Response> {
    // Before the body: whoever asks for what is not there need not send it.
    let target = target(&services, &call)?;
    if crate::jobs::wants_async(call.request.headers()) {
        // It is a job that was asked for, so what is wrong is said as jobs say it.
        let request_id = call.request_id.clone();
        let later = crate::jobs::respond_async(&services, call, target.model, target.version).await;
        return later.or_else(|error| Ok(crate::problem::render(&error, &request_id)));
    }
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

fn response(reply: InferReply) -> Response {
    let (kind, length) = (reply.content_type(), reply.header_length);
    let mut response = Response::new(Body::chain(reply.pieces));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    if let Some(length) = length {
        response.headers_mut().insert(HeaderName::from_static(HEADER_LENGTH), length.into());
    }
    response
}
