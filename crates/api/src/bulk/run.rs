//! One attempt: reading, scoring, writing parts, and from where another attempt goes on.
//!
//! Three stages at once, with bounded queues between them: a thread reads rows, several pieces are scored at a time, and what they give is put together
//! in order. Invariants: a part ends where a piece ends, and a piece has a whole number of batches, so batches are the same whoever
//! interrupts; a checkpoint is reported after its parts are stored; what one attempt wrote behind the last checkpoint, the next writes
//! again, byte for byte.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::FuturesOrdered;
use futures_util::{FutureExt, StreamExt};
use plinth_jobs::JobError;
use plinth_rows::{Checkpoint, Columns, Compression, Format, Limits, Position, Reader, RowsError, Source};
use plinth_types::{Error, Reason, Result, VersionNumber};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use super::score::{Scorer, Written, score};
use super::spec::Spec;
use super::table::Table;

/// Rows of the first part, about; each further part may have as many as all before it.
const FIRST_PART_ROWS: u64 = 4096;
/// Rows of a part, about, at most.
const PART_ROWS: u64 = 65_536;
/// Bytes of a part, about.
const PART_BYTES: usize = 16 << 20;
/// A part that grows slowly ends after so long, or after a fiftieth of the time that the attempt has taken so far.
const PART_TIME: Duration = Duration::from_secs(10);
/// How often progress is told between parts.
const TELL: Duration = Duration::from_secs(2);
/// Rows of a piece, at most.
const PIECE_ROWS: usize = 2048;
/// Bytes of a piece's inputs, at most, about.
const PIECE_BYTES: usize = 4 << 20;
/// A piece that is scored faster than this may be larger.
const QUICK: Duration = Duration::from_millis(100);
/// One that takes longer should be smaller, so that parts end in time.
const SLOW: Duration = Duration::from_secs(1);
/// Pieces that are scored at a time.
const PIECES: usize = 3;

/// A part of the output in the object store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Part {
    /// Its digest.
    pub digest: String,
    /// Its length in bytes.
    pub size: u64,
}

/// How far a run came: its checkpoint, and at its end its result.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub(super) struct State {
    /// Where the reader stood behind the rows of all parts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reader: Option<Checkpoint>,
    /// The version that answers, since the first attempt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<VersionNumber>,
    /// Rows of a batch, since the first attempt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub batch: Option<u32>,
    /// Rows that are written.
    pub rows: u64,
    /// How many of them have an error.
    pub failed: u64,
    /// Bytes that are written.
    pub bytes: u64,
    /// Where they lie, in order.
    pub parts: Vec<Part>,
}

/// What a job gives: its output is the parts, one after another.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Manifest {
    /// Input rows, which is output rows.
    pub rows: u64,
    /// How many of them have an error.
    pub failed: u64,
    /// Bytes of the output.
    pub bytes: u64,
    /// How it is written.
    pub format: Format,
    /// What answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<VersionNumber>,
    /// Where it lies, in order.
    pub parts: Vec<Part>,
}

/// Where parts and checkpoints go.
#[async_trait]
pub(super) trait Journal: Send + Sync {
    /// Stores a part.
    async fn keep(&self, bytes: Bytes) -> Result<Part>;
    /// Says how much is done and, when parts were added, from where to go on.
    ///
    /// # Errors
    /// [`Reason::WorkerLost`] when somebody else does this work now.
    async fn report(&self, done: Option<f64>, state: Option<&State>) -> Result<()>;
    /// A clock that never goes back.
    fn now(&self) -> Duration;
}

/// One attempt.
pub(super) struct Run<'a> {
    pub table: &'a Table,
    /// The input, at its beginning.
    pub file: std::fs::File,
    pub spec: &'a Spec,
    /// How far earlier attempts came.
    pub state: State,
    /// Batches at a time.
    pub concurrency: usize,
}

