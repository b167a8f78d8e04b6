//! One connection from its first byte to its end.
//!
//! Tells HTTP/1.1 from HTTP/2 by the first bytes, lets hyper speak, and watches: the watchdog ends what
//! overruns a deadline of [`Activity`](crate::activity), a cancelled group ends it in order.

use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use hyper::rt::Executor;
use hyper::server::conn::{http1, http2};
use hyper_util::rt::{TokioIo, TokioTimer};
use plinth_runtime::{CancellationToken, OnEnd, TaskGroup};
use plinth_telemetry::ConnectionMetrics;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep_until, timeout};

use crate::activity::{Activity, Deadlines, Verdict};
use crate::server::ConnectionLimits;
use crate::service::{ConnectionService, Peer, Service};
use crate::wire::Wire;

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

impl<S: Service> Graceful for http1::Connection<TokioIo<Wire>, ConnectionService<S>> {
    fn end(self: Pin<&mut Self>) {
        self.graceful_shutdown();
    }
}

impl<S: Service> Graceful for http2::Connection<TokioIo<Wire>, ConnectionService<S>, Spawner> {
    fn end(self: Pin<&mut Self>) {
        self.graceful_shutdown();
    }
}

/// Serves a connection until it ends.
pub async fn serve<S: Service>(shared: Arc<Shared<S>>, mut stream: TcpStream, peer: Peer) {
    let draining = shared.group.cancelled().clone();
    let activity = Activity::new();
    let first = tokio::select! {
        first = timeout(shared.limits.header_timeout, first_bytes(&mut stream)) => first,
        () = draining.cancelled() => return,
    };
    let (streams, prefix) = match first {
        Ok(Ok(first)) => first,
        Ok(Err(_gone)) => return,
        Err(_elapsed) => {
            shared.metrics.timeouts.inc();
            return tracing::debug!(peer = %peer.remote, why = "no request", "connection cut");
        }
    };
    let wire = TokioIo::new(Wire::new(stream, prefix, activity.clone(), draining.clone()));
    let service = ConnectionService {
        service: shared.service.clone(),
        peer,
        activity: activity.clone(),
        lame_duck: shared.lame_duck.clone(),
        panics: shared.metrics.panics.clone(),
    };
    let watch = Watch { activity, deadlines: shared.limits.deadlines(), streams, draining };
    let end = if streams {
        watch.drive(http2_builder(&shared).serve_connection(wire, service)).await
    } else {
        watch.drive(http1_builder(&shared.limits).serve_connection(wire, service)).await
    };
    match end {
        End::Closed => {}
        End::Cut(why) => {
            shared.metrics.timeouts.inc();
            tracing::debug!(peer = %peer.remote, why, "connection cut");
        }
        // The peer's doing in nearly every case: a reset, a malformed request.
        End::Failed(error) => tracing::debug!(peer = %peer.remote, error = %error, "connection failed"),
    }
}

/// Reads until it is clear which protocol the peer speaks; whether it is HTTP/2, and what was read.
async fn first_bytes(stream: &mut TcpStream) -> io::Result<(bool, Bytes)> {
    let mut buffer = BytesMut::with_capacity(1024);
    loop {
        if stream.read_buf(&mut buffer).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let compared = buffer.len().min(PREFACE.len());
        if buffer[..compared] != PREFACE[..compared] {
            return Ok((false, buffer.freeze()));
        }
        if compared == PREFACE.len() {
            return Ok((true, buffer.freeze()));
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
