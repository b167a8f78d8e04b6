//! The protocols that servers speak: asking whether they live, what their model takes, and for an answer.
//!
//! Invariant: what comes back to the caller has the names, types and shapes that the metadata promises, in the order that
//! was asked for; nothing of an answer is believed before that. Waiting and counting are for [`super::ProcessServer`].

mod json;
mod oip_grpc;
mod oip_http;
mod openai;
mod sse;

use http::StatusCode;
use plinth_types::{Parameters, Tensor, TensorSpec, TraceContext};
use std::time::Duration;

use super::client::{CallError, Http};
use super::manifest::{Manifest, Protocol};
use crate::check;
use crate::spec::{ModelMetadata, RunnerError};
use oip_grpc::OipGrpc;
use oip_http::OipHttp;
use openai::OpenAi;
pub(crate) use openai::Opened;

/// The most bytes of an answer that describes something.
pub(crate) const MAX_DESCRIPTION: u64 = 1 << 20;
/// Triton's field for the platform.
const PLATFORM: &str = "process";

/// Why a call failed.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The connection did; what that means depends on whether the process lives.
    Call(CallError),
    /// The server said so, or said nonsense.
    Said(RunnerError),
}

impl From<CallError> for Failure {
    fn from(error: CallError) -> Self {
        Self::Call(error)
    }
}

impl Failure {
    pub(crate) fn nonsense(text: impl Into<String>) -> Self {
        Self::Said(RunnerError::BrokeProtocol(check::text(&text.into())))
    }

    fn input(text: impl Into<String>) -> Self {
        Self::Said(RunnerError::Input(check::text(&text.into())))
    }

    /// What a status other than 200 means, with the server's own words if it has some.
    fn status(status: StatusCode, text: Option<String>) -> Self {
        let said = || text.as_deref().map_or_else(|| format!("its server answered with status {}", status.as_u16()), check::text);
        Self::Said(match status.as_u16() {
            400 | 413 | 422 => RunnerError::Input(said()),
            429 | 503 => RunnerError::QueueFull,
            500..=599 => RunnerError::Execution(said()),
            401 | 403 | 404 | 408 | 409 => RunnerError::Execution(said()),
            other => RunnerError::BrokeProtocol(format!("status {other}")),
        })
    }
}

/// One inference.
pub(crate) struct Call<'a> {
    pub inputs: Vec<Tensor>,
    /// Empty: all.
    pub outputs: &'a [String],
    pub parameters: &'a Parameters,
    pub metadata: &'a ModelMetadata,
    pub max_answer: u64,
    /// For protocols that tell the server.
    pub left: Duration,
    /// Where the request stands in its trace, when it is recorded; the server is told as `traceparent`.
    pub trace: Option<TraceContext>,
}

/// A server's protocol, bound to its model.
pub(crate) enum Speaker {
    OipHttp(OipHttp),
    OipGrpc(OipGrpc),
    OpenAi(OpenAi),
}

impl Speaker {
    /// `name` is the model's name here.
    pub(crate) fn new(manifest: &Manifest, name: &str, http: Http) -> Self {
        let model = manifest.model.clone().unwrap_or_else(|| name.to_owned());
        match manifest.protocol {
            Protocol::OipHttp => Self::OipHttp(OipHttp::new(http, &model, manifest)),
            Protocol::OipGrpc => Self::OipGrpc(OipGrpc::new(http, model, manifest)),
            Protocol::OpenAi => Self::OpenAi(OpenAi::new(http, model, manifest)),
        }
    }

    /// Whether the server says that its model can answer.
    pub(crate) async fn is_well(&self) -> Result<bool, CallError> {
        match self {
            Self::OipHttp(speaker) => speaker.is_well().await,
            Self::OipGrpc(speaker) => speaker.is_well().await,
            Self::OpenAi(speaker) => speaker.is_well().await,
        }
    }

