//! One line of a batch: a request, and what answers it.

use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use plinth_jobs::{JobContext, JobError};
use plinth_rows::{Row, RowError};
use plinth_types::{Error, ModelName, Reason, Result, VersionNumber};
use serde::Serialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use crate::Services;
use crate::bulk::engine::{LONGEST_PAUSE, Meaning, PAUSE, meaning};
use crate::oip::execute::{Target, execute};
use crate::oip::{error, infer_bytes, request::InferCall};

/// How long one line may take.
const LINE_TIME: Duration = Duration::from_mins(10);

/// What stands in a file for a line.
pub(super) struct Answer {
    /// Whether it goes into the output file.
    pub good: bool,
    /// Without its end of line.
    pub line: Vec<u8>,
}

#[derive(Serialize)]
struct Response<'a> {
    status_code: u16,
    request_id: &'a str,
    body: &'a RawValue,
}

#[derive(Serialize)]
struct Line<'a> {
    id: String,
    custom_id: Option<&'a str>,
    response: Option<Response<'a>>,
    error: Option<Value>,
}

/// Answers lines.
pub(super) struct Answerer<'a> {
    services: &'a Services,
    context: &'a JobContext,
    endpoint: &'a str,
    target: Target,
}

impl<'a> Answerer<'a> {
    pub fn new(
        services: &'a Services,
        context: &'a JobContext,
        endpoint: &'a str,
        model: ModelName,
        version: Option<VersionNumber>,
    ) -> Self {
        let deadline = context.timeout.min(LINE_TIME);
        let target = Target { tenant: context.tenant.clone(), model, version, deadline, trace: None };
        Self { services, context, endpoint, target }
    }

    /// The answer to a line.
    ///
    /// # Errors
    /// What keeps the whole batch from going on.
    pub async fn answer(&self, row: Result<Row, RowError>) -> Result<Answer, JobError> {
        let number = match &row {
            Err(error) => error.row.to_string(),
            Ok(_) => String::new(),
        };
        let fields = match row {
            Ok(Row::Fields(fields)) => fields,
            Ok(Row::Array(_)) => return self.refuse(None, "invalid_request", "a line is an object"),
            Err(error) => return self.refuse(None, "invalid_json", &format!("row {number}: {}", error.text)),
        };
        let custom_id = fields.get("custom_id").and_then(Value::as_str).map(str::to_owned);
        let id = custom_id.as_deref();
        if id.is_none() {
            return self.refuse(id, "missing_custom_id", "a line has a 'custom_id'");
        }
        if fields.get("method").and_then(Value::as_str) != Some("POST") || fields.get("url").and_then(Value::as_str) != Some(self.endpoint)
        {
            let text = format!("each line is a POST to the endpoint of the batch, {}", self.endpoint);
            return self.refuse(id, "mismatched_endpoint", &text);
        }
        let Some(body @ Value::Object(_)) = fields.get("body") else { return self.refuse(id, "invalid_request", "a line has a 'body'") };
        let body = Bytes::from(serde_json::to_vec(body).map_err(|error| Error::internal("a line").source(error))?);
        let mut pause = PAUSE;
        let failure = loop {
            match self.ask(body.clone()).await {
                Ok(text) => return self.write(id, StatusCode::OK, &text),
                Err(error) => match meaning(error.reason()) {
                    Meaning::Busy => {
                        tokio::time::sleep(error.retry_delay().unwrap_or(pause).min(LONGEST_PAUSE)).await;
                        pause = (pause * 2).min(LONGEST_PAUSE);
                    }
                    Meaning::Stop if !own(&error) => return Err(error.into()),
                    _ => break error,
                },
            }
        };
        let status = StatusCode::from_u16(error::status(failure.class())).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        self.write(id, status, &String::from_utf8_lossy(&error::body(&failure)))
    }

    /// The body of an answer, as a request over HTTP would have had it.
    async fn ask(&self, body: Bytes) -> Result<String> {
        let instance = self.target.ready(self.services).await?;
        let mut asked: InferCall = infer_bytes::parse(body, None, &instance).await?;
        if !asked.shared.is_empty() {
            let text = "a batch cannot read shared memory: the region may be gone, or on another machine, when it runs";
            return Err(Error::new(Reason::InvalidSharedMemory, text));
        }
        let answer = execute(self.services, &self.target, &mut asked).await?;
        let reply = infer_bytes::render(answer, asked).await?;
        if reply.header_length.is_some() {
            return Err(Error::new(Reason::MalformedRequest, "a line of a batch has no binary outputs").field("outputs"));
        }
        String::from_utf8(reply.pieces.concat()).map_err(|error| Error::internal("an answer").source(error))
    }

    fn write(&self, custom_id: Option<&str>, status: StatusCode, body: &str) -> Result<Answer, JobError> {
        let body: &RawValue = serde_json::from_str(body).map_err(|error| Error::internal("an answer as JSON").source(error))?;
        let request_id = self.request_id(custom_id);
        let response = Some(Response { status_code: status.as_u16(), request_id: &request_id, body });
        line(status.is_success(), &Line { id: format!("batch_req_{request_id}"), custom_id, response, error: None })
    }

    fn refuse(&self, custom_id: Option<&str>, code: &str, message: &str) -> Result<Answer, JobError> {
        let id = format!("batch_req_{}", self.request_id(custom_id));
        line(false, &Line { id, custom_id, response: None, error: Some(json!({ "code": code, "message": message })) })
    }

    /// The same in each attempt, so that the files are.
    fn request_id(&self, custom_id: Option<&str>) -> String {
        let mut hash = plinth_types::DigestHasher::new();
        hash.update(self.context.id.to_string().as_bytes());
        hash.update(custom_id.unwrap_or_default().as_bytes());
        hash.finish().short()
    }
}

/// Whether a failure is one of the request and not of the node.
fn own(error: &Error) -> bool {
    let status = error.class().status();
    (400..500).contains(&status) && !matches!(error.reason(), Reason::ModelNotFound | Reason::VersionNotFound | Reason::VersionRetired)
}

fn line(good: bool, line: &Line<'_>) -> Result<Answer, JobError> {
    let line = serde_json::to_vec(line).map_err(|error| Error::internal("a line").source(error))?;
    Ok(Answer { good, line })
}
