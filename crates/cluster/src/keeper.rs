//! Builds the snapshot from the ledger, at a steady pace and on change, and shows it to the node.
//!
//! Invariants: the view that is shown is always whole; its revision never goes back; what is shown
//! was first written to disk, so that a restart does not show less. While the ledger cannot be
//! reached the last view goes on, marked as not fresh.
//!
//! A change costs what it changes, not what there is: the next snapshot is the last one followed by the commits since
//! ([`Snapshot::follow`]), and shares the rest with it. Everything is read only at the start, after a long absence, and
//! when the audit does not lead from the one to the other. Something is written each interval whether or not something
//! changed, so that a change is never a new kind of load: the whole file while it is small, one line behind it when it is
//! large ([`SnapshotFile`]).

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use plinth_runtime::{OnEnd, TaskGroup, World};
use plinth_store::metadata::{AuditEntry, AuditQuery, Revision};
use plinth_store::{Metadata, MetadataError};
use plinth_telemetry::Catalogue;
use plinth_types::{Digest, Error, Reason, Result, Timestamp};
use tokio::sync::{Notify, watch};

use crate::Snapshot;
use crate::file::{OnDisk, SnapshotFile, SnapshotFileError};
use crate::snapshot::{SnapshotBuilder, mark};

/// What the node serves from.
#[derive(Debug, Clone)]
pub struct View {
    /// The snapshot.
    pub snapshot: Arc<Snapshot>,
    /// When the ledger was last seen to be no newer than it.
    pub checked_at: Timestamp,
    /// Whether the last look at the ledger succeeded.
    pub fresh: bool,
    /// Whether it was ever read, from the file or from the ledger; before that nothing is known, not even that nothing
    /// is wished.
    pub known: bool,
    /// Whether the ledger is not the one that the snapshot was taken from: a restored backup, or another database. Then
    /// the snapshot stands, and nothing may be changed until somebody decides.
    pub diverged: bool,
}

/// How often to look and to write.
#[derive(Debug, Clone, Copy)]
pub struct KeeperOptions {
    /// How often to ask the ledger for its revision.
    pub poll: Duration,
    /// How often to write the file when nothing changed.
    pub interval: Duration,
}

/// What a keeper is built from.
pub struct KeeperParts {
    /// The ledger.
    pub metadata: Arc<dyn Metadata>,
    /// The file.
    pub file: SnapshotFile,
    /// How often to look and to write.
    pub options: KeeperOptions,
    /// What it counts.
    pub metrics: Arc<Catalogue>,
}

/// Keeps the view current.
pub struct Keeper {
    view: ArcSwap<View>,
    changes: watch::Sender<u64>,
    poke: Notify,
}

/// How long one look at the ledger may take.
const LOOK_DEADLINE: Duration = Duration::from_secs(10);
/// How long reading all of it may take: a million records are some seconds on a good day.
const TAKE_DEADLINE: Duration = Duration::from_secs(300);
/// So many commits are followed; more, and reading everything is as quick.
const MOST_FOLLOWED: u64 = if cfg!(test) { 90 } else { 1_000 };
/// So many commits are held at a time.
const FOLLOWED_AT_ONCE: u64 = 50;

impl Keeper {
    /// Reads the file, looks at the ledger once, and starts to keep the view current.
    ///
    /// Without a ledger it starts from the file; without a file it waits for the ledger in the background and shows an
    /// empty view meanwhile.
    ///
    /// A damaged file is set aside, and the ledger makes a new one.
    ///
    /// # Errors
    /// When the file was written by a newer release, or is damaged while the ledger is away: nobody knows then what to
    /// serve.
    pub async fn start(parts: KeeperParts, world: &World, tasks: &TaskGroup) -> Result<Arc<Self>> {
        let KeeperParts { metadata, file, options, metrics } = parts;
        let reading = file.clone();
        let (stored, damaged) = match blocking(move || Ok(reading.load())).await? {
            Ok(stored) => (stored, None),
            Err(error @ SnapshotFileError::Damaged(_)) => (None, Some(error)),
            Err(error) => return Err(unusable(error)),
        };
        if let Some(error) = &damaged {
            let aside = file.clone();
            blocking(move || aside.set_aside()).await?;
            tracing::error!(%error, "the damaged snapshot was set aside as snapshot.json.damaged; the ledger makes a new one");
        }
        let known = stored.is_some();
        let (snapshot, checked_at, disk) = match stored {
            Some(stored) => (stored.snapshot, stored.checked_at, stored.disk),
            None => (Snapshot::default(), world.clock.now(), None),
        };
        let revision = snapshot.revision;
        let view = View { snapshot: Arc::new(snapshot), checked_at, fresh: false, known, diverged: false };
        let keeper = Arc::new(Self { view: ArcSwap::from_pointee(view), changes: watch::Sender::new(revision.0), poke: Notify::new() });
        let mut worker = Worker { keeper: keeper.clone(), metadata, file, world: world.clone(), options, metrics, disk, last_error: None };
        worker.refresh(true).await;
        match damaged {
            Some(error) if !keeper.view().fresh => return Err(unusable(error)),
            _ if !keeper.view().known => {
                tracing::warn!("there is no snapshot yet and the ledger cannot be reached; nothing is served until it can");
            }
            _ => {}
        }
        let stop = tasks.cancelled().clone();
        tasks.spawn("snapshot keeper", OnEnd::CancelGroup, async move {
            tokio::select! { () = stop.cancelled() => {}, () = worker.run() => {} }
        });
        Ok(keeper)
    }

