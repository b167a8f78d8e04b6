//! The client against real servers of the loopback: well-meaning ones, and ones that are not.

mod answers;
mod hostile;
mod reuse;
mod streams;
mod upgrade;
mod wire;

use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use plinth_runtime::{OnEnd, TaskGroup};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::*;
use crate::Body;

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

/// A client, and servers for it. What runs ends with it.
struct World {
    tasks: TaskGroup,
    outbound: Outbound,
}

impl Drop for World {
    fn drop(&mut self) {
        self.tasks.cancel();
    }
}

fn loopback() -> Guard {
    Guard::new(["127.0.0.0/8".parse().unwrap()])
}

fn world() -> World {
    world_with(OutboundOptions::default())
}

fn world_with(options: OutboundOptions) -> World {
    let tasks = TaskGroup::new("test");
    let outbound = Outbound::new(options, loopback(), Resolver::default(), OutboundMetrics::default(), &tasks).unwrap();
    World { tasks, outbound }
}

/// A server of the test.
struct Upstream {
    address: SocketAddr,
    /// Connections that it took, and requests.
    connections: Arc<AtomicUsize>,
    requests: Arc<AtomicUsize>,
}

impl Upstream {
    fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    fn requests(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }
}

impl World {
    fn endpoint(&self, scheme: &str, upstream: &Upstream) -> Endpoint {
        self.outbound.endpoint(format!("{scheme}://{}", upstream.address).parse().unwrap())
    }

    /// Every connection is handled by `script`, which is told how many there were before.
    async fn scripted<F: Future<Output = ()> + Send + 'static>(
        &self,
        script: impl Fn(TcpStream, usize) -> F + Send + Sync + 'static,
    ) -> Upstream {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let upstream = Upstream { address: listener.local_addr().unwrap(), connections: Arc::default(), requests: Arc::default() };
        let (tasks, connections, stop) = (self.tasks.clone(), upstream.connections.clone(), self.tasks.cancelled().clone());
        self.tasks.spawn("upstream", OnEnd::Ignore, async move {
            while let Some(Ok((stream, _))) = stop.run_until_cancelled(listener.accept()).await {
                stream.set_nodelay(true).unwrap();
                let count = connections.fetch_add(1, Ordering::SeqCst);
                tasks.spawn("connection", OnEnd::Ignore, script(stream, count));
            }
        });
        upstream
    }

    /// Says these bytes to every request and then closes.
    async fn saying(&self, bytes: impl Into<Bytes>) -> Upstream {
        let bytes = bytes.into();
        self.scripted(move |mut stream, _| {
            let bytes = bytes.clone();
            async move {
                read_head(&mut stream).await;
                let _ = stream.write_all(&bytes).await;
            }
        })
        .await
    }

    /// A server of hyper.
    async fn serving<F>(&self, http2: bool, service: impl Fn(Request<Incoming>) -> F + Clone + Send + Sync + 'static) -> Upstream
    where
        F: Future<Output = Response<Body>> + Send + 'static,
    {
        let requests = Arc::new(AtomicUsize::new(0));
        let (counted, tasks) = (requests.clone(), self.tasks.clone());
        let upstream = self
            .scripted(move |stream, _| {
                let (service, counted, tasks) = (service.clone(), counted.clone(), tasks.clone());
                async move {
                    let service = service_fn(move |request| {
                        counted.fetch_add(1, Ordering::SeqCst);
                        let answer = service(request);
                        async move { Ok::<_, Infallible>(answer.await) }
                    });
                    if http2 {
                        let builder = hyper::server::conn::http2::Builder::new(Spawner(tasks));
                        let _ = builder.serve_connection(TokioIo::new(stream), service).await;
                    } else {
                        let mut builder = hyper::server::conn::http1::Builder::new();
                        let _ = builder.timer(TokioTimer::new()).serve_connection(TokioIo::new(stream), service).with_upgrades().await;
                    }
                }
            })
            .await;
        Upstream { requests, ..upstream }
    }
}

#[derive(Clone)]
struct Spawner(TaskGroup);

impl<F: Future<Output = ()> + Send + 'static> hyper::rt::Executor<F> for Spawner {
    fn execute(&self, future: F) {
        self.0.spawn("stream", OnEnd::Ignore, future);
    }
}

/// Reads up to the empty line; what came with it is in it too.
async fn read_head(stream: &mut TcpStream) -> Vec<u8> {
    let mut head = Vec::new();
    while !head.windows(4).any(|end| end == b"\r\n\r\n") {
        if stream.read_buf(&mut head).await.unwrap_or(0) == 0 {
            break;
        }
    }
    head
}

fn get(path: &str) -> Request<OutBody> {
    Request::get(path).body(OutBody::empty()).unwrap()
}

fn post(path: &str, body: impl Into<OutBody>) -> Request<OutBody> {
    Request::post(path).body(body.into()).unwrap()
}

/// Sends and reads everything.
async fn exchange(endpoint: &Endpoint, request: Request<OutBody>) -> Result<(u16, Bytes), OutboundError> {
    within("an answer", async {
        let answer = endpoint.send(request, &Deadlines::default()).await?;
        let status = answer.status().as_u16();
        match answer.into_body().into_bytes().await {
            Ok(body) => Ok((status, body)),
            Err(error) => Err(OutboundError::new(OutboundError::of(&error).expect("an error of ours").kind, Reached::FirstByte)),
        }
    })
    .await
}

/// Answers with what was sent.
async fn echo(request: Request<Incoming>) -> Response<Body> {
    use http_body_util::BodyExt;
    let body = request.into_body().collect().await.unwrap().to_bytes();
    Response::new(Body::full(body))
}
