//! The book, without lanes or sockets: what is sent where, and how everything ends.

use std::time::Duration;

use plinth_engine::lane::Timing;
use plinth_policy::batching::{QueuePolicy, Refusal, Settings};
use plinth_types::{DataType, Shape, Tensor};
use tokio::sync::oneshot;

use super::book::{Book, Ending, Outbox};
use super::work::Work;

const SECOND: Duration = Duration::from_secs(1);

fn settings(max_rows: u32) -> Settings {
    Settings {
        max_rows,
        preferred_rows: vec![],
        max_delay: None,
        preserve_ordering: false,
        levels: 0,
        default_level: 0,
        default_policy: QueuePolicy { reject_on_timeout: true, default_timeout: None, allow_timeout_override: true, max_items: None },
        level_policies: Default::default(),
        max_items: 64,
        max_bytes: 1 << 20,
        ..Settings::default()
    }
}

fn work(rows: u64, columns: u64) -> Work {
    let shape = Shape::new(vec![rows, columns]).unwrap();
    let data = vec![0; usize::try_from(rows * columns).unwrap()];
    let inputs = vec![Tensor::new("x", DataType::Uint8, shape, data.into()).unwrap()];
    Work { inputs, outputs: vec![], tenant: 0, level: 0, queue_timeout: None, deadline: SECOND, suspect: false, trace: None }
}

struct Scene {
    book: Book,
    now: Duration,
    /// Lane, id and number of parts of what was sent.
    sent: Vec<(usize, u64, usize)>,
    endings: usize,
}

impl Scene {
    fn new(max_rows: u32, lanes: usize, merge: bool) -> Self {
        Self { book: Book::new(settings(max_rows), lanes, true, merge), now: SECOND / 10, sent: vec![], endings: 0 }
    }

    fn take(&mut self, out: Outbox) {
        self.endings += out.endings.len();
        for (waiting, ending) in out.endings {
            let _ = waiting.reply.send(ending);
        }
        self.sent.extend(out.sends.iter().map(|(lane, batch)| (*lane, batch.id, batch.parts.len())));
    }

    fn push(&mut self, work: Work) -> oneshot::Receiver<Ending> {
        let (reply, answer) = oneshot::channel();
        self.book.push(work, self.now, reply).unwrap();
        self.pump();
        answer
    }

    fn pump(&mut self) {
        let mut out = Outbox::default();
        self.book.pump(self.now, &mut out);
        self.take(out);
    }

    fn finish(&mut self, lane: usize, id: u64, took: Duration) -> usize {
        self.now += took;
        let timing = Timing { infer: took, ..Timing::default() };
        let flight = self.book.finished(lane, id, Some(timing), self.now).unwrap();
        self.pump();
        flight.parts.len()
    }

    fn last(&self) -> (usize, u64, usize) {
        *self.sent.last().unwrap()
    }
}

#[test]
fn what_waits_while_a_lane_is_busy_goes_as_one_batch() {
    let mut scene = Scene::new(8, 1, true);
    let _answers: Vec<_> = (0..6).map(|_| scene.push(work(1, 4))).collect();
    // The first went at once; of a model whose cost is not known nothing is sent ahead.
    assert_eq!(scene.sent, [(0, 1, 1)]);
    assert_eq!(scene.finish(0, 1, Duration::from_millis(20)), 1);
    assert_eq!(scene.last(), (0, 2, 5));
    scene.finish(0, 2, Duration::from_millis(20));
    assert!(scene.book.is_empty());
}

#[test]
fn shapes_are_not_mixed_and_without_permission_nothing_is() {
    for (merge, expected) in [(true, 2), (false, 1)] {
        let mut scene = Scene::new(8, 1, merge);
        let first = scene.push(work(1, 4));
        let _waiting: Vec<_> = [4, 3, 4].map(|columns| scene.push(work(1, columns))).into_iter().collect();
        scene.finish(0, 1, Duration::from_millis(20));
        assert_eq!(scene.last().2, expected, "merge {merge}");
        drop(first);
    }
}

#[test]
fn who_goes_away_before_it_begins_costs_nothing() {
    let mut scene = Scene::new(1, 1, false);
    let _first = scene.push(work(1, 4));
    let (reply, gone) = oneshot::channel();
    let key = scene.book.push(work(1, 4), scene.now, reply).unwrap().unwrap();
    drop(gone);
    scene.book.cancel(key);
    scene.finish(0, 1, Duration::from_millis(20));
    assert_eq!(scene.sent.len(), 1);
    assert!(scene.book.is_empty());
}

