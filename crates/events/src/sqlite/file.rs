//! One file of events: its writer, its readers and the part of its index that is in memory.
//!
//! Invariant: one piece of work is under way at a time (`turn`), and what it did to the file is taken into memory before its callers are
//! told. After a failure nobody knows what was committed, so the index is read from the file again before anything else is written.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use async_trait::async_trait;
use plinth_queue::sqlite::{GroupWriter, Points, Readers, open_connection};
use plinth_runtime::{CrashPoint, World};
use rusqlite::Connection;

use super::group::apply;
use super::index::Index;
use super::schema;
use super::sweep::{Outcome, Rules, sweep};
use crate::batcher::{Answer, Commit, Submission};
use crate::error::EventsError;
use crate::port::Swept;

/// Where a test may end the process around the commit of a group.
const APPEND: Points = Points { before: Some(CrashPoint::EventsBeforeCommit), after: Some(CrashPoint::EventsAfterCommit) };
/// The writer's page cache, 32 MiB: the upper levels of `finds` shall stay in it.
const CACHE: &str = "PRAGMA cache_size = -32768";

/// A file of events.
pub(super) struct EventsFile {
    readers: Readers,
    index: Arc<RwLock<Index>>,
    /// Whoever holds it writes. Nothing once it is closed.
    turn: tokio::sync::Mutex<Option<GroupWriter>>,
    stale: AtomicBool,
    freeze: usize,
    world: World,
}

impl EventsFile {
    /// Opens it and reads what its index lacks. Blocks.
    pub(super) fn open(path: &Path, readers: usize, freeze: usize, world: &World) -> Result<Self, EventsError> {
        let writer = GroupWriter::open(path, schema::FILE, world)?;
        let db = open_connection(path, false)?;
        let index = Index::load(&db).map_err(|error| EventsError::unavailable("open", error))?;
        Ok(Self {
            readers: Readers::new(path.to_owned(), readers),
            index: Arc::new(RwLock::new(index)),
            turn: tokio::sync::Mutex::new(Some(writer)),
            stale: AtomicBool::new(false),
            freeze,
            world: world.clone(),
        })
    }

    /// Runs work in a transaction, alone, and takes what it did into memory.
    async fn write<T, F, A>(&self, operation: &'static str, points: Points, work: F, accept: A) -> Result<T, EventsError>
    where
        F: Fn(&Connection, &Index) -> rusqlite::Result<T> + Send + 'static,
        A: FnOnce(&mut Index, &mut T, usize) + Send,
        T: Send + 'static,
    {
        let turn = self.turn.lock().await;
        let writer = turn.as_ref().ok_or(EventsError::Closed)?;
        if self.stale.load(Ordering::Acquire) {
            let load = |db: &Connection| {
                db.execute_batch(CACHE)?;
                Index::load(db)
            };
            let loaded = writer.write("reload", Points::default(), load).await?;
            *self.index.write().unwrap_or_else(PoisonError::into_inner) = loaded;
        }
        // Also when this call is dropped half-way: what then becomes of the work is not known here.
        self.stale.store(true, Ordering::Release);
        let index = self.index.clone();
        let run = move |db: &Connection| work(db, &index.read().unwrap_or_else(PoisonError::into_inner));
        let mut done = writer.write(operation, points, run).await?;
        accept(&mut self.index.write().unwrap_or_else(PoisonError::into_inner), &mut done, self.freeze);
        self.stale.store(false, Ordering::Release);
        Ok(done)
    }

    /// Removes what may go.
    pub(super) async fn sweep(&self, rules: Arc<Rules>) -> Result<Swept, EventsError> {
        let accept = |index: &mut Index, outcome: &mut Outcome, _| {
            if outcome.folded {
                *index = Index::default();
            }
        };
        let outcome = self.write("sweep", Points::default(), move |db, index| sweep(db, index, &rules), accept).await?;
        Ok(outcome.swept)
    }

    /// Asks a question.
    pub(super) async fn read<T, F>(&self, operation: &'static str, question: F) -> Result<T, EventsError>
    where
        F: FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
        T: Send + 'static,
    {
        Ok(self.readers.read(operation, question).await?)
    }

    /// The rows with a hash past `after` whose entries are in memory. Ask this before the file.
    pub(super) fn recent(&self, hash: i64, after: i64) -> BTreeSet<i64> {
        let mut rows = BTreeSet::new();
        self.index.read().unwrap_or_else(PoisonError::into_inner).rows(hash, after, &mut rows);
        rows
    }

    /// Sets the writer's page cache.
    pub(super) async fn tune(&self) -> Result<(), EventsError> {
        let turn = self.turn.lock().await;
        let writer = turn.as_ref().ok_or(EventsError::Closed)?;
        Ok(writer.write("open", Points::default(), |db| db.execute_batch(CACHE)).await?)
    }

    /// Ends the writer and gives the file's lock back.
    pub(super) async fn close(&self) {
        self.readers.close();
        close(self.turn.lock().await.take()).await;
    }
}

/// Ends a writer on a thread that may block.
pub(super) async fn close(writer: Option<GroupWriter>) {
    if let Some(writer) = writer {
        // It fails only when the runtime is ending, which drops the writer.
        let _ = tokio::task::spawn_blocking(move || writer.close()).await;
    }
}

#[async_trait]
impl Commit for EventsFile {
    async fn commit(&self, group: Vec<Submission>) -> Result<Vec<Answer>, EventsError> {
        let now = self.world.clock.now();
        let accept = |index: &mut Index, applied: &mut super::group::Applied, freeze| {
            index.accept(std::mem::take(&mut applied.added), applied.folded, freeze);
        };
        let applied = self.write("append", APPEND, move |db, index| apply(db, index, &group, now), accept).await?;
        Ok(applied.answers)
    }
}
