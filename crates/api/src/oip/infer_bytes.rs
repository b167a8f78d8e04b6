//! The bodies of inferences over HTTP: read and written the same whether somebody waits for the answer or a job asks.

use bytes::Bytes;
use plinth_serving::{InferAnswer, Instance};
use plinth_types::{Error, Result};

use super::request::InferCall;
use super::response::{InferReply, InferResult};

/// JSON above this size, in bytes, is read and written on a blocking thread: some milliseconds of work.
pub(crate) const INLINE_JSON: usize = 256 << 10;

/// Reads the body of an inference.
///
/// # Errors
/// What is wrong with it.
pub(crate) async fn parse(body: Bytes, length: Option<usize>, instance: &Instance) -> Result<InferCall> {
    if length == Some(0) {
        return InferCall::parse_raw(body, instance.inputs());
    }
    if length.unwrap_or(body.len()) <= INLINE_JSON {
        return InferCall::parse(&body, length);
    }
    blocking(move || InferCall::parse(&body, length)).await
}

/// Writes the body of its answer.
///
/// # Errors
/// When the answer cannot be written in the form that was asked for.
pub(crate) async fn render(answer: InferAnswer, asked: InferCall) -> Result<InferReply> {
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

/// Does work of some milliseconds where it holds up nobody.
///
/// # Errors
/// Those of the work.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(|e| Error::internal("JSON of an inference").source(e))?
}
