//! Counters in a Redis server that all nodes reach.
//!
//! Lost → (connect, load the script) → Up → (the connection ends, or nothing came back within the time-out) → Lost. Invariants: a
//! question is one script, so it is whole; while Lost it fails without a packet; between tries the wait doubles from [`FIRST_WAIT`]
//! to [`LAST_WAIT`]. The server's own clock counts, unless a test hands one in.
//!
//! A server that evicts keys, or loses its memory, hands out one burst again: give it `maxmemory-policy noeviction` and, where a burst
//! matters, an append-only file.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use ::redis::aio::MultiplexedConnection;
use ::redis::{AsyncConnectionConfig, ConnectionAddr, IntoConnectionInfo, ProtocolVersion, RedisConnectionInfo, cmd};
use arc_swap::ArcSwapOption;
use async_trait::async_trait;
use plinth_policy::limits::{LeaseAnswer, LeaseRequest};
use plinth_runtime::{CancellationToken, Clock, OnEnd, TaskGroup, World};
use tokio::net::TcpStream;
use tokio::sync::watch;

use super::{Central, LeaseStore, NoAnswer};
use crate::cache::RedisUrlError;

const SCRIPT: &str = include_str!("lease.lua");
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
const FIRST_WAIT: Duration = Duration::from_millis(50);
const LAST_WAIT: Duration = Duration::from_secs(2);
/// A connection that held so long was a good one.
const HELD: Duration = Duration::from_secs(10);
/// The most questions that wait to be written.
const PIPELINE: usize = 256;
/// Above this a double no longer holds every whole number.
const EXACT: u64 = 1 << 53;

/// How the server is reached.
#[derive(Clone)]
pub struct RedisLeasesOptions {
    /// `redis://user:password@host:port/database`. Not shown by `Debug`.
    pub url: String,
    /// How long a question may take.
    pub timeout: Duration,
    /// What keys begin with. Nodes that share limits have the same.
    pub prefix: String,
    /// Whose time counts: the server's when `None`. Only tests hand in one.
    pub clock: Option<Arc<dyn Clock>>,
}

impl RedisLeasesOptions {
    /// A server with the prefix that all nodes have.
    #[must_use]
    pub fn new(url: impl Into<String>, timeout: Duration) -> Self {
        Self { url: url.into(), timeout, prefix: "plinth:limit:".to_owned(), clock: None }
    }
}

impl std::fmt::Debug for RedisLeasesOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RedisLeasesOptions").field("timeout", &self.timeout).field("prefix", &self.prefix).finish_non_exhaustive()
    }
}

struct Live {
    connection: MultiplexedConnection,
    /// The script's name on this server.
    sha: String,
    /// When something last came back, in milliseconds of the node's monotonic clock.
    heard: AtomicU64,
    lost: CancellationToken,
}

/// Counters in Redis.
pub struct RedisLeases {
    host: String,
    port: u16,
    settings: RedisConnectionInfo,
    options: RedisLeasesOptions,
    live: ArcSwapOption<Live>,
    up: AtomicBool,
    shown: watch::Sender<bool>,
    world: World,
}

impl RedisLeases {
    /// Counters in a server that is reached in the background, by a task in `tasks`. Whoever brings leases back when a node stops does
    /// it before this group is closed.
    ///
    /// # Errors
    /// [`RedisUrlError`].
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn open(options: RedisLeasesOptions, world: &World, tasks: &TaskGroup) -> Result<Arc<Self>, RedisUrlError> {
        let info = options.url.as_str().into_connection_info().map_err(|_| RedisUrlError)?;
        let ConnectionAddr::Tcp(host, port) = info.addr() else { return Err(RedisUrlError) };
        let settings = info.redis_settings().clone().set_skip_set_lib_name().set_protocol(ProtocolVersion::RESP2);
        let leases = Arc::new(Self {
            host: host.clone(),
            port: *port,
            settings,
            options,
            live: ArcSwapOption::empty(),
            up: AtomicBool::new(false),
            shown: watch::Sender::new(false),
            world: world.clone(),
        });
        tasks.spawn("reach Redis for limits", OnEnd::Ignore, leases.clone().keep(tasks.clone()));
        Ok(leases)
    }

    fn show(&self, live: Option<Arc<Live>>) {
        let up = live.is_some();
        self.live.store(live);
        self.up.store(up, Ordering::Release);
        self.shown.send_replace(up);
    }

    fn millis(&self) -> u64 {
        u64::try_from(self.world.clock.monotonic().as_millis()).unwrap_or(u64::MAX)
    }

