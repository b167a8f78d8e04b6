//! The file of streams: their names, numbers and settings, all of them in memory too.
//!
//! Invariant: what is in memory is what is committed; a stream that is deleted is marked as such before its name is free again, so a writer
//! that had found it before stores nothing more.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError, RwLock};

use plinth_queue::sqlite::{GroupWriter, Points, open_connection};
use plinth_runtime::World;
use plinth_types::TenantName;
use rusqlite::{OptionalExtension, params};

use super::schema;
use crate::error::EventsError;
use crate::event::MOST_IN_PAGE;
use crate::port::Created;
use crate::stream::{Mode, Resolved, Retention, Settings, Stream};

/// The most streams of a store: they are all kept in memory.
const MOST_STREAMS: usize = 10_000;

/// A stream that is there.
#[derive(Clone)]
struct Entry {
    resolved: Arc<Resolved>,
    settings: Settings,
}

/// The streams.
pub(super) struct Streams {
    known: RwLock<BTreeMap<Stream, Entry>>,
    deleted: RwLock<Vec<i64>>,
    /// Held while one is made, changed or deleted. Nothing once it is closed.
    turn: tokio::sync::Mutex<Option<GroupWriter>>,
}

impl Streams {
    /// Opens the file and says how many files of events there are: `files` when it is new. Blocks.
    pub(super) fn open(path: &Path, files: u16, world: &World) -> Result<(Self, u16), EventsError> {
        let writer = GroupWriter::open(path, schema::STREAMS, world)?;
        let db = open_connection(path, false)?;
        let failed = |error| EventsError::unavailable("open", error);
        let found = db.query_row("SELECT files FROM store", [], |row| row.get(0)).optional().map_err(failed)?;
        if found.is_none() {
            db.execute("INSERT INTO store (files) VALUES (?1)", [files]).map_err(failed)?;
        }
        let (mut known, mut deleted) = (BTreeMap::new(), Vec::new());
        let mut all = db.prepare("SELECT stream, tenant, name, settings, deleted FROM streams").map_err(failed)?;
        let read = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?));
        for row in all.query_map([], read).map_err(failed)? {
            let (number, tenant, name, settings, gone): (i64, String, String, String, bool) = row.map_err(failed)?;
            if gone {
                deleted.push(number);
                continue;
            }
            let settings = Settings::from_text(&settings)?;
            known.insert(named(&tenant, &name)?, Entry { resolved: Arc::new(Resolved::new(number, &settings)?), settings });
        }
        let streams = Self { known: RwLock::new(known), deleted: RwLock::new(deleted), turn: tokio::sync::Mutex::new(Some(writer)) };
        Ok((streams, found.unwrap_or(files)))
    }

    fn entry(&self, stream: &Stream) -> Result<Entry, EventsError> {
        self.known.read().unwrap_or_else(PoisonError::into_inner).get(stream).cloned().ok_or(EventsError::NoSuchStream)
    }

    pub(super) fn find(&self, stream: &Stream) -> Result<Arc<Resolved>, EventsError> {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        known.get(stream).map(|entry| entry.resolved.clone()).ok_or(EventsError::NoSuchStream)
    }

    pub(super) fn settings(&self, stream: &Stream) -> Result<Settings, EventsError> {
        self.entry(stream).map(|entry| entry.settings)
    }

    pub(super) fn list(&self, tenant: Option<&TenantName>, after: Option<&Stream>, limit: u32) -> Vec<(Stream, Settings)> {
        use std::ops::Bound::{Excluded, Unbounded};
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        let past = known.range((after.map_or(Unbounded, Excluded), Unbounded));
        let of = past.filter(|(stream, _)| tenant.is_none_or(|tenant| stream.tenant == *tenant));
        of.take(limit.min(MOST_IN_PAGE) as usize).map(|(stream, entry)| (stream.clone(), entry.settings.clone())).collect()
    }

    pub(super) async fn create(&self, stream: &Stream, settings: &Settings) -> Result<Created, EventsError> {
        settings.build()?;
        let turn = self.turn.lock().await;
        let writer = turn.as_ref().ok_or(EventsError::Closed)?;
        if let Ok(found) = self.entry(stream) {
            return if found.settings.same_shape(settings) { Ok(Created::Already) } else { Err(EventsError::Exists) };
        }
        if self.known.read().unwrap_or_else(PoisonError::into_inner).len() >= MOST_STREAMS {
            return Err(EventsError::Invalid("a store holds at most 10,000 streams"));
        }
        let (name, text) = (stream.clone(), settings.to_text()?);
        let insert = move |db: &rusqlite::Connection| {
            let mut insert = db.prepare_cached("INSERT INTO streams (tenant, name, settings) VALUES (?1, ?2, ?3)")?;
            insert.insert(params![name.tenant.as_str(), name.name.as_str(), text])
        };
        let number = writer.write("create", Points::default(), insert).await?;
        let entry = Entry { resolved: Arc::new(Resolved::new(number, settings)?), settings: settings.clone() };
        self.known.write().unwrap_or_else(PoisonError::into_inner).insert(stream.clone(), entry);
        Ok(Created::New)
    }

    pub(super) async fn set_retention(&self, stream: &Stream, retention: Retention) -> Result<(), EventsError> {
        let turn = self.turn.lock().await;
        let writer = turn.as_ref().ok_or(EventsError::Closed)?;
        let Entry { resolved, settings } = self.entry(stream)?;
        let settings = Settings { retention, ..settings };
        let (number, text) = (resolved.number, settings.to_text()?);
        let update =
            move |db: &rusqlite::Connection| db.execute("UPDATE streams SET settings = ?2 WHERE stream = ?1", params![number, text]);
        writer.write("set retention", Points::default(), update).await?;
        self.known.write().unwrap_or_else(PoisonError::into_inner).insert(stream.clone(), Entry { resolved, settings });
        Ok(())
    }

    pub(super) async fn delete(&self, stream: &Stream) -> Result<bool, EventsError> {
        let turn = self.turn.lock().await;
        let writer = turn.as_ref().ok_or(EventsError::Closed)?;
        let Ok(Entry { resolved, .. }) = self.entry(stream) else { return Ok(false) };
        let number = resolved.number;
        let mark = move |db: &rusqlite::Connection| db.execute("UPDATE streams SET deleted = 1 WHERE stream = ?1", [number]);
        writer.write("delete", Points::default(), mark).await?;
        resolved.deleted.store(true, Ordering::Release);
        self.known.write().unwrap_or_else(PoisonError::into_inner).remove(stream);
        self.deleted.write().unwrap_or_else(PoisonError::into_inner).push(number);
        Ok(true)
    }

    /// The rules of all streams, and the numbers of those that are deleted.
    pub(super) fn rules(&self) -> (HashMap<i64, (Mode, Retention)>, Vec<i64>) {
        let deleted = self.deleted.read().unwrap_or_else(PoisonError::into_inner).clone();
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        let rule = |entry: &Entry| (entry.resolved.number, (entry.settings.mode, entry.settings.retention));
        (known.values().map(rule).collect(), deleted)
    }

    /// Forgets deleted streams of which nothing is left.
    pub(super) async fn purged(&self, numbers: Vec<i64>) -> Result<(), EventsError> {
        let turn = self.turn.lock().await;
        let writer = turn.as_ref().ok_or(EventsError::Closed)?;
        let gone = numbers.clone();
        let delete = move |db: &rusqlite::Connection| {
            let mut delete = db.prepare_cached("DELETE FROM streams WHERE stream = ?1 AND deleted = 1")?;
            gone.iter().try_for_each(|number| delete.execute([number]).map(drop))
        };
        writer.write("purge", Points::default(), delete).await?;
        self.deleted.write().unwrap_or_else(PoisonError::into_inner).retain(|number| !numbers.contains(number));
        Ok(())
    }

    /// Ends the writer and gives the file's lock back.
    pub(super) async fn close(&self) {
        super::file::close(self.turn.lock().await.take()).await;
    }
}

/// A stream from its stored names.
pub(crate) fn named(tenant: &str, name: &str) -> Result<Stream, EventsError> {
    let damaged = |_| EventsError::Damaged("the name of a stream".into());
    Ok(Stream { tenant: tenant.parse().map_err(damaged)?, name: name.parse().map_err(damaged)? })
}
