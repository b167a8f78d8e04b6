//! The connection to a Redis server: kept in the background, given up at the first sign of trouble.
//!
//! Lost → (connect, handshake, PING within the time-out) → Up → (the connection breaks, or [`Health`] has seen enough) → Lost.
//! Between tries the wait doubles, from [`FIRST_WAIT`] to [`LAST_WAIT`], and begins anew only after a connection that held.
//! Invariants: commands wait only while Up and only for the time-out; the server can make this process hold at most
//! [`Meter`]'s bytes: one that sends more than was asked for is cut off.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use ::redis::aio::MultiplexedConnection;
use ::redis::{AsyncConnectionConfig, Cmd, ConnectionAddr, IntoConnectionInfo, ProtocolVersion, RedisConnectionInfo, Value, cmd};
use arc_swap::ArcSwapOption;
use plinth_runtime::{CancellationToken, OnEnd, TaskGroup, World};
use plinth_telemetry::{CacheMetrics, RedisFailure};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, watch};

use super::{MAX_VALUE, RedisOptions, RedisUrlError, SLOTS, frame};

/// The longest time that a value is kept, in milliseconds: 30 days.
pub(super) const LONGEST_MILLIS: u64 = 30 * 24 * 3600 * 1000;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
const FIRST_WAIT: Duration = Duration::from_millis(100);
const LAST_WAIT: Duration = Duration::from_secs(5);
/// A connection that held so long was a good one.
const HELD: Duration = Duration::from_secs(10);

/// A connection that works, as far as is known.
struct Live {
    connection: MultiplexedConnection,
    meter: Arc<Meter>,
    health: Health,
    /// Cancelled when the connection is given up, by whoever sees it first.
    lost: CancellationToken,
    given_up: AtomicBool,
    /// A refused command was logged.
    told: AtomicBool,
}

/// The server.
pub(super) struct Link {
    host: String,
    port: u16,
    settings: RedisConnectionInfo,
    timeout: Duration,
    live: ArcSwapOption<Live>,
    up: watch::Sender<bool>,
    slots: Semaphore,
    metrics: CacheMetrics,
    world: World,
}

impl Link {
    pub fn open(options: &RedisOptions, metrics: CacheMetrics, world: &World, tasks: &TaskGroup) -> Result<Arc<Self>, RedisUrlError> {
        let info = options.url.as_str().into_connection_info().map_err(|_| RedisUrlError)?;
        let ConnectionAddr::Tcp(host, port) = info.addr() else { return Err(RedisUrlError) };
        let settings = info.redis_settings().clone().set_skip_set_lib_name().set_protocol(ProtocolVersion::RESP2);
        let link = Arc::new(Self {
            host: host.clone(),
            port: *port,
            settings,
            timeout: options.timeout,
            live: ArcSwapOption::empty(),
            up: watch::Sender::new(false),
            slots: Semaphore::new(SLOTS),
            metrics,
            world: world.clone(),
        });
        tasks.spawn("reach Redis", OnEnd::Ignore, link.clone().keep(tasks.clone()));
        Ok(link)
    }

    pub fn is_up(&self) -> bool {
        *self.up.borrow()
    }

    pub async fn until(&self, up: bool) {
        // The sender lives in `self`, so this cannot end early.
        let _ = self.up.subscribe().wait_for(|now| *now == up).await;
    }

    pub fn describe(&self) -> String {
        format!("Redis at {}:{}, database {}", self.host, self.port, self.settings.db())
    }

    /// One command and its answer. Cancel safe: the answer to a dropped call is thrown away.
    pub async fn exchange(&self, command: &Cmd) -> Result<Value, RedisFailure> {
        let Some(live) = self.live.load_full() else { return Err(RedisFailure::Connection) };
        let Ok(_slot) = self.slots.try_acquire() else { return Err(RedisFailure::Busy) };
        let mut connection = live.connection.clone();
        let answer = tokio::time::timeout(self.timeout, connection.send_packed_command(command)).await;
        match answer.map(|answer| answer.and_then(Value::extract_error)) {
            Ok(Ok(value)) => {
                live.answered();
                Ok(value)
            }
            Ok(Err(error)) if error.is_unrecoverable_error() => {
                self.give_up(&live, &error.to_string());
                Err(RedisFailure::Connection)
            }
            Ok(Err(error)) => {
                live.answered();
                if !live.told.swap(true, Ordering::Relaxed) {
                    tracing::warn!(%error, "redis refuses a command of the response cache");
                }
                Err(RedisFailure::Refused)
            }
            Err(_) => {
                if live.health.record(false) {
                    self.give_up(&live, "it does not answer in time");
                }
                Err(RedisFailure::Timeout)
            }
        }
    }

    /// No command goes over this connection any more; the task in the background makes another.
    fn give_up(&self, live: &Arc<Live>, cause: &str) {
        if !live.given_up.swap(true, Ordering::Relaxed) {
            live.lost.cancel();
            self.show(None);
            tracing::warn!(cause, "redis is lost; answers are cached in memory alone until it is back");
        }
    }

    fn show(&self, live: Option<Arc<Live>>) {
        let up = live.is_some();
        self.live.store(live);
        self.up.send_replace(up);
        self.metrics.redis_up.set(f64::from(u8::from(up)));
    }

