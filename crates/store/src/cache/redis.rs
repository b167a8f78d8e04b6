//! Answers in a Redis server, which nodes share.
//!
//! Invariants: no call takes longer than the time-out; while the server is lost, calls cost nothing and send nothing: a task in
//! the background goes back to it; a value that is foreign, damaged, too long or past its time is a miss. At most
//! [`SLOTS`] commands are on their way at once, and at most [`MAX_VALUE`] bytes are asked for each.
//!
//! Keys are the prefix and the key's digest in hexadecimal; what stands under them is a frame (see `frame`).

mod link;

use std::sync::Arc;
use std::time::Duration;

use ::redis::{Cmd, Value, cmd};
use async_trait::async_trait;
use bytes::Bytes;
use plinth_runtime::{Clock, TaskGroup, World};
use plinth_telemetry::{CacheMetrics, RedisFailure};
use plinth_types::CacheKey;

use self::link::Link;
use super::{Cache, Usage, frame};

/// The longest value that goes to Redis. More would not come back within the time-out.
const MAX_VALUE: usize = 1 << 20;

/// The most commands on their way to the server.
const SLOTS: usize = 32;

/// How a Redis server is reached.
#[derive(Clone)]
pub struct RedisOptions {
    /// `redis://user:password@host:port/database`. Not shown by `Debug`.
    pub url: String,
    /// How long any command may take.
    pub timeout: Duration,
    /// What keys begin with. Nodes that share answers have the same.
    pub prefix: String,
}

impl RedisOptions {
    /// A server with the prefix that all nodes have.
    #[must_use]
    pub fn new(url: impl Into<String>, timeout: Duration) -> Self {
        Self { url: url.into(), timeout, prefix: "plinth:cache:".to_owned() }
    }
}

impl std::fmt::Debug for RedisOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RedisOptions").field("timeout", &self.timeout).field("prefix", &self.prefix).finish_non_exhaustive()
    }
}

/// The address cannot be understood. Says nothing of the address, which may hold a password.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the address of the Redis server cannot be understood; it looks like redis://user:password@host:6379/0")]
pub struct RedisUrlError;

/// A value from the server, and how much of its time is left.
pub(super) struct Found {
    pub value: Bytes,
    pub left: Duration,
}

/// Answers in Redis.
pub struct RedisCache {
    link: Arc<Link>,
    prefix: String,
    clock: Arc<dyn Clock>,
    metrics: CacheMetrics,
}

impl RedisCache {
    /// A cache in a server that is reached in the background, by a task in `tasks`.
    ///
    /// # Errors
    /// [`RedisUrlError`].
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn open(options: &RedisOptions, metrics: CacheMetrics, world: &World, tasks: &TaskGroup) -> Result<Arc<Self>, RedisUrlError> {
        let link = Link::open(options, metrics.clone(), world, tasks)?;
        Ok(Arc::new(Self { link, prefix: options.prefix.clone(), clock: world.clock.clone(), metrics }))
    }

    /// Whether the server is reached now.
    #[must_use]
    pub fn is_up(&self) -> bool {
        self.link.is_up()
    }

    /// Waits until the server is reached, or is not. Cancel safe; waits for ever when it never is.
    pub async fn until(&self, up: bool) {
        self.link.until(up).await;
    }

    fn command(&self, name: &str, key: &CacheKey) -> Cmd {
        let mut command = cmd(name);
        command.arg(format!("{}{}", self.prefix, key.digest().hex()));
        command
    }

    async fn exchange(&self, command: &Cmd) -> Option<Value> {
        if !self.link.is_up() {
            return None;
        }
        self.link.exchange(command).await.map_err(|failure| self.metrics.redis_failed(failure)).ok()
    }

    pub(super) async fn find(&self, key: &CacheKey) -> Option<Found> {
        // One byte more than any frame has, so that a longer value is known by its length and never read.
        let mut command = self.command("GETRANGE", key);
        command.arg(0).arg(frame::HEAD + MAX_VALUE);
        let found = match self.exchange(&command).await? {
            Value::BulkString(bytes) if bytes.is_empty() => return None,
            Value::BulkString(bytes) if bytes.len() <= frame::HEAD + MAX_VALUE => frame::open(key, bytes),
            Value::Nil => return None,
            _ => None,
        };
        let Some((value, until)) = found else {
            self.metrics.redis_failed(RedisFailure::Damaged);
            return None;
        };
        let left = Duration::from_millis(until.saturating_sub(self.clock.now().millis()));
        if left.is_zero() {
            return None;
        }
        self.metrics.redis_hits.inc();
        Some(Found { value, left })
    }

    /// [`Cache::put`]; whether the server took it.
    pub(super) async fn store(&self, key: &CacheKey, value: &[u8], ttl: Duration) -> bool {
        let millis = u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX).min(link::LONGEST_MILLIS);
        if millis == 0 || value.len() > MAX_VALUE || !self.is_up() {
            return false;
        }
        let until = self.clock.now().plus(Duration::from_millis(millis));
        let mut command = self.command("SET", key);
        command.arg(frame::seal(key, value, until)).arg("PX").arg(millis);
        self.exchange(&command).await.is_some()
    }
}

#[async_trait]
impl Cache for RedisCache {
    fn peek(&self, _: &CacheKey) -> Option<Bytes> {
        None
    }

    async fn get(&self, key: &CacheKey) -> Option<Bytes> {
        let found = self.find(key).await;
        if found.is_none() {
            self.metrics.misses.inc();
        }
        found.map(|found| found.value)
    }

    async fn put(&self, key: &CacheKey, value: Bytes, ttl: Duration) {
        self.store(key, &value, ttl).await;
    }

    fn max_value(&self) -> usize {
        MAX_VALUE
    }

    fn usage(&self) -> Usage {
        Usage::default()
    }

    fn describe(&self) -> String {
        self.link.describe()
    }
}
