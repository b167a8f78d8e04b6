//! All adapters against the conformance suite, and each against the faults of its own world.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use plinth_runtime::{TaskGroup, World};
use plinth_telemetry::{CacheMetrics, RedisFailure};
use plinth_types::ByteSize;

use super::*;
use crate::conformance::{self, cache_key as key};

mod faults;
mod memory;
pub(crate) mod server;

use server::Server;

const LONG: Duration = Duration::from_secs(600);

/// One node's view of a server, with a generous time-out: the machine that tests may be busy.
struct Node {
    tasks: TaskGroup,
    metrics: CacheMetrics,
    redis: Arc<RedisCache>,
    both: Arc<TwoLevelCache>,
}

impl Node {
    fn open(port: u16, prefix: &str, timeout: Duration) -> Self {
        let (tasks, metrics, world) = (TaskGroup::new("test"), CacheMetrics::default(), World::real());
        let mut options = RedisOptions::new(format!("redis://127.0.0.1:{port}/0"), timeout);
        prefix.clone_into(&mut options.prefix);
        let redis = RedisCache::open(&options, metrics.clone(), &world, &tasks).unwrap();
        let memory = MemoryCache::open(ByteSize::mib(8), metrics.clone(), &world, &tasks);
        let both = TwoLevelCache::open(memory, redis.clone(), metrics.clone(), &tasks);
        Self { tasks, metrics, redis, both }
    }

    async fn up(self) -> Self {
        self.is(true).await;
        self
    }

    async fn is(&self, up: bool) {
        let wait = tokio::time::timeout(Duration::from_secs(20), self.redis.until(up)).await;
        assert!(wait.is_ok(), "the server is never seen {}", if up { "up" } else { "lost" });
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.tasks.cancel();
    }
}

/// Polls until it is so.
async fn eventually(what: &str, mut so: impl AsyncFnMut() -> bool) {
    let wait = async {
        while !so().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    assert!(tokio::time::timeout(Duration::from_secs(20), wait).await.is_ok(), "{what}");
}

#[tokio::test]
async fn memory_conforms() {
    let tasks = TaskGroup::new("test");
    conformance::cache(|| async {
        let cache: Arc<dyn Cache> = MemoryCache::open(ByteSize::mib(1), CacheMetrics::default(), &World::real(), &tasks);
        cache
    })
    .await;
    tasks.close(Duration::from_secs(1)).await;
}

#[tokio::test]
async fn redis_and_both_levels_conform() {
    let Some(prefixes) = server::shared() else { return };
    let nodes = std::sync::Mutex::new(Vec::new());
    for both in [false, true] {
        conformance::cache(|| async {
            let node = Node::open(server::PORT, &prefixes.next(), Duration::from_secs(5)).up().await;
            let cache: Arc<dyn Cache> = if both { node.both.clone() } else { node.redis.clone() };
            nodes.lock().unwrap().push(node);
            cache
        })
        .await;
    }
    prefixes.remove().await;
}

#[tokio::test]
async fn nodes_share_answers_and_keep_them_no_longer_than_they_had_left() {
    let Some(prefixes) = server::shared() else { return };
    let prefix = prefixes.next();
    let a = Node::open(server::PORT, &prefix, Duration::from_secs(5)).up().await;
    let b = Node::open(server::PORT, &prefix, Duration::from_secs(5)).up().await;
    let value = Bytes::from_static(b"an answer");
    a.both.put(&key("shared"), value.clone(), Duration::from_millis(500)).await;
    assert_eq!(b.both.peek(&key("shared")), None);
    eventually("the write behind arrives", async || b.both.get(&key("shared")).await == Some(value.clone())).await;
    // Now memory has it too, until the first writer's time is over.
    assert_eq!(b.both.peek(&key("shared")), Some(value));
    eventually("its time passes in the second node too", async || b.both.peek(&key("shared")).is_none()).await;
    assert_eq!(b.both.get(&key("shared")).await, None);
    assert!(b.metrics.memory_hits.value() >= 1 && b.metrics.redis_hits.value() == 1);

    // Another prefix is another world.
    let c = Node::open(server::PORT, &prefixes.next(), Duration::from_secs(5)).up().await;
    a.both.put(&key("shared"), Bytes::from_static(b"x"), LONG).await;
    eventually("written", async || a.redis.get(&key("shared")).await.is_some()).await;
    assert_eq!(c.both.get(&key("shared")).await, None);
    prefixes.remove().await;
}

#[tokio::test]
async fn what_another_program_left_under_our_key_is_a_miss() {
    let Some(prefixes) = server::shared() else { return };
    let prefix = prefixes.next();
    let node = Node::open(server::PORT, &prefix, Duration::from_secs(5)).up().await;
    let name = |text: &str| format!("{prefix}{}", key(text).digest().hex());
    let good = frame::seal(&key("good"), b"an answer", World::real().clock.now().plus(LONG));
    let expired = frame::seal(&key("expired"), b"an answer", World::real().clock.now());
    let mut server = server::connect(server::PORT).await;
    for (key, bytes) in [
        ("good", good.clone()),
        ("text", b"hello".to_vec()),
        ("moved", good),
        ("expired", expired),
        ("long", vec![0; (1 << 20) + 33]),
        ("longer", vec![0; 3 << 20]),
    ] {
        ::redis::cmd("SET").arg(name(key)).arg(bytes).exec_async(&mut server).await.unwrap();
    }
    ::redis::cmd("LPUSH").arg(name("list")).arg("x").exec_async(&mut server).await.unwrap();
    for missed in ["text", "moved", "expired", "long", "longer", "list", "absent"] {
        assert_eq!(node.redis.get(&key(missed)).await, None, "{missed}");
    }
    assert_eq!(node.redis.get(&key("good")).await, Some(Bytes::from_static(b"an answer")));
    assert_eq!(node.metrics.redis_failures(RedisFailure::Damaged), 4);
    assert_eq!(node.metrics.redis_failures(RedisFailure::Refused), 1);
    assert!(node.redis.is_up());
    prefixes.remove().await;
}

#[test]
fn addresses_are_understood_or_refused_without_being_shown() {
    let tasks = TaskGroup::new("test");
    for bad in ["redis://", "http://host", "redis://h:99999/0", "unix:///tmp/x", "redis://h/name"] {
        let options = RedisOptions::new(bad, Duration::from_millis(5));
        let error = RedisCache::open(&options, CacheMetrics::default(), &World::real(), &tasks).err();
        assert!(error.is_some_and(|e| !e.to_string().contains("99999")), "{bad}");
    }
    let options = RedisOptions::new("redis://u:secret@host:6380/2", Duration::from_millis(5));
    assert!(!format!("{options:?}").contains("secret"));
}
