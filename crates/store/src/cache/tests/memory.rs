//! Bytes are bounded, time frees memory, use decides what stays.

use plinth_runtime::ManualClock;
use plinth_types::Timestamp;

use super::*;
use crate::cache::memory::OVERHEAD;

fn open(capacity: ByteSize, world: &World) -> (Arc<MemoryCache>, CacheMetrics, TaskGroup) {
    let (tasks, metrics) = (TaskGroup::new("test"), CacheMetrics::default());
    (MemoryCache::open(capacity, metrics.clone(), world, &tasks), metrics, tasks)
}

fn value(length: usize) -> Bytes {
    vec![1; length].into()
}

#[tokio::test]
async fn bytes_are_bounded_whatever_the_sizes() {
    let capacity = ByteSize::mib(4);
    for length in [0, 100, 5_000, 100_000, 200_000] {
        let (cache, metrics, _tasks) = open(capacity, &World::real());
        for n in 0..40_000_000 / (length + 1_000) {
            cache.keep(&key(&n.to_string()), value(length), LONG);
            if n % 64 == 0 {
                let (held, times) = cache.held();
                let bytes: usize = held.iter().map(|length| length + OVERHEAD).sum();
                assert!(bytes <= capacity.as_usize(), "{bytes} bytes are held, of values of {length}");
                assert_eq!(times, held.len(), "what left is forgotten whole");
            }
        }
        let usage = cache.usage();
        assert!(usage.bytes <= capacity.0 && usage.bytes > capacity.0 / 2, "{usage:?}");
        assert_eq!((metrics.memory.value() as u64, metrics.entries.value() as u64), (usage.bytes, usage.entries));
        assert!(metrics.evictions.value() > 0);
    }
}

#[tokio::test]
async fn a_key_that_is_put_again_is_there_once() {
    let (cache, metrics, _tasks) = open(ByteSize::mib(1), &World::real());
    for n in 0..100 {
        cache.keep(&key("a"), value(n), LONG);
    }
    assert_eq!(cache.held(), (vec![99], 1));
    assert_eq!(metrics.evictions.value(), 0);
}

#[tokio::test]
async fn a_value_takes_at_most_a_sixteenth() {
    let (cache, _, _tasks) = open(ByteSize::mib(1), &World::real());
    let most = cache.max_value();
    assert!(most < (1 << 20) / 16 && most > (1 << 20) / 17);
    cache.keep(&key("fits"), value(most), LONG);
    cache.keep(&key("does not"), value(most + 1), LONG);
    assert!(cache.find(&key("fits")).is_some() && cache.find(&key("does not")).is_none());
    let (nothing, _, _tasks) = open(ByteSize::kib(0), &World::real());
    nothing.keep(&key("x"), value(0), LONG);
    assert_eq!(nothing.usage(), Usage::default());
}

#[tokio::test]
async fn time_goes_by_the_clock_of_the_world() {
    let clock = Arc::new(ManualClock::new(Timestamp::from_millis(0).unwrap()));
    let (cache, metrics, _tasks) = open(ByteSize::mib(1), &World { clock: clock.clone(), ..World::real() });
    cache.keep(&key("a"), value(10), Duration::from_secs(60));
    clock.advance(Duration::from_millis(59_999));
    assert!(cache.find(&key("a")).is_some());
    clock.advance(Duration::from_millis(1));
    assert!(cache.find(&key("a")).is_none());
    assert_eq!((metrics.memory_hits.value(), metrics.evictions.value()), (1, 0));
}

#[tokio::test]
async fn time_frees_memory_that_nobody_asks_for() {
    let (cache, metrics, _tasks) = open(ByteSize::mib(4), &World::real());
    for n in 0..100 {
        cache.keep(&key(&n.to_string()), value(10_000), Duration::from_millis(100));
    }
    cache.keep(&key("stays"), value(10), LONG);
    cache.usage();
    assert!(metrics.memory.value() > 100.0 * 10_000.0);
    // Nothing here asks for anything: the sweep alone does it.
    eventually("the memory comes back", async || metrics.entries.value() == 1.0).await;
    assert!(metrics.memory.value() < 1_000.0);
    assert_eq!(cache.held(), (vec![10], 1));
}

#[tokio::test]
async fn what_is_asked_for_often_outlives_a_sweep_of_keys() {
    let (cache, _, _tasks) = open(ByteSize::mib(1), &World::real());
    let hot: Vec<_> = (0..20).map(|n| key(&format!("hot {n}"))).collect();
    for hot in &hot {
        cache.keep(hot, value(1_000), LONG);
    }
    for round in 0..200 {
        for hot in &hot {
            cache.find(hot);
        }
        // Many times what fits, each asked for once.
        for n in 0..100 {
            cache.keep(&key(&format!("cold {round} {n}")), value(1_000), LONG);
        }
    }
    let left = hot.iter().filter(|key| cache.find(key).is_some()).count();
    assert!(left >= 18, "only {left} of 20 are left");
}