    /// What to serve from now.
    #[must_use]
    pub fn view(&self) -> Arc<View> {
        self.view.load_full()
    }

    /// Says when a new snapshot is shown; the value is its revision.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Asks to look at the ledger now: something was just committed.
    pub fn poke(&self) {
        self.poke.notify_one();
    }

    /// Waits until the view shows `revision` or a later one; whether it does within `deadline`. Cancel safe.
    pub async fn wait_for(&self, revision: u64, deadline: Duration) -> bool {
        self.poke();
        let mut changes = self.changes();
        let reached = changes.wait_for(|shown| *shown >= revision);
        tokio::time::timeout(deadline, reached).await.is_ok_and(|shown| shown.is_ok())
    }
}

struct Worker {
    keeper: Arc<Keeper>,
    metadata: Arc<dyn Metadata>,
    file: SnapshotFile,
    world: World,
    options: KeeperOptions,
    metrics: Arc<Catalogue>,
    /// What lies on disk; `None` when it must be written whole.
    disk: Option<OnDisk>,
    last_error: Option<String>,
}

/// Why a look at the ledger brought nothing.
enum Failure {
    /// It cannot be read, or the file not be written.
    Away(Error),
    /// It is not the ledger that the snapshot was taken from.
    Diverged(String),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Away(error)
    }
}

impl Worker {
    async fn run(&mut self) {
        let mut last_written = self.world.clock.monotonic();
        loop {
            let _ = tokio::time::timeout(self.options.poll, self.keeper.poke.notified()).await;
            let due = self.world.clock.monotonic().saturating_sub(last_written) >= self.options.interval;
            if self.refresh(due).await {
                last_written = self.world.clock.monotonic();
            }
        }
    }

    /// One look at the ledger; whether the file was written.
    async fn refresh(&mut self, write_unchanged: bool) -> bool {
        match self.try_refresh(write_unchanged).await {
            Ok(written) => {
                if self.last_error.take().is_some() {
                    tracing::info!("the ledger can be reached again");
                }
                written
            }
            Err(failure) => {
                self.metrics.snapshot_failures.inc();
                let (text, diverged) = match failure {
                    Failure::Away(error) => (error.log_text(), self.keeper.view().diverged),
                    Failure::Diverged(text) => (text, true),
                };
                let view = View { fresh: false, diverged, ..View::clone(&self.keeper.view()) };
                if self.last_error.as_ref() != Some(&text) {
                    let revision = view.snapshot.revision.0;
                    if diverged {
                        tracing::error!(revision, cause = %text, "the ledger is not the one that this node has served from; serving goes on from the snapshot and changes are refused. To accept this ledger, stop the node, delete snapshot.json in its data directory, and start it");
                    } else {
                        tracing::warn!(revision, cause = %text, "the ledger cannot be followed, serving goes on from the snapshot");
                    }
                    self.last_error = Some(text);
                }
                self.keeper.view.store(Arc::new(view));
                false
            }
        }
    }

