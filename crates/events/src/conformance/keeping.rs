//! Retention.

use std::time::Duration;

use super::{Bench, event, ids, is_new, tombstone};
use crate::stream::{Retention, Settings, Stream};

/// Sweeps until there is nothing to do; what was removed.
async fn sweep(bench: &Bench<'_>, most: u32) -> u64 {
    let mut removed = 0;
    loop {
        let swept = bench.store.sweep(most).await.unwrap();
        removed += swept.removed;
        if !swept.more {
            return removed;
        }
    }
}

/// So that other cases' sweeps find nothing here.
async fn keep_for_ever(bench: &Bench<'_>, stream: &Stream) {
    bench.store.set_retention(stream, Retention::default()).await.unwrap();
}

pub(super) async fn a_count_is_kept_in_each_partition(bench: &Bench<'_>) {
    let retention = Retention { age_millis: None, count: Some(3) };
    let stream = bench.stream("newest", &Settings { partitions: 1, retention, ..Settings::log() }).await;
    let events: Vec<_> = (0..10).map(|at| event(&at.to_string(), "k", "")).collect();
    bench.store.append(&stream, events.clone()).await.unwrap();
    bench.store.append(&stream, events.clone()).await.unwrap();
    assert_eq!((sweep(bench, 2).await, bench.store.count(&stream).await.unwrap()), (7, 3), "retries are no newer events");
    assert_eq!(sweep(bench, 2).await, 0);
    assert_eq!(ids(&bench.store.read(&stream, 0, 0, 100).await.unwrap()), ["7", "8", "9"]);
    assert_eq!(ids(&bench.store.by_key(&stream, &"k".parse().unwrap(), 0, 100).await.unwrap()), ["7", "8", "9"]);
    assert!(bench.store.get(&stream, &"2".parse().unwrap()).await.unwrap().is_empty());
    let again = bench.store.append(&stream, vec![events[2].clone(), events[9].clone()]).await.unwrap();
    assert_eq!((is_new(&again[0]), is_new(&again[1])), (true, false), "what is forgotten is not known any more");
    assert_eq!(again[0].position().offset, 11, "no offset is used twice");
    keep_for_ever(bench, &stream).await;
}

pub(super) async fn what_is_old_is_forgotten(bench: &Bench<'_>) {
    let settings = Settings { retention: Retention::of_age(Duration::from_secs(60)), ..Settings::log() };
    let stream = bench.stream("old", &settings).await;
    bench.store.append(&stream, (0..20).map(|at| event(&format!("a{at}"), &format!("k{at}"), "")).collect()).await.unwrap();
    bench.clock.advance(Duration::from_secs(50));
    bench.store.append(&stream, vec![event("b", "k1", "")]).await.unwrap();
    assert_eq!(sweep(bench, 1000).await, 0);
    bench.clock.advance(Duration::from_secs(11));
    assert_eq!((sweep(bench, 1000).await, bench.store.count(&stream).await.unwrap()), (20, 1));
    assert_eq!(ids(&bench.store.by_key(&stream, &"k1".parse().unwrap(), 0, 100).await.unwrap()), ["b"]);
    keep_for_ever(bench, &stream).await;
}

pub(super) async fn a_current_row_is_kept_and_one_that_is_not_goes(bench: &Bench<'_>) {
    let settings = Settings { partitions: 2, retention: Retention::of_age(Duration::from_secs(60)), ..Settings::latest() };
    let stream = bench.stream("rows", &settings).await;
    let append = async |events| bench.store.append(&stream, events).await.unwrap();
    append(vec![event("1", "a", "old"), event("2", "a", "new"), event("3", "b", ""), event("4", "c", ""), tombstone("5", "c")]).await;
    bench.clock.advance(Duration::from_secs(61));
    assert_eq!(sweep(bench, 2).await, 3, "what was replaced, and the row that was ended with its tombstone");
    assert_eq!(bench.store.count(&stream).await.unwrap(), 2);
    assert_eq!(bench.store.latest(&stream, &"a".parse().unwrap()).await.unwrap().unwrap().event, event("2", "a", "new"));
    // The sweep has passed these rows; whoever replaces one removes it.
    append(vec![event("6", "a", "newer"), tombstone("7", "b")]).await;
    assert_eq!(ids(&bench.store.by_key(&stream, &"a".parse().unwrap(), 0, 100).await.unwrap()), ["6"]);
    assert_eq!(ids(&bench.store.by_key(&stream, &"b".parse().unwrap(), 0, 100).await.unwrap()), ["7"]);
    assert_eq!(bench.store.count(&stream).await.unwrap(), 1);
    bench.clock.advance(Duration::from_secs(61));
    assert_eq!((sweep(bench, 1000).await, bench.store.count(&stream).await.unwrap()), (1, 1));
}
