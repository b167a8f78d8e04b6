//! The kind `infer`: an inference of the Open Inference Protocol as a job.
//!
//! The input is the body of an inference as it would stand in a request; the result is what the answer would have been. Invariant: a job asks as its
//! tenant, and of the model that it named when it was submitted.

use std::sync::{Arc, OnceLock};

use async_trait::async_trait;
use plinth_jobs::{Handler, Input, JobContext, JobError, Meta, Output};
use plinth_types::{Error, ModelName, Reason, VersionNumber};

use crate::Services;
use crate::oip::execute::{Target, execute};
use crate::oip::{infer_bytes, request::InferCall};
use crate::services::WeakServices;

/// The kind's name.
pub const KIND: &str = "infer";

const MODEL: &str = "model";
const VERSION: &str = "version";
const LENGTH: &str = "header_length";

/// Writes into a job's meta what shall answer it.
pub(crate) fn name(meta: &mut Meta, model: &ModelName, version: Option<VersionNumber>, length: Option<usize>) {
    meta.more.insert(MODEL.into(), model.as_str().into());
    if let Some(version) = version {
        meta.more.insert(VERSION.into(), version.to_string().into());
    }
    if let Some(length) = length {
        meta.more.insert(LENGTH.into(), length.into());
    }
}

/// The model that a job's meta names.
pub(crate) fn model(meta: &Meta) -> Option<ModelName> {
    model_of(&meta.more)
}

/// The same of what a schedule keeps.
pub(crate) fn model_of(more: &serde_json::Map<String, serde_json::Value>) -> Option<ModelName> {
    more.get(MODEL)?.as_str()?.parse().ok()
}

/// The length of the JSON before binary tensors.
pub(crate) fn header_length(meta: &Meta) -> Option<usize> {
    usize::try_from(meta.more.get(LENGTH)?.as_u64()?).ok()
}

/// Runs inferences. Made before the services are, which it asks: they are handed in later.
#[derive(Default)]
pub struct InferKind(OnceLock<WeakServices>);

impl InferKind {
    /// Without services yet: until then jobs are put back.
    #[must_use]
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// Hands the services in, once.
    pub fn attach(&self, services: &Services) {
        let _ = self.0.set(services.downgrade());
    }
}

#[async_trait]
impl Handler for InferKind {
    async fn run(&self, input: Input, context: &JobContext) -> Result<Output, JobError> {
        let Some(services) = self.0.get().and_then(WeakServices::upgrade) else {
            return Err(JobError::NotNow(std::time::Duration::from_millis(200)));
        };
        let Some(model) = model(&input.meta) else {
            return Err(JobError::Dead(Error::new(Reason::InvalidName, "the job names no model").field("model")));
        };
        let version = input.meta.more.get(VERSION).and_then(|version| version.as_str()?.parse().ok());
        let target = Target { tenant: context.tenant.clone(), model, version, deadline: context.timeout, trace: None };
        let work = async {
            let instance = target.ready(&services).await?;
            let mut asked: InferCall = infer_bytes::parse(input.bytes, header_length(&input.meta), &instance).await?;
            if !asked.shared.is_empty() {
                let text = "a job cannot read shared memory: the region may be gone, or on another machine, when it runs";
                return Err(Error::new(Reason::InvalidSharedMemory, text));
            }
            let answer = execute(&services, &target, &mut asked).await?;
            infer_bytes::render(answer, asked).await
        };
        let reply = tokio::select! {
            reply = work => reply?,
            // Dropping the work cancels it in the engine's queue.
            () = context.cancelled.cancelled() => return Err(JobError::Cancelled),
        };
        let mut meta = Meta::of(reply.content_type());
        if let Some(length) = reply.header_length {
            meta.more.insert(LENGTH.into(), length.into());
        }
        Ok(Output { meta, bytes: reply.pieces.concat().into() })
    }
}
