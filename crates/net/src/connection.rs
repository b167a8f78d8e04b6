//! One connection from its first byte to its end.
//!
//! Speaks TLS where the listener does, tells HTTP/1.1 from HTTP/2 by what was agreed on or by the first
//! bytes, lets hyper speak, and watches: the watchdog ends what overruns a deadline of
//! [`Activity`](crate::activity), a cancelled group ends it in order. What hyper needs is made only when
//! the first head is whole, so that a connection without one costs little.

use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use bytes::BytesMut;
use hyper::rt::Executor;
use hyper::server::conn::{http1, http2};
use hyper_util::rt::{TokioIo, TokioTimer};
use memchr::memchr;
use plinth_runtime::{CancellationToken, OnEnd, TaskGroup};
use plinth_telemetry::ConnectionMetrics;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep_until, timeout};

use crate::activity::{Activity, Deadlines, Verdict};
use crate::clients::Clients;
use crate::half_open::HalfOpen;
use crate::head::{Judgement, judge};
use crate::server::{ConnectionLimits, ListenerConfig};
use crate::service::{ConnectionService, Peer, Service};
use crate::socket::{Socket, Stream};
use crate::tls::{ClientCertificate, TlsContext};
use crate::wire::{Held, Place, Wire};

/// How every HTTP/2 connection begins (RFC 9113, 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Resets that a peer may provoke before its connection is ended ("made you reset"). Against its own resets ("rapid
/// reset") h2's default of 20 that were not looked at yet stands.
const MAX_RESETS: usize = 64;

/// How long a connection may take to end in order once it was asked to because it was idle.
const CLOSING: Duration = Duration::from_secs(2);

/// What all connections of a listener share.
pub struct Shared<S> {
    pub service: Arc<S>,
    pub listener: &'static str,
    pub limits: ConnectionLimits,
    pub metrics: ConnectionMetrics,
    pub group: TaskGroup,
    pub lame_duck: Arc<AtomicBool>,
    pub tls: Option<Arc<TlsContext>>,
    pub clients: Arc<Clients>,
    pub half_open: Arc<HalfOpen>,
}

impl<S> Shared<S> {
    pub fn new(service: Arc<S>, config: ListenerConfig, group: TaskGroup, lame_duck: Arc<AtomicBool>) -> Self {
        let ListenerConfig { name: listener, limits, metrics, tls, .. } = config;
        let (clients, half_open) = (Clients::new(limits.max_per_client), HalfOpen::new(usize::MAX));
        Self { service, listener, limits, metrics, group, lame_duck, tls, clients, half_open }
    }
}

/// Starts what HTTP/2 runs beside its connection as tasks of the listener's group.
#[derive(Clone)]
struct Spawner(TaskGroup);

impl<F> Executor<F> for Spawner
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, future: F) {
        self.0.spawn("http/2 stream", OnEnd::Ignore, future);
    }
}

/// A connection of hyper that can be asked to end.
trait Graceful: Future<Output = hyper::Result<()>> {
    fn end(self: Pin<&mut Self>);
}

impl<S: Service> Graceful for http1::UpgradeableConnection<TokioIo<Wire>, ConnectionService<S>> {
    fn end(self: Pin<&mut Self>) {
        self.graceful_shutdown();
    }
}

impl<S: Service> Graceful for http2::Connection<TokioIo<Wire>, ConnectionService<S>, Spawner> {
    fn end(self: Pin<&mut Self>) {
        self.graceful_shutdown();
    }
}

/// Serves a connection until it ends or leaves HTTP. Its peer's certificate is not known yet. `place` is held until its last byte.
pub async fn serve<S: Service>(shared: Arc<Shared<S>>, stream: TcpStream, mut peer: Peer, activity: Arc<Activity>, place: Place) {
    let draining = shared.group.cancelled().clone();
    let opened = tokio::select! {
        opened = open(&shared, stream, &activity) => opened,
        () = draining.cancelled() => return,
        () = activity.given_up() => return,
    };
    let (stream, streams, begin) = match opened {
        Ok(Opened { stream, streams, begin, certificate }) => {
            (peer.certificate, peer.encrypted) = (certificate, shared.tls.is_some());
            (stream, streams, begin)
        }
        Err(Unopened::Gone) => return,
        Err(Unopened::Silent) => {
            shared.metrics.timeouts.inc();
            return tracing::debug!(peer = %peer.remote, why = "no request", "connection cut");
        }
        Err(Unopened::NoTls(error)) => {
            shared.metrics.handshake_failures.inc();
            return tracing::debug!(peer = %peer.remote, error = %error, "TLS handshake failed");
        }
    };
    let remote = peer.remote;
    let service = ConnectionService {
        service: shared.service.clone(),
        peer,
        activity: activity.clone(),
        lame_duck: shared.lame_duck.clone(),
        panics: shared.metrics.panics.clone(),
        malformed: shared.metrics.malformed_heads.clone(),
    };
    let watch = Watch { activity: activity.clone(), deadlines: shared.limits.deadlines(), streams, draining: draining.clone() };
    let held = Held { begin, activity, draining, place };
    let end = if streams {
        let wire = TokioIo::new(Wire::http2(stream, held));
        Box::pin(watch.drive(http2_builder(&shared).serve_connection(wire, service))).await
    } else {
        let wire = TokioIo::new(Wire::http1(stream, shared.limits.max_header_bytes.as_usize(), held));
        Box::pin(watch.drive(http1_builder(&shared.limits).serve_connection(wire, service).with_upgrades())).await
    };
    match end {
        End::Closed => {}
        End::Cut(why) => {
            shared.metrics.timeouts.inc();
            tracing::debug!(peer = %remote, why, "connection cut");
        }
        // The peer's doing in nearly every case: a reset, a malformed request.
        End::Failed(error) => tracing::debug!(peer = %remote, error = %error, "connection failed"),
    }
}

