//! Answers that were computed before, found by the digest of what was asked.
//!
//! Invariants, the same for every adapter: what [`Cache::get`] gives was put under exactly this key, whole and unchanged, and
//! its time has not passed; nothing here fails a request: whatever goes wrong is a miss; no call waits longer than the
//! adapter's time-out; memory, queues and what is read from a server are bounded in bytes. A value may be gone at any time.
//!
//! What is cached, under which key and for how long, is for serving to say.

mod frame;
mod memory;
mod redis;
#[cfg(test)]
pub(crate) mod tests;
mod two_level;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use plinth_runtime::{TaskGroup, World};
use plinth_telemetry::CacheMetrics;
use plinth_types::{ByteSize, CacheKey};

pub use memory::MemoryCache;
pub use redis::{RedisCache, RedisOptions, RedisUrlError};
pub use two_level::TwoLevelCache;

/// How much is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// Answers.
    pub entries: u64,
    /// Bytes of memory that they take, keys and bookkeeping included.
    pub bytes: u64,
}

/// The port. See the module for what every adapter keeps.
#[async_trait]
pub trait Cache: Send + Sync {
    /// What is at hand without waiting for anybody; `None` says nothing about what [`Cache::get`] finds. Takes well under a
    /// microsecond.
    fn peek(&self, key: &CacheKey) -> Option<Bytes>;

    /// What was put under a key. Cancel safe.
    async fn get(&self, key: &CacheKey) -> Option<Bytes>;

    /// Keeps a value for at most `ttl`, in place of what was under the key. Not kept: for no time, more than
    /// [`Cache::max_value`] bytes, or what the adapter thinks less useful than what it has. The whole allocation behind `value`
    /// is kept, so hand in one that holds nothing else. Cancel safe: a dropped call has put the value or not.
    async fn put(&self, key: &CacheKey, value: Bytes, ttl: Duration);

    /// The longest value that is kept, in bytes.
    fn max_value(&self) -> usize;

    /// What is kept in this process.
    fn usage(&self) -> Usage;

    /// What this adapter is, for people. Holds no password.
    fn describe(&self) -> String;
}

/// Which cache a node has.
#[derive(Debug, Clone)]
pub struct CacheOptions {
    /// The most memory of this process.
    pub memory: ByteSize,
    /// The server behind it, which nodes share.
    pub redis: Option<RedisOptions>,
}

/// Makes the cache of a node. Nothing is waited for: Redis is reached in the background, and gone back to when it is lost.
/// What works in the background ends with `tasks`.
///
/// # Errors
/// [`RedisUrlError`] when the address cannot be understood.
///
/// # Panics
/// Outside a tokio runtime.
pub fn open(options: &CacheOptions, metrics: &CacheMetrics, world: &World, tasks: &TaskGroup) -> Result<Arc<dyn Cache>, RedisUrlError> {
    let memory = MemoryCache::open(options.memory, metrics.clone(), world, tasks);
    let Some(redis) = &options.redis else { return Ok(memory) };
    let redis = RedisCache::open(redis, metrics.clone(), world, tasks)?;
    Ok(TwoLevelCache::open(memory, redis, metrics.clone(), tasks))
}
