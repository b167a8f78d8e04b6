//! The server on real sockets of the loopback: what clients do to it, well-meaning and not.

mod corpus;
mod crowd;
mod drain;
mod heads;
mod hostile;
mod http2;
mod plain;
mod tls;

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use plinth_runtime::TaskGroup;
use plinth_telemetry::ConnectionMetrics;
use plinth_types::ByteSize;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::*;

/// Everything in these tests ends well before this.
const PATIENCE: Duration = Duration::from_secs(10);

async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, future).await {
        Ok(value) => value,
        Err(_) => panic!("took too long: {what}"),
    }
}

/// Polls until something holds.
async fn until(what: &str, holds: impl Fn() -> bool) {
    within(what, async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    })
    .await;
}

/// What the service does is chosen by the path.
#[derive(Default)]
struct Demo {
    /// Requests of `/stuck` and guards of `/large` that live.
    live: Arc<AtomicUsize>,
    served: AtomicUsize,
    limits: Option<BodyLimits>,
}

/// Counts itself.
struct Live(Arc<AtomicUsize>);

impl Live {
    fn new(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::SeqCst);
        Self(count.clone())
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

const LARGE: usize = 16 << 20;

impl Service for Demo {
    async fn call(&self, mut request: Request, peer: Peer) -> Response {
        self.served.fetch_add(1, Ordering::SeqCst);
        match request.uri().path() {
            "/echo" => match read_body(&mut request, self.limits.as_ref().expect("the test sets limits")).await {
                Ok(body) => Response::new(Body::full(body)),
                Err(error) => {
                    let mut answer = Response::new(Body::full(error.reason().slug()));
                    *answer.status_mut() = http::StatusCode::from_u16(error.class().status()).unwrap();
                    answer
                }
            },
            "/who" => {
                let who = peer.certificate.map_or_else(String::new, |certificate| {
                    format!("{:?} {:?} {:?} {}", certificate.common_name, certificate.dns_names, certificate.uris, certificate.fingerprint)
                });
                Response::new(Body::full(who))
            }
            "/panic" => panic!("on purpose"),
            "/slow" => {
                let _live = Live::new(&self.live);
                tokio::time::sleep(Duration::from_millis(200)).await;
                Response::new(Body::full("slow"))
            }
            "/stuck" => {
                let _live = Live::new(&self.live);
                std::future::pending().await
            }
            "/large" => Response::new(Body::full(vec![b'x'; LARGE]).with_guard(Live::new(&self.live))),
            "/pieces" => Response::new(Body::chain([Bytes::from_static(b"one,"), Bytes::from_static(b"two")])),
            "/stream" => {
                let parts = [Ok(Bytes::from_static(b"a")), Ok(Bytes::from_static(b"b"))];
                Response::new(Body::stream(futures_util::stream::iter(parts)).with_guard(Live::new(&self.live)))
            }
            "/trickle" => {
                let parts = futures_util::stream::unfold(0, |n| async move {
                    tokio::time::sleep(Duration::from_millis(150)).await;
                    (n < 3).then(|| (Ok(Bytes::from_static(b"x")), n + 1))
                });
                Response::new(Body::stream(parts))
            }
            "/broken" => Response::new(Body::stream(futures_util::stream::iter([
                Ok(Bytes::from_static(b"a")),
                Err(std::io::Error::other("on purpose")),
            ]))),
            _ => Response::new(Body::full("hello")),
        }
    }
}

struct Fixture {
    server: Server,
    demo: Arc<Demo>,
    metrics: ConnectionMetrics,
    tasks: TaskGroup,
}

fn limits() -> ConnectionLimits {
    ConnectionLimits { max_connections: 100, ..ConnectionLimits::default() }
}

fn body_limits() -> BodyLimits {
    BodyLimits {
        max: ByteSize::mib(1),
        min_rate: ByteSize::kib(1),
        window: Duration::from_millis(200),
        timeout: Duration::from_secs(5),
        memory: BodyMemory::new(ByteSize::mib(64)),
    }
}

fn start(limits: ConnectionLimits) -> Fixture {
    start_with(limits, None)
}

fn start_with(limits: ConnectionLimits, tls: Option<Arc<TlsContext>>) -> Fixture {
    let (tasks, metrics) = (TaskGroup::new("test"), ConnectionMetrics::default());
    let demo = Arc::new(Demo { limits: Some(body_limits()), ..Demo::default() });
    let address = SocketAddr::from(([127, 0, 0, 1], 0));
    let config = ListenerConfig { tls, ..ListenerConfig::new("test", address, limits, metrics.clone()) };
    let server = Server::start(config, demo.clone(), &tasks).unwrap();
    Fixture { server, demo, metrics, tasks }
}

impl Fixture {
    async fn connect(&self) -> Raw {
        Raw(TcpStream::connect(self.server.local_addr()).await.unwrap())
    }

    async fn send(&self, bytes: impl AsRef<[u8]>) -> Raw {
        let mut raw = self.connect().await;
        raw.send(bytes).await;
        raw
    }

    fn live(&self) -> usize {
        self.demo.live.load(Ordering::SeqCst)
    }
}

/// A client that says exactly what the test says.
struct Raw<S = TcpStream>(S);

struct Answer {
    status: u16,
    head: String,
    body: Vec<u8>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Raw<S> {
    async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.0.write_all(bytes.as_ref()).await.unwrap();
        // TLS takes bytes that it has not sent yet.
        self.0.flush().await.unwrap();
    }

    async fn get(&mut self, path: &str) -> Answer {
        self.send(format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n")).await;
        self.answer().await
    }

    /// One answer with a Content-Length.
    async fn answer(&mut self) -> Answer {
        within("an answer", async {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(self.0.read_u8().await.expect("the head of an answer"));
            }
            let head = String::from_utf8(head).unwrap().to_ascii_lowercase();
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).map_or(0, |length| length.parse().unwrap());
            let mut body = vec![0; length];
            self.0.read_exact(&mut body).await.unwrap();
            Answer { status: head[9..12].parse().unwrap(), head, body }
        })
        .await
    }

    /// Everything until the server closes; a reset counts as a close.
    async fn rest(&mut self) -> String {
        within("the close of the connection", async {
            let (mut all, mut part) = (Vec::new(), [0; 4096]);
            while let Ok(read @ 1..) = self.0.read(&mut part).await {
                all.extend_from_slice(&part[..read]);
            }
            String::from_utf8_lossy(&all).into_owned()
        })
        .await
    }
}
