//! What answers requests, and the walls around it.
//!
//! Invariant: whatever a service does, the connection gets an answer: a panic becomes a plain 500 for
//! that request alone. A service's future is dropped when its client goes away.

use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use futures_util::FutureExt;
use http::header::{CONNECTION, CONTENT_TYPE};
use http::{HeaderValue, StatusCode, Version};
use hyper::body::Incoming;
use plinth_telemetry::Counter;

use crate::activity::Activity;
use crate::head::Refusal;
use crate::tls::ClientCertificate;
use crate::wire::REFUSED;
use crate::{Body, Request, RequestBody, Response};

/// Who is at the other end of a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// Its address. What a proxy says of the address behind it is not looked at here.
    pub remote: SocketAddr,
    /// The name of the listener that took the connection.
    pub listener: &'static str,
    /// The certificate that it has shown and that was verified.
    pub certificate: Option<Arc<ClientCertificate>>,
    /// Whether it speaks TLS.
    pub encrypted: bool,
}

impl Peer {
    /// A peer without a certificate.
    #[must_use]
    pub const fn new(remote: SocketAddr, listener: &'static str) -> Self {
        Self { remote, listener, certificate: None, encrypted: false }
    }
}

/// Answers every request of a listener.
pub trait Service: Send + Sync + 'static {
    /// Answers one request. Dropped when the client goes away.
    fn call(&self, request: Request, peer: Peer) -> impl Future<Output = Response> + Send;
}

/// A service as one connection sees it.
pub(crate) struct ConnectionService<S> {
    pub service: Arc<S>,
    pub peer: Peer,
    pub activity: Arc<Activity>,
    pub lame_duck: Arc<AtomicBool>,
    pub panics: Counter,
    pub malformed: Counter,
}

type Answer = Pin<Box<dyn Future<Output = Result<Response, Infallible>> + Send>>;

impl<S: Service> hyper::service::Service<http::Request<Incoming>> for ConnectionService<S> {
    type Response = Response;
    type Error = Infallible;
    type Future = Answer;

    fn call(&self, request: http::Request<Incoming>) -> Answer {
        let one_by_one = request.version() <= Version::HTTP_11;
        let guard = if one_by_one { self.activity.begin() } else { self.activity.begin_stream() };
        if let Some(refusal) = self.activity.refusal().filter(|_| request.method().as_str() == REFUSED) {
            self.malformed.inc();
            tracing::debug!(peer = %self.peer.remote, why = refusal.why, "the head of a request was refused");
            return Box::pin(std::future::ready(Ok(refused(refusal).map(|body| body.with_request(guard)))));
        }
        let (service, peer, panics) = (self.service.clone(), self.peer.clone(), self.panics.clone());
        let (lame_duck, activity) = (self.lame_duck.clone(), self.activity.clone());
        if !http_body::Body::is_end_stream(request.body()) {
            activity.rest.open(request.version(), request.headers());
        }
        let listener = peer.listener;
        Box::pin(async move {
            let answer =
                AssertUnwindSafe(service.call(request.map(|body| RequestBody::incoming(body, &activity)), peer)).catch_unwind().await;
            let mut answer = answer.unwrap_or_else(|_| {
                panics.inc();
                tracing::error!(listener, "a handler panicked; its request was answered with 500");
                after_panic()
            });
            // A small body that nobody read, the one of a refused request for one, need not cost the connection.
            if one_by_one && activity.has_unread_body() && activity.rest.drain().await {
                activity.body_unread(false);
            }
            // An HTTP/1 client learns from the answer that the connection ends, so that it sends no request into it: because
            // the node ends, or because the rest of a refused body is in the way.
            if one_by_one && (lame_duck.load(Ordering::Relaxed) || activity.has_unread_body()) {
                answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            }
            Ok(answer.map(|body| body.with_request(guard)))
        })
    }
}

/// The answer when the code that makes answers failed.
fn after_panic() -> Response {
    let text = r#"{"type":"about:blank","title":"Something failed inside Plinth","status":500,"reason":"internal"}"#;
    let mut answer = Response::new(Body::full(text));
    *answer.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
    answer
}

/// The answer to a request whose head is not handled. Its texts are fixed, so they need no escapes.
fn refused(refusal: Refusal) -> Response {
    let Refusal { status, why } = refusal;
    let text = format!(
        r#"{{"type":"about:blank","title":"The request is malformed","status":{},"reason":"malformed_request","detail":"{why}"}}"#,
        status.as_u16()
    );
    let mut answer = Response::new(Body::full(text));
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
    answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    answer
}
