//! The completion routes of the OpenAI API: a text goes in, a text comes out, whole or in pieces.
//!
//! A request's parameters go along as they are (`max_tokens`, `temperature`, `seed`), except those that would change the
//! form of the answer.

use bytes::Bytes;
use http::{Response, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use plinth_types::tensor::push_byte_element;
use plinth_types::{DataType, Dim, Shape, Tensor, TensorSpec};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::sse::Events;
use super::{Call, Failure, MAX_DESCRIPTION, PLATFORM, oip_http};
use crate::process::client::{Ask, CallError, Http};
use crate::process::manifest::{Endpoint, Manifest};
use crate::spec::ModelMetadata;

/// Parameters that are ours to set.
const RESERVED: [&str; 7] = ["model", "prompt", "messages", "stream", "stream_options", "n", "best_of"];
/// The last event of a stream.
const DONE: &str = "[DONE]";

pub(crate) struct OpenAi {
    http: Http,
    model: String,
    health: String,
    endpoint: Endpoint,
}

#[derive(Deserialize)]
struct Reply {
    #[serde(default)]
    choices: Vec<Choice>,
    error: Option<Complaint>,
}

#[derive(Deserialize)]
struct Choice {
    text: Option<String>,
    message: Option<Message>,
    delta: Option<Message>,
}

#[derive(Deserialize)]
struct Message {
    content: Option<String>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Complaint {
    Object { message: String },
    Text(String),
}

impl Complaint {
    fn text(self) -> String {
        match self {
            Self::Object { message } => message,
            Self::Text(text) => text,
        }
    }
}

impl Reply {
    /// What the first choice adds; an empty list, as in a last event with the usage, adds nothing.
    fn text(self) -> Option<String> {
        let choice = self.choices.into_iter().next()?;
        choice.text.or_else(|| choice.message.or(choice.delta)?.content)
    }
}

/// The tensors of a server that is asked for nothing else.
pub(super) fn metadata() -> Result<ModelMetadata, String> {
    let text = |name: &str| TensorSpec::new(name, DataType::Bytes, vec![Dim::Fixed(1)]).map_err(|error| error.to_string());
    Ok(ModelMetadata {
        platform: PLATFORM.to_owned(),
        inputs: vec![text("text_input")?],
        optional_inputs: Vec::new(),
        outputs: vec![text("text_output")?],
        engine: "openai".to_owned(),
    })
}

impl OpenAi {
    pub(super) fn new(http: Http, model: String, manifest: &Manifest) -> Self {
        let health = manifest.health.path.clone().unwrap_or_else(|| "/health".to_owned());
        Self { http, model, health, endpoint: manifest.openai.endpoint }
    }

    pub(super) async fn is_well(&self) -> Result<bool, CallError> {
        let answer = self.http.call(Ask::get(&self.health), MAX_DESCRIPTION).await?;
        Ok(answer.status == StatusCode::OK)
    }

    fn path(&self) -> &'static str {
        match self.endpoint {
            Endpoint::Completions => "/v1/completions",
            Endpoint::Chat => "/v1/chat/completions",
        }
    }

    fn body(&self, call: &Call<'_>, stream: bool) -> Result<Vec<Bytes>, String> {
        let mut elements = call.inputs.first().into_iter().flat_map(Tensor::byte_elements);
        let (Some(text), None) = (elements.next(), elements.next()) else {
            return Err("it takes exactly one text".to_owned());
        };
        let text = std::str::from_utf8(text).map_err(|_| "the text is not UTF-8".to_owned())?;
        let mut body = Map::from_iter([("model".to_owned(), json!(self.model)), ("stream".to_owned(), json!(stream))]);
        let (field, value) = match self.endpoint {
            Endpoint::Completions => ("prompt", json!(text)),
            Endpoint::Chat => ("messages", json!([{ "role": "user", "content": text }])),
        };
        body.insert(field.to_owned(), value);
        for (name, value) in call.parameters {
            if RESERVED.contains(&name.as_str()) {
                return Err(format!("the parameter '{name}' cannot be given; it is set by the server"));
            }
            body.insert(name.clone(), oip_http::parameter(value));
        }
        serde_json::to_vec(&Value::Object(body)).map(|body| vec![body.into()]).map_err(|error| error.to_string())
    }

    pub(super) async fn infer(&self, call: Call<'_>) -> Result<Vec<Tensor>, Failure> {
        let body = self.body(&call, false).map_err(Failure::input)?;
        let answer = self.http.call(Ask::post(self.path(), "application/json", body).traced(call.trace), call.max_answer).await?;
        if answer.status != StatusCode::OK {
            return Err(Failure::status(answer.status, complaint(&answer.body)));
        }
        let reply: Reply = serde_json::from_slice(&answer.body).map_err(|error| Failure::nonsense(error.to_string()))?;
        let text = reply.text().ok_or_else(|| Failure::nonsense("the answer has no choice with a text"))?;
        let name = call.metadata.outputs.first().map_or("text_output", TensorSpec::name);
        output(name, &text).map(|tensor| vec![tensor]).map_err(Failure::nonsense)
    }

    pub(super) async fn stream(&self, call: Call<'_>) -> Result<Opened, Failure> {
        let body = self.body(&call, true).map_err(Failure::input)?;
        let answer = self.http.begin(Ask::post(self.path(), "application/json", body).traced(call.trace)).await?;
        if answer.status() == StatusCode::OK {
            return Ok(Opened {
                answer,
                events: Events::default(),
                left: call.max_answer,
                max: call.max_answer,
                ready: Vec::new(),
                done: false,
            });
        }
        let status = answer.status();
        let mut text = http_body_util::Limited::new(answer.into_body(), usize::try_from(MAX_DESCRIPTION).unwrap_or(0));
        let text = (&mut text).collect().await.map(|text| text.to_bytes()).unwrap_or_default();
        Err(Failure::status(status, complaint(&text)))
    }
}

fn complaint(body: &[u8]) -> Option<String> {
    serde_json::from_slice::<Reply>(body).ok()?.error.map(Complaint::text)
}

fn output(name: &str, text: &str) -> Result<Tensor, String> {
    let mut data = Vec::with_capacity(text.len() + 4);
    push_byte_element(&mut data, text.as_bytes()).map_err(|error| error.to_string())?;
    let shape = Shape::new(vec![1]).map_err(|error| error.to_string())?;
    Tensor::new(name, DataType::Bytes, shape, data.into()).map_err(|error| error.to_string())
}

/// An answer that comes in pieces.
pub(crate) struct Opened {
    answer: Response<Incoming>,
    events: Events,
    /// Bytes that may still come.
    left: u64,
    max: u64,
    /// Pieces that have come, the last one first.
    ready: Vec<Result<String, Failure>>,
    done: bool,
}

impl Opened {
    /// The next piece; `None` after the last. Cancel safe.
    pub(crate) async fn next(&mut self) -> Option<Result<String, Failure>> {
        loop {
            if let Some(piece) = self.ready.pop() {
                return Some(piece);
            }
            if self.done {
                return None;
            }
            let data = match self.answer.body_mut().frame().await {
                Some(Ok(frame)) => frame.into_data().unwrap_or_default(),
                // Without the last event it is not known whether this was all.
                Some(Err(_)) | None => {
                    self.done = true;
                    return Some(Err(CallError::Closed.into()));
                }
            };
            match self.left.checked_sub(data.len() as u64) {
                Some(left) => self.left = left,
                None => {
                    self.done = true;
                    return Some(Err(CallError::TooLong(self.max).into()));
                }
            }
            self.take(&data);
        }
    }

    fn take(&mut self, data: &[u8]) {
        let (mut ready, mut done) = (Vec::new(), false);
        let fed = self.events.feed(data, |event| {
            if done {
                return;
            }
            if event == DONE {
                done = true;
                return;
            }
            match serde_json::from_str::<Reply>(event) {
                Ok(Reply { error: Some(complaint), .. }) => {
                    ready.push(Err(Failure::status(StatusCode::INTERNAL_SERVER_ERROR, Some(complaint.text()))));
                    done = true;
                }
                Ok(reply) => ready.extend(reply.text().filter(|text| !text.is_empty()).map(Ok)),
                Err(error) => {
                    ready.push(Err(Failure::nonsense(error.to_string())));
                    done = true;
                }
            }
        });
        if let Err(error) = fed {
            ready.push(Err(Failure::nonsense(error)));
            done = true;
        }
        ready.reverse();
        (self.ready, self.done) = (ready, done);
    }
}
