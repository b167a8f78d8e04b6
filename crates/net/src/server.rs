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

/// Connections that the kernel may hold until they are taken.
const BACKLOG: u32 = 4096;

/// What connections may cost.
#[derive(Debug, Clone, Copy)]
pub struct ConnectionLimits {
    /// The most connections at a time; each needs a file descriptor.
    pub max_connections: usize,
    /// How long the head of a request may take.
    pub header_timeout: Duration,
    /// How long a connection may be without a request.
    pub idle_timeout: Duration,
    /// How long a client may take none of the bytes that wait for it.
    pub write_timeout: Duration,
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
            header_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(60),
            write_timeout: Duration::from_secs(30),
            max_header_bytes: ByteSize::kib(16),
            http2: Http2Limits::default(),
        }
    }
}

impl ConnectionLimits {
    pub(crate) const fn deadlines(&self) -> Deadlines {
        Deadlines { header: self.header_timeout, idle: self.idle_timeout, write: self.write_timeout }
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
        let ListenerConfig { name, address, limits, metrics } = config;
        let bound = listen(address).and_then(|listener| Ok((listener.local_addr()?, listener)));
        let (local, listener) = bound.map_err(|source| StartError { name, address, source })?;
        let group = TaskGroup::child_of(tasks, "http");
        let lame_duck = Arc::new(AtomicBool::new(false));
        let shared = Arc::new(Shared { service, listener: name, limits, metrics, group: group.clone(), lame_duck: lame_duck.clone() });
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
