//! The kind `http`: a job that is one request to an HTTP endpoint, and its answer the result.
//!
//! The job's input is the body; where it goes stands in the input's meta (`url`, `method`, `content_type`). Invariants: only addresses that the
//! guard lets pass are called, redirects are not followed, and the answer has a bound. The request carries `Idempotency-Key`, the same at each
//! attempt, so that an endpoint that knows it does the thing once. 2xx is the result; 408, 425, 429 and 5xx are tried again, `Retry-After` is
//! honoured; everything else is a dead letter.

use std::time::Duration;

use async_trait::async_trait;
use bytes::BytesMut;
use http::{HeaderValue, Method, Request, header};
use http_body_util::BodyExt;
use plinth_net::outbound::{Deadlines, Guard, OutBody, Outbound, OutboundError};
use plinth_types::{ByteSize, Error, Reason, Result};
use tokio::time::Instant;

use crate::Meta;
use crate::handler::{Handler, Input, JobContext, JobError, Output};
use crate::webhooks::{Address, Outcome, judge};

/// Methods that a job may use.
const METHODS: [Method; 4] = [Method::POST, Method::PUT, Method::GET, Method::DELETE];

/// Sends jobs to HTTP endpoints.
pub struct HttpKind {
    outbound: Outbound,
    guard: Guard,
    max_result: ByteSize,
}

impl HttpKind {
    /// With a client whose guard is this one.
    #[must_use]
    pub const fn new(outbound: Outbound, guard: Guard, max_result: ByteSize) -> Self {
        Self { outbound, guard, max_result }
    }

    /// Where a job goes, checked; also for who submits one.
    ///
    /// # Errors
    /// [`Reason::MalformedRequest`] and [`Reason::WebhookRefused`], with the field.
    pub fn target(meta: &Meta, guard: &Guard) -> Result<(Method, Address)> {
        let text = |name: &str| meta.more.get(name).and_then(|value| value.as_str());
        let Some(url) = text("url") else {
            return Err(Error::new(Reason::MalformedRequest, "a job of kind 'http' names the 'url' that it calls").field("http.url"));
        };
        let method = text("method").unwrap_or("POST");
        let method = METHODS.into_iter().find(|known| known.as_str() == method);
        let method =
            method.ok_or_else(|| Error::new(Reason::MalformedRequest, "the method is POST, PUT, GET or DELETE").field("http.method"))?;
        let address =
            Address::parse(url, guard).map_err(|error| Error::new(Reason::WebhookRefused, error.to_string()).field("http.url"))?;
        Ok((method, address))
    }
}

#[async_trait]
impl Handler for HttpKind {
    async fn run(&self, input: Input, context: &JobContext) -> Result<Output, JobError> {
        tokio::select! {
            output = self.call(input, context) => output,
            // The connection is closed with it.
            () = context.cancelled.cancelled() => Err(JobError::Cancelled),
        }
    }
}

impl HttpKind {
    async fn call(&self, input: Input, context: &JobContext) -> Result<Output, JobError> {
        let (method, address) = Self::target(&input.meta, &self.guard)?;
        let mut request = Request::new(OutBody::full(input.bytes));
        *request.method_mut() = method;
        *request.uri_mut() = address.target().clone().into();
        let headers = request.headers_mut();
        headers.insert(header::USER_AGENT, HeaderValue::from_static(concat!("plinth/", env!("CARGO_PKG_VERSION"))));
        for (name, value) in [("content-type", input.meta.content_type.clone()), ("idempotency-key", context.effect_key("http"))] {
            if let Ok(value) = HeaderValue::from_str(&value) {
                headers.insert(name, value);
            }
        }
        let end = Instant::now() + context.timeout;
        let deadlines = Deadlines { first_byte: context.timeout, idle: Duration::from_mins(1).min(context.timeout), total: Some(end) };
        let endpoint = self.outbound.endpoint(address.origin().clone());
        let answer = match Box::pin(endpoint.send(request, &deadlines)).await {
            Ok(answer) => answer,
            Err(error) => return Err(JobError::Retry(unreachable(&error), None)),
        };
        let status = answer.status();
        let now = context.created_at;
        let outcome = judge(status, answer.headers(), now);
        let content_type =
            answer.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or("application/octet-stream");
        let meta = Meta::of(content_type);
        if outcome != Outcome::Delivered {
            let error = Error::new(Reason::UpstreamFailed, format!("the endpoint answered {}", status.as_u16()));
            let again = status.is_server_error() || matches!(status.as_u16(), 408 | 425 | 429);
            let Outcome::Retry { after } = outcome else { return Err(JobError::Dead(error)) };
            return Err(if again { JobError::Retry(error, after) } else { JobError::Dead(error) });
        }
        let mut bytes = BytesMut::new();
        let mut body = answer.into_body();
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| {
                JobError::Retry(Error::new(Reason::UpstreamFailed, "the endpoint's answer broke off").source(error), None)
            })?;
            if let Ok(mut data) = frame.into_data() {
                use bytes::Buf;
                if (bytes.len() + data.remaining()) as u64 > self.max_result.0 {
                    let text = format!("the endpoint's answer is larger than the {} that a job may keep", self.max_result);
                    return Err(JobError::Dead(Error::new(Reason::ResultTooLarge, text)));
                }
                while data.has_remaining() {
                    let piece = data.chunk().len();
                    bytes.extend_from_slice(data.chunk());
                    data.advance(piece);
                }
            }
        }
        Ok(Output { meta, bytes: bytes.freeze() })
    }
}

/// One text for whatever is behind it: who submits jobs must not look around in the operator's network.
fn unreachable(error: &OutboundError) -> Error {
    Error::new(Reason::UpstreamFailed, "the endpoint could not be reached or did not answer in time").diagnostic(error.to_string())
}
