//! Directories that survive a loss of power.
//!
//! Invariant: when these return `Ok`, what they made is on the disk: a new name counts only after the directory that
//! holds it is synced. They block; call them off the async threads.

use std::fs::{DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

/// Syncs the names in a directory.
pub(crate) fn sync_directory(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// Makes a directory and all that is missing above it, for the owner only, and syncs each new name.
pub(crate) fn create_directories(path: &Path) -> io::Result<()> {
    if path.as_os_str().is_empty() || path.is_dir() {
        return Ok(());
    }
    let parent = path.parent().unwrap_or(Path::new(""));
    create_directories(parent)?;
    match DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => {}
        other => other?,
    }
    sync_directory(if parent.as_os_str().is_empty() { Path::new(".") } else { parent })
}

/// Whether an error means that no space is left: the disk is full or a quota is used up.
pub(crate) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directories_are_made_once_and_a_file_is_not_one() {
        let root = tempfile::tempdir().unwrap();
        let deep = root.path().join("a/b/c");
        create_directories(&deep).unwrap();
        create_directories(&deep).unwrap();
        assert!(deep.is_dir());
        std::fs::write(deep.join("file"), b"").unwrap();
        assert!(create_directories(&deep.join("file/d")).is_err());
    }
}
