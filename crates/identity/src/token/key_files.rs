//! Keys of issuers in files, one for each issuer: `<directory>/<name>.json`.

use std::io;
use std::path::PathBuf;

use plinth_types::Label;

use crate::files;

use super::{KeyStore, MAX_DOCUMENT};

/// Keeps keys in a directory of its own.
#[derive(Debug, Clone)]
pub struct KeyFiles {
    directory: PathBuf,
}

impl KeyFiles {
    /// In this directory, which is made when something is kept.
    #[must_use]
    pub const fn new(directory: PathBuf) -> Self {
        Self { directory }
    }

    /// A label is one part of a path, by its alphabet.
    fn path(&self, issuer: &Label) -> PathBuf {
        self.directory.join(format!("{issuer}.json"))
    }
}

impl KeyStore for KeyFiles {
    fn load(&self, issuer: &Label) -> io::Result<Option<Vec<u8>>> {
        let path = self.path(issuer);
        match std::fs::metadata(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
            // Text in JSON takes at most twice its length here: keys are base64.
            Ok(found) if found.len() > 4 * MAX_DOCUMENT as u64 => Err(io::Error::other("the file is too large to be one of ours")),
            Ok(_) => std::fs::read(path).map(Some),
        }
    }

    fn save(&self, issuer: &Label, bytes: &[u8]) -> io::Result<()> {
        files::make_directory(&self.directory)?;
        files::replace(&self.path(issuer), bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_kept_last_is_there() {
        let root = tempfile::tempdir().unwrap();
        let files = KeyFiles::new(root.path().join("issuers"));
        let name: Label = "corp".parse().unwrap();
        assert!(files.load(&name).unwrap().is_none());
        files.save(&name, b"one").unwrap();
        files.save(&name, b"two").unwrap();
        assert_eq!(files.load(&name).unwrap().unwrap(), b"two");
        assert_eq!(std::fs::read_dir(root.path().join("issuers")).unwrap().count(), 1);
    }
}
