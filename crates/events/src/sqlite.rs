//! Events in SQLite: a file for each group of partitions, each with one writer, and a file with the streams.
//!
//! Invariants: partition `p` of every stream lies in file `p % files`, and the number of files is what it was when the store was made; an
//! append is answered when every file that it touches has committed and synced; one process at a time has the directory.

mod file;
mod group;
mod index;
pub(crate) mod read;
mod schema;
pub(crate) mod streams;
mod sweep;

#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use plinth_runtime::World;
use plinth_types::TenantName;

use self::file::EventsFile;
use self::read::KeyAt;
use self::schema::{Kind, hash};
use self::streams::Streams;
use self::sweep::Rules;
use crate::batcher::{Batcher, Gathering};
use crate::error::EventsError;
use crate::event::{Appended, Event, EventId, Key, Stored};
use crate::port::{Created, Description, Events, Swept};
use crate::stream::{Resolved, Retention, Settings, Stream};

/// How to open a store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SqliteOptions {
    /// Its directory, made when it is not there.
    pub directory: PathBuf,
    /// How many files a new store has, 1 to 64: so many commits run side by side. A store that is there keeps its number.
    pub files: u16,
    /// The most questions at a time to one file.
    pub readers: usize,
    /// How writes are gathered.
    pub gathering: Gathering,
    /// Entries of the index that gather in memory, of each file, before they are written (16 bytes each, and as many while they are).
    pub index_entries: usize,
}

impl SqliteOptions {
    /// The usual: one file, 2 readers, 131,072 entries.
    #[must_use]
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        Self { directory: directory.into(), files: 1, readers: 2, gathering: Gathering::default(), index_entries: index::FREEZE }
    }
}

/// A store of events in SQLite.
pub struct SqliteEvents {
    streams: Streams,
    files: Vec<Arc<EventsFile>>,
    batcher: Batcher,
    closed: AtomicBool,
    world: World,
}

impl SqliteEvents {
    /// Opens the store, or makes it. Needs a tokio runtime.
    ///
    /// # Errors
    /// [`EventsError::InUse`], [`EventsError::TooNew`], [`EventsError::Invalid`] and [`EventsError::Unavailable`].
    pub async fn open(options: &SqliteOptions, world: &World) -> Result<Self, EventsError> {
        if !(1..=64).contains(&options.files) {
            return Err(EventsError::Invalid("a store of events has 1 to 64 files"));
        }
        let (wanted, outside) = (options.clone(), world.clone());
        let opened = tokio::task::spawn_blocking(move || open(&wanted, &outside)).await;
        let (streams, files) = opened.map_err(|error| EventsError::unavailable("open", error))??;
        for file in &files {
            file.tune().await?;
        }
        let batcher = Batcher::start(files.iter().cloned(), options.gathering, world);
        Ok(Self { streams, files, batcher, closed: AtomicBool::new(false), world: world.clone() })
    }

    fn find(&self, stream: &Stream) -> Result<Arc<Resolved>, EventsError> {
        self.open_still()?;
        self.streams.find(stream)
    }

    fn open_still(&self) -> Result<(), EventsError> {
        if self.closed.load(Ordering::Acquire) { Err(EventsError::Closed) } else { Ok(()) }
    }

    /// Where a key is, and the file that has it.
    fn at(&self, stream: &Stream, key: &Key) -> Result<(&EventsFile, KeyAt), EventsError> {
        let found = self.find(stream)?;
        let partition = found.partitioner.partition(key.as_str());
        let hash = hash(Kind::Key, found.number, key.as_str());
        Ok((self.file(partition), KeyAt { stream: found.number, partition, key: key.clone(), hash }))
    }

    fn file(&self, partition: u16) -> &EventsFile {
        &self.files[usize::from(partition) % self.files.len()]
    }
}

fn open(options: &SqliteOptions, world: &World) -> Result<(Streams, Vec<Arc<EventsFile>>), EventsError> {
    let directory: &Path = &options.directory;
    let (streams, files) = Streams::open(&directory.join("streams.sqlite"), options.files, world)?;
    let file = |number| {
        let path = directory.join(format!("events-{number:03}.sqlite"));
        EventsFile::open(&path, options.readers, options.index_entries.max(2), world).map(Arc::new)
    };
    Ok((streams, (0..files).map(file).collect::<Result<_, _>>()?))
}

