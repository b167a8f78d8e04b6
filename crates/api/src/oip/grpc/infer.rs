//! One inference: `ModelInfer`. A client that goes away, or whose deadline passes, cancels its request.

use std::sync::Arc;

use bytes::Bytes;
use plinth_identity::Principal;
use plinth_net::Response;
use plinth_serving::InferAnswer;
use plinth_types::{ByteSize, Error, RequestId, Result, TraceContext};
use tokio::time::Instant;

use super::answer::Answered;
use super::call::{Head, one_message, reply};
use super::request::{Asked, is_raw};
use super::{answer, request};
use crate::Services;
use crate::call::{Call, Routed};
use crate::oip::classification::classify;
use crate::oip::execute::{Target, execute, traced};
use crate::oip::request::InferCall;

/// Messages above this size, in bytes, whose tensors are typed are read on a blocking thread: some milliseconds of work.
const INLINE_TYPED: usize = 256 << 10;

/// Who asks, and what is known of the call.
#[derive(Clone)]
pub(super) struct Asker {
    pub who: Principal,
    pub id: RequestId,
    /// When the call is recorded.
    trace: Option<TraceContext>,
    routed: Option<Arc<Routed>>,
}

impl Asker {
    pub fn of(call: &Call) -> Self {
        Self { who: call.principal.clone(), id: call.request_id.clone(), trace: call.recorded(), routed: call.routed.clone() }
    }
}

pub(super) async fn infer(services: Services, mut call: Call, head: Head) -> Result<Response> {
    let limits = &services.settings.grpc.message;
    let deadline = head.timeout.map(|time| Instant::now() + time);
    let message = one_message(&mut call, &head, limits).await?;
    let mut asked = read(message, limits.max).await?;
    let answer = ask(&services, &Asker::of(&call), &mut asked, deadline).await?;
    let pieces = written(answer, &asked.call, answer::unary)?;
    reply(pieces, head.reply).await
}

/// Reads the message of an inference.
pub(super) async fn read(message: Bytes, max: ByteSize) -> Result<Asked> {
    if message.len() <= INLINE_TYPED || is_raw(&message) {
        return request::Asked::parse(&message, max);
    }
    let read = tokio::task::spawn_blocking(move || Asked::parse(&message, max));
    read.await.map_err(|e| Error::internal("the tensors of an inference").source(e))?
}

/// Asks the model, within the client's deadline or else the node's.
pub(super) async fn ask(services: &Services, asker: &Asker, asked: &mut Asked, deadline: Option<Instant>) -> Result<InferAnswer> {
    let Asker { who, id, trace, routed } = asker;
    if let Some(routed) = routed {
        (asked.model, asked.version) = routed.answerer(asked.model.clone(), asked.version)?;
    }
    let left = deadline.map_or(services.settings.request_timeout, |deadline| deadline.saturating_duration_since(Instant::now()));
    who.must_use(&asked.model)?;
    let target = Target { tenant: who.tenant.clone(), model: asked.model.clone(), version: asked.version, deadline: left, trace: *trace };
    if !services.traces.on() {
        return execute(services, &target, &mut asked.call).await;
    }
    let client_id = asked.call.id.clone();
    traced(services, id, &target, &client_id, execute(services, &target, &mut asked.call)).await
}

/// Writes an answer with `write`, classes in place of the outputs for which the request wants them.
pub(super) fn written(
    mut answer: InferAnswer,
    call: &InferCall,
    write: impl Fn(&Answered<'_>) -> Result<Vec<Bytes>>,
) -> Result<Vec<Bytes>> {
    let instance = &answer.instance;
    for (i, wish) in call.outputs.iter().enumerate() {
        let Some(most) = wish.classification else { continue };
        let Some(output) = answer.outputs.iter_mut().find(|output| output.name() == wish.name) else { continue };
        let labels = instance.labels().of(&wish.name);
        let classes = classify(output, most, instance.config().max_batch_size() > 0, labels);
        *output = classes.map_err(|e| e.field(format!("outputs[{i}]")))?;
    }
    let version = instance.version().to_string();
    write(&Answered { model: instance.model().as_str(), version: &version, call, outputs: &answer.outputs })
}