    async fn try_refresh(&mut self, write_unchanged: bool) -> Result<bool, Failure> {
        let shown = self.keeper.view();
        let head = within(LOOK_DEADLINE, self.metadata.head()).await?;
        self.must_be_the_same_ledger(&shown.snapshot, head).await?;
        let unchanged = shown.known && head == shown.snapshot.revision;
        let (snapshot, commits) = if unchanged { (shown.snapshot.clone(), Vec::new()) } else { self.next(&shown, head).await? };
        let now = self.world.clock.now();
        let write = !unchanged || write_unchanged;
        if write {
            let (file, body, disk) = (self.file.clone(), snapshot.clone(), self.disk.take());
            let followed = unchanged || !commits.is_empty();
            self.disk = blocking(move || file.keep(&body, if followed { disk } else { None }, &commits, now)).await?;
            self.metrics.snapshot_written.inc();
        }
        let revision = snapshot.revision.0;
        self.metrics.snapshot_revision.set_whole(revision);
        self.metrics.snapshot_time.set_whole(now.millis() / 1000);
        self.keeper.view.store(Arc::new(View { snapshot, checked_at: now, fresh: true, known: true, diverged: false }));
        if !unchanged {
            tracing::debug!(revision, "new snapshot");
            self.keeper.changes.send_replace(revision);
        }
        Ok(write)
    }

    /// The snapshot of a later revision, with the commits that led to it when it was made by them.
    async fn next(&self, shown: &View, head: Revision) -> Result<(Arc<Snapshot>, Vec<AuditEntry>)> {
        let behind = head.0.saturating_sub(shown.snapshot.revision.0);
        if shown.known && behind <= MOST_FOLLOWED {
            match self.follow(&shown.snapshot, head).await? {
                Ok((snapshot, commits)) => return Ok((Arc::new(snapshot), commits)),
                Err(why) => tracing::info!(cause = why, "the ledger is read whole: its commits cannot be followed"),
            }
        }
        Ok((Arc::new(self.take().await?), Vec::new()))
    }

    /// Follows the commits up to `head`; why that cannot be done, when it cannot.
    async fn follow(&self, shown: &Snapshot, head: Revision) -> Result<std::result::Result<(Snapshot, Vec<AuditEntry>), String>> {
        let (mut snapshot, mut commits) = (shown.clone(), Vec::new());
        while snapshot.revision < head {
            let to = head.0.min(snapshot.revision.0.saturating_add(FOLLOWED_AT_ONCE));
            let limit = u32::try_from(to - snapshot.revision.0).unwrap_or(u32::MAX);
            let query = AuditQuery { tenant: None, subject: None, before: Some(Revision(to.saturating_add(1))), limit };
            let mut entries = within(LOOK_DEADLINE, self.metadata.audit(&query)).await?;
            entries.reverse();
            for entry in &entries {
                if let Err(why) = snapshot.follow(entry) {
                    return Ok(Err(why));
                }
            }
            if snapshot.revision.0 != to {
                return Ok(Err(format!("the audit ends at {} instead of {to}", snapshot.revision)));
            }
            commits.append(&mut entries);
        }
        Ok(Ok((snapshot, commits)))
    }

    async fn take(&self) -> Result<Snapshot> {
        let (mut builder, mut taken) = (SnapshotBuilder::default(), Ok(()));
        let mut page = |records| {
            if taken.is_ok() {
                taken = builder.take(records);
            }
        };
        let revision = within(TAKE_DEADLINE, self.metadata.read_pages(&mut page)).await?;
        let mark = self.mark(revision).await?;
        taken.and_then(|()| builder.finish(revision, mark)).map_err(Error::internal)
    }

    async fn mark(&self, revision: Revision) -> Result<Option<Digest>> {
        let entry = within(LOOK_DEADLINE, self.metadata.audit_entry(revision)).await?;
        entry.map(|entry| mark(&entry)).transpose().map_err(Error::internal)
    }

    async fn must_be_the_same_ledger(&self, shown: &Snapshot, head: Revision) -> Result<(), Failure> {
        if head < shown.revision {
            return Err(Failure::Diverged(format!("the ledger is at revision {head}, the snapshot at {}", shown.revision)));
        }
        if shown.mark.is_some() && self.mark(shown.revision).await? != shown.mark {
            return Err(Failure::Diverged(format!("the ledger's revision {} is not the one in the snapshot", shown.revision)));
        }
        Ok(())
    }
}

fn unusable(error: SnapshotFileError) -> Error {
    let text = error.to_string();
    Error::new(Reason::Internal, text).source(error)
}

async fn within<T>(deadline: Duration, look: impl Future<Output = Result<T, MetadataError>>) -> Result<T> {
    match tokio::time::timeout(deadline, look).await {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(Error::internal("reading the ledger").source(error)),
        Err(_) => Err(Error::internal("reading the ledger took too long")),
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, crate::SnapshotFileError> + Send + 'static) -> Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(Error::internal("snapshot").source(error)),
        Err(error) => Err(Error::internal("snapshot").source(error)),
    }
}

#[cfg(test)]
mod tests;