    async fn keep(self: Arc<Self>, tasks: TaskGroup) {
        let end = tasks.cancelled().clone();
        let (mut wait, mut told) = (FIRST_WAIT, false);
        while !end.is_cancelled() {
            let tried = tokio::select! {
                tried = tokio::time::timeout(CONNECT_TIMEOUT, self.connect(&tasks)) => tried,
                () = end.cancelled() => return,
            };
            match tried.unwrap_or_else(|_| Err("it cannot be reached in time".to_owned())) {
                Ok(live) => {
                    let since = self.world.clock.monotonic();
                    tracing::info!("redis is reached; limits are shared between nodes");
                    self.show(Some(live.clone()));
                    tokio::select! {
                        () = live.lost.cancelled() => tracing::warn!("redis is lost; this node keeps to its share of each limit until it is back"),
                        () = end.cancelled() => live.lost.cancel(),
                    }
                    self.show(None);
                    told = false;
                    if self.world.clock.monotonic().saturating_sub(since) >= HELD {
                        wait = FIRST_WAIT;
                    }
                }
                Err(cause) if !std::mem::replace(&mut told, true) => {
                    tracing::warn!(cause, "redis cannot be used; this node keeps to its share of each limit until it can");
                }
                Err(_) => {}
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
        let config = AsyncConnectionConfig::new().set_response_timeout(None).set_pipeline_buffer_size(PIPELINE);
        let (mut connection, driver) =
            MultiplexedConnection::new_with_config(&self.settings, stream, config).await.map_err(|e| e.to_string())?;
        let lost = CancellationToken::new();
        // Dropped unless the connection is taken into use, so that a failed try leaves no task behind.
        let guard = lost.clone().drop_guard();
        let ended = lost.clone();
        tasks.spawn("redis connection for limits", OnEnd::Ignore, async move {
            let _ended = ended.clone().drop_guard();
            tokio::select! {
                () = driver => {}
                () = ended.cancelled() => {}
            }
        });
        let mut load = cmd("SCRIPT");
        load.arg("LOAD").arg(SCRIPT);
        let sha: String = load.query_async(&mut connection).await.map_err(|e| e.to_string())?;
        guard.disarm();
        Ok(Arc::new(Live { connection, sha, heard: AtomicU64::new(self.millis()), lost }))
    }

    fn question(&self, live: &Live, key: &str, rule: &Central, ask: &LeaseRequest) -> ::redis::Cmd {
        let now = self.options.clock.as_ref().map_or(0, |clock| clock.now().millis() * 1000);
        let mut command = cmd("EVALSHA");
        command.arg(&live.sha).arg(1).arg(format!("{}{key}", self.options.prefix));
        let numbers: [u64; 7] = match rule {
            Central::Rate(rate) => {
                command.arg("rate");
                let lost_for = u64::try_from(ask.lost_for.as_micros()).unwrap_or(EXACT);
                [now, ask.want, ask.unused, lost_for, rate.num, rate.den, rate.tau]
            }
            Central::Cap(cap) => {
                command.arg("cap");
                [now, ask.want, ask.unused, ask.window, ask.spent, cap.cap, 0]
            }
        };
        for number in numbers {
            command.arg(number.min(EXACT));
        }
        if let Central::Rate(rate) = rule {
            command.arg(rate.burst.min(EXACT));
        }
        command
    }
}

#[async_trait]
impl LeaseStore for RedisLeases {
    async fn lease(&self, key: &str, rule: &Central, ask: &LeaseRequest) -> Result<LeaseAnswer, NoAnswer> {
        let Some(live) = self.live.load_full() else { return Err(NoAnswer) };
        let (sent, mut connection) = (self.millis(), live.connection.clone());
        let command = self.question(&live, key, rule, ask);
        let answer = tokio::time::timeout(self.options.timeout, command.query_async::<[u64; 5]>(&mut connection)).await;
        match answer {
            Ok(Ok([granted, left, retry, ends_in, window])) => {
                live.heard.fetch_max(self.millis(), Ordering::Relaxed);
                let lasts = match rule {
                    Central::Rate(rate) => rate.life,
                    Central::Cap(cap) => cap.life.min(Duration::from_micros(ends_in)),
                };
                Ok(LeaseAnswer { granted: granted.min(ask.want), left, retry_after: Duration::from_micros(retry), lasts, window })
            }
            Ok(Err(error)) => {
                // Also a server that lost the script or takes no writes: it is asked again from the beginning.
                tracing::debug!(%error, "redis does not answer a question about a limit");
                live.lost.cancel();
                Err(NoAnswer)
            }
            Err(_) => {
                // One answer that is late among others is no loss.
                if live.heard.load(Ordering::Relaxed) <= sent {
                    live.lost.cancel();
                }
                Err(NoAnswer)
            }
        }
        .inspect_err(|_| {
            if live.lost.is_cancelled() && self.live.load().as_ref().is_some_and(|now| Arc::ptr_eq(now, &live)) {
                self.show(None);
            }
        })
    }

    fn is_up(&self) -> bool {
        self.up.load(Ordering::Acquire)
    }

    async fn until(&self, up: bool) {
        // The sender lives in `self`, so this cannot end early.
        let _ = self.shown.subscribe().wait_for(|now| *now == up).await;
    }

    fn describe(&self) -> String {
        format!("Redis at {}:{}, database {}", self.host, self.port, self.settings.db())
    }
}
