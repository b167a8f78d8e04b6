//! Appending and reading.

use futures_util::future::join_all;
use plinth_types::Timestamp;

use super::{Bench, all, event, ids, is_new, named, tombstone};
use crate::error::EventsError;
use crate::event::{Appended, Event, MOST_DATA};
use crate::stream::Settings;

pub(super) async fn a_retry_is_stored_once(bench: &Bench<'_>) {
    let stream = bench.stream("retries", &Settings::log()).await;
    let append = async |events: Vec<Event>| bench.store.append(&stream, events).await.unwrap();
    let first = append(vec![event("1", "a", "x"), event("2", "b", "y"), event("1", "a", "x"), event("1", "a", "other")]).await;
    let (a, b) = (first[0].position(), first[1].position());
    assert_eq!(first, [Appended::New(a), Appended::New(b), Appended::Already(a), Appended::Differs(a)]);
    assert_eq!((a.offset, b.offset), (1, 1), "each is the first of its partition");
    let at = Some(Timestamp::from_millis(5).unwrap());
    let second = append(vec![
        event("3", "a", "z"),
        event("2", "b", "y"),
        event("2", "b", "another"),
        Event { at, ..event("1", "a", "x") },
        event("1", "a", "x"),
        event("1", "b", "x"),
    ])
    .await;
    let (third, other_key) = (second[0].position(), second[5].position());
    assert_eq!((third.partition, third.offset), (a.partition, 2));
    assert_eq!(other_key.offset, 2, "an id under another key is another event, and a retry uses no offset");
    let (already, differs) = (Appended::Already, Appended::Differs);
    assert_eq!(second, [Appended::New(third), already(b), differs(b), differs(a), already(a), Appended::New(other_key)]);
    assert_eq!(bench.store.count(&stream).await.unwrap(), 4);
    assert_eq!(append(vec![]).await, []);
    let found = bench.store.get(&stream, &"1".parse().unwrap()).await.unwrap();
    assert_eq!(found.iter().map(|stored| stored.event.clone()).collect::<Vec<_>>(), [event("1", "a", "x"), event("1", "b", "x")]);
    assert_eq!(found[0].position, a);
    assert!(bench.store.get(&stream, &"9".parse().unwrap()).await.unwrap().is_empty());
}

pub(super) async fn a_hundred_at_once_with_one_id_make_one(bench: &Bench<'_>) {
    let stream = bench.stream("hundred", &Settings::log()).await;
    let append = |_| bench.store.append(&stream, vec![event("same", "k", "x"), event("same", "l", "x")]);
    let answers: Vec<_> = join_all((0..100).map(append)).await.into_iter().flat_map(Result::unwrap).collect();
    assert_eq!(answers.iter().filter(|answer| is_new(answer)).count(), 2);
    assert!(answers.iter().all(|answer| !matches!(answer, Appended::Differs(_))));
    assert_eq!((bench.store.count(&stream).await.unwrap(), all(bench.store, &stream).await.len()), (2, 2));
}

pub(super) async fn pages_go_on_after_an_offset(bench: &Bench<'_>) {
    let stream = bench.stream("pages", &Settings { partitions: 2, ..Settings::log() }).await;
    let key = |at: u32| if at.is_multiple_of(3) { "fizz".to_owned() } else { format!("k{}", at % 7) };
    let events: Vec<_> = (0..300).map(|at| event(&format!("e{at:03}"), &key(at), "")).collect();
    for list in events.chunks(50) {
        assert!(bench.store.append(&stream, list.to_vec()).await.unwrap().iter().all(is_new));
    }
    let fizz = "fizz".parse().unwrap();
    let want: Vec<_> = (0..300).step_by(3).map(|at| format!("e{at:03}")).collect();
    let (mut after, mut got) = (0, Vec::new());
    loop {
        let page = bench.store.by_key(&stream, &fizz, after, 7).await.unwrap();
        assert!(page.len() <= 7);
        let Some(last) = page.last() else { break };
        after = last.position.offset;
        got.extend(ids(&page).into_iter().map(str::to_owned));
    }
    assert_eq!(got, want, "the events of a key, in their order");
    let mut read = 0;
    for partition in 0..2 {
        let mut after = 0;
        while let [first, ..] = &bench.store.read(&stream, partition, after, 1).await.unwrap()[..] {
            assert_eq!(first.position.offset, after + 1, "each has the next offset");
            assert_eq!(first.position.partition, partition);
            (after, read) = (after + 1, read + 1);
        }
    }
    assert_eq!(read, 300);
    assert!(bench.store.read(&stream, 9, 0, 10).await.unwrap().is_empty(), "there is no such partition");
    assert!(bench.store.read(&stream, 0, u64::MAX, 10).await.unwrap().is_empty());
    assert!(bench.store.read(&stream, 0, 0, 0).await.unwrap().is_empty());
}

