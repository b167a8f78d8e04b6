//! Answers in the memory of this process.
//!
//! Invariants: keys, values and bookkeeping together stay within the given bytes at every moment; an answer whose time has
//! passed is never given, and its memory comes back about a second after that even when nobody asks again. What stays is decided
//! by use (the crate quick_cache: Clock-PRO with ideas of S3-FIFO), so a sweep of keys that are asked for once does not drive
//! out what is asked for often. A hit takes the shared side of one of a few locks and writes one counter; queues are touched
//! only by [`Cache::put`].

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use plinth_runtime::{Clock, OnEnd, TaskGroup, World};
use plinth_telemetry::CacheMetrics;
use plinth_types::{ByteSize, CacheKey};
use quick_cache::{DefaultHashBuilder, Lifecycle, OptionsBuilder, Weighter};

use super::{Cache, Usage};

/// What an entry takes beside its value: its places in the table, in the queue and in the list of times, the share of the keys
/// that are remembered a while after they left, the counter behind the value, and the allocator's share. The example
/// `cache_memory` measures 210 to 260 bytes while few keys have left.
pub(super) const OVERHEAD: usize = 320;

/// One answer takes at most this part of the whole: half of a shard.
const PART: u64 = 16;
const SHARDS: usize = 8;

/// How often memory of answers whose time has passed is given back.
const SWEEP: Duration = Duration::from_secs(1);

/// How many of them between two breaths.
const SWEEP_BATCH: usize = 1024;

/// Longer times are cut to this.
const LONGEST: Duration = Duration::from_secs(30 * 24 * 3600);

#[derive(Clone)]
struct Entry {
    value: Bytes,
    until: Duration,
}

#[derive(Clone, Copy)]
struct ByBytes;

impl Weighter<CacheKey, Entry> for ByBytes {
    fn weight(&self, _: &CacheKey, entry: &Entry) -> u64 {
        weight(entry.value.len())
    }
}

fn weight(length: usize) -> u64 {
    length.saturating_add(OVERHEAD) as u64
}

/// Collects what a put drives out, so that it is dropped when the lock is free again.
#[derive(Clone, Copy)]
struct Collect;

impl Lifecycle<CacheKey, Entry> for Collect {
    type RequestState = Vec<(CacheKey, Entry)>;

    fn on_evict(&self, left: &mut Self::RequestState, key: CacheKey, entry: Entry) {
        left.push((key, entry));
    }
}

type Entries = quick_cache::sync::Cache<CacheKey, Entry, ByBytes, DefaultHashBuilder, Collect>;

/// Answers in memory.
pub struct MemoryCache {
    entries: Entries,
    /// When which entry's time is over. It may name entries that have left, but none that is there is missing. Never locked
    /// while a shard is.
    times: Mutex<BTreeSet<(Duration, CacheKey)>>,
    capacity: u64,
    clock: Arc<dyn Clock>,
    metrics: CacheMetrics,
}

impl MemoryCache {
    /// A cache that takes at most so much memory. Sweeps in `tasks`.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    #[must_use]
    pub fn open(capacity: ByteSize, metrics: CacheMetrics, world: &World, tasks: &TaskGroup) -> Arc<Self> {
        // How many keys that left are remembered: half of this, about one for each 4 KiB.
        let items = usize::try_from(capacity.0 / 2048).unwrap_or(usize::MAX).clamp(SHARDS * 32, 1 << 20);
        let options = OptionsBuilder::new().estimated_items_capacity(items).weight_capacity(capacity.0).shards(SHARDS).build();
        #[allow(clippy::expect_used, reason = "both sizes are set in the line above")]
        let options = options.expect("the options are complete");
        let cache = Arc::new(Self {
            entries: Entries::with_options(options, ByBytes, DefaultHashBuilder::default(), Collect),
            times: Mutex::default(),
            capacity: capacity.0,
            clock: world.clock.clone(),
            metrics,
        });
        let (sweeper, end) = (cache.clone(), tasks.cancelled().clone());
        tasks.spawn("sweep cached answers", OnEnd::Ignore, async move {
            while tokio::time::timeout(SWEEP, end.cancelled()).await.is_err() {
                while sweeper.sweep() {
                    tokio::task::yield_now().await;
                }
                sweeper.usage();
            }
        });
        cache
    }

    fn times(&self) -> MutexGuard<'_, BTreeSet<(Duration, CacheKey)>> {
        self.times.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives the memory of some answers back whose time has passed; whether there may be more.
    fn sweep(&self) -> bool {
        let now = self.clock.monotonic();
        let due: Vec<_> = {
            let mut times = self.times();
            let next = || times.first().is_some_and(|(until, _)| *until <= now).then(|| times.pop_first()).flatten();
            std::iter::from_fn(next).take(SWEEP_BATCH).collect()
        };
        for (_, key) in &due {
            self.entries.remove_if(key, |entry| entry.until <= now);
        }
        due.len() == SWEEP_BATCH
    }

    /// [`Cache::put`], which waits for nobody here.
    pub(super) fn keep(&self, key: &CacheKey, value: Bytes, ttl: Duration) {
        if ttl.is_zero() || value.len() > self.max_value() {
            return;
        }
        let until = self.clock.monotonic().saturating_add(ttl.min(LONGEST));
        // Before the entry is there, so that whoever drives it out finds its time.
        self.times().insert((until, *key));
        let mut left = Vec::new();
        self.entries.insert_with_lifecycle(*key, Entry { value, until }, &mut left);
        if left.is_empty() {
            return;
        }
        let mut times = self.times();
        for (other, entry) in &left {
            if other != key {
                self.metrics.evictions.inc();
            }
            if (entry.until, other) != (until, key) {
                times.remove(&(entry.until, *other));
            }
        }
    }

    pub(super) fn find(&self, key: &CacheKey) -> Option<Bytes> {
        let entry = self.entries.get(key)?;
        if entry.until <= self.clock.monotonic() {
            return None;
        }
        self.metrics.memory_hits.inc();
        Some(entry.value)
    }
}

#[async_trait]
impl Cache for MemoryCache {
    fn peek(&self, key: &CacheKey) -> Option<Bytes> {
        self.find(key)
    }

    async fn get(&self, key: &CacheKey) -> Option<Bytes> {
        let found = self.find(key);
        if found.is_none() {
            self.metrics.misses.inc();
        }
        found
    }

    async fn put(&self, key: &CacheKey, value: Bytes, ttl: Duration) {
        self.keep(key, value, ttl);
    }

    fn max_value(&self) -> usize {
        usize::try_from(self.capacity / PART).unwrap_or(usize::MAX).saturating_sub(OVERHEAD)
    }

    fn usage(&self) -> Usage {
        let usage = Usage { entries: self.entries.len() as u64, bytes: self.entries.weight() };
        self.metrics.entries.set_whole(usage.entries);
        self.metrics.memory.set_whole(usage.bytes);
        usage
    }

    fn describe(&self) -> String {
        format!("memory, at most {}", ByteSize(self.capacity))
    }
}

#[cfg(test)]
impl MemoryCache {
    /// How many values are held and how many times are noted.
    pub(super) fn held(&self) -> (Vec<usize>, usize) {
        (self.entries.iter().map(|(_, entry)| entry.value.len()).collect(), self.times().len())
    }
}
