//! The port [`Events`]: what a store of events promises, whichever database is below.

use async_trait::async_trait;
use plinth_types::TenantName;

use crate::error::EventsError;
use crate::event::{Appended, Event, EventId, Key, Stored};
use crate::stream::{Retention, Settings, Stream};

/// What became of making a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Created {
    /// It was made now.
    New,
    /// It was there with the same settings; its retention may differ and stays as it was.
    Already,
}

/// What a sweep has done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Swept {
    /// So many rows are gone.
    pub removed: u64,
    /// There may be more to do now; call again.
    pub more: bool,
}

/// What a store of events is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Description {
    /// `sqlite` or `postgresql`.
    pub product: &'static str,
    /// How many writers commit side by side.
    pub writers: usize,
    /// Events that wait or are being committed now.
    pub waiting: usize,
    /// Groups that were committed since it was opened. Each is one sync of the disk.
    pub groups: u64,
}

/// A store of small writes.
///
/// **Durability.** [`Events::append`] returns when its events are committed and synced, not before. **Groups.** Events of many callers are
/// committed together. **Once.** An event is known by its stream, key and id for as long as it is kept: appending it again changes nothing.
/// **Order.** The events of one append that have one key are stored in their order; offsets of a partition ascend in the order of commits,
/// so a reader that goes on after the last offset it saw misses nothing. **Own writes.** A read that begins after an append
/// returned sees it.
#[async_trait]
pub trait Events: Send + Sync {
    /// Makes a stream.
    ///
    /// # Errors
    /// [`EventsError::Exists`] when it is there with other settings, [`EventsError::Invalid`] for settings that do not fit together.
    async fn create(&self, stream: &Stream, settings: &Settings) -> Result<Created, EventsError>;

    /// How a stream is kept.
    ///
    /// # Errors
    /// [`EventsError::NoSuchStream`].
    async fn settings(&self, stream: &Stream) -> Result<Settings, EventsError>;

    /// Sets how long a stream's events are kept.
    ///
    /// # Errors
    /// [`EventsError::NoSuchStream`].
    async fn set_retention(&self, stream: &Stream, retention: Retention) -> Result<(), EventsError>;

    /// The streams in the order of tenant and name, of one tenant or of all, after `after`, at most [`crate::MOST_IN_PAGE`].
    ///
    /// # Errors
    /// [`EventsError::Unavailable`].
    async fn streams(
        &self,
        tenant: Option<&TenantName>,
        after: Option<&Stream>,
        limit: u32,
    ) -> Result<Vec<(Stream, Settings)>, EventsError>;

    /// Deletes a stream with all that is in it; whether it was there. It is gone at once, its rows are removed by [`Events::sweep`]. A
    /// stream made under the same name is another one.
    ///
    /// # Errors
    /// [`EventsError::Unavailable`].
    async fn delete(&self, stream: &Stream) -> Result<bool, EventsError>;

    /// Stores events; one answer for each, in their order. A call that is dropped may still store them.
    ///
    /// # Errors
    /// [`EventsError::NoSuchStream`], [`EventsError::Invalid`] and [`EventsError::Busy`] (at once, without waiting): nothing was stored.
    /// [`EventsError::Full`] and [`EventsError::Unavailable`]: some may be stored; append the same events again.
    async fn append(&self, stream: &Stream, events: Vec<Event>) -> Result<Vec<Appended>, EventsError>;

    /// A partition's events after an offset (0: from the beginning), ascending. At most `limit`, at most [`crate::MOST_IN_PAGE`], and no
    /// more after [`crate::MOST_PAGE_BYTES`]; empty only when there are none.
    ///
    /// # Errors
    /// [`EventsError::NoSuchStream`], [`EventsError::Unavailable`].
    async fn read(&self, stream: &Stream, partition: u16, after: u64, limit: u32) -> Result<Vec<Stored>, EventsError>;

    /// The events of an id, in the order of their keys. Most often one; several when an id was used with several keys (at most
    /// [`crate::MOST_IN_PAGE`] are given).
    ///
    /// # Errors
    /// [`EventsError::NoSuchStream`], [`EventsError::Unavailable`].
    async fn get(&self, stream: &Stream, id: &EventId) -> Result<Vec<Stored>, EventsError>;

    /// The events of a key after an offset, ascending, in pages as [`Events::read`].
    ///
    /// # Errors
    /// [`EventsError::NoSuchStream`], [`EventsError::Unavailable`].
    async fn by_key(&self, stream: &Stream, key: &Key, after: u64, limit: u32) -> Result<Vec<Stored>, EventsError>;

    /// The last event of a key, if it is no tombstone: the key's row in a stream of [`crate::Mode::Latest`].
    ///
    /// # Errors
    /// [`EventsError::NoSuchStream`], [`EventsError::Unavailable`].
    async fn latest(&self, stream: &Stream, key: &Key) -> Result<Option<Stored>, EventsError>;

    /// How many events a log holds, or how many live rows a stream of [`crate::Mode::Latest`] has. Exact: it is counted in the transactions
    /// that store and remove; and cheap: it reads one number for each partition.
    ///
    /// # Errors
    /// [`EventsError::NoSuchStream`], [`EventsError::Unavailable`].
    async fn count(&self, stream: &Stream) -> Result<u64, EventsError>;

    /// Removes what the retention lets go and what is left of deleted streams, at most about `most` rows, in one transaction for each
    /// writer. Whoever owns the store calls it from time to time.
    ///
    /// # Errors
    /// [`EventsError::Unavailable`].
    async fn sweep(&self, most: u32) -> Result<Swept, EventsError>;

    /// What this store is, and how it is doing.
    fn describe(&self) -> Description;

    /// Commits what waits, and ends. Later calls fail with [`EventsError::Closed`].
    async fn close(&self);
}
