//! An object on its way in: a temporary file that is gone when this value is dropped before it was stored.
//!
//! Everything here blocks. The value moves to a blocking thread and back with each batch, so that a cancelled `put`
//! drops it wherever it is and the file goes with it.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use plinth_runtime::{CrashPoint, crash::CrashPoints};
use plinth_types::{Digest, DigestHasher};

use crate::durable;

/// How many bytes go to the disk at once.
const BATCH_BYTES: usize = 1 << 20;
/// How many pieces at most; a body in tiny pieces would otherwise cost more for the list of them than for the bytes.
const BATCH_PIECES: usize = 4096;

/// Pieces of a body that go to the disk together.
#[derive(Default)]
pub(super) struct Batch {
    pieces: Vec<Bytes>,
    bytes: usize,
}

impl Batch {
    pub(super) fn push(&mut self, piece: Bytes) {
        self.bytes = self.bytes.saturating_add(piece.len());
        self.pieces.push(piece);
    }

    pub(super) const fn is_full(&self) -> bool {
        self.bytes >= BATCH_BYTES || self.pieces.len() >= BATCH_PIECES
    }
}

/// An object on its way in.
pub(super) struct Upload {
    file: File,
    hasher: DigestHasher,
    temporary: Temporary,
}

/// The name of a temporary file; removes it unless the file was renamed.
struct Temporary {
    path: PathBuf,
    renamed: bool,
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if self.renamed {
            return;
        }
        if let Err(error) = fs::remove_file(&self.path) {
            tracing::warn!(%error, "a temporary file was left behind; the next start sweeps it");
        }
    }
}

impl Upload {
    pub(super) fn begin(path: PathBuf) -> io::Result<Self> {
        let file = File::options().write(true).create_new(true).mode(0o600).open(&path)?;
        Ok(Self { file, hasher: DigestHasher::new(), temporary: Temporary { path, renamed: false } })
    }

    pub(super) fn write(mut self, batch: Batch) -> io::Result<Self> {
        for piece in batch.pieces {
            self.hasher.update(&piece);
            self.file.write_all(&piece)?;
        }
        Ok(self)
    }

    /// The digest of everything written so far.
    pub(super) fn digest(&self) -> Digest {
        self.hasher.clone().finish()
    }

    /// Gives the file its final name, durably. The caller has checked what is in it.
    pub(super) fn store(mut self, path: &Path, crash: &CrashPoints) -> io::Result<()> {
        crash.reach(CrashPoint::PushBlobWritten);
        self.file.sync_all()?;
        crash.reach(CrashPoint::PushBlobSynced);
        fs::rename(&self.temporary.path, path)?;
        self.temporary.renamed = true;
        crash.reach(CrashPoint::PushBlobRenamed);
        durable::sync_directory(path.parent().unwrap_or(Path::new(".")))
    }
}
