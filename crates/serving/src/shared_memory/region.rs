//! One region: an open file of the shared-memory file system, and the part of it that was registered.
//!
//! Invariant: reads and writes stay inside that part, whatever a request states, and a file that became shorter is an error
//! and is not made longer again.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

use plinth_types::{Error, Reason, Result};

use super::RegionStatus;

/// A registered region.
#[derive(Debug)]
pub struct Region {
    name: String,
    key: String,
    offset: u64,
    byte_size: u64,
    file: File,
}

pub(super) fn cannot_register(name: &str, why: &str) -> Error {
    Error::new(Reason::InvalidSharedMemory, format!("failed to register shared memory region '{name}': invalid args: {why}"))
}

impl Region {
    pub(super) fn open(path: &Path, name: &str, key: &str, offset: u64, byte_size: u64) -> Result<Self> {
        let refuse = |why: &str| cannot_register(name, why);
        let end = offset.checked_add(byte_size).filter(|end| i64::try_from(*end).is_ok());
        let Some(end) = end.filter(|_| byte_size > 0) else {
            return Err(
                refuse("byte_size is at least 1, and offset and byte_size together are a size that a file can have").field("byte_size")
            );
        };
        // A link would lead elsewhere, and opening a pipe would wait for its other end.
        let flags = rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK | rustix::fs::OFlags::CLOEXEC;
        let flags = i32::try_from(flags.bits()).map_err(|e| Error::internal("flags of open").source(e))?;
        let file = OpenOptions::new().read(true).write(true).custom_flags(flags).open(path).map_err(|e| {
            let why = match e.kind() {
                io::ErrorKind::NotFound => "there is no shared memory object with this key on the server's machine",
                io::ErrorKind::PermissionDenied => "the server may not read and write this shared memory object",
                _ => "the shared memory object cannot be opened",
            };
            refuse(why).field("key").source(e)
        })?;
        let metadata = file.metadata().map_err(|e| refuse("the shared memory object cannot be looked at").source(e))?;
        if !metadata.is_file() {
            return Err(refuse("the key does not name a shared memory object").field("key"));
        }
        // Root may open everything; what the owner keeps to himself stays his all the same.
        let for_all = metadata.mode() & 0o006 == 0o006;
        if metadata.uid() != rustix::process::geteuid().as_raw() && !for_all {
            return Err(refuse("the shared memory object belongs to another user and is not open to all").field("key"));
        }
        if metadata.len() < end {
            let text = format!("offset {offset} and byte_size {byte_size} reach beyond its {} bytes", metadata.len());
            return Err(refuse(&text).field("byte_size"));
        }
        Ok(Self { name: name.to_owned(), key: key.to_owned(), offset, byte_size, file })
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn status(&self) -> RegionStatus {
        RegionStatus { name: self.name.clone(), key: self.key.clone(), offset: self.offset, byte_size: self.byte_size }
    }

    /// Checks that `byte_size` bytes from `offset` on lie in the region.
    ///
    /// # Errors
    /// [`Reason::InvalidSharedMemory`].
    pub fn check(&self, offset: u64, byte_size: u64) -> Result<()> {
        self.place(offset, byte_size).map(drop)
    }

    /// Where in the file they are.
    fn place(&self, offset: u64, byte_size: u64) -> Result<u64> {
        let name = &self.name;
        let refuse = |text: String| Error::new(Reason::InvalidSharedMemory, text);
        if offset > self.byte_size {
            let text = format!("Invalid offset for shared memory region: '{name}': {offset} lies beyond its {} bytes", self.byte_size);
            return Err(refuse(text));
        }
        if offset.checked_add(byte_size).is_none_or(|end| end > self.byte_size) {
            let text = format!(
                "Invalid offset + byte size for shared memory region: '{name}': {byte_size} bytes from {offset} on reach beyond its {} bytes",
                self.byte_size
            );
            return Err(refuse(text));
        }
        // The sum of the registered offset and size is a size that a file can have.
        Ok(self.offset.saturating_add(offset))
    }

    /// Fills `buffer` with the region's bytes from `offset` on. What another process writes meanwhile may be seen in part.
    ///
    /// # Errors
    /// [`Reason::InvalidSharedMemory`] when they do not lie in the region, or the file became shorter.
    pub fn read(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        let at = self.place(offset, buffer.len() as u64)?;
        self.file.read_exact_at(buffer, at).map_err(|e| self.broken(e))
    }

    /// Writes `bytes` into the region from `offset` on.
    ///
    /// # Errors
    /// [`Reason::InvalidSharedMemory`] when they do not fit into the region, or the file became shorter.
    pub fn write(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        let at = self.place(offset, bytes.len() as u64)?;
        // Writing past the end would make the file longer again.
        let length = self.file.metadata().map_err(|e| self.broken(e))?.len();
        if length < at.saturating_add(bytes.len() as u64) {
            return Err(self.broken(io::ErrorKind::UnexpectedEof.into()));
        }
        self.file.write_all_at(bytes, at).map_err(|e| self.broken(e))
    }

    fn broken(&self, error: io::Error) -> Error {
        let what = match error.kind() {
            io::ErrorKind::UnexpectedEof => "is shorter than when it was registered; register it anew",
            io::ErrorKind::StorageFull => "has no memory behind it: the shared-memory file system is full",
            _ => "cannot be used any more; register it anew",
        };
        Error::new(Reason::InvalidSharedMemory, format!("shared memory region '{}' {what}", self.name)).source(error)
    }
}
