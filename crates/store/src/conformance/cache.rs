//! What every adapter of [`Cache`] must keep.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use plinth_types::cache_key::CacheScope;
use plinth_types::{CacheKey, Digest, Parameters};

use crate::cache::Cache;

type Store = Arc<dyn Cache>;

/// Longer than any test.
const LONG: Duration = Duration::from_secs(600);

/// A key of its own for each text.
///
/// # Panics
/// Never.
#[must_use]
pub fn cache_key(text: &str) -> CacheKey {
    let scope = CacheScope::new(&"tenant".parse().unwrap(), &"model".parse().unwrap(), &[Digest::of(text.as_bytes())]);
    scope.key(&[], &[], &Parameters::new())
}

/// Runs the whole suite. `make` gives a fresh, empty cache of at least 1 MiB each time, that reaches its server and goes by
/// the machine's clock.
///
/// # Panics
/// When the adapter does not keep a promise.
pub async fn cache<Make, Made>(make: Make)
where
    Make: Fn() -> Made,
    Made: Future<Output = Store>,
{
    what_is_put_is_there(make().await).await;
    keys_do_not_mix(make().await).await;
    a_second_put_takes_the_place_of_the_first(make().await).await;
    time_passes(make().await).await;
    nothing_is_kept_for_no_time(make().await).await;
    what_is_too_long_is_not_kept(make().await).await;
    writers_of_one_key_leave_one_of_their_values(make().await).await;
    assert!(!make().await.describe().is_empty());
}

fn value(length: usize, seed: u8) -> Bytes {
    (0..length).map(|i| seed.wrapping_add(u8::try_from(i % 251).unwrap())).collect::<Vec<_>>().into()
}

async fn what_is_put_is_there(store: Store) {
    assert_eq!(store.get(&cache_key("a")).await, None);
    assert_eq!(store.peek(&cache_key("a")), None);
    for length in [0, 1, 31, 4096, 50_000] {
        let (key, value) = (cache_key(&format!("{length} bytes")), value(length, 7));
        store.put(&key, value.clone(), LONG).await;
        assert_eq!(store.get(&key).await, Some(value.clone()), "{length} bytes");
        assert!(store.peek(&key).is_none_or(|peeked| peeked == value));
    }
    assert_eq!(store.get(&cache_key("a")).await, None);
}

async fn keys_do_not_mix(store: Store) {
    let names: Vec<_> = (0..200u8).map(|n| format!("key {n}")).collect();
    join_all(names.chunks(20).enumerate().map(|(chunk, names)| {
        let store = &store;
        async move {
            for (n, name) in names.iter().enumerate() {
                store.put(&cache_key(name), value(100, u8::try_from(chunk * 20 + n).unwrap()), LONG).await;
            }
        }
    }))
    .await;
    for (n, name) in names.iter().enumerate() {
        assert_eq!(store.get(&cache_key(name)).await, Some(value(100, u8::try_from(n).unwrap())), "{name}");
    }
}

async fn a_second_put_takes_the_place_of_the_first(store: Store) {
    let key = cache_key("twice");
    for seed in 0..10 {
        store.put(&key, value(1000 - 50 * usize::from(seed), seed), LONG).await;
        assert_eq!(store.get(&key).await, Some(value(1000 - 50 * usize::from(seed), seed)));
    }
}

async fn time_passes(store: Store) {
    let (short, long) = (cache_key("short"), cache_key("long"));
    store.put(&short, value(10, 1), Duration::from_millis(40)).await;
    store.put(&long, value(10, 2), LONG).await;
    // A value whose time was prolonged by a second put stays.
    let prolonged = cache_key("prolonged");
    store.put(&prolonged, value(10, 3), Duration::from_millis(40)).await;
    store.put(&prolonged, value(10, 4), LONG).await;
    let gone = async {
        while store.get(&short).await.is_some() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), gone).await.expect("what was kept for 40 ms goes");
    assert_eq!(store.get(&long).await, Some(value(10, 2)));
    assert_eq!(store.get(&prolonged).await, Some(value(10, 4)));
}

async fn nothing_is_kept_for_no_time(store: Store) {
    let key = cache_key("zero");
    store.put(&key, value(10, 1), Duration::ZERO).await;
    assert_eq!(store.get(&key).await, None);
}

async fn what_is_too_long_is_not_kept(store: Store) {
    let key = cache_key("huge");
    store.put(&key, value(store.max_value() + 1, 1), LONG).await;
    assert_eq!(store.get(&key).await, None);
    store.put(&key, value(50_000, 2), LONG).await;
    assert_eq!(store.get(&key).await, Some(value(50_000, 2)));
}

async fn writers_of_one_key_leave_one_of_their_values(store: Store) {
    let key = cache_key("contended");
    join_all((0..16u8).map(|seed| {
        let (store, key) = (&store, &key);
        async move { store.put(key, value(10_000, seed), LONG).await }
    }))
    .await;
    let found = store.get(&key).await.expect("one of them");
    assert!((0..16u8).any(|seed| found == value(10_000, seed)));
}
