//! Groups form, are bounded, and are answered; without a database.

use std::sync::Mutex;

use futures_util::future::join_all;
use plinth_runtime::World;
use tokio::sync::Semaphore;

use super::*;
use crate::event::Position;
use crate::stream::Settings;

/// Notes the size of each group, and commits it when the test lets it.
struct Book {
    groups: Mutex<Vec<usize>>,
    begun: Semaphore,
    may_end: Semaphore,
    fails: bool,
}

impl Book {
    fn new(fails: bool) -> Arc<Self> {
        Arc::new(Self { groups: Mutex::default(), begun: Semaphore::new(0), may_end: Semaphore::new(0), fails })
    }
}

#[async_trait]
impl Commit for Book {
    async fn commit(&self, group: Vec<Submission>) -> Result<Vec<Answer>, EventsError> {
        self.groups.lock().unwrap().push(group.iter().map(|submission| submission.events.len()).sum());
        self.begun.add_permits(1);
        self.may_end.acquire().await.unwrap().forget();
        if self.fails {
            return Err(EventsError::Full);
        }
        let one =
            |placed: &Placed| Appended::New(Position { partition: placed.partition, offset: placed.event.id.as_str().parse().unwrap() });
        Ok(group.iter().map(|submission| Ok(submission.events.iter().map(one).collect())).collect())
    }
}

fn events(ids: std::ops::Range<u32>) -> Vec<Event> {
    let event =
        |id: u32| Event { id: id.to_string().parse().unwrap(), key: format!("k{id}").parse().unwrap(), at: None, data: Some(vec![]) };
    ids.map(event).collect()
}

fn stream() -> Arc<Resolved> {
    Arc::new(Resolved::new(1, &Settings::log()).unwrap())
}

fn rule(most: usize, queue_events: usize) -> Gathering {
    Gathering { most, queue_events, ..Gathering::default() }
}

/// Waits until so many events are in the batcher.
async fn waiting(batcher: &Batcher, events: usize) {
    while batcher.waiting() < events {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn what_comes_during_a_commit_is_the_next_group() {
    let book = Book::new(false);
    let batcher = Batcher::start([book.clone()], rule(1000, 10_000), &World::real());
    let first = batcher.append(stream(), events(0..1));
    let rest = async {
        book.begun.acquire().await.unwrap().forget();
        let rest = join_all((1..51).map(|at| batcher.append(stream(), events(at..at + 1))));
        let let_go = async {
            waiting(&batcher, 51).await;
            book.may_end.add_permits(2);
        };
        tokio::join!(rest, let_go).0
    };
    let (first, rest) = tokio::join!(first, rest);
    assert_eq!(first.unwrap()[0].position().offset, 0);
    assert!(rest.into_iter().zip(1..).all(|(answer, at)| answer.unwrap()[0].position().offset == at));
    assert_eq!(*book.groups.lock().unwrap(), [1, 50]);
    batcher.close().await;
    assert_eq!((batcher.waiting(), batcher.groups()), (0, 2));
}

#[tokio::test]
async fn a_group_has_no_more_than_its_bound_and_splits_no_append() {
    let book = Book::new(false);
    book.may_end.add_permits(1000);
    let batcher = Batcher::start([book.clone()], rule(10, 10_000), &World::real());
    for answer in join_all((0..20).map(|at| batcher.append(stream(), events(at * 4..at * 4 + 4)))).await {
        assert_eq!(answer.unwrap().len(), 4);
    }
    assert_eq!(batcher.append(stream(), events(0..25)).await.unwrap().len(), 25);
    let groups = book.groups.lock().unwrap().clone();
    assert!(groups[..groups.len() - 1].iter().all(|size| *size <= 10 && size % 4 == 0), "{groups:?}");
    assert_eq!((groups.last(), groups.iter().sum::<usize>()), (Some(&25), 105));
    batcher.close().await;
}

#[tokio::test]
async fn who_finds_no_room_is_told_at_once_and_costs_nobody() {
    let book = Book::new(false);
    let by_bytes = Gathering { queue_bytes: 2000, ..rule(1000, 100) };
    let batcher = Batcher::start([book.clone()], by_bytes, &World::real());
    let waits = batcher.append(stream(), events(0..5));
    let others = async {
        book.begun.acquire().await.unwrap().forget();
        assert!(matches!(batcher.append(stream(), events(5..101)).await, Err(EventsError::Busy)), "by count");
        let large = Event { data: Some(vec![0; 1500]), ..events(5..6).remove(0) };
        let refused = batcher.append(stream(), vec![large]).await;
        assert!(matches!(&refused, Err(error) if error.retriable()), "by bytes: {refused:?}");
        assert_eq!(batcher.waiting(), 5, "what was refused takes no room");
        book.may_end.add_permits(2);
    };
    assert_eq!(tokio::join!(waits, others).0.unwrap().len(), 5);
    assert_eq!(batcher.append(stream(), events(5..6)).await.unwrap().len(), 1);
    batcher.close().await;
}

#[tokio::test]
async fn answers_of_several_writers_come_in_the_order_of_the_events() {
    let books = [Book::new(false), Book::new(false), Book::new(false)];
    books.iter().for_each(|book| book.may_end.add_permits(10));
    let batcher = Batcher::start(books.clone(), rule(1000, 10_000), &World::real());
    let answers = batcher.append(stream(), events(0..100)).await.unwrap();
    assert!(answers.iter().zip(0..).all(|(answer, at)| answer.position().offset == at));
    assert!(books.iter().all(|book| book.groups.lock().unwrap().len() == 1));
    batcher.close().await;
}

#[tokio::test]
async fn a_failure_is_told_to_all_and_closing_commits_what_waits() {
    let book = Book::new(true);
    let batcher = Batcher::start([book.clone()], rule(1000, 10_000), &World::real());
    let all = join_all((0..3).map(|at| batcher.append(stream(), events(at..at + 1))));
    let close = async {
        waiting(&batcher, 3).await;
        book.may_end.add_permits(9);
        batcher.close().await;
    };
    let (all, ()) = tokio::join!(all, close);
    assert!(all.iter().all(|answer| matches!(answer, Err(EventsError::Full))), "{all:?}");
    assert!(matches!(batcher.append(stream(), events(9..10)).await, Err(EventsError::Closed)));
}
