//! A listener with everything behind it: started, asked to send clients away, drained.
//!
//! Invariant: after [`Server::drain`] returns no task of the listener runs and its port is free.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use plinth_runtime::{OnEnd, TaskGroup};
use plinth_telemetry::ConnectionMetrics;
use plinth_types::ByteSize;
use tokio::net::{TcpListener, TcpSocket};

use crate::accept;
use crate::activity::Deadlines;
use crate::connection::Shared;
use crate::service::Service;
use crate::tls::TlsContext;

/// Connections that the kernel may hold until they are taken.
const BACKLOG: u32 = 4096;

/// What connections may cost.
#[derive(Debug, Clone, Copy)]
pub struct ConnectionLimits {
    /// The most connections at a time; each needs a file descriptor.
    pub max_connections: usize,
    /// The most of them for one client: an IPv4 address or an IPv6 network of 64 bits.
    pub max_per_client: usize,
    /// How long the head of a request may take.
    pub header_timeout: Duration,
    /// How long a connection may be without a request.
    pub idle_timeout: Duration,
    /// How long a client may take none of the bytes that wait for it.
    pub write_timeout: Duration,
    /// The bytes per second that a client must take at least while bytes wait for it, over a `write_timeout`.
    pub min_write_rate: ByteSize,
    /// The largest head.
    pub max_header_bytes: ByteSize,
    /// What a connection that speaks HTTP/2 may cost besides.
    pub http2: Http2Limits,
}

/// What one HTTP/2 connection may cost. A peer may make the node hold up to `connection_window` bytes that no handler has
/// taken yet, and one frame.
#[derive(Debug, Clone, Copy)]
pub struct Http2Limits {
    /// The most requests at a time.
    pub max_streams: u32,
    /// The bytes of one request's body that may be on their way or wait.
    pub stream_window: u32,
    /// The same for all requests of the connection.
    pub connection_window: u32,
    /// The largest frame of a body.
    pub max_frame: u32,
}

impl Default for Http2Limits {
    fn default() -> Self {
        Self { max_streams: 128, stream_window: 256 << 10, connection_window: 1 << 20, max_frame: 16 << 10 }
    }
}

impl Http2Limits {
    /// For gRPC, whose clients put all their calls on a few connections: a busy one has hundreds of calls in flight, and
    /// a message of 16 MB shall not wait for a round trip at each quarter of a MiB, nor come in a thousand frames.
    #[must_use]
    pub const fn grpc() -> Self {
        Self { max_streams: 1024, stream_window: 4 << 20, connection_window: 8 << 20, max_frame: 256 << 10 }
    }
}

impl Default for ConnectionLimits {
    fn default() -> Self {
        Self {
            max_connections: 10_000,
            max_per_client: 2048,
            header_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(60),
            write_timeout: Duration::from_secs(30),
            min_write_rate: ByteSize::kib(1),
            max_header_bytes: ByteSize::kib(16),
            http2: Http2Limits::default(),
        }
    }
}

impl ConnectionLimits {
    pub(crate) const fn deadlines(&self) -> Deadlines {
        let min_taken = (self.min_write_rate.0 as u128).saturating_mul(self.write_timeout.as_millis()) / 1000;
        let min_taken = if min_taken > u64::MAX as u128 { u64::MAX } else { min_taken as u64 };
        Deadlines { header: self.header_timeout, idle: self.idle_timeout, write: self.write_timeout, min_taken }
    }
}

/// What a listener needs.
pub struct ListenerConfig {
    /// Its name in logs, metrics and [`Peer`](crate::Peer).
    pub name: &'static str,
    /// Where it listens; port 0 takes any free one.
    pub address: SocketAddr,
    /// What its connections may cost.
    pub limits: ConnectionLimits,
    /// What it counts.
    pub metrics: ConnectionMetrics,
    /// The TLS that it speaks, if any.
    pub tls: Option<Arc<TlsContext>>,
}

impl ListenerConfig {
    /// A listener without TLS.
    #[must_use]
    pub const fn new(name: &'static str, address: SocketAddr, limits: ConnectionLimits, metrics: ConnectionMetrics) -> Self {
        Self { name, address, limits, metrics, tls: None }
    }
}

/// Why a listener could not be started.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address} ({name})")]
pub struct StartError {
    /// The listener.
    pub name: &'static str,
    /// The address.
    pub address: SocketAddr,
    /// The cause: in use, not an address of this machine, not permitted.
    #[source]
    pub source: std::io::Error,
}

/// How a drain went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DrainReport {
    /// Connections and HTTP/2 streams that were cut because they did not end in time.
    pub cut: usize,
}

/// A listener that runs.
pub struct Server {
    name: &'static str,
    local: SocketAddr,
    group: TaskGroup,
    lame_duck: Arc<AtomicBool>,
}

impl Server {
    /// Listens, and serves every connection with `service`. The tasks end when `tasks` is cancelled, as with a drain
    /// without a deadline.
    ///
    /// # Errors
    /// When the address cannot be listened on.
    pub fn start<S: Service>(config: ListenerConfig, service: Arc<S>, tasks: &TaskGroup) -> Result<Self, StartError> {
        let (name, address) = (config.name, config.address);
        let bound = listen(address).and_then(|listener| Ok((listener.local_addr()?, listener)));
        let (local, listener) = bound.map_err(|source| StartError { name, address, source })?;
        let group = TaskGroup::child_of(tasks, "http");
        let lame_duck = Arc::new(AtomicBool::new(false));
        let shared = Arc::new(Shared::new(service, config, group.clone(), lame_duck.clone()));
        group.spawn("accept loop", OnEnd::CancelGroup, accept::run(listener, shared));
        tracing::info!(listener = name, address = %local, "listening");
        Ok(Self { name, local, group, lame_duck })
    }

    /// Its name.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        self.name
    }

    /// The address, with the port that was taken.
    #[must_use]
    pub const fn local_addr(&self) -> SocketAddr {
        self.local
    }

    /// Connections and HTTP/2 streams that run.
    #[must_use]
    pub fn tasks(&self) -> usize {
        self.group.len()
    }

    /// From now on every HTTP/1 answer asks its client to close the connection, while everything is still served; so
    /// that a drain that follows finds no client in the middle of sending.
    pub fn lame_duck(&self) {
        self.lame_duck.store(true, Ordering::Relaxed);
    }

    /// Takes no more connections, closes idle ones, ends the others after their current request (`Connection: close`,
    /// GOAWAY), and cuts what is left at the deadline.
    ///
    /// Cancel safe: what was asked to end goes on ending.
    pub async fn drain(&self, deadline: Duration) -> DrainReport {
        self.lame_duck();
        let late = self.group.close(deadline).await;
        if !late.is_empty() {
            tracing::warn!(listener = self.name, cut = late.len(), "connections were cut because they did not end in time");
        }
        DrainReport { cut: late.len() }
    }
}

fn listen(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    // Connections of the process before this one may still linger on the port.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}