/// A connection of which the protocol is known.
struct Opened {
    stream: Stream,
    /// Whether it is HTTP/2.
    streams: bool,
    /// What was read of it.
    begin: BytesMut,
    certificate: Option<Arc<ClientCertificate>>,
}

/// Why it came to nothing.
enum Unopened {
    Gone,
    Silent,
    NoTls(io::Error),
}

async fn open<S>(shared: &Shared<S>, stream: TcpStream, activity: &Arc<Activity>) -> Result<Opened, Unopened> {
    let socket = Socket::new(stream, activity.clone());
    let (mut stream, agreed, certificate) = match &shared.tls {
        None => (Stream::Plain(socket), None, None),
        Some(tls) => {
            let accepted = tls.accept(socket).await.map_err(Unopened::NoTls)?;
            (Stream::Tls(accepted.stream), accepted.http2, accepted.certificate)
        }
    };
    let limits = &shared.limits;
    match timeout(limits.header_timeout, first_bytes(&mut stream, agreed, limits.max_header_bytes.as_usize())).await {
        Ok(Ok((streams, begin))) => Ok(Opened { stream, streams, begin, certificate }),
        Ok(Err(_gone)) => Err(Unopened::Gone),
        Err(_elapsed) => Err(Unopened::Silent),
    }
}

/// Reads until it is clear which protocol the peer speaks and, on HTTP/1, until its first head is whole or malformed. Whether
/// it is HTTP/2, which may have been agreed on, and what was read.
async fn first_bytes(stream: &mut Stream, agreed: Option<bool>, max_head: usize) -> io::Result<(bool, BytesMut)> {
    let mut buffer = BytesMut::with_capacity(1024);
    loop {
        let before = buffer.len();
        if stream.read_buf(&mut buffer).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let compared = buffer.len().min(PREFACE.len());
        if agreed != Some(false) && buffer[..compared] == PREFACE[..compared] {
            if compared == PREFACE.len() {
                return Ok((true, buffer));
            }
            continue;
        }
        if agreed == Some(true) {
            return Err(io::ErrorKind::InvalidData.into());
        }
        // Nothing else can change the judgement; so a peer cannot make us judge at each byte.
        let may_be_whole = memchr(b'\n', &buffer[before..]).is_some() || buffer.len() > max_head;
        if may_be_whole && judge(&buffer, max_head) != Judgement::Partial {
            return Ok((false, buffer));
        }
    }
}

fn http1_builder(limits: &ConnectionLimits) -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        // Hyper's clock for heads also runs while a connection is idle, so it cannot tell the two apart; the watchdog can.
        .header_read_timeout(None)
        .max_header_size(limits.max_header_bytes.as_usize())
        // The size is judged on a whole head; this bounds one that never ends. It is also the largest piece of a body.
        .max_buf_size(limits.max_header_bytes.as_usize().saturating_mul(2).max(64 << 10));
    builder
}

fn http2_builder<S>(shared: &Shared<S>) -> http2::Builder<Spawner> {
    let http2 = &shared.limits.http2;
    let mut builder = http2::Builder::new(Spawner(shared.group.clone()));
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(http2.max_streams)
        .max_header_list_size(u32::try_from(shared.limits.max_header_bytes.0).unwrap_or(u32::MAX))
        .max_local_error_reset_streams(MAX_RESETS)
        .initial_stream_window_size(http2.stream_window)
        .initial_connection_window_size(http2.connection_window)
        .max_frame_size(http2.max_frame)
        .max_send_buf_size(256 << 10)
        .keep_alive_interval(Duration::from_secs(20))
        .keep_alive_timeout(Duration::from_secs(10));
    builder
}

/// How a connection ended.
enum End {
    Closed,
    Cut(&'static str),
    Failed(hyper::Error),
}

struct Watch {
    activity: Arc<Activity>,
    deadlines: Deadlines,
    streams: bool,
    draining: CancellationToken,
}

impl Watch {
    async fn drive(self, connection: impl Graceful) -> End {
        let mut connection = pin!(connection);
        let mut look = pin!(sleep_until(Instant::now()));
        let mut asked = false;
        let mut closing_until = None;
        loop {
            tokio::select! {
                biased;
                result = connection.as_mut() => return result.map_or_else(End::Failed, |()| End::Closed),
                () = self.draining.cancelled(), if !asked => {
                    asked = true;
                    connection.as_mut().end();
                }
                () = self.activity.given_up() => return End::Closed,
                () = look.as_mut() => {
                    if closing_until.is_some_and(|until| Instant::now() >= until) {
                        return End::Closed;
                    }
                    match self.activity.judge(&self.deadlines, self.streams) {
                        Verdict::Wait(until) => look.as_mut().reset(closing_until.unwrap_or(until).min(until)),
                        Verdict::Cut(why) => return End::Cut(why),
                        Verdict::Idle => {
                            connection.as_mut().end();
                            let until = *closing_until.get_or_insert_with(|| Instant::now() + CLOSING);
                            look.as_mut().reset(until);
                        }
                    }
                }
            }
        }
    }
}