#[async_trait]
impl Events for SqliteEvents {
    async fn create(&self, stream: &Stream, settings: &Settings) -> Result<Created, EventsError> {
        self.open_still()?;
        self.streams.create(stream, settings).await
    }

    async fn settings(&self, stream: &Stream) -> Result<Settings, EventsError> {
        self.open_still()?;
        self.streams.settings(stream)
    }

    async fn set_retention(&self, stream: &Stream, retention: Retention) -> Result<(), EventsError> {
        self.open_still()?;
        self.streams.set_retention(stream, retention).await
    }

    async fn streams(
        &self,
        tenant: Option<&TenantName>,
        after: Option<&Stream>,
        limit: u32,
    ) -> Result<Vec<(Stream, Settings)>, EventsError> {
        self.open_still()?;
        Ok(self.streams.list(tenant, after, limit))
    }

    async fn delete(&self, stream: &Stream) -> Result<bool, EventsError> {
        self.open_still()?;
        self.streams.delete(stream).await
    }

    async fn append(&self, stream: &Stream, events: Vec<Event>) -> Result<Vec<Appended>, EventsError> {
        let found = self.find(stream)?;
        self.batcher.append(found, events).await
    }

    async fn read(&self, stream: &Stream, partition: u16, after: u64, limit: u32) -> Result<Vec<Stored>, EventsError> {
        let number = self.find(stream)?.number;
        self.file(partition).read("read", move |db| read::read(db, number, partition, after, limit)).await
    }

    async fn get(&self, stream: &Stream, id: &EventId) -> Result<Vec<Stored>, EventsError> {
        let number = self.find(stream)?.number;
        let hash = hash(Kind::Id, number, id.as_str());
        let mut all = Vec::new();
        for file in &self.files {
            let (rows, id) = (file.recent(hash, 0), id.clone());
            all.extend(file.read("get", move |db| read::get(db, number, hash, rows, &id)).await?);
        }
        all.sort_by(|a, b| a.event.key.cmp(&b.event.key));
        Ok(all)
    }

    async fn by_key(&self, stream: &Stream, key: &Key, after: u64, limit: u32) -> Result<Vec<Stored>, EventsError> {
        let (file, at) = self.at(stream, key)?;
        let rows = file.recent(at.hash, 0);
        file.read("by key", move |db| read::by_key(db, &at, rows, after, limit)).await
    }

    async fn latest(&self, stream: &Stream, key: &Key) -> Result<Option<Stored>, EventsError> {
        let (file, at) = self.at(stream, key)?;
        let rows = file.recent(at.hash, 0);
        file.read("latest", move |db| read::latest(db, &at, rows)).await
    }

    async fn count(&self, stream: &Stream) -> Result<u64, EventsError> {
        let number = self.find(stream)?.number;
        let mut sum = 0;
        for file in &self.files {
            let count = move |db: &rusqlite::Connection| {
                db.prepare_cached("SELECT ifnull(sum(live), 0) FROM lanes WHERE stream = ?1")?
                    .query_row([number], |row| row.get::<_, i64>(0))
            };
            sum += file.read("count", count).await?;
        }
        u64::try_from(sum).map_err(|_| EventsError::Damaged("a count is negative".into()))
    }

    async fn sweep(&self, most: u32) -> Result<Swept, EventsError> {
        self.open_still()?;
        let (kept, deleted) = self.streams.rules();
        let rules = Arc::new(Rules { now: self.world.clock.now(), kept, deleted, most });
        let mut all = Swept::default();
        for file in &self.files {
            let swept = file.sweep(rules.clone()).await?;
            all.removed += swept.removed;
            all.more |= swept.more;
        }
        if !all.more && !rules.deleted.is_empty() {
            self.streams.purged(rules.deleted.clone()).await?;
        }
        Ok(all)
    }

    fn describe(&self) -> Description {
        Description { product: "sqlite", writers: self.batcher.writers(), waiting: self.batcher.waiting(), groups: self.batcher.groups() }
    }

    async fn close(&self) {
        self.closed.store(true, Ordering::Release);
        self.batcher.close().await;
        for file in &self.files {
            file.close().await;
        }
        self.streams.close().await;
    }
}
