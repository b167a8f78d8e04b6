//! The metrics listener: `/metrics` for Prometheus, and the probes for who cannot reach the main one.

use std::sync::Arc;

use http::header::{ALLOW, CONTENT_TYPE};
use http::{HeaderValue, Method, StatusCode};
use plinth_net::{Body, Peer, Request, Response, Service};
use plinth_runtime::World;
use plinth_telemetry::Catalogue;

/// Answers scrapes. Asks for no key: what it shows are names of models and counts.
pub struct MetricsService {
    catalogue: Arc<Catalogue>,
    world: World,
    ready: Box<dyn Fn() -> bool + Send + Sync>,
}

impl MetricsService {
    /// A service over the catalogue; `ready` says whether the node can serve.
    #[must_use]
    pub fn new(catalogue: Arc<Catalogue>, world: World, ready: impl Fn() -> bool + Send + Sync + 'static) -> Self {
        Self { catalogue, world, ready: Box::new(ready) }
    }

    fn text(&self) -> Response {
        let mut answer = Response::new(Body::full(self.catalogue.render(self.world.clock.now())));
        answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(plinth_telemetry::CONTENT_TYPE));
        answer
    }
}

fn status(status: StatusCode) -> Response {
    let mut answer = Response::new(Body::empty());
    *answer.status_mut() = status;
    answer
}

impl Service for MetricsService {
    async fn call(&self, request: Request, _peer: Peer) -> Response {
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            let mut answer = status(StatusCode::METHOD_NOT_ALLOWED);
            answer.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            return answer;
        }
        match request.uri().path() {
            "/metrics" => self.text(),
            "/livez" => status(StatusCode::OK),
            "/readyz" => status(if (self.ready)() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }),
            _ => status(StatusCode::NOT_FOUND),
        }
    }
}
