//! Memory first, Redis behind it.
//!
//! Invariants: what memory has never waits for Redis; nobody waits for a write to Redis: writes stand in a queue bounded by
//! count and bytes, and what does not fit is given up; an answer from Redis is kept in memory for no longer than it had left.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream;
use plinth_runtime::{OnEnd, TaskGroup};
use plinth_telemetry::{CacheMetrics, RedisFailure};
use plinth_types::CacheKey;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use super::{Cache, MemoryCache, RedisCache, Usage};

/// The most writes that wait for Redis.
const QUEUE_WRITES: usize = 1024;
/// The most bytes that wait for Redis.
const QUEUE_BYTES: usize = 16 << 20;
/// Writes on their way at once: enough to hide the way there and back, few beside the reads.
const WRITERS: usize = 8;

struct Write {
    key: CacheKey,
    value: Bytes,
    ttl: Duration,
    _bytes: OwnedSemaphorePermit,
}

/// Answers in memory and in Redis.
pub struct TwoLevelCache {
    near: Arc<MemoryCache>,
    far: Arc<RedisCache>,
    writes: mpsc::Sender<Write>,
    room: Arc<Semaphore>,
    metrics: CacheMetrics,
}

impl TwoLevelCache {
    /// Both levels together. Writes to Redis in `tasks`.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    #[must_use]
    pub fn open(near: Arc<MemoryCache>, far: Arc<RedisCache>, metrics: CacheMetrics, tasks: &TaskGroup) -> Arc<Self> {
        let (writes, queue) = mpsc::channel(QUEUE_WRITES);
        let (to, end) = (far.clone(), tasks.cancelled().clone());
        tasks.spawn("write answers to Redis", OnEnd::Ignore, async move {
            let all = stream::unfold(queue, |mut queue| async { queue.recv().await.map(|write: Write| (write, queue)) })
                .for_each_concurrent(WRITERS, |write| {
                    let to = &to;
                    async move {
                        to.store(&write.key, &write.value, write.ttl).await;
                    }
                });
            tokio::select! {
                () = all => {}
                () = end.cancelled() => {}
            }
        });
        Arc::new(Self { near, far, writes, room: Arc::new(Semaphore::new(QUEUE_BYTES)), metrics })
    }

    fn write_behind(&self, key: &CacheKey, value: Bytes, ttl: Duration) {
        if ttl.is_zero() || value.len() > self.far.max_value() || !self.far.is_up() {
            return;
        }
        let bytes = u32::try_from(value.len()).ok().and_then(|length| self.room.clone().try_acquire_many_owned(length).ok());
        let queued = bytes.and_then(|bytes| self.writes.try_send(Write { key: *key, value, ttl, _bytes: bytes }).ok());
        if queued.is_none() {
            self.metrics.redis_failed(RedisFailure::Dropped);
        }
    }
}

#[async_trait]
impl Cache for TwoLevelCache {
    fn peek(&self, key: &CacheKey) -> Option<Bytes> {
        self.near.find(key)
    }

    async fn get(&self, key: &CacheKey) -> Option<Bytes> {
        if let Some(value) = self.near.find(key) {
            return Some(value);
        }
        let Some(found) = self.far.find(key).await else {
            self.metrics.misses.inc();
            return None;
        };
        self.near.keep(key, found.value.clone(), found.left);
        Some(found.value)
    }

    async fn put(&self, key: &CacheKey, value: Bytes, ttl: Duration) {
        self.near.keep(key, value.clone(), ttl);
        self.write_behind(key, value, ttl);
    }

    fn max_value(&self) -> usize {
        self.near.max_value().max(self.far.max_value())
    }

    fn usage(&self) -> Usage {
        self.near.usage()
    }

    fn describe(&self) -> String {
        format!("{}; behind it {}", self.near.describe(), self.far.describe())
    }
}