/// Rows that were read, and where the reader stood behind them.
type Read = Result<(Columns, Checkpoint), RowsError>;

impl Run<'_> {
    /// Runs to the end of the input.
    ///
    /// # Errors
    /// What keeps the run from going on; never that a row is bad.
    pub async fn through<S: Scorer, J: Journal>(self, scorer: &S, journal: &J) -> Result<Manifest, JobError> {
        let Self { table, file, spec, state, concurrency } = self;
        let size = file.metadata().map(|facts| facts.len()).unwrap_or(spec.size);
        let pieces = Pieces::new(table);
        let rows = read(table.clone(), spec, file, state.reader.clone(), pieces.clone());
        let format = spec.output_format;
        let at_a_time = PIECES.max(concurrency.div_ceil((pieces.most / table.batch).max(1)));
        // Scoring goes on while a part is stored.
        let (give, mut take) = mpsc::channel(2 * at_a_time);
        let scoring = async {
            let (mut rows, give) = (rows, give);
            let mut scored = FuturesOrdered::new();
            let mut more = true;
            loop {
                tokio::select! {
                    read = rows.recv(), if more && scored.len() < at_a_time => match read {
                        None => more = false,
                        Some(read) => scored.push_back(piece(table, format, scorer, journal, &pieces, read).boxed()),
                    },
                    Some(piece) = scored.next() => {
                        if give.send(piece?).await.is_err() {
                            break;
                        }
                    }
                    else => break,
                }
            }
            Ok::<_, JobError>(())
        };
        let mut parts = Parts::new(state, size, journal);
        let writing = async {
            while let Some((written, behind)) = take.recv().await {
                parts.add(written, behind).await?;
            }
            parts.cut(true).await
        };
        tokio::try_join!(scoring, writing)?;
        let State { rows, failed, bytes, parts, version, .. } = parts.state;
        Ok(Manifest { rows, failed, bytes, format, version, parts })
    }
}

/// One piece, scored and written down, and where the reader stood behind it.
async fn piece<S: Scorer, J: Journal>(
    table: &Table,
    format: Format,
    scorer: &S,
    journal: &J,
    pieces: &Pieces,
    read: Read,
) -> Result<(Written, Checkpoint), JobError> {
    let (columns, behind) = read.map_err(unreadable)?;
    let begun = journal.now();
    let written = score(table, format, scorer, columns).await?;
    pieces.took(journal.now().saturating_sub(begun));
    Ok((written, behind))
}

/// What cannot be read is not read better next time, except when the disk failed.
pub(super) fn unreadable(error: RowsError) -> JobError {
    match error {
        RowsError::Read(error) if error.kind() != std::io::ErrorKind::InvalidData => {
            JobError::from(Error::new(Reason::StoreUnavailable, "the file cannot be read").source(error))
        }
        other => JobError::Dead(Error::new(Reason::InvalidRow, other.to_string()).field("file")),
    }
}

/// How many rows are read at once: a whole number of batches that grows while it is scored quickly.
#[derive(Clone)]
struct Pieces {
    now: Arc<AtomicUsize>,
    batch: usize,
    most: usize,
}

impl Pieces {
    fn new(table: &Table) -> Self {
        let batches = PIECE_ROWS.min(PIECE_BYTES / table.row_bytes().max(1)) / table.batch;
        Self { now: Arc::new(AtomicUsize::new(table.batch)), batch: table.batch, most: table.batch * batches.max(1) }
    }

    fn rows(&self) -> usize {
        self.now.load(Ordering::Relaxed)
    }

    fn took(&self, time: Duration) {
        let now = self.rows() / self.batch;
        let next = match time {
            quick if quick < QUICK => (now * 2).min(self.most / self.batch),
            slow if slow > SLOW => (now / 2).max(1),
            _ => now,
        };
        self.now.store(next * self.batch, Ordering::Relaxed);
    }
}

