//! The snapshot on disk: complete, versioned, checksummed, replaced atomically.
//!
//! Format of `snapshot.json`: one line of JSON, the header (`format`, `revision`, `checked_at`, `sha256` and `length` of the
//! body, then spaces), a line feed, and the body as JSON. Invariant: a reader sees the old file or the new one, never a
//! part of either; a file whose body does not have the announced digest is refused, not repaired.
//!
//! A large snapshot is not written anew for each commit: the commits are put behind it (`journal`), until they are half as
//! long as it is. What is written each interval is then one line and not the whole, so the work of an interval does not
//! grow with what there is.

mod journal;

use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, ErrorKind, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use plinth_runtime::{CrashPoint, CrashPoints};
use plinth_store::metadata::AuditEntry;
use plinth_types::{Digest, DigestHasher, Timestamp};
use serde::{Deserialize, Serialize};

use crate::Snapshot;
use journal::Journal;

/// The format that this release writes, and the newest that it reads.
const FORMAT: u32 = 1;
/// No snapshot is larger; a larger file is damaged or hostile.
const MAX_BYTES: u64 = 4 << 30;
/// The header with the spaces behind it, without the line feed: it is written last, when the digest is known.
const HEADER: usize = 255;
/// The longest header that is read.
const MAX_HEADER: u64 = 4 << 10;
/// A body up to this length is always written whole.
const SMALL: u64 = 1 << 20;

#[derive(Serialize, Deserialize)]
struct Header {
    format: u32,
    revision: u64,
    checked_at: Timestamp,
    sha256: Digest,
    length: u64,
}

/// Why a snapshot could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotFileError {
    /// The file system refused.
    #[error("{operation} the snapshot file")]
    Io {
        /// What was being done.
        operation: &'static str,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// The file was cut, changed or never was a snapshot.
    #[error("the snapshot file is damaged ({0}); delete it and start the node while its database can be reached")]
    Damaged(&'static str),
    /// A newer release wrote it.
    #[error("the snapshot file has format {0}, this release reads up to {FORMAT}; run the newer release")]
    TooNew(u32),
}

/// A snapshot as it was found on disk.
#[derive(Debug)]
pub struct Stored {
    /// The snapshot.
    pub snapshot: Snapshot,
    /// When it was last known to be current.
    pub checked_at: Timestamp,
    /// What lies on disk, when more can be put behind it.
    pub disk: Option<OnDisk>,
}

/// What lies on disk.
#[derive(Debug)]
pub struct OnDisk {
    /// The length of the file's body.
    length: u64,
    journal: Journal,
}

/// The place of the snapshot in the data directory.
#[derive(Clone)]
pub struct SnapshotFile {
    directory: PathBuf,
    crash: CrashPoints,
    small: u64,
}

impl SnapshotFile {
    /// The snapshot of the node whose data lies in `directory`.
    #[must_use]
    pub const fn new(directory: PathBuf, crash: CrashPoints) -> Self {
        Self { directory, crash, small: SMALL }
    }

    /// The same with another length up to which the snapshot is always written whole; for tests.
    #[must_use]
    pub const fn small(mut self, bytes: u64) -> Self {
        self.small = bytes;
        self
    }

    fn path(&self) -> PathBuf {
        self.directory.join("snapshot.json")
    }

    fn journal_path(&self) -> PathBuf {
        self.directory.join("snapshot.journal")
    }

    /// Reads the snapshot; `None` when there is none. Blocking.
    ///
    /// # Errors
    /// See [`SnapshotFileError`].
    pub fn load(&self) -> Result<Option<Stored>, SnapshotFileError> {
        let file = match File::open(self.path()) {
            Ok(file) => file,
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(SnapshotFileError::Io { operation: "opening", source }),
        };
        let (mut snapshot, header) = decode(BufReader::with_capacity(64 << 10, file.take(MAX_BYTES)))?;
        let (journal, checked_at) = journal::follow(&self.journal_path(), &header.sha256, &mut snapshot)?;
        let disk = Some(OnDisk { length: header.length, journal });
        Ok(Some(Stored { snapshot, checked_at: checked_at.unwrap_or(header.checked_at), disk }))
    }

    /// Moves a damaged snapshot out of the way, so that it can be looked at. Blocking.
    ///
    /// # Errors
    /// [`SnapshotFileError::Io`].
    pub fn set_aside(&self) -> Result<(), SnapshotFileError> {
        let io = |source| SnapshotFileError::Io { operation: "setting aside", source };
        std::fs::rename(self.path(), self.directory.join("snapshot.json.damaged")).map_err(io)?;
        match std::fs::rename(self.journal_path(), self.directory.join("snapshot.journal.damaged")) {
            Err(e) if e.kind() != ErrorKind::NotFound => Err(io(e)),
            _ => Ok(()),
        }
    }

    /// Keeps a snapshot that `disk` followed by `commits` leads to: by putting them behind it, or by writing it whole.
    /// Blocking. When it returns `Ok` it is on disk for good.
    ///
    /// # Errors
    /// [`SnapshotFileError::Io`]; what was there is still whole then.
    pub fn keep(
        &self,
        snapshot: &Snapshot,
        disk: Option<OnDisk>,
        commits: &[AuditEntry],
        checked_at: Timestamp,
    ) -> Result<Option<OnDisk>, SnapshotFileError> {
        if let Some(mut disk) = disk.filter(|disk| disk.length > self.small) {
            let most = disk.length / 2;
            if disk.journal.append(&self.journal_path(), commits, checked_at, most)? {
                return Ok(Some(disk));
            }
        }
        self.store(snapshot, checked_at).map(Some)
    }

    /// Replaces the snapshot. Blocking. When it returns `Ok` the new one is on disk for good.
    ///
    /// # Errors
    /// [`SnapshotFileError::Io`]; the old one is still whole then.
    pub fn store(&self, snapshot: &Snapshot, checked_at: Timestamp) -> Result<OnDisk, SnapshotFileError> {
        let temporary = self.directory.join("snapshot.json.new");
        let io = |operation| move |source| SnapshotFileError::Io { operation, source };
        let header = write_synced(&temporary, snapshot, checked_at).map_err(io("writing"))?;
        self.crash.reach(CrashPoint::SnapshotWritten);
        std::fs::rename(&temporary, self.path()).map_err(io("renaming"))?;
        self.crash.reach(CrashPoint::SnapshotRenamed);
        // What lies behind the old one does not belong to the new one, and says so itself should it stay.
        let journal = Journal::new(header.sha256);
        match std::fs::remove_file(self.journal_path()) {
            Err(e) if e.kind() != ErrorKind::NotFound => return Err(io("removing the journal of")(e)),
            _ => {}
        }
        File::open(&self.directory).and_then(|d| d.sync_all()).map_err(io("syncing the directory of"))?;
        Ok(OnDisk { length: header.length, journal })
    }
}

/// Keys' hashes are inside: readable by the owner alone.
fn options() -> std::fs::OpenOptions {
    use std::os::unix::fs::OpenOptionsExt;
    let mut options = File::options();
    options.create(true).mode(0o600);
    options
}

fn write_synced(path: &Path, snapshot: &Snapshot, checked_at: Timestamp) -> std::io::Result<Header> {
    let mut file = options().write(true).truncate(true).open(path)?;
    file.write_all(&[b' '; HEADER])?;
    file.write_all(b"\n")?;
    let body = Body { inner: &file, hasher: DigestHasher::new(), length: 0 };
    // Written in large pieces under the hash: the writer of JSON gives single words.
    let mut pieces = BufWriter::with_capacity(64 << 10, body);
    serde_json::to_writer(&mut pieces, snapshot)?;
    let Body { hasher, length, .. } = pieces.into_inner().map_err(std::io::IntoInnerError::into_error)?;
    let header = Header { format: FORMAT, revision: snapshot.revision.0, checked_at, sha256: hasher.finish(), length };
    let text = serde_json::to_vec(&header)?;
    if text.len() > HEADER {
        return Err(std::io::Error::other("the header is longer than its place"));
    }
    file.seek(SeekFrom::Start(0))?;
    file.write_all(&text)?;
    file.sync_all()?;
    Ok(header)
}

/// Counts and hashes what passes.
struct Body<T> {
    inner: T,
    hasher: DigestHasher,
    length: u64,
}

impl<T> Body<T> {
    fn count(&mut self, bytes: &[u8]) {
        self.hasher.update(bytes);
        self.length += bytes.len() as u64;
    }
}

impl<T: Write> Write for Body<T> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        // Whole pieces are hashed once, also when the inner writer takes them in parts.
        self.inner.write_all(bytes)?;
        self.count(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.inner.flush()
    }
}

