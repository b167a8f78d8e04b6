//! The ledger as a node sees it: there, or away and tried again.
//!
//! A node starts and serves without its database. Until the database can be opened every call fails
//! with `Unavailable`, and a task in the background keeps trying. Invariant: a database that must not
//! be opened at all (a newer release's) ends the start; only one that is away is waited for.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use async_trait::async_trait;
use plinth_runtime::{OnEnd, TaskGroup, World};
use plinth_store::metadata::{self, AuditEntry, AuditLink, AuditQuery, Commit, ListQuery, MetadataOptions, Record, RecordKey, Revision};
use plinth_store::{Metadata, MetadataError};

/// How long a start waits for the ledger; past it the ledger is opened in the background.
const FIRST_TRY: Duration = Duration::from_secs(2);
/// Tried again this often.
const PAUSE: Duration = Duration::from_secs(1);

/// A ledger that may be away.
pub struct Ledger {
    inner: ArcSwapOption<Arc<dyn Metadata>>,
}

impl Ledger {
    /// Opens the ledger, or starts to try.
    ///
    /// # Errors
    /// When the database was written by a newer release or is damaged.
    pub async fn open(options: MetadataOptions, world: &World, tasks: &TaskGroup) -> Result<Arc<Self>, MetadataError> {
        let ledger = Arc::new(Self { inner: ArcSwapOption::empty() });
        // Opening is cancel safe: migrations go on where they stood.
        let first = tokio::time::timeout(FIRST_TRY, metadata::open(&options, world)).await;
        let first = first.unwrap_or_else(|_| Err(MetadataError::Unavailable { operation: "opening", source: "it takes too long".into() }));
        match first {
            Ok(opened) => ledger.put(opened),
            Err(error @ (MetadataError::Unavailable { .. } | MetadataError::Full)) => {
                tracing::warn!(cause = %chain(&error), "the ledger cannot be opened, trying again in the background");
                let (ledger, world) = (ledger.clone(), world.clone());
                let stop = tasks.cancelled().clone();
                tasks.spawn("open the ledger", OnEnd::Ignore, async move {
                    tokio::select! { () = stop.cancelled() => {}, () = ledger.keep_trying(options, world) => {} }
                });
            }
            Err(error) => return Err(error),
        }
        Ok(ledger)
    }

    fn put(&self, opened: Arc<dyn Metadata>) {
        self.inner.store(Some(Arc::new(opened)));
    }

    async fn keep_trying(&self, options: MetadataOptions, world: World) {
        loop {
            tokio::time::sleep(PAUSE).await;
            match metadata::open(&options, &world).await {
                Ok(opened) => {
                    tracing::info!("the ledger is open");
                    return self.put(opened);
                }
                Err(MetadataError::Unavailable { .. } | MetadataError::Full) => {}
                Err(error) => {
                    tracing::error!(cause = %chain(&error), "the ledger must not be opened by this release; serving goes on from the snapshot");
                    return;
                }
            }
        }
    }

    fn get_open(&self) -> Result<Arc<Arc<dyn Metadata>>, MetadataError> {
        self.inner
            .load_full()
            .ok_or_else(|| MetadataError::Unavailable { operation: "opening", source: "the ledger has not been opened yet".into() })
    }
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

macro_rules! forward {
    ($($name:ident($($arg:ident: $ty:ty),*) -> $out:ty;)*) => {
        #[async_trait]
        impl Metadata for Ledger {
            $(async fn $name(&self, $($arg: $ty),*) -> Result<$out, MetadataError> { self.get_open()?.$name($($arg),*).await })*
            async fn close(&self) {
                if let Some(inner) = self.inner.swap(None) { inner.close().await; }
            }
        }
    };
}

forward! {
    get(key: &RecordKey) -> Option<Record>;
    list(query: &ListQuery) -> Vec<Record>;
    head() -> Revision;
    read_all() -> (Revision, Vec<Record>);
    read_pages(page: &mut (dyn FnMut(Vec<Record>) + Send)) -> Revision;
    commit(commit: Commit) -> Revision;
    audit(query: &AuditQuery) -> Vec<AuditEntry>;
    audit_entry(revision: Revision) -> Option<AuditEntry>;
    audit_chain(first: Revision, limit: u32) -> Vec<AuditLink>;
    describe() -> String;
}
