//! The generate extension: an inference as one plain JSON object, answered at once or as a stream of events.

use futures_util::{FutureExt, StreamExt, stream};
use http::HeaderValue;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use plinth_net::{Coding, Response};
use plinth_types::Result;

use super::infer::{INLINE_JSON, blocking, execute, target, traced};
use crate::Services;
use crate::call::Call;
use crate::oip::generate;
use crate::reply;

pub async fn generate(services: Services, call: Call) -> Result<Response> {
    let coding = Coding::accepted(call.request.headers());
    let json = answer(services, call).await?;
    let response = reply::with_body(http::StatusCode::OK, "application/json", json);
    Ok(plinth_net::encoding::compress(response, coding).await)
}

/// Models here give one answer to a request, so the stream has one event.
pub async fn generate_stream(services: Services, call: Call) -> Result<Response> {
    let answers = stream::once(answer(services, call).boxed()).boxed();
    let mut response = Response::new(generate::events(answers).await?);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream; charset=utf-8"));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

async fn answer(services: Services, mut call: Call) -> Result<Vec<u8>> {
    let target = target(&services, &call)?;
    let instance = target.ready(&services).await?;
    let body = call.body().await?;
    let length = body.len();
    let parse = move || generate::parse(&body, instance.inputs(), instance.config().max_batch_size() > 0);
    let mut asked = if length <= INLINE_JSON { parse()? } else { blocking(parse).await? };
    let answer = traced(&services, &call.request_id, &target, &asked.id.clone(), execute(&services, &target, &mut asked)).await?;
    let bytes: usize = answer.outputs.iter().map(|o| o.data().len()).sum();
    let render = move || {
        let instance = &answer.instance;
        generate::render(instance.model().as_str(), &instance.version().to_string(), &asked.id, &answer.outputs)
    };
    if bytes <= INLINE_JSON { render() } else { blocking(render).await }
}