    /// What the model takes and gives: as the server says it, as `process.toml` says it, and alike if both do.
    pub(crate) async fn metadata(&mut self, manifest: &Manifest) -> Result<ModelMetadata, RunnerError> {
        let told = match self {
            Self::OipHttp(speaker) => speaker.metadata().await,
            Self::OipGrpc(speaker) => speaker.metadata().await,
            Self::OpenAi(_) => Ok(None),
        };
        let told = told.map_err(|failure| match failure {
            Failure::Call(error) => RunnerError::Load(format!("the server does not describe its model: {error}")),
            Failure::Said(error) => RunnerError::Load(format!("the server does not describe its model: {error}")),
        })?;
        let written = written(manifest).map_err(RunnerError::Load)?;
        match (told, written) {
            (Some(told), Some(written)) => {
                alike("input", &told.inputs, &written.inputs)?;
                alike("output", &told.outputs, &written.outputs)?;
                Ok(ModelMetadata { engine: told.engine, ..written })
            }
            (Some(told), None) => Ok(told),
            (None, Some(written)) => Ok(written),
            (None, None) if manifest.protocol == Protocol::OpenAi => openai::metadata().map_err(RunnerError::Load),
            (None, None) => {
                Err(RunnerError::Load("the server does not describe its model; process.toml can, with 'inputs' and 'outputs'".to_owned()))
            }
        }
    }

    pub(crate) async fn infer(&self, call: Call<'_>) -> Result<Vec<Tensor>, Failure> {
        let (metadata, outputs) = (call.metadata, call.outputs);
        let answer = match self {
            Self::OipHttp(speaker) => speaker.infer(call).await,
            Self::OipGrpc(speaker) => speaker.infer(call).await,
            Self::OpenAi(speaker) => speaker.infer(call).await,
        }?;
        let answer = arrange(metadata, outputs, answer);
        check::answer(metadata, outputs, &answer).map_err(Failure::nonsense)?;
        Ok(answer)
    }

    /// Begins an answer that comes in pieces of text.
    pub(crate) async fn stream(&self, call: Call<'_>) -> Result<Opened, Failure> {
        match self {
            Self::OpenAi(speaker) => speaker.stream(call).await,
            _ => Err(Failure::input("its server does not stream; only servers with the openai protocol do")),
        }
    }
}

fn written(manifest: &Manifest) -> Result<Option<ModelMetadata>, String> {
    if manifest.inputs.is_empty() {
        return Ok(None);
    }
    Ok(Some(ModelMetadata {
        platform: PLATFORM.to_owned(),
        inputs: manifest.inputs.iter().map(super::manifest::TensorLine::spec).collect::<Result<_, _>>()?,
        optional_inputs: manifest.inputs.iter().filter(|line| line.optional).map(|line| line.name.clone()).collect(),
        outputs: manifest.outputs.iter().map(super::manifest::TensorLine::spec).collect::<Result<_, _>>()?,
        engine: PLATFORM.to_owned(),
    }))
}

/// Names and types must be the same; of shapes the file's count, which may be narrower.
fn alike(kind: &str, told: &[TensorSpec], written: &[TensorSpec]) -> Result<(), RunnerError> {
    let same = |a: &TensorSpec, b: &TensorSpec| a.name() == b.name() && a.datatype() == b.datatype() && a.shape().len() == b.shape().len();
    let lost = written.iter().find(|line| !told.iter().any(|spec| same(spec, line)));
    match lost {
        None => Ok(()),
        Some(line) => {
            Err(RunnerError::Load(format!("process.toml has the {kind} '{}', the server has none of this type and rank", line.name())))
        }
    }
}

/// The wished outputs in their order; what is missing is found by the check that follows.
fn arrange(metadata: &ModelMetadata, wished: &[String], mut answer: Vec<Tensor>) -> Vec<Tensor> {
    let all: Vec<&str> = if wished.is_empty() {
        metadata.outputs.iter().map(TensorSpec::name).collect()
    } else {
        wished.iter().map(String::as_str).collect()
    };
    let take = |name: &&str| answer.iter().position(|tensor| tensor.name() == *name).map(|at| answer.swap_remove(at));
    all.iter().filter_map(take).collect()
}

/// Specifications out of a server's description.
fn specs(lists: [Vec<TensorSpec>; 2], engine: String) -> Result<ModelMetadata, Failure> {
    let [inputs, outputs] = lists;
    let unique =
        |list: &[TensorSpec]| list.iter().enumerate().all(|(i, spec)| list.iter().take(i).all(|earlier| earlier.name() != spec.name()));
    if inputs.is_empty() || outputs.is_empty() || inputs.len().max(outputs.len()) > 1024 || !(unique(&inputs) && unique(&outputs)) {
        return Err(Failure::nonsense("its inputs or outputs are none, too many, or have a name twice"));
    }
    Ok(ModelMetadata { platform: PLATFORM.to_owned(), inputs, optional_inputs: Vec::new(), outputs, engine })
}