/// Reads on a thread of its own; it ends when nobody takes rows any more.
fn read(table: Table, spec: &Spec, file: std::fs::File, at: Option<Checkpoint>, pieces: Pieces) -> mpsc::Receiver<Read> {
    let (give, take) = mpsc::channel(2);
    let (format, compression) = (spec.format, spec.compression);
    tokio::task::spawn_blocking(move || {
        let end = |error| drop(give.blocking_send(Err(error)));
        let (source, limits) = (Source::seek(file), Limits::default());
        let opened = match &at {
            None => Reader::open(source, format, compression, limits),
            Some(at) => Reader::resume(source, at, limits),
        };
        let mut reader = match opened {
            Ok(reader) => reader,
            Err(error) => return end(error),
        };
        let columns = table.columns_of(reader.column_names().as_deref());
        loop {
            match reader.read_columns(&columns, pieces.rows()) {
                Ok(None) => return,
                Ok(Some(rows)) => {
                    if give.blocking_send(Ok((rows, reader.checkpoint()))).is_err() {
                        return;
                    }
                }
                Err(error) => return end(error),
            }
        }
    });
    take
}

/// Puts pieces together to parts.
struct Parts<'a, J> {
    state: State,
    journal: &'a J,
    /// Bytes of the input.
    size: u64,
    /// The part that grows.
    open: Written,
    behind: Option<Checkpoint>,
    begun: Duration,
    cut_at: Duration,
    told_at: Duration,
}

impl<'a, J: Journal> Parts<'a, J> {
    fn new(state: State, size: u64, journal: &'a J) -> Self {
        let now = journal.now();
        Self { state, journal, size, open: Written::default(), behind: None, begun: now, cut_at: now, told_at: now }
    }

    async fn add(&mut self, piece: Written, behind: Checkpoint) -> Result<(), JobError> {
        self.open.rows += piece.rows;
        self.open.failed += piece.failed;
        self.open.bytes.extend_from_slice(&piece.bytes);
        self.behind = Some(behind);
        let now = self.journal.now();
        let patience = PART_TIME.max(now.saturating_sub(self.begun) / 50);
        let most = self.state.rows.clamp(FIRST_PART_ROWS, PART_ROWS);
        if self.open.rows >= most || self.open.bytes.len() >= PART_BYTES || now.saturating_sub(self.cut_at) >= patience {
            return self.cut(false).await;
        }
        if now.saturating_sub(self.told_at) >= TELL {
            self.told_at = now;
            self.journal.report(self.done(), None).await.map_err(stop)?;
        }
        Ok(())
    }

    /// Ends the part that grows.
    async fn cut(&mut self, last: bool) -> Result<(), JobError> {
        let Written { rows, failed, bytes } = std::mem::take(&mut self.open);
        if rows == 0 && !(last && self.state.parts.is_empty() && !bytes.is_empty()) {
            return Ok(());
        }
        let part = self.journal.keep(bytes.into()).await?;
        self.state.rows += rows;
        self.state.failed += failed;
        self.state.bytes += part.size;
        self.state.parts.push(part);
        self.state.reader.clone_from(&self.behind);
        self.journal.report(self.done(), Some(&self.state)).await.map_err(stop)?;
        let now = self.journal.now();
        (self.cut_at, self.told_at) = (now, now);
        Ok(())
    }

    /// How much of the input is read, where its place says so.
    fn done(&self) -> Option<f64> {
        let behind = self.behind.as_ref()?;
        match (behind.position, behind.compression) {
            (Position::Text { offset, .. }, Compression::None) => Some(offset as f64 / self.size.max(1) as f64),
            _ => None,
        }
    }
}

/// A job that is another's is stopped, not failed.
pub(super) fn stop(error: Error) -> JobError {
    if error.reason() == Reason::WorkerLost { JobError::Cancelled } else { error.into() }
}

#[cfg(test)]
#[path = "run/tests.rs"]
mod tests;
