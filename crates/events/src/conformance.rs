//! What every store of events must do: one suite, run against each.
//!
//! The cases share a store and have streams of their own. They say what is promised by [`Events`]; crashes are tested elsewhere.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "it is a test, wherever it is compiled")]

mod keeping;
#[cfg(test)]
pub(crate) mod model;
mod storing;
mod streams;

use std::sync::Arc;

use plinth_runtime::{ManualClock, World};
use plinth_types::Timestamp;

use crate::event::{Appended, Event, Stored};
use crate::port::{Created, Events};
use crate::stream::{Settings, Stream};

/// A store under test, and the clock that it reads.
pub struct Bench<'a> {
    /// Empty.
    pub store: &'a dyn Events,
    /// The store's.
    pub clock: Arc<ManualClock>,
}

/// A world whose clock the suite moves.
#[must_use]
pub fn world() -> (World, Arc<ManualClock>) {
    let clock = Arc::new(ManualClock::new(Timestamp::from_millis(1_800_000_000_000).unwrap()));
    (World { clock: clock.clone(), ..World::real() }, clock)
}

/// Runs all cases.
pub async fn events(bench: &Bench<'_>) {
    storing::a_retry_is_stored_once(bench).await;
    storing::a_hundred_at_once_with_one_id_make_one(bench).await;
    storing::pages_go_on_after_an_offset(bench).await;
    storing::everybody_reads_its_own_writes(bench).await;
    storing::a_row_for_each_key_is_counted_exactly(bench).await;
    storing::what_is_not_taken_leaves_nothing(bench).await;
    streams::a_stream_is_made_listed_and_deleted(bench).await;
    streams::settings_that_do_not_fit_are_refused(bench).await;
    streams::ranges_keep_neighbours_together(bench).await;
    keeping::a_count_is_kept_in_each_partition(bench).await;
    keeping::what_is_old_is_forgotten(bench).await;
    keeping::a_current_row_is_kept_and_one_that_is_not_goes(bench).await;
}

/// A stream's name.
#[must_use]
pub fn named(tenant: &str, name: &str) -> Stream {
    Stream { tenant: tenant.parse().unwrap(), name: name.parse().unwrap() }
}

impl Bench<'_> {
    /// Makes a stream.
    pub async fn stream(&self, name: &str, settings: &Settings) -> Stream {
        let stream = named("acme", name);
        assert_eq!(self.store.create(&stream, settings).await.unwrap(), Created::New);
        stream
    }
}

/// An event with data.
#[must_use]
pub fn event(id: &str, key: &str, data: &str) -> Event {
    Event { id: id.parse().unwrap(), key: key.parse().unwrap(), at: None, data: Some(data.as_bytes().to_vec()) }
}

/// An event that ends a row.
#[must_use]
pub fn tombstone(id: &str, key: &str) -> Event {
    Event { data: None, ..event(id, key, "") }
}

fn is_new(appended: &Appended) -> bool {
    matches!(appended, Appended::New(_))
}

fn ids(stored: &[Stored]) -> Vec<&str> {
    stored.iter().map(|stored| stored.event.id.as_str()).collect()
}

/// All events of a stream, partition by partition.
pub async fn all(store: &dyn Events, stream: &Stream) -> Vec<Stored> {
    let partitions = store.settings(stream).await.unwrap().partitions;
    let mut all = Vec::new();
    for partition in 0..partitions {
        let mut after = 0;
        loop {
            let page = store.read(stream, partition, after, 1000).await.unwrap();
            let Some(last) = page.last() else { break };
            after = last.position.offset;
            all.extend(page);
        }
    }
    all
}
