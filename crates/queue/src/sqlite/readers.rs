//! The readers of a file: a few connections, each used by one thread at a time.
//!
//! Invariant: a reader sees what was committed before it began; it holds no lock that the writer waits for (WAL), and is given back after
//! each question, so that the WAL can be moved into the file.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use rusqlite::Connection;
use tokio::sync::Semaphore;

use super::{failed, open_connection};
use crate::QueueError;

/// The readers. Cheap to clone.
#[derive(Clone)]
pub struct Readers(Arc<Pool>);

struct Pool {
    path: PathBuf,
    idle: Mutex<Vec<Connection>>,
    turns: Semaphore,
}

impl Readers {
    /// At most `most` at a time. Opened when they are needed.
    #[must_use]
    pub fn new(path: PathBuf, most: usize) -> Self {
        Self(Arc::new(Pool { path, idle: Mutex::default(), turns: Semaphore::new(most.max(1)) }))
    }

    /// Asks a question on a thread that may block.
    ///
    /// # Errors
    /// [`QueueError::Unavailable`].
    pub async fn read<T, F>(&self, operation: &'static str, question: F) -> Result<T, QueueError>
    where
        F: FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
        T: Send + 'static,
    {
        let _turn = self.0.turns.acquire().await.map_err(|error| QueueError::unavailable(operation, error))?;
        let pool = self.0.clone();
        let asked = tokio::task::spawn_blocking(move || {
            let idle = pool.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
            let db = match idle {
                Some(db) => db,
                None => open_connection(&pool.path, true)?,
            };
            let answer = question(&db).map_err(failed(operation))?;
            pool.idle.lock().unwrap_or_else(PoisonError::into_inner).push(db);
            Ok(answer)
        });
        asked.await.map_err(|error| QueueError::unavailable(operation, error))?
    }

    /// Closes what is idle.
    pub fn close(&self) {
        self.0.idle.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}
