//! Forwarding against real servers of the loopback.

mod answers;
mod reload;
mod retries;
mod streams;
mod trouble;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use plinth_net::{Body, BodyMemory, ConnectionLimits, ListenerConfig, Peer, RequestBody, Server, Service};
use plinth_policy::resilience::{Outcome, retry};
use plinth_runtime::{OnEnd, SeededRandom, SystemClock};
use plinth_store::resources::gateway::{BreakerSpec, EndpointSpec, HealthSpec};
use plinth_telemetry::{BuildInfo, ConnectionMetrics};
use plinth_types::ByteSize;

use super::*;

/// Everything in these tests ends well before this.
const PATIENCE: Duration = Duration::from_secs(10);

async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, future).await {
        Ok(value) => value,
        Err(_) => panic!("took too long: {what}"),
    }
}

async fn until(what: &str, holds: impl Fn() -> bool) {
    within(what, async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    })
    .await;
}

/// What a server does with the next request.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Act {
    /// Gives back what was sent, and its own name.
    Echo,
    Status(u16),
    /// 429 with `Retry-After`, or another status.
    Peace(u16, u64),
    /// Takes so long.
    Late(Duration),
    Hang,
    /// A piece now, the others when it is told to.
    Stream,
}

/// A server, and what it has seen.
#[derive(Clone)]
struct Backend {
    address: SocketAddr,
    seen: Arc<Seen>,
}

struct Seen {
    name: usize,
    act: Mutex<Act>,
    requests: AtomicUsize,
    /// Requests that were taken and neither answered nor given up.
    open: AtomicUsize,
    /// The stream may end.
    end: tokio::sync::Notify,
    headers: Mutex<HeaderMap>,
    is_broken: AtomicBool,
}

struct Open(Arc<Seen>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, SeqCst);
    }
}

struct Handler(Arc<Seen>);

impl Service for Handler {
    async fn call(&self, request: Request, _peer: Peer) -> Response {
        let seen = self.0.clone();
        seen.open.fetch_add(1, SeqCst);
        let open = Open(seen.clone());
        if request.uri().path() != "/health" {
            seen.requests.fetch_add(1, SeqCst);
        }
        let act = *seen.act.lock().unwrap();
        *seen.headers.lock().unwrap() = request.headers().clone();
        let mut answer = Response::new(Body::empty());
        answer.headers_mut().insert("x-name", seen.name.into());
        match act {
            Act::Echo => *answer.body_mut() = Body::full(read(request).await),
            Act::Status(status) => *answer.status_mut() = StatusCode::from_u16(status).unwrap(),
            Act::Peace(status, seconds) => {
                *answer.status_mut() = StatusCode::from_u16(status).unwrap();
                answer.headers_mut().insert("retry-after", seconds.into());
            }
            Act::Late(time) => tokio::time::sleep(time).await,
            Act::Hang => std::future::pending().await,
            Act::Stream => *answer.body_mut() = pieces(open),
        }
        answer
    }
}

/// One piece, and a second one when the test says so; then an error, or the end.
fn pieces(open: Open) -> Body {
    Body::stream(futures_util::stream::unfold((open, 0), |(open, n)| async move {
        if n == 0 {
            return Some((Ok(Bytes::from_static(b"data: 1\n\n")), (open, 1)));
        }
        if n == 1 {
            open.0.end.notified().await;
            return Some((Ok(Bytes::from_static(b"data: 2\n\n")), (open, 2)));
        }
        let broken = open.0.is_broken.load(SeqCst) && n == 2;
        broken.then(|| (Err(std::io::Error::other("broken on purpose")), (open, 3)))
    }))
}

async fn read(mut request: Request) -> Bytes {
    request.headers_mut().remove("content-encoding");
    // One that breaks off is answered to nobody.
    plinth_net::read_body(&mut request, &bodies(ByteSize::mib(4))).await.unwrap_or_default()
}

fn bodies(max: ByteSize) -> BodyLimits {
    let memory = BodyMemory::new(ByteSize::mib(64));
    BodyLimits { max, min_rate: ByteSize::kib(1), window: PATIENCE, timeout: PATIENCE, memory }
}

/// Upstreams, and servers for them. What runs ends with it.
struct Fixture {
    tasks: TaskGroup,
    upstreams: Arc<Upstreams>,
    catalogue: Arc<Catalogue>,
}

impl Drop for Fixture {
    fn drop(&mut self) {
        self.tasks.cancel();
    }
}

fn fixture() -> Fixture {
    tuned(|_| ())
}

