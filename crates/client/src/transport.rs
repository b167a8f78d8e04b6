//! Sending one request and reading its answer.
//!
//! Invariants: every wait has a deadline; an answer is read up to a limit; only requests that say they are idempotent
//! are repeated, and only when nobody answered or the node said 503. What the bodies mean is left to the routes.

use std::future::Future;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use reqwest::header::{CONTENT_TYPE, RETRY_AFTER};
use reqwest::{Method, RequestBuilder, Response, StatusCode};
use serde::Serialize;
use serde::de::DeserializeOwned;
use url::Url;

use crate::client::printable;
use crate::error::{Refusal, TransportError, TransportKind};
use crate::{Client, Error, Result, wire};

/// The most bytes of an error's text that are read.
const MAX_ERROR: usize = 64 << 10;
/// The longest wait that a `Retry-After` may ask for inside a call.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(5);

/// A request of the admin API with a body that is small, so that it can be sent again.
pub(crate) struct Call {
    method: Method,
    url: Url,
    body: Option<Bytes>,
    idempotent: bool,
    timeout: Option<Duration>,
}

impl Call {
    pub(crate) fn get(url: Url) -> Self {
        Self { method: Method::GET, url, body: None, idempotent: true, timeout: None }
    }

    pub(crate) fn head(url: Url) -> Self {
        Self { method: Method::HEAD, ..Self::get(url) }
    }

    pub(crate) fn delete(url: Url) -> Self {
        Self { method: Method::DELETE, idempotent: false, ..Self::get(url) }
    }

    pub(crate) fn post(url: Url) -> Self {
        Self { method: Method::POST, idempotent: false, ..Self::get(url) }
    }

    pub(crate) fn put(url: Url) -> Self {
        Self { method: Method::PUT, idempotent: false, ..Self::get(url) }
    }

    pub(crate) fn patch(url: Url) -> Self {
        Self { method: Method::PATCH, idempotent: false, ..Self::get(url) }
    }

    /// Carries `body` as JSON.
    pub(crate) fn json(mut self, body: &impl Serialize) -> Result<Self> {
        let text = serde_json::to_vec(body).map_err(|e| Error::Settings(format!("the request cannot be written as JSON: {e}")))?;
        self.body = Some(text.into());
        Ok(self)
    }

    /// Waits so long instead of [`crate::Options::request_timeout`].
    pub(crate) const fn within(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }
}

/// An answer that was read to its end.
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) body: Bytes,
}

impl Client {
    /// Sends `call` and reads the answer, which is a success.
    pub(crate) async fn send(&self, call: Call) -> Result<Answer> {
        let mut repeat = Repeat::new(self, call.idempotent);
        loop {
            match self.attempt(&call).await {
                Err(error) if repeat.again(&error).await => {}
                end => return end,
            }
        }
    }

    async fn attempt(&self, call: &Call) -> Result<Answer> {
        let mut request = self.http.request(call.method.clone(), call.url.clone());
        if let Some(body) = &call.body {
            request = request.header(CONTENT_TYPE, "application/json").body(body.clone());
        }
        let exchange = async {
            let response = self.success(request).await?;
            let status = response.status();
            Ok(Answer { status, body: self.read(response, self.options.max_answer).await? })
        };
        self.within(call.timeout.unwrap_or(self.options.request_timeout), exchange).await
    }

    /// As [`Client::send`], with the answer parsed.
    pub(crate) async fn fetch<T: DeserializeOwned>(&self, call: Call) -> Result<T> {
        let answer = self.send(call).await?;
        self.parse(&answer.body)
    }

    pub(crate) fn parse<T: DeserializeOwned>(&self, body: &[u8]) -> Result<T> {
        serde_json::from_slice(body).map_err(|e| self.protocol(format!("its JSON is not what was expected: {e}")))
    }

    /// Sends and returns the response when it is a success; reads and maps the error otherwise.
    pub(crate) async fn success(&self, request: RequestBuilder) -> Result<Response> {
        let request = match &self.tenant {
            Some(tenant) => request.header("x-plinth-tenant", tenant),
            None => request,
        };
        let response = request.send().await.map_err(|e| self.transport(e))?;
        if response.status().is_success() {
            return Ok(response);
        }
        let status = response.status();
        let retry_after =
            response.headers().get(RETRY_AFTER).and_then(|v| v.to_str().ok()).and_then(|v| v.parse().ok()).map(Duration::from_secs);
        // The status alone is an answer: an error text that cannot be read must not hide it.
        let body = self.read(response, MAX_ERROR).await.unwrap_or_default();
        match problem(status, &body) {
            Some(problem) => Err(Error::Problem(Box::new(Refusal { problem, retry_after }))),
            None => Err(self.protocol(format!("HTTP {} without a text that a node would give", status.as_u16()))),
        }
    }

