//! The file in which `plinth login` keeps API keys, one for each node.
//!
//! Invariants: mode 0600, replaced in one step; a key is handed only to the node that it was kept for.

use std::collections::BTreeMap;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use plinth_client::Secret;
use serde::{Deserialize, Serialize};

use crate::exit::{Exit, Failure};
use crate::files;

const MAX_BYTES: u64 = 1 << 20;

/// The file, whether it exists or not.
pub struct Credentials {
    path: PathBuf,
}

#[derive(Default, Serialize, Deserialize)]
#[serde(transparent)]
struct Content(BTreeMap<String, Entry>);

#[derive(Serialize, Deserialize)]
struct Entry {
    key: String,
}

impl Credentials {
    pub const fn at(path: PathBuf) -> Self {
        Self { path }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    fn load(&self) -> Result<Content, Failure> {
        let mode = match self.path.metadata() {
            Ok(meta) => meta.mode(),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Content::default()),
            Err(e) => return Err(Failure::new(Exit::Failed, format!("'{}' cannot be read: {e}", self.path.display()))),
        };
        if mode & 0o077 != 0 {
            let message = format!("'{}' can be read by other users, so no key is taken from it", self.path.display());
            return Err(Failure::new(Exit::Failed, message).next(format!("chmod 600 '{}'", self.path.display())));
        }
        let text = files::read_text(&self.path, MAX_BYTES)?;
        toml::from_str(&text).map_err(|_| {
            // The parser's own words would repeat the line, and with it the key.
            Failure::new(Exit::Failed, format!("'{}' is not what `plinth login` writes", self.path.display()))
                .next("delete it and log in again")
        })
    }

    /// The key for a node.
    pub fn get(&self, server: &str) -> Result<Option<Secret>, Failure> {
        Ok(self.load()?.0.remove(server).map(|entry| Secret::new(entry.key)))
    }

    /// Keeps a key for a node.
    pub fn set(&self, server: &str, key: &Secret) -> Result<(), Failure> {
        let mut content = self.load()?;
        content.0.insert(server.to_owned(), Entry { key: key.expose().trim().to_owned() });
        self.store(&content)
    }

    /// Forgets the key for a node; says whether there was one.
    pub fn remove(&self, server: &str) -> Result<bool, Failure> {
        let mut content = self.load()?;
        if content.0.remove(server).is_none() {
            return Ok(false);
        }
        self.store(&content).map(|()| true)
    }

    fn store(&self, content: &Content) -> Result<(), Failure> {
        let failed = |e: &dyn std::fmt::Display| Failure::new(Exit::Failed, format!("'{}' cannot be written: {e}", self.path.display()));
        if let Some(parent) = self.path.parent() {
            std::fs::DirBuilder::new().recursive(true).mode(0o700).create(parent).map_err(|e| failed(&e))?;
        }
        let text = toml::to_string(content).map_err(|e| failed(&e))?;
        files::replace(&self.path, text.as_bytes(), 0o600)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn keys_are_kept_by_node_and_nobody_else_can_read_them() {
        let root = tempfile::tempdir().unwrap();
        let file = Credentials::at(root.path().join("plinth/credentials.toml"));
        assert_eq!(file.get("http://a:1").unwrap(), None);
        file.set("http://a:1", &Secret::new("ka")).unwrap();
        file.set("http://b:1", &Secret::new("kb")).unwrap();
        assert_eq!(file.get("http://a:1").unwrap(), Some(Secret::new("ka")));
        assert_eq!(file.get("http://a:2").unwrap(), None);
        assert!(file.remove("http://a:1").unwrap());
        assert!(!file.remove("http://a:1").unwrap());
        assert_eq!(file.path().metadata().unwrap().mode() & 0o777, 0o600);
        std::fs::set_permissions(file.path(), std::fs::Permissions::from_mode(0o644)).unwrap();
        assert!(file.get("http://b:1").unwrap_err().next[0].starts_with("chmod 600"));
    }

    #[test]
    fn a_damaged_file_does_not_show_its_keys() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("c.toml");
        files::create(&path, b"[\"http://a\"]\nkey = pk_secret", 0o600).unwrap();
        let failure = Credentials::at(path).get("http://a").unwrap_err();
        assert!(!format!("{failure:?}").contains("pk_secret"));
    }
}