#[tokio::test]
async fn only_what_was_executed_is_suspect_when_a_lane_ends() {
    let mut scene = Scene::new(4, 1, true);
    let executed = scene.push(work(1, 4));
    let waiting = scene.push(work(1, 4));
    let mut out = Outbox::default();
    scene.book.lane_ended(0, &mut out);
    scene.take(out);
    assert!(matches!(executed.await, Ok(Ending::Suspect)));
    assert!(matches!(waiting.await, Ok(Ending::Replaced)));
    assert!(scene.book.closed && scene.book.is_empty());
}

#[test]
fn a_suspect_runs_with_nothing_beside_it() {
    let mut scene = Scene::new(4, 2, true);
    let _normal = scene.push(work(1, 4));
    let _suspect = scene.push(Work { suspect: true, ..work(1, 4) });
    let _later = scene.push(work(1, 4));
    assert_eq!(scene.sent.len(), 1, "the second lane stays empty while a suspect waits");
    scene.finish(0, 1, Duration::from_millis(1));
    assert_eq!(scene.last(), (0, 2, 1));
    assert_eq!(scene.sent.len(), 2);
    scene.finish(0, 2, Duration::from_millis(1));
    assert_eq!(scene.sent.len(), 3);
}

#[test]
fn a_batch_that_failed_goes_again_one_by_one() {
    let mut scene = Scene::new(4, 1, true);
    let _answers: Vec<_> = (0..4).map(|_| scene.push(work(1, 4))).collect();
    scene.finish(0, 1, Duration::from_millis(20));
    let (_, id, parts) = scene.last();
    assert_eq!(parts, 3);
    let flight = scene.book.finished(0, id, None, scene.now).unwrap();
    scene.book.split(flight.parts);
    scene.pump();
    for _ in 0..3 {
        let (lane, id, parts) = scene.last();
        assert_eq!(parts, 1);
        scene.finish(lane, id, Duration::from_millis(20));
    }
    assert!(scene.book.is_empty());
}

#[test]
fn full_is_said_at_once() {
    let mut scene = Scene::new(1, 1, false);
    let _answers: Vec<_> = (0..65).map(|_| scene.push(work(1, 4))).collect();
    let (reply, _answer) = oneshot::channel();
    assert!(matches!(scene.book.push(work(1, 4), scene.now, reply), Err(Refusal::Full)));
    let (reply, _answer) = oneshot::channel();
    let mut scene = Scene::new(4, 1, true);
    assert!(matches!(scene.book.push(work(5, 4), scene.now, reply), Err(Refusal::TooLarge)));
}

#[test]
fn short_work_is_sent_ahead_and_what_may_still_grow_is_not() {
    for (took, merge, ahead) in [(5, false, true), (5_000, false, false), (5, true, false)] {
        let took = Duration::from_micros(took);
        let mut scene = Scene::new(4, 1, merge);
        for round in 0..50 {
            let _answer = scene.push(work(1, 4));
            let id = scene.last().1;
            scene.finish(0, id, took);
            assert!(scene.book.is_empty(), "round {round}");
        }
        let sent = scene.sent.len();
        let _answers: Vec<_> = (0..2).map(|_| scene.push(work(1, 4))).collect();
        assert_eq!(scene.sent.len() - sent == 2, ahead, "{took:?} {merge}");
    }
}

#[test]
fn what_nobody_may_join_is_never_kept_back() {
    let config = crate::ModelConfig::parse_pbtxt(b"max_batch_size: 16").unwrap();
    let bounds = super::Bounds { requests: 64, bytes: plinth_types::ByteSize::mib(1) };
    let mut scene = Scene::new(16, 1, false);
    scene.book = Book::new(super::settings(&config, bounds), 1, true, false);
    // Callers in a closed loop, whose answers bring the next requests: for a batch they would be worth waiting for.
    for _ in 0..30 {
        let _answers: Vec<_> = (0..4).map(|_| scene.push(work(1, 4))).collect();
        for _ in 0..4 {
            let (lane, id, parts) = scene.last();
            assert_eq!((parts, scene.book.alarm), (1, None));
            scene.finish(lane, id, Duration::from_millis(4));
        }
        assert!(scene.book.is_empty());
        scene.now += Duration::from_micros(200);
    }
}
