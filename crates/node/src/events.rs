//! The store of small writes, as a node opens and sweeps it.
//!
//! As with jobs: files of its own on a node with SQLite, tables beside the ledger's with PostgreSQL, and a database that is away does not hold the start.

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anyhow::{Context, Result};
use plinth_config::{Config, MetadataUrl};
use plinth_events::{Events, EventsError, PostgresEvents, PostgresOptions, SqliteEvents, SqliteOptions};
use plinth_runtime::{OnEnd, TaskGroup, World};

/// How long a start waits; past it the store is opened in the background.
const FIRST_TRY: Duration = Duration::from_secs(2);
/// Tried again this often.
const PAUSE: Duration = Duration::from_secs(1);
/// How often what may be forgotten is looked for.
const SWEEP: Duration = Duration::from_secs(10);
/// Rows that one sweep removes.
const MOST: u32 = 5000;

enum Place {
    Sqlite(PathBuf),
    Postgres(PostgresOptions),
}

impl Place {
    async fn open(&self, world: &World) -> Result<Arc<dyn Events>, EventsError> {
        Ok(match self {
            Self::Sqlite(directory) => Arc::new(SqliteEvents::open(&SqliteOptions::new(directory), world).await?),
            Self::Postgres(options) => Arc::new(PostgresEvents::open(options, world).await?),
        })
    }
}

/// Opens the store, or starts to try; it is swept from then on.
///
/// # Errors
/// When the database was written by a newer release, is damaged, or is another process's.
pub async fn open(config: &Config, data: &Path, world: &World, tasks: &TaskGroup) -> Result<Arc<OnceLock<Arc<dyn Events>>>> {
    let place = match &config.metadata.url {
        MetadataUrl::Sqlite(_) => Place::Sqlite(data.join("events")),
        MetadataUrl::Postgres(url) => Place::Postgres(PostgresOptions::new(url.expose()).context("metadata.url")?),
    };
    let store = Arc::new(OnceLock::new());
    let first = match &place {
        Place::Sqlite(_) => place.open(world).await,
        Place::Postgres(_) => tokio::time::timeout(FIRST_TRY, place.open(world)).await.unwrap_or(Err(EventsError::Busy)),
    };
    match first {
        Ok(opened) => drop(store.set(opened)),
        Err(error) if error.retriable() || matches!(error, EventsError::Full) => {
            tracing::warn!(%error, "the store of events cannot be opened, trying again in the background");
        }
        Err(error) => return Err(error.into()),
    }
    let (kept, world, stop) = (store.clone(), world.clone(), tasks.cancelled().clone());
    tasks.spawn("events", OnEnd::Ignore, async move {
        stop.run_until_cancelled(Box::pin(keep(&kept, &place, &world))).await;
    });
    Ok(store)
}

async fn keep(store: &OnceLock<Arc<dyn Events>>, place: &Place, world: &World) {
    while store.get().is_none() {
        tokio::time::sleep(PAUSE).await;
        match place.open(world).await {
            Ok(opened) => drop(store.set(opened)),
            Err(error) if error.retriable() || matches!(error, EventsError::Full) => {}
            Err(error) => return tracing::error!(%error, "the store of events must not be opened by this release"),
        }
    }
    let Some(store) = store.get() else { return };
    loop {
        match store.sweep(MOST).await {
            Ok(swept) if swept.more => {}
            Ok(_) => tokio::time::sleep(SWEEP).await,
            Err(error) => {
                tracing::warn!(%error, "events cannot be swept");
                tokio::time::sleep(SWEEP).await;
            }
        }
    }
}