/// With short waits, and what else a test changes.
fn tuned(change: impl FnOnce(&mut Tuning)) -> Fixture {
    let tasks = TaskGroup::new("test");
    let catalogue = Arc::new(Catalogue::new(BuildInfo { version: "0", commit: "0" }));
    let mut options = UpstreamsOptions::new(bodies(ByteSize::mib(1)));
    options.tuning.backoff = retry::Backoff { base: Duration::from_millis(1), cap: Duration::from_millis(4) };
    change(&mut options.tuning);
    let world = World { clock: Arc::new(SystemClock), random: Arc::new(SeededRandom::new(7)), ..World::real() };
    let upstreams = Upstreams::new(options, &world, catalogue.clone(), &tasks).unwrap();
    Fixture { tasks, upstreams, catalogue }
}

fn tenant() -> TenantName {
    TenantName::default_tenant()
}

fn label(name: &str) -> Label {
    name.parse().unwrap()
}

impl Fixture {
    fn backend(&self, name: usize) -> Backend {
        let seen = Arc::new(Seen {
            name,
            act: Mutex::new(Act::Echo),
            requests: AtomicUsize::new(0),
            open: AtomicUsize::new(0),
            end: tokio::sync::Notify::new(),
            headers: Mutex::default(),
            is_broken: AtomicBool::new(false),
        });
        let address = SocketAddr::from(([127, 0, 0, 1], 0));
        let config = ListenerConfig::new("backend", address, ConnectionLimits::default(), ConnectionMetrics::default());
        let server = Server::start(config, Arc::new(Handler(seen.clone())), &self.tasks).unwrap();
        Backend { address: server.local_addr(), seen }
    }

    fn backends<const N: usize>(&self) -> [Backend; N] {
        std::array::from_fn(|name| self.backend(name))
    }

    fn apply(&self, record: &UpstreamRecord) -> Arc<Upstream> {
        self.upstreams.apply([(&tenant(), &label("u"), record)].into_iter());
        self.upstreams.get(&tenant(), &label("u")).unwrap()
    }

    fn count(&self, family: &plinth_telemetry::Family<plinth_telemetry::Counter, 2>) -> u64 {
        family.get([tenant().as_str(), "u"]).value()
    }
}

impl Backend {
    fn act(&self, act: Act) {
        *self.seen.act.lock().unwrap() = act;
    }

    fn requests(&self) -> usize {
        self.seen.requests.load(SeqCst)
    }

    fn open(&self) -> usize {
        self.seen.open.load(SeqCst)
    }
}

/// Nobody listens there.
async fn nobody() -> SocketAddr {
    tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap()
}

fn record(addresses: impl IntoIterator<Item = SocketAddr>) -> UpstreamRecord {
    UpstreamRecord {
        description: String::new(),
        endpoints: addresses.into_iter().map(|address| EndpointSpec { url: format!("http://{address}"), weight: 1 }).collect(),
        balance: BalanceWord::LeastLoaded,
        allow_networks: vec!["127.0.0.0/8".into()],
        connect_timeout_ms: None,
        response_timeout_ms: None,
        idle_timeout_ms: None,
        max_connections: None,
        breaker: None,
        attempts: None,
        hedge: false,
        idempotent: false,
        adaptive_concurrency: true,
        health: None,
    }
}

/// Of these servers.
fn of(backends: &[Backend]) -> UpstreamRecord {
    record(backends.iter().map(|backend| backend.address))
}

/// A pool that its breakers alone judge: it has checks, but none comes during a test.
fn with_breaker(mut record: UpstreamRecord, open_ms: u32) -> UpstreamRecord {
    record.breaker = Some(BreakerSpec { enabled: true, failure_percent: None, slow_ms: None, open_ms: Some(open_ms) });
    record.health = Some(HealthSpec { path: "/health".into(), interval_seconds: Some(3600) });
    record
}

fn how() -> Forward {
    let forwarded = ForwardedFor::direct([192, 0, 2, 7].into(), "http", None);
    Forward {
        deadline: None,
        sticky: None,
        extra: true,
        urgency: crate::overload::gate::Urgency::default(),
        idempotent: None,
        forwarded,
        pass_authorization: false,
    }
}

fn get(path: &str) -> Request {
    http::Request::get(path).body(RequestBody::empty()).unwrap()
}

fn post(body: &'static str) -> Request {
    http::Request::post("/").header("content-length", body.len()).body(Bytes::from_static(body.as_bytes()).into()).unwrap()
}

/// Sends and reads everything: status, server, body.
async fn ask(upstream: &Upstream, request: Request, how: Forward) -> Result<(u16, usize, Bytes, Attempted), Error> {
    within("an answer", async {
        let (answer, attempted) = upstream.forward(request, how).await?;
        let name = answer.headers().get("x-name").map_or(99, |name| name.to_str().unwrap().parse().unwrap());
        let status = answer.status().as_u16();
        Ok((status, name, answer.into_body().into_bytes().await.unwrap(), attempted))
    })
    .await
}

async fn reason(upstream: &Upstream, request: Request, how: Forward) -> Reason {
    ask(upstream, request, how).await.unwrap_err().reason()
}