pub(super) async fn everybody_reads_its_own_writes(bench: &Bench<'_>) {
    let stream = bench.stream("own", &Settings::log()).await;
    let client = async |client: u32| {
        let key = format!("client-{client}").parse().unwrap();
        for at in 0..10 {
            let id = format!("{client}-{at}");
            let position = bench.store.append(&stream, vec![event(&id, &format!("client-{client}"), "")]).await.unwrap()[0].position();
            let own = bench.store.by_key(&stream, &key, position.offset - 1, 10).await.unwrap();
            assert_eq!((ids(&own), own[0].position), (vec![&*id], position));
            assert_eq!(bench.store.latest(&stream, &key).await.unwrap().unwrap().position, position);
            assert_eq!(ids(&bench.store.get(&stream, &id.parse().unwrap()).await.unwrap()), [&*id]);
        }
        assert_eq!(bench.store.by_key(&stream, &key, 0, 100).await.unwrap().len(), 10);
    };
    join_all((0..8).map(client)).await;
    assert_eq!(bench.store.count(&stream).await.unwrap(), 80);
}

pub(super) async fn a_row_for_each_key_is_counted_exactly(bench: &Bench<'_>) {
    let stream = bench.stream("likes", &Settings::latest()).await;
    let step = async |events: Vec<Event>, want: u64| {
        let answers = bench.store.append(&stream, events).await.unwrap();
        assert_eq!(bench.store.count(&stream).await.unwrap(), want);
        answers
    };
    step(vec![tombstone("0", "ann/1")], 0).await;
    step(vec![event("1", "ann/1", ""), event("2", "bob/1", "")], 2).await;
    step(vec![event("3", "ann/1", "again")], 2).await;
    step(vec![tombstone("4", "ann/1")], 1).await;
    step(vec![tombstone("5", "ann/1")], 1).await;
    assert!(bench.store.latest(&stream, &"ann/1".parse().unwrap()).await.unwrap().is_none());
    let late = step(vec![event("1", "ann/1", "")], 1).await;
    assert!(matches!(late[0], Appended::Already(_)), "a late retry of a like does not undo the unlike");
    step(vec![event("6", "ann/1", ""), tombstone("7", "ann/1"), event("8", "ann/1", "last"), tombstone("9", "bob/1")], 1).await;
    let last = bench.store.latest(&stream, &"ann/1".parse().unwrap()).await.unwrap().unwrap();
    assert_eq!(last.event, event("8", "ann/1", "last"));
    assert_eq!(bench.store.by_key(&stream, &"ann/1".parse().unwrap(), 0, 100).await.unwrap().len(), 8, "the log is there too");
    // Everybody likes and unlikes at once; whatever the order, each key ends as its last event says.
    let all = (0..50).map(|at| {
        let (id, key) = (format!("c{at}"), format!("k{}", at % 5));
        bench.store.append(&stream, vec![if at % 2 == 0 { event(&id, &key, "") } else { tombstone(&id, &key) }])
    });
    join_all(all).await.into_iter().for_each(|answer| assert!(is_new(&answer.unwrap()[0])));
    let mut live = 1;
    for key in 0..5 {
        live += u64::from(bench.store.latest(&stream, &format!("k{key}").parse().unwrap()).await.unwrap().is_some());
    }
    assert_eq!(bench.store.count(&stream).await.unwrap(), live);
}

pub(super) async fn what_is_not_taken_leaves_nothing(bench: &Bench<'_>) {
    let stream = bench.stream("refusals", &Settings::log()).await;
    let large = Event { data: Some(vec![0; MOST_DATA + 1]), ..event("2", "k", "") };
    for bad in [vec![event("1", "k", ""), large], vec![event("1", "k", ""), tombstone("2", "k")], vec![event("1", "k", ""); 1001]] {
        assert!(matches!(bench.store.append(&stream, bad).await, Err(EventsError::Invalid(_))));
    }
    assert_eq!(bench.store.count(&stream).await.unwrap(), 0);
    let (key, id) = ("k".parse().unwrap(), "1".parse().unwrap());
    for nowhere in [named("acme", "nowhere"), named("other", "refusals")] {
        assert!(matches!(bench.store.append(&nowhere, vec![event("1", "k", "")]).await, Err(EventsError::NoSuchStream)));
        assert!(matches!(bench.store.by_key(&nowhere, &key, 0, 1).await, Err(EventsError::NoSuchStream)));
        assert!(matches!(bench.store.get(&nowhere, &id).await, Err(EventsError::NoSuchStream)));
        assert!(matches!(bench.store.read(&nowhere, 0, 0, 1).await, Err(EventsError::NoSuchStream)));
        assert!(matches!(bench.store.count(&nowhere).await, Err(EventsError::NoSuchStream)));
    }
    let largest = Event { data: Some(vec![7; MOST_DATA]), ..event("üñ'\"\\", "ключ/1", "") };
    bench.store.append(&stream, vec![largest.clone()]).await.unwrap();
    assert_eq!(bench.store.latest(&stream, &largest.key).await.unwrap().unwrap().event, largest);
}
