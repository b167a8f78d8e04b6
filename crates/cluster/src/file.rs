//! The snapshot on disk: complete, versioned, checksummed, replaced atomically.
//!
//! Format: one line of JSON, the header (`format`, `revision`, `checked_at`, `sha256` and `length` of the body),
//! a line feed, and the body as JSON. Invariant: a reader sees the old file or the new one, never a
//! part of either; a file whose body does not have the announced digest is refused, not repaired.

use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::path::{Path, PathBuf};

use plinth_runtime::{CrashPoint, CrashPoints};
use plinth_types::{Digest, Timestamp};
use serde::{Deserialize, Serialize};

use crate::Snapshot;

/// The format that this release writes, and the newest that it reads.
const FORMAT: u32 = 1;
/// No snapshot is larger; a larger file is damaged or hostile.
const MAX_BYTES: u64 = 1 << 30;

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

/// The place of the snapshot in the data directory.
#[derive(Clone)]
pub struct SnapshotFile {
    directory: PathBuf,
    crash: CrashPoints,
}

impl SnapshotFile {
    /// The snapshot of the node whose data lies in `directory`.
    #[must_use]
    pub const fn new(directory: PathBuf, crash: CrashPoints) -> Self {
        Self { directory, crash }
    }

    fn path(&self) -> PathBuf {
        self.directory.join("snapshot.json")
    }

    /// Reads the snapshot and when it was last known to be current; `None` when there is none. Blocking.
    ///
    /// # Errors
    /// See [`SnapshotFileError`].
    pub fn load(&self) -> Result<Option<(Snapshot, Timestamp)>, SnapshotFileError> {
        let file = match File::open(self.path()) {
            Ok(file) => file,
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(SnapshotFileError::Io { operation: "opening", source }),
        };
        let mut bytes = Vec::new();
        file.take(MAX_BYTES).read_to_end(&mut bytes).map_err(|source| SnapshotFileError::Io { operation: "reading", source })?;
        decode(&bytes).map(Some)
    }

    /// Moves a damaged snapshot out of the way, so that it can be looked at. Blocking.
    ///
    /// # Errors
    /// [`SnapshotFileError::Io`].
    pub fn set_aside(&self) -> Result<(), SnapshotFileError> {
        let aside = self.directory.join("snapshot.json.damaged");
        std::fs::rename(self.path(), aside).map_err(|source| SnapshotFileError::Io { operation: "setting aside", source })
    }

    /// Replaces the snapshot. Blocking. When it returns `Ok` the new one is on disk for good.
    ///
    /// # Errors
    /// [`SnapshotFileError::Io`]; the old one is still whole then.
    pub fn store(&self, snapshot: &Snapshot, checked_at: Timestamp) -> Result<(), SnapshotFileError> {
        let bytes = encode(snapshot, checked_at)?;
        let temporary = self.directory.join("snapshot.json.new");
        let io = |operation| move |source| SnapshotFileError::Io { operation, source };
        write_synced(&temporary, &bytes).map_err(io("writing"))?;
        self.crash.reach(CrashPoint::SnapshotWritten);
        std::fs::rename(&temporary, self.path()).map_err(io("renaming"))?;
        self.crash.reach(CrashPoint::SnapshotRenamed);
        File::open(&self.directory).and_then(|d| d.sync_all()).map_err(io("syncing the directory of"))
    }
}

/// Keys' hashes are inside: readable by the owner alone.
fn write_synced(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    use std::os::unix::fs::OpenOptionsExt;
    let mut file = File::options().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

fn encode(snapshot: &Snapshot, checked_at: Timestamp) -> Result<Vec<u8>, SnapshotFileError> {
    let json = |e: serde_json::Error| SnapshotFileError::Io { operation: "encoding", source: e.into() };
    let body = serde_json::to_vec(snapshot).map_err(json)?;
    let header = Header { format: FORMAT, revision: snapshot.revision.0, checked_at, sha256: Digest::of(&body), length: body.len() as u64 };
    let mut bytes = serde_json::to_vec(&header).map_err(json)?;
    bytes.push(b'\n');
    bytes.extend_from_slice(&body);
    Ok(bytes)
}

fn decode(bytes: &[u8]) -> Result<(Snapshot, Timestamp), SnapshotFileError> {
    let line = bytes.iter().position(|b| *b == b'\n').ok_or(SnapshotFileError::Damaged("no header"))?;
    let (header, body) = (&bytes[..line], &bytes[line + 1..]);
    #[derive(Deserialize)]
    struct FormatOnly {
        format: u32,
    }
    let FormatOnly { format } = serde_json::from_slice(header).map_err(|_| SnapshotFileError::Damaged("no header"))?;
    if format > FORMAT {
        return Err(SnapshotFileError::TooNew(format));
    }
    let header: Header = serde_json::from_slice(header).map_err(|_| SnapshotFileError::Damaged("bad header"))?;
    if header.length != body.len() as u64 || header.sha256 != Digest::of(body) {
        return Err(SnapshotFileError::Damaged("its checksum does not fit"));
    }
    let snapshot: Snapshot = serde_json::from_slice(body).map_err(|_| SnapshotFileError::Damaged("its body cannot be read"))?;
    if snapshot.revision.0 != header.revision {
        return Err(SnapshotFileError::Damaged("header and body name different revisions"));
    }
    Ok((snapshot, header.checked_at))
}

#[cfg(test)]
mod tests {
    use super::*;
    use plinth_store::metadata::Revision;

    fn snapshot(revision: u64) -> Snapshot {
        Snapshot { revision: Revision(revision), ..Snapshot::default() }
    }

    fn at(millis: u64) -> Timestamp {
        Timestamp::from_millis(millis).unwrap()
    }

    #[test]
    fn what_is_stored_is_loaded_and_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let file = SnapshotFile::new(directory.path().into(), CrashPoints::none());
        assert!(file.load().unwrap().is_none());
        for revision in [1, 2] {
            file.store(&snapshot(revision), at(revision)).unwrap();
            assert_eq!(file.load().unwrap(), Some((snapshot(revision), at(revision))));
        }
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1, "no temporary file stays");
    }

    #[test]
    fn every_changed_byte_and_every_cut_is_found() {
        let bytes = encode(&snapshot(7), at(1)).unwrap();
        assert!(decode(&bytes).is_ok());
        let body = bytes.iter().position(|b| *b == b'\n').unwrap() + 1;
        for i in body..bytes.len() {
            let mut changed = bytes.clone();
            changed[i] ^= 1;
            assert!(decode(&changed).is_err(), "byte {i}");
        }
        for length in 0..bytes.len() {
            assert!(decode(&bytes[..length]).is_err(), "cut at {length}");
        }
    }

    #[test]
    fn a_newer_format_is_refused_by_name() {
        let text = br#"{"format":2,"something":"else"}
{}"#;
        assert!(matches!(decode(text), Err(SnapshotFileError::TooNew(2))));
    }
}
