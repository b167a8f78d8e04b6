//! Builds the snapshot from the ledger, at a steady pace and on change, and shows it to the node.
//!
//! Invariants: the view that is shown is always whole; its revision never goes back; what is shown
//! was first written to disk, so that a restart does not show less. While the ledger cannot be
//! reached the last view goes on, marked as not fresh. Work is constant: the file is written each
//! interval whether or not something changed, so a change is never a new kind of load.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use plinth_runtime::{OnEnd, TaskGroup, World};
use plinth_store::metadata::Revision;
use plinth_store::{Metadata, MetadataError};
use plinth_telemetry::Catalogue;
use plinth_types::{Digest, Error, Reason, Result, Timestamp};
use tokio::sync::{Notify, watch};

use crate::{Snapshot, SnapshotFile, SnapshotFileError};

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
        let (snapshot, checked_at) = stored.unwrap_or_else(|| (Snapshot::default(), world.clock.now()));
        let revision = snapshot.revision;
        let view = View { snapshot: Arc::new(snapshot), checked_at, fresh: false, known, diverged: false };
        let keeper = Arc::new(Self { view: ArcSwap::from_pointee(view), changes: watch::Sender::new(revision.0), poke: Notify::new() });
        let mut worker = Worker { keeper: keeper.clone(), metadata, file, world: world.clone(), options, metrics, last_error: None };
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

    async fn try_refresh(&self, write_unchanged: bool) -> Result<bool, Failure> {
        let shown = self.keeper.view();
        let head = within(self.metadata.head()).await?;
        self.must_be_the_same_ledger(&shown.snapshot, head).await?;
        let unchanged = shown.known && head == shown.snapshot.revision;
        let snapshot = if unchanged { shown.snapshot.clone() } else { Arc::new(self.take().await?) };
        let now = self.world.clock.now();
        let write = !unchanged || write_unchanged;
        if write {
            let (file, body) = (self.file.clone(), snapshot.clone());
            blocking(move || file.store(&body, now)).await?;
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

    async fn take(&self) -> Result<Snapshot> {
        let (revision, records) = within(self.metadata.read_all()).await?;
        let mark = self.mark(revision).await?;
        Ok(Snapshot { mark, ..Snapshot::from_records(revision, records).map_err(Error::internal)? })
    }

    /// Stands for the ledger's history up to a revision: two ledgers that took different ways have different marks.
    async fn mark(&self, revision: Revision) -> Result<Option<Digest>> {
        let entry = within(self.metadata.audit_entry(revision)).await?;
        entry
            .map(|entry| serde_json::to_vec(&entry).map(|text| Digest::of(&text)))
            .transpose()
            .map_err(|e| Error::internal("marking a revision").source(e))
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

async fn within<T>(look: impl Future<Output = Result<T, MetadataError>>) -> Result<T> {
    match tokio::time::timeout(LOOK_DEADLINE, look).await {
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
