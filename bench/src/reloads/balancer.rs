//! A client that does with two nodes what a load balancer does, and nothing that hides a fault.
//!
//! - Each node is asked for its readiness every 100 ms on a connection of its own; one bad answer takes it out, one good answer brings it back.
//! - Requests go to the nodes that are ready in turn. Connections are kept open and used again; those to a node that is taken out are closed.
//! - A connection that cannot be made sends the request to the other node. So does one that was closed before anything of the request was
//!   sent, and on HTTP/2 a node that says it has not begun with it (GOAWAY with a lower stream, REFUSED_STREAM).
//! - Whatever was sent and not answered with 200 and a whole body has failed. Nothing is sent twice.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use bytes::Bytes;
use http::{Method, Request, Response};
use rustls::ClientConfig;

use super::wire::{Body, Trouble, Wire, connect};

const CHECK: Duration = Duration::from_millis(100);
const CHECK_PATIENCE: Duration = Duration::from_secs(1);
/// How often a request may be given to another connection before it has failed: nobody takes it.
const HANDS: usize = 6;
/// Failures of which the text is kept.
const KEPT: usize = 40;

/// A node as the balancer knows it.
pub struct Backend {
    pub address: SocketAddr,
    ready: AtomicBool,
    key: Mutex<Arc<str>>,
}

impl Backend {
    pub fn is_ready(&self) -> bool {
        self.ready.load(Ordering::SeqCst)
    }

    /// The key that requests to it show from now on.
    pub fn show(&self, key: &str) {
        *self.key.lock().unwrap_or_else(PoisonError::into_inner) = key.into();
    }

