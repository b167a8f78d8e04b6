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
use plinth_store::{Metadata, MetadataError};
use plinth_types::{Error, Result, Timestamp};
use tokio::sync::{Notify, watch};

use crate::{Snapshot, SnapshotFile};

/// What the node serves from.
#[derive(Debug, Clone)]
pub struct View {
    /// The snapshot.
    pub snapshot: Arc<Snapshot>,
    /// When the ledger was last seen to be no newer than it.
    pub checked_at: Timestamp,
    /// Whether the last look at the ledger succeeded.
    pub fresh: bool,
}

/// How often to look and to write.
#[derive(Debug, Clone, Copy)]
pub struct KeeperOptions {
    /// How often to ask the ledger for its revision.
    pub poll: Duration,
    /// How often to write the file when nothing changed.
    pub interval: Duration,
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
    /// # Errors
    /// When the file is damaged or of a newer release: serving something else than before would be a surprise.
    pub async fn start(
        metadata: Arc<dyn Metadata>,
        file: SnapshotFile,
        options: KeeperOptions,
        world: &World,
        tasks: &TaskGroup,
    ) -> Result<Arc<Self>> {
        let reading = file.clone();
        let stored = blocking(move || reading.load()).await?;
        let loaded = stored.is_some();
        let (snapshot, checked_at) = stored.unwrap_or_else(|| (Snapshot::default(), world.clock.now()));
        let revision = snapshot.revision;
        let view = View { snapshot: Arc::new(snapshot), checked_at, fresh: false };
        let keeper = Arc::new(Self { view: ArcSwap::from_pointee(view), changes: watch::Sender::new(revision.0), poke: Notify::new() });
        let worker = Worker { keeper: keeper.clone(), metadata, file, world: world.clone(), options, last_error: None };
        let mut worker = worker;
        worker.refresh(true).await;
        if !loaded && !keeper.view().fresh {
            tracing::warn!("there is no snapshot yet and the ledger cannot be reached; nothing is served until it can");
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
    last_error: Option<String>,
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
            Err(error) => {
                let text = error.log_text();
                if self.last_error.as_ref() != Some(&text) {
                    let view = self.keeper.view();
                    tracing::warn!(revision = view.snapshot.revision.0, cause = %text, "the ledger cannot be read, serving goes on from the snapshot");
                    self.last_error = Some(text);
                }
                let view = View { fresh: false, ..View::clone(&self.keeper.view()) };
                self.keeper.view.store(Arc::new(view));
                false
            }
        }
    }

    async fn try_refresh(&self, write_unchanged: bool) -> Result<bool> {
        let shown = self.keeper.view();
        let head = within(self.metadata.head()).await?;
        if head < shown.snapshot.revision {
            // A restored backup, or another database. Going back would take away what was promised.
            let text = format!(
                "the ledger is at revision {head}, the snapshot at {}; was another database put in its place?",
                shown.snapshot.revision
            );
            return Err(Error::internal(text));
        }
        let unchanged = head == shown.snapshot.revision;
        let snapshot = if unchanged {
            shown.snapshot.clone()
        } else {
            let (revision, records) = within(self.metadata.read_all()).await?;
            Arc::new(Snapshot::from_records(revision, records).map_err(Error::internal)?)
        };
        let now = self.world.clock.now();
        let write = !unchanged || write_unchanged;
        if write {
            let (file, body) = (self.file.clone(), snapshot.clone());
            blocking(move || file.store(&body, now)).await?;
        }
        let revision = snapshot.revision.0;
        self.keeper.view.store(Arc::new(View { snapshot, checked_at: now, fresh: true }));
        if !unchanged {
            tracing::debug!(revision, "new snapshot");
            self.keeper.changes.send_replace(revision);
        }
        Ok(write)
    }
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
