//! A store against a model that is too simple to be wrong.
//!
//! The steps are drawn by proptest: small alphabets of ids, keys and data, so that retries, contradictions and replaced rows are common.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::{all, event, tombstone};
use crate::event::{Appended, Event, Position, Stored};
use crate::partition::{Hash, Partitioner};
use crate::port::Events;
use crate::stream::{Mode, Retention, Settings, Stream};

/// Something to do to a store.
#[derive(Debug, Clone)]
pub enum Step {
    /// Appends a list.
    Append(Vec<Event>),
    /// Appends several lists at once, of which no two have a key in common.
    Together(Vec<Event>),
    /// Sweeps with this many to keep.
    Keep(u64),
    /// Closes the store and opens it again.
    Reopen,
}

/// Draws an event; a tombstone only for rows.
fn an_event(mode: Mode) -> impl Strategy<Value = Event> {
    (0..12u8, 0..5u8, 0..3u8).prop_map(move |(id, key, data)| {
        let (id, key) = (format!("i{id}"), format!("k{key}"));
        if data == 0 && mode == Mode::Latest { tombstone(&id, &key) } else { event(&id, &key, &"x".repeat(usize::from(data / 2))) }
    })
}

/// Draws steps.
pub fn steps(mode: Mode) -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        8 => prop::collection::vec(an_event(mode), 0..6).prop_map(Step::Append),
        2 => prop::collection::vec(an_event(mode), 0..12).prop_map(Step::Together),
        1 => (0..6u64).prop_map(Step::Keep),
        1 => Just(Step::Reopen),
    ];
    prop::collection::vec(step, 1..40)
}

/// The settings under which [`Model`] is right.
#[must_use]
pub fn settings(mode: Mode) -> Settings {
    Settings { partitions: 3, mode, ..Settings::log() }
}

/// What a store should hold: the rows of each partition.
#[derive(Debug)]
pub struct Model {
    mode: Mode,
    rows: BTreeMap<Position, Event>,
    next: [u64; 3],
    /// Retention has looked at the offsets up to here.
    swept: [u64; 3],
}

impl Model {
    /// Nothing yet.
    #[must_use]
    pub const fn new(mode: Mode) -> Self {
        Self { mode, rows: BTreeMap::new(), next: [1; 3], swept: [0; 3] }
    }

    fn append(&mut self, event: &Event) -> Appended {
        let found = self.rows.iter().find(|(_, row)| row.id == event.id && row.key == event.key);
        if let Some((position, row)) = found {
            return if row == event { Appended::Already(*position) } else { Appended::Differs(*position) };
        }
        let partition = Hash::new(3).unwrap().partition(event.key.as_str());
        let next = &mut self.next[usize::from(partition)];
        let position = Position { partition, offset: *next };
        *next += 1;
        if self.mode == Mode::Latest {
            let swept = self.swept[usize::from(partition)];
            let last = self.rows.iter().rfind(|(_, row)| row.key == event.key).map(|(at, _)| *at);
            // It was kept as its key's row only.
            last.filter(|at| at.offset <= swept).map(|at| self.rows.remove(&at));
        }
        self.rows.insert(position, event.clone());
        Appended::New(position)
    }

    fn is_current(&self, at: &Position, row: &Event) -> bool {
        !self.rows.iter().any(|(later, other)| later > at && other.key == row.key)
    }

    fn count(&self) -> usize {
        let live = |(at, row): &(&Position, &Event)| row.data.is_some() && self.is_current(at, row);
        if self.mode == Mode::Log { self.rows.len() } else { self.rows.iter().filter(live).count() }
    }

    fn keep(&mut self, most: u64) {
        let next = self.next;
        let old = |at: &Position| next[usize::from(at.partition)] - 1 - at.offset >= most;
        let stays = |at: &Position, row: &Event| !old(at) || (self.mode == Mode::Latest && row.data.is_some() && self.is_current(at, row));
        self.rows = self.rows.iter().filter(|(at, row)| stays(at, row)).map(|(at, row)| (*at, row.clone())).collect();
        for (swept, next) in self.swept.iter_mut().zip(self.next) {
            *swept = (next - 1).saturating_sub(most).max(*swept);
        }
    }
}

/// Does a step (all but [`Step::Reopen`], which is the caller's) to both and compares all that can be seen.
pub async fn follow(store: &dyn Events, stream: &Stream, model: &mut Model, step: &Step) {
    match step {
        Step::Append(events) => {
            let want: Vec<_> = events.iter().map(|event| model.append(event)).collect();
            assert_eq!(store.append(stream, events.clone()).await.unwrap(), want);
        }
        Step::Together(events) => {
            // Of each partition one list, so the order in which they are committed does not matter.
            let lists = (0..3).map(|at| {
                let of = |event: &&Event| Hash::new(3).unwrap().partition(event.key.as_str()) == at;
                events.iter().filter(of).cloned().collect::<Vec<_>>()
            });
            let lists: Vec<_> = lists.collect();
            let got = futures_util::future::join_all(lists.iter().map(|list| store.append(stream, list.clone()))).await;
            for (list, got) in lists.iter().zip(got) {
                assert_eq!(got.unwrap(), list.iter().map(|event| model.append(event)).collect::<Vec<_>>());
            }
        }
        Step::Keep(most) => {
            store.set_retention(stream, Retention { age_millis: None, count: Some(*most) }).await.unwrap();
            while store.sweep(3).await.unwrap().more {}
            // So that what is swept next is what the next such step says.
            store.set_retention(stream, Retention::default()).await.unwrap();
            model.keep(*most);
        }
        Step::Reopen => {}
    }
    compare(store, stream, model).await;
}

async fn compare(store: &dyn Events, stream: &Stream, model: &Model) {
    let seen = |stored: Vec<Stored>| stored.into_iter().map(|stored| (stored.position, stored.event)).collect::<Vec<_>>();
    let want: Vec<_> = model.rows.iter().map(|(at, row)| (*at, row.clone())).collect();
    assert_eq!(seen(all(store, stream).await), want);
    assert_eq!(store.count(stream).await.unwrap(), model.count() as u64);
    for key in 0..5 {
        let key = format!("k{key}").parse().unwrap();
        let of: Vec<_> = want.iter().filter(|(_, row)| row.key == key).cloned().collect();
        let last = of.last().filter(|(_, row)| row.data.is_some()).cloned();
        assert_eq!(seen(store.latest(stream, &key).await.unwrap().into_iter().collect()).pop(), last);
        assert_eq!(seen(store.by_key(stream, &key, 0, 1000).await.unwrap()), of);
    }
    for id in ["i0", "i7"] {
        let mut of: Vec<_> = want.iter().filter(|(_, row)| row.id.as_str() == id).cloned().collect();
        of.sort_by(|a, b| a.1.key.cmp(&b.1.key));
        assert_eq!(seen(store.get(stream, &id.parse().unwrap()).await.unwrap()), of);
    }
}