    fn key(&self) -> Arc<str> {
        self.key.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// What happened to requests.
#[derive(Default)]
pub struct Counts {
    pub requests: AtomicU64,
    pub failed: AtomicU64,
    /// Connections that could not be made, and were made elsewhere.
    pub unreachable: AtomicU64,
    /// Requests that had not been sent, or not been begun with, when their connection ended.
    pub moved: AtomicU64,
    /// Connections that were made.
    pub connections: AtomicU64,
    /// What failed, with the second in which it did.
    pub failures: Mutex<Vec<String>>,
    /// Of good answers that are not long, in microseconds.
    pub times: Mutex<Vec<u32>>,
}

/// The balancer.
pub struct Balancer {
    pub backends: Vec<Backend>,
    turn: AtomicUsize,
    pub counts: Counts,
    begun: Instant,
    pub end: AtomicBool,
}

/// A request that is sent again and again.
pub struct Kind {
    pub name: &'static str,
    pub method: Method,
    pub path: &'static str,
    pub body: Bytes,
    /// What its answer must hold.
    pub holds: &'static str,
    /// The least length of its answer.
    pub length: usize,
    /// Whether the answer takes its time, so that it is not counted among the others'.
    pub long: bool,
}

impl Balancer {
    pub fn new(addresses: &[SocketAddr]) -> Arc<Self> {
        let backend = |address: &SocketAddr| Backend { address: *address, ready: AtomicBool::new(false), key: Mutex::new("".into()) };
        let (backends, counts) = (addresses.iter().map(backend).collect(), Counts::default());
        Arc::new(Self { backends, turn: AtomicUsize::new(0), counts, begun: Instant::now(), end: AtomicBool::new(false) })
    }

    /// Asks a node for its readiness until the end.
    pub async fn check(self: Arc<Self>, number: usize, tls: Arc<ClientConfig>) {
        let backend = &self.backends[number];
        while !self.end.load(Ordering::SeqCst) {
            let asked = tokio::time::timeout(CHECK_PATIENCE, get(backend.address, &tls, "/v2/health/ready", None)).await;
            backend.ready.store(matches!(asked, Ok(Ok(answer)) if answer.status() == 200), Ordering::SeqCst);
            tokio::time::sleep(CHECK).await;
        }
    }

    /// The node for the next request: the next that is ready, or the next at all when none is.
    fn next(&self) -> usize {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let all = self.backends.len();
        (0..all).map(|step| (turn + step) % all).find(|number| self.backends[*number].is_ready()).unwrap_or(turn % all)
    }

    /// Sends one kind of request until the end, with a pause in between.
    pub async fn work(self: Arc<Self>, kind: Arc<Kind>, tls: Arc<ClientConfig>, pause: Duration) {
        let mut open: Vec<Option<Wire>> = self.backends.iter().map(|_| None).collect();
        let mut times = Vec::new();
        while !self.end.load(Ordering::SeqCst) {
            let start = Instant::now();
            self.counts.requests.fetch_add(1, Ordering::Relaxed);
            match self.one(&kind, &tls, &mut open).await {
                Ok(()) if kind.long => {}
                Ok(()) => times.push(u32::try_from(start.elapsed().as_micros()).unwrap_or(u32::MAX)),
                Err(error) => {
                    self.counts.failed.fetch_add(1, Ordering::Relaxed);
                    let mut failures = self.counts.failures.lock().unwrap_or_else(PoisonError::into_inner);
                    if failures.len() < KEPT {
                        failures.push(format!("{:.2} s: {}: {error:#}", self.begun.elapsed().as_secs_f64(), kind.name));
                    }
                }
            }
            for (backend, wire) in self.backends.iter().zip(&mut open) {
                if !backend.is_ready() {
                    *wire = None;
                }
            }
            tokio::time::sleep(pause).await;
        }
        self.counts.times.lock().unwrap_or_else(PoisonError::into_inner).extend(times);
    }

    /// One request: an error is a failure that its caller sees.
    async fn one(&self, kind: &Kind, tls: &Arc<ClientConfig>, open: &mut [Option<Wire>]) -> Result<()> {
        let mut number = self.next();
        for _ in 0..HANDS {
            let backend = &self.backends[number];
            if open[number].is_none() {
                match connect(backend.address, tls).await {
                    Ok((wire, _)) => {
                        self.counts.connections.fetch_add(1, Ordering::Relaxed);
                        open[number] = Some(wire);
                    }
                    Err(_) => {
                        self.counts.unreachable.fetch_add(1, Ordering::Relaxed);
                        number = (number + 1) % self.backends.len();
                        continue;
                    }
                }
            }
            let Some(wire) = open[number].as_mut() else { continue };
            match wire.exchange(request(kind, backend.address, &backend.key(), wire.is_two())?).await {
                Ok(answer) => return judge(kind, &answer, number),
                Err(Trouble::Unsent) => {
                    self.counts.moved.fetch_add(1, Ordering::Relaxed);
                    open[number] = None;
                    number = self.next();
                }
                Err(Trouble::Failed(error)) => {
                    open[number] = None;
                    return Err(error.context(format!("node {number}")));
                }
            }
        }
        bail!("no node takes it")
    }
}

fn request(kind: &Kind, address: SocketAddr, key: &str, two: bool) -> Result<Request<Body>> {
    let request = Request::builder().method(&kind.method);
    let request = if two {
        request.uri(format!("https://{address}{}", kind.path))
    } else {
        request.uri(kind.path).header("host", address.to_string())
    };
    let request = request.header("authorization", format!("Bearer {key}"));
    Ok(request.header("content-type", "application/json").body(Body::new(kind.body.clone()))?)
}

fn judge(kind: &Kind, answer: &Response<Bytes>, number: usize) -> Result<()> {
    let text = String::from_utf8_lossy(answer.body());
    if answer.status() != 200 || answer.body().len() < kind.length || !text.contains(kind.holds) {
        bail!(
            "node {number} answered {} with {} bytes: {}",
            answer.status(),
            answer.body().len(),
            text.chars().take(300).collect::<String>()
        );
    }
    Ok(())
}

/// One GET on a connection of its own.
pub async fn get(address: SocketAddr, tls: &Arc<ClientConfig>, path: &str, key: Option<&str>) -> Result<Response<Bytes>> {
    send(address, tls, Method::GET, path, key, Bytes::new()).await
}

/// One request on a connection of its own.
pub async fn send(
    address: SocketAddr,
    tls: &Arc<ClientConfig>,
    method: Method,
    path: &str,
    key: Option<&str>,
    body: Bytes,
) -> Result<Response<Bytes>> {
    let (mut wire, _) = connect(address, tls).await?;
    let mut request = Request::builder().method(method).uri(path).header("host", address.to_string());
    if let Some(key) = key {
        request = request.header("authorization", format!("Bearer {key}"));
    }
    let request = request.header("connection", "close").header("content-type", "application/json").body(Body::new(body))?;
    match wire.exchange(request).await {
        Ok(answer) => Ok(answer),
        Err(Trouble::Failed(error)) => Err(error),
        Err(Trouble::Unsent) => bail!("the connection was closed"),
    }
}
