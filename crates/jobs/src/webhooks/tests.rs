//! Deliveries to real servers of the loopback, and the rules around them.

mod address;
mod deliveries;
mod hostile;
mod rules;
mod signature;
mod tls;

use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use plinth_net::outbound::{Guard, Lookup, OutboundMetrics, Resolver, ResolverOptions, TlsRoots};
use plinth_runtime::{Clock as _, OnEnd, SeededRandom, SystemClock, TaskGroup};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::*;

/// Everything in these tests ends well before this.
const PATIENCE: Duration = Duration::from_secs(30);

async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, future).await {
        Ok(value) => value,
        Err(_) => panic!("took too long: {what}"),
    }
}

fn loopback() -> Guard {
    Guard::new(["127.0.0.0/8".parse().unwrap()])
}

fn secret(seed: u64) -> Secret {
    Secret::draw(&SeededRandom::new(seed))
}

fn delivery(url: &str) -> Delivery {
    delivery_by(url, &loopback())
}

fn delivery_by(url: &str, guard: &Guard) -> Delivery {
    let address = Address::parse(url, guard).unwrap_or_else(|error| panic!("{url}: {error}"));
    let body = Bytes::from_static(br#"{"type":"job.succeeded"}"#);
    Delivery::new("msg_1".parse().unwrap(), address, Secrets::one(secret(1)), body).unwrap()
}

/// Answers each name with the next of its answers, and then with the last again.
#[derive(Clone, Default)]
struct Names(Arc<Mutex<Vec<Vec<&'static str>>>>);

impl Lookup for Names {
    fn lookup(&self, _host: &str) -> futures_util::future::BoxFuture<'static, std::io::Result<Vec<IpAddr>>> {
        let mut answers = self.0.lock().unwrap();
        let answer = if answers.len() > 1 { Some(answers.remove(0)) } else { answers.first().cloned() };
        let answer = answer.map(|addresses| addresses.iter().map(|address| address.parse().unwrap()).collect());
        Box::pin(async move { answer.ok_or_else(|| std::io::Error::other("no such name")) })
    }
}

/// A sender, and receivers for it. What runs ends with it.
struct World {
    tasks: TaskGroup,
    sender: Sender,
}

impl Drop for World {
    fn drop(&mut self) {
        self.tasks.cancel();
    }
}

fn world() -> World {
    world_of(loopback(), Names::default(), None)
}

/// A world in which a name is asked for anew at each delivery.
fn world_of(guard: Guard, names: Names, tls: Option<TlsRoots>) -> World {
    let tasks = TaskGroup::new("test");
    let fresh = ResolverOptions { ttl: Duration::ZERO, retry: Duration::ZERO, ..ResolverOptions::default() };
    let resolver = Resolver::new(fresh, names);
    let parts = SenderParts { guard, resolver, tls, metrics: OutboundMetrics::default(), clock: Arc::new(SystemClock) };
    World { sender: Sender::new(parts, &tasks).unwrap(), tasks }
}

/// A receiver of the test.
struct Receiver {
    address: SocketAddr,
    connections: Arc<AtomicUsize>,
}

impl Receiver {
    fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    fn url(&self, target: &str) -> String {
        format!("http://{}{target}", self.address)
    }
}

impl World {
    /// Every connection is handled by `script`.
    async fn receiver<F: Future<Output = ()> + Send + 'static>(&self, script: impl Fn(TcpStream) -> F + Send + Sync + 'static) -> Receiver {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let receiver = Receiver { address: listener.local_addr().unwrap(), connections: Arc::default() };
        let (tasks, connections, stop) = (self.tasks.clone(), receiver.connections.clone(), self.tasks.cancelled().clone());
        self.tasks.spawn("receiver", OnEnd::Ignore, async move {
            while let Some(Ok((stream, _))) = stop.run_until_cancelled(listener.accept()).await {
                connections.fetch_add(1, Ordering::SeqCst);
                let (stop, connection) = (stop.clone(), script(stream));
                tasks.spawn("connection", OnEnd::Ignore, async move {
                    stop.run_until_cancelled(connection).await;
                });
            }
        });
        receiver
    }

    /// Says these bytes to every request and then closes.
    async fn saying(&self, bytes: impl Into<Bytes>) -> Receiver {
        let bytes = bytes.into();
        self.receiver(move |mut stream| {
            let bytes = bytes.clone();
            async move {
                read_request(&mut stream).await;
                let _ = stream.write_all(&bytes).await;
            }
        })
        .await
    }

    async fn send(&self, delivery: &Delivery) -> Sent {
        within("a delivery", self.sender.send(delivery)).await
    }
}

/// What a receiver was sent.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Received {
    line: String,
    headers: HeaderMap,
    body: Vec<u8>,
}

/// Reads one request with a length.
async fn read_request(stream: &mut (impl tokio::io::AsyncRead + Unpin)) -> Received {
    let mut bytes = Vec::new();
    let head = loop {
        if let Some(end) = bytes.windows(4).position(|end| end == b"\r\n\r\n") {
            break end + 4;
        }
        assert_ne!(stream.read_buf(&mut bytes).await.unwrap(), 0, "the head ended early");
    };
    let text = String::from_utf8(bytes[..head].to_vec()).unwrap();
    let mut lines = text.split("\r\n");
    let line = lines.next().unwrap().to_owned();
    let mut headers = HeaderMap::new();
    for (name, value) in lines.filter_map(|line| line.split_once(": ")) {
        headers.append(name.parse::<HeaderName>().unwrap(), HeaderValue::from_str(value).unwrap());
    }
    let length: usize = headers.get("content-length").unwrap().to_str().unwrap().parse().unwrap();
    let mut body = bytes.split_off(head);
    while body.len() < length {
        assert_ne!(stream.read_buf(&mut body).await.unwrap(), 0, "the body ended early");
    }
    Received { line, headers, body }
}