impl<T: Read> Read for Body<T> {
    fn read(&mut self, bytes: &mut [u8]) -> std::io::Result<usize> {
        let read = self.inner.read(bytes)?;
        self.count(bytes.get(..read).unwrap_or_default());
        Ok(read)
    }
}

fn decode(mut source: impl BufRead) -> Result<(Snapshot, Header), SnapshotFileError> {
    let reading = |source| SnapshotFileError::Io { operation: "reading", source };
    let mut line = Vec::new();
    source.by_ref().take(MAX_HEADER).read_until(b'\n', &mut line).map_err(reading)?;
    if line.pop() != Some(b'\n') {
        return Err(SnapshotFileError::Damaged("no header"));
    }
    #[derive(Deserialize)]
    struct FormatOnly {
        format: u32,
    }
    let FormatOnly { format } = serde_json::from_slice(&line).map_err(|_| SnapshotFileError::Damaged("no header"))?;
    if format > FORMAT {
        return Err(SnapshotFileError::TooNew(format));
    }
    let header: Header = serde_json::from_slice(&line).map_err(|_| SnapshotFileError::Damaged("bad header"))?;
    // Read in large pieces under the hash: the reader of JSON asks for single bytes.
    let mut body = BufReader::with_capacity(64 << 10, Body { inner: source, hasher: DigestHasher::new(), length: 0 });
    let snapshot: Result<Snapshot, _> = serde_json::from_reader(&mut body);
    std::io::copy(&mut body, &mut std::io::sink()).map_err(reading)?;
    let Body { hasher, length, .. } = body.into_inner();
    if header.length != length || header.sha256 != hasher.finish() {
        return Err(SnapshotFileError::Damaged("its checksum does not fit"));
    }
    let snapshot = snapshot.map_err(|_| SnapshotFileError::Damaged("its body cannot be read"))?;
    if snapshot.revision.0 != header.revision {
        return Err(SnapshotFileError::Damaged("header and body name different revisions"));
    }
    Ok((snapshot, header))
}

#[cfg(test)]
mod tests;
