//! Streams: making, listing, changing and deleting them.

use super::{Bench, event, ids, is_new, named};
use crate::error::EventsError;
use crate::partition::PartitionerSpec;
use crate::port::Created;
use crate::stream::{Retention, Settings};

pub(super) async fn a_stream_is_made_listed_and_deleted(bench: &Bench<'_>) {
    let store = bench.store;
    let (one, two, theirs) = (named("lists", "one"), named("lists", "two"), named("lists2", "one"));
    for stream in [&two, &one, &theirs] {
        assert_eq!(store.create(stream, &Settings::log()).await.unwrap(), Created::New);
    }
    assert_eq!(store.create(&one, &Settings::log()).await.unwrap(), Created::Already);
    assert!(matches!(store.create(&one, &Settings::latest()).await, Err(EventsError::Exists)));
    let kept = Retention { age_millis: Some(5), count: Some(7) };
    store.set_retention(&one, kept).await.unwrap();
    assert_eq!(store.settings(&one).await.unwrap(), Settings { retention: kept, ..Settings::log() });
    let list = async |after: Option<&_>, limit| {
        let tenant = "lists".parse().unwrap();
        let found = store.streams(Some(&tenant), after, limit).await.unwrap();
        found.into_iter().map(|(stream, _)| stream).collect::<Vec<_>>()
    };
    assert_eq!(list(None, 10).await, [one.clone(), two.clone()]);
    assert_eq!(list(None, 1).await, std::slice::from_ref(&one));
    assert_eq!(list(Some(&one), 10).await, std::slice::from_ref(&two));
    assert!(store.streams(None, Some(&one), 1000).await.unwrap().iter().any(|(stream, _)| *stream == theirs));

    for stream in [&one, &theirs] {
        assert!(store.append(stream, vec![event("1", "k", "x"), event("2", "l", "x")]).await.unwrap().iter().all(is_new));
    }
    assert!(store.delete(&one).await.unwrap());
    assert!(!store.delete(&one).await.unwrap());
    assert!(matches!(store.append(&one, vec![event("3", "k", "")]).await, Err(EventsError::NoSuchStream)));
    assert!(matches!(store.settings(&one).await, Err(EventsError::NoSuchStream)));
    assert!(matches!(store.set_retention(&one, kept).await, Err(EventsError::NoSuchStream)));
    assert_eq!(store.create(&one, &Settings::latest()).await.unwrap(), Created::New);
    assert_eq!(store.count(&one).await.unwrap(), 0, "one of the same name is another stream");
    assert!(store.append(&one, vec![event("1", "k", "y")]).await.unwrap().iter().all(is_new));
    let mut removed = 0;
    loop {
        let swept = store.sweep(1).await.unwrap();
        removed += swept.removed;
        if !swept.more {
            break;
        }
    }
    assert_eq!(removed, 2, "what was left of it");
    assert_eq!((store.count(&one).await.unwrap(), store.count(&theirs).await.unwrap()), (1, 2));
    assert_eq!(store.get(&one, &"1".parse().unwrap()).await.unwrap()[0].event, event("1", "k", "y"));
}

pub(super) async fn settings_that_do_not_fit_are_refused(bench: &Bench<'_>) {
    let range = PartitionerSpec::Range { splits: vec!["m".into()] };
    for bad in [
        Settings { partitions: 0, ..Settings::log() },
        Settings { partitions: 257, ..Settings::log() },
        Settings { partitions: 3, partitioner: range, ..Settings::log() },
        Settings { partitioner: PartitionerSpec::ConsistentHash { virtual_nodes: 0 }, ..Settings::log() },
    ] {
        let refused = bench.store.create(&named("acme", "misfit"), &bad).await;
        assert!(matches!(refused, Err(EventsError::Invalid(_))), "{bad:?}");
    }
}

pub(super) async fn ranges_keep_neighbours_together(bench: &Bench<'_>) {
    let partitioner = PartitionerSpec::Range { splits: vec!["g".into(), "p".into()] };
    let stream = bench.stream("ranges", &Settings { partitions: 3, partitioner, ..Settings::log() }).await;
    let keys = ["a", "fz", "g", "m", "p", "z"];
    bench.store.append(&stream, keys.iter().map(|key| event(key, key, "")).collect()).await.unwrap();
    for (partition, want) in [(0, ["a", "fz"]), (1, ["g", "m"]), (2, ["p", "z"])] {
        assert_eq!(ids(&bench.store.read(&stream, partition, 0, 10).await.unwrap()), want);
    }
}
