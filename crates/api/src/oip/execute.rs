//! An inference from what a protocol has read to what it will write: shared memory, the model, the trace.
//!
//! Every protocol of this family goes through here, so that they differ in nothing but their form.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use plinth_serving::{InferAnswer, InferRequest, Instance};
use plinth_store::resources::VersionState;
use plinth_types::{Error, ModelName, Reason, RequestId, Result, TenantName, TraceContext, VersionNumber};

use super::request::InferCall;
use super::shared_memory::{Targets, read_inputs};
use super::trace::{Stamps, Traced};
use crate::Services;

/// What a request asks.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    /// Whose it is.
    pub tenant: TenantName,
    /// The model.
    pub model: ModelName,
    /// The version; the default one when `None`.
    pub version: Option<VersionNumber>,
    /// How long the caller waits for the model.
    pub deadline: Duration,
    /// Where the request stands in its trace, when it is recorded.
    pub trace: Option<TraceContext>,
}

impl Target {
    /// What answers for it; what is loaded on demand is loaded for it, and waited for until the deadline.
    ///
    /// # Errors
    /// As [`plinth_serving::Serving::ready`], and [`Reason::VersionRetired`].
    pub async fn ready(&self, services: &Services) -> Result<Arc<Instance>> {
        let found = services.serving.ready(&self.tenant, &self.model, self.version, self.deadline).await;
        found.map_err(|error| self.retired(services, error))
    }

    /// Says of a version that is not there that it was retired, when it was.
    fn retired(&self, services: &Services, error: Error) -> Error {
        let (Some(number), Reason::VersionNotFound) = (self.version, error.reason()) else { return error };
        let model = &self.model;
        let view = services.snapshot.view();
        let entry = view.snapshot.models.get(&self.tenant).and_then(|models| models.get(model));
        let record = entry.and_then(|entry| entry.versions.get(&number));
        if record.is_some_and(|record| record.state == VersionState::Retired) {
            let text = format!("version {number} of model '{model}' is retired; ask for another, or have it restored");
            return Error::new(Reason::VersionRetired, text);
        }
        error
    }
}

/// Asks the model: takes the inputs out of `asked`, those in shared memory too, and writes the outputs that belong there.
pub(crate) async fn execute(services: &Services, target: &Target, asked: &mut InferCall) -> Result<InferAnswer> {
    let Target { tenant, model, version, .. } = target;
    let mut inputs = std::mem::take(&mut asked.inputs);
    if !asked.shared.is_empty() {
        let shared = std::mem::take(&mut asked.shared);
        read_inputs(&services.regions, &services.settings.body.memory, tenant, shared, &mut inputs).await?;
    }
    let places = asked.outputs.iter().map(|o| (o.name.as_str(), o.place.as_ref()));
    let targets = Targets::find(&services.regions, tenant, places)?;
    let request = InferRequest {
        tenant: tenant.clone(),
        model: model.clone(),
        version: *version,
        inputs,
        outputs: asked.output_names(),
        // `timeout` bounds the time in the queue alone, as it does for Triton; once begun, a request has the node's time.
        deadline: target.deadline,
        queue_timeout: asked.timeout,
        priority: asked.priority,
        sequence: asked.sequence.clone(),
        parameters: asked.parameters.clone(),
        trace: target.trace,
    };
    let mut answer = services.serving.infer(request).await.map_err(|error| target.retired(services, error))?;
    if asked.outputs.is_empty() {
        // A configuration may show fewer outputs than the model gives.
        let shown = answer.instance.outputs();
        answer.outputs.retain(|output| shown.iter().any(|s| s.name() == output.name()));
    }
    targets.write(&answer.outputs).await?;
    Ok(answer)
}

/// Records the request when it is one of those that are traced.
pub(in crate::oip) async fn traced(
    services: &Services,
    request: &RequestId,
    target: &Target,
    id: &str,
    work: impl Future<Output = Result<InferAnswer>>,
) -> Result<InferAnswer> {
    let trace = services.traces.begin(&target.tenant, &target.model, request);
    let result = work.await;
    if let Some(trace) = trace {
        let version = result.as_ref().map_or(target.version, |answer| Some(answer.instance.version()));
        trace.end(&Traced { id, version, stamps: Stamps::default(), error: result.as_ref().err() });
    }
    result
}