    async fn keep(self: Arc<Self>, tasks: TaskGroup) {
        let end = tasks.cancelled().clone();
        let mut wait = FIRST_WAIT;
        let mut quiet = false;
        while !end.is_cancelled() {
            let tried = tokio::select! {
                tried = tokio::time::timeout(CONNECT_TIMEOUT, self.connect(&tasks)) => tried,
                () = end.cancelled() => return,
            };
            match tried.unwrap_or_else(|_| Err("it cannot be reached in time".to_owned())) {
                Ok(live) => {
                    let since = self.world.clock.monotonic();
                    tracing::info!("redis is reached; cached answers are shared");
                    self.show(Some(live.clone()));
                    tokio::select! {
                        () = live.lost.cancelled() => self.give_up(&live, "the connection was closed"),
                        () = end.cancelled() => live.lost.cancel(),
                    }
                    // Whoever gave it up may have done so before it was shown.
                    self.show(None);
                    quiet = false;
                    if self.world.clock.monotonic().saturating_sub(since) >= HELD {
                        wait = FIRST_WAIT;
                    }
                }
                Err(cause) => {
                    self.metrics.redis_failed(RedisFailure::Connection);
                    if !std::mem::replace(&mut quiet, true) {
                        tracing::warn!(cause, "redis cannot be used; answers are cached in memory alone until it can");
                    }
                }
            }
            // Nodes that lost the server together do not come back together.
            let spread = u64::try_from(wait.as_millis() / 2).unwrap_or(0).max(1);
            let pause = wait / 2 + Duration::from_millis(self.world.random.next_u64() % spread);
            if tokio::time::timeout(pause, end.cancelled()).await.is_ok() {
                return;
            }
            wait = (wait * 2).min(LAST_WAIT);
        }
    }

    async fn connect(&self, tasks: &TaskGroup) -> Result<Arc<Live>, String> {
        let stream = TcpStream::connect((self.host.as_str(), self.port)).await.map_err(|e| e.to_string())?;
        stream.set_nodelay(true).map_err(|e| e.to_string())?;
        let meter = Arc::new(Meter::default());
        let stream = Metered { stream, meter: meter.clone() };
        let config = AsyncConnectionConfig::new().set_response_timeout(None).set_pipeline_buffer_size(SLOTS);
        let (connection, driver) =
            MultiplexedConnection::new_with_config(&self.settings, stream, config).await.map_err(|e| e.to_string())?;
        let lost = CancellationToken::new();
        // Dropped unless the connection is taken into use, so that a failed try leaves no task behind.
        let guard = lost.clone().drop_guard();
        let ended = lost.clone();
        tasks.spawn("redis connection", OnEnd::Ignore, async move {
            let _ended = ended.clone().drop_guard();
            tokio::select! {
                () = driver => {}
                () = ended.cancelled() => {}
            }
        });
        let live =
            Live { connection, meter, health: Health::default(), lost, given_up: AtomicBool::new(false), told: AtomicBool::new(false) };
        let ping = cmd("PING");
        let mut connection = live.connection.clone();
        let answer = tokio::time::timeout(self.timeout, connection.send_packed_command(&ping)).await;
        match answer.map(|answer| answer.and_then(Value::extract_error)) {
            Ok(Ok(Value::SimpleString(text))) if text == "PONG" => {
                live.answered();
                guard.disarm();
                Ok(Arc::new(live))
            }
            Ok(Ok(_)) => Err("it does not answer as Redis does".to_owned()),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err("it does not answer in time".to_owned()),
        }
    }
}

impl Live {
    fn answered(&self) {
        self.meter.0.store(0, Ordering::Relaxed);
        self.health.record(true);
    }
}

/// The last 32 commands, newest in the lowest bit; a one is a command without an answer in time.
#[derive(Default)]
struct Health(AtomicU32);

impl Health {
    /// Notes one; whether it is enough: the last three, or half of all.
    fn record(&self, answered: bool) -> bool {
        let next = |bits: u32| (bits << 1) | u32::from(!answered);
        let before = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |bits| Some(next(bits)));
        let bits = before.map_or(0, next);
        bits & 0b111 == 0b111 || bits.count_ones() >= 16
    }
}

/// Bytes received since the last whole answer.
#[derive(Default)]
struct Meter(AtomicUsize);

impl Meter {
    /// All slots filled with the largest values, and some room for how they are written.
    const LIMIT: usize = SLOTS * (MAX_VALUE + frame::HEAD + 64);
}

/// A stream that ends when the other side sends more than was asked for.
struct Metered {
    stream: TcpStream,
    meter: Arc<Meter>,
}

impl AsyncRead for Metered {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(cx, buffer);
        let read = buffer.filled().len().saturating_sub(before);
        if self.meter.0.fetch_add(read, Ordering::Relaxed).saturating_add(read) > Meter::LIMIT {
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::ConnectionAborted, "more bytes than were asked for")));
        }
        polled
    }
}

impl AsyncWrite for Metered {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_in_a_row_or_half_of_many_are_enough() {
        let health = Health::default();
        assert!(!health.record(false) && !health.record(false));
        assert!(!health.record(true) && !health.record(false) && !health.record(false));
        assert!(health.record(false));
        let health = Health::default();
        let verdicts: Vec<_> = (0..32).map(|n| health.record(n % 2 == 0)).collect();
        assert_eq!(verdicts.iter().position(|enough| *enough), Some(31));
    }
}