    /// Reads a body of at most `limit` bytes.
    pub(crate) async fn read(&self, mut response: Response, limit: usize) -> Result<Bytes> {
        let announced = response.content_length().unwrap_or(0);
        if announced > limit as u64 {
            return Err(self.protocol(format!("its answer of {announced} bytes is larger than the {limit} that are read")));
        }
        let mut body = BytesMut::with_capacity(usize::try_from(announced).unwrap_or(0).min(1 << 20));
        while let Some(chunk) = response.chunk().await.map_err(|e| self.transport(e))? {
            if body.len() + chunk.len() > limit {
                return Err(self.protocol(format!("its answer is larger than the {limit} bytes that are read")));
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body.freeze())
    }

    /// Gives up on `future` after `timeout`.
    pub(crate) async fn within<T>(&self, timeout: Duration, future: impl Future<Output = Result<T>>) -> Result<T> {
        tokio::time::timeout(timeout, future).await.unwrap_or_else(|_| Err(self.timed_out(timeout)))
    }

    /// Gives up on `future` when `moved` stood still for the idle timeout. There is no other limit.
    pub(crate) async fn while_moving<T>(&self, moved: &Moved, future: impl Future<Output = Result<T>>) -> Result<T> {
        let idle = self.options.idle_timeout;
        let mut future = pin!(future);
        let mut seen = moved.total();
        loop {
            if let Ok(end) = tokio::time::timeout(idle, &mut future).await {
                return end;
            }
            let now = moved.total();
            if now == seen {
                return Err(self.timed_out(idle));
            }
            seen = now;
        }
    }

    pub(crate) fn transport(&self, error: reqwest::Error) -> Error {
        let (connect, timeout) = (error.is_connect(), error.is_timeout());
        let mut transport = TransportError::from_reqwest(self.server(), error);
        if timeout && !connect {
            transport.kind = TransportKind::TimedOut;
        } else if connect && transport.kind != TransportKind::Tls {
            transport.kind = TransportKind::Unreachable;
        }
        Error::Transport(transport)
    }

    fn timed_out(&self, after: Duration) -> Error {
        let detail = format!("nothing within {after:?}");
        Error::Transport(TransportError { kind: TransportKind::TimedOut, server: self.server().to_owned(), detail })
    }

    pub(crate) fn protocol(&self, what: impl Into<String>) -> Error {
        Error::Protocol { server: self.server().to_owned(), what: what.into() }
    }
}

/// Decides whether a request is sent once more, and waits before.
pub(crate) struct Repeat {
    left: u32,
    wait: Duration,
}

impl Repeat {
    pub(crate) fn new(client: &Client, idempotent: bool) -> Self {
        Self { left: if idempotent { client.options.retries } else { 0 }, wait: client.options.backoff }
    }

    /// Whether to send again after `error`; returns when the time has come.
    pub(crate) async fn again(&mut self, error: &Error) -> bool {
        if self.left == 0 || !may_repeat(error) {
            return false;
        }
        let asked = if let Error::Problem(refusal) = error { refusal.retry_after } else { None };
        tokio::time::sleep(asked.map_or(self.wait, |d| d.min(MAX_RETRY_AFTER))).await;
        self.left -= 1;
        self.wait = self.wait.saturating_mul(4);
        true
    }
}

fn may_repeat(error: &Error) -> bool {
    match error {
        Error::Transport(transport) => transport.kind == TransportKind::Unreachable,
        Error::Problem(refusal) => refusal.problem.status == 503,
        _ => false,
    }
}

/// Counts bytes that moved, so that a standstill can be seen.
#[derive(Debug, Default)]
pub(crate) struct Moved(AtomicU64);

impl Moved {
    pub(crate) fn add(&self, bytes: usize) {
        self.0.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    fn total(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// The problem in an error's body: RFC 9457, or the shape of the Open Inference Protocol, or the bare status of an
/// answer that has no body. `None` for a text that no node gives.
fn problem(status: StatusCode, body: &[u8]) -> Option<wire::Problem> {
    #[derive(serde::Deserialize)]
    struct Oip {
        error: String,
    }
    if let Ok(mut problem) = serde_json::from_slice::<wire::Problem>(body) {
        problem.status = status.as_u16();
        return Some(problem);
    }
    let detail = match serde_json::from_slice::<Oip>(body) {
        Ok(oip) => oip.error,
        Err(_) if body.is_empty() => bare_text(status),
        Err(_) => return None,
    };
    Some(wire::Problem {
        kind: "about:blank".into(),
        title: printable(status.canonical_reason().unwrap_or("error")),
        status: status.as_u16(),
        detail,
        reason: String::new(),
        field: None,
        request_id: None,
        retriable: matches!(status.as_u16(), 429 | 502 | 503 | 504),
        problems: Vec::new(),
    })
}

fn bare_text(status: StatusCode) -> String {
    match status.as_u16() {
        401 => "the node wants a key".into(),
        403 => "the key does not allow this".into(),
        404 => "the node has no such thing".into(),
        code => format!("the node answered HTTP {code}"),
    }
}
