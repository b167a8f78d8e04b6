//! The node's directory: made when it is missing, private, and held by one node at a time.

use std::fs::File;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};

/// The data directory while this process holds it. Dropping it lets go.
pub struct DataDir {
    path: PathBuf,
    _lock: File,
    _database: Option<File>,
}

/// Where a running node can be reached; `node.json` in the data directory, for tools on the same machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Addresses {
    /// The node's process id.
    pub pid: u32,
    /// The address of the HTTP listener.
    pub http: String,
    /// The address of the gRPC listener; empty when there is none.
    #[serde(default)]
    pub grpc: String,
    /// The address of the metrics listener; empty when there is none.
    pub metrics: String,
    /// The address of the admin listener; the HTTP one unless it has its own.
    pub admin: String,
}

impl DataDir {
    /// Makes the directory if need be and takes hold of it.
    ///
    /// # Errors
    /// When it cannot be made or written, or another node holds it.
    pub fn open(path: &Path) -> Result<Self> {
        use std::os::unix::fs::DirBuilderExt;
        let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path);
        made.with_context(|| format!("the data directory {} cannot be made; node.data_dir names another", path.display()))?;
        let path = path.canonicalize().with_context(|| format!("the data directory {} cannot be opened", path.display()))?;
        let lock = File::options().write(true).create(true).truncate(false).open(path.join("lock"));
        // On a disk that has become read-only a node that ran before can still serve.
        let lock = lock.or_else(|error| File::open(path.join("lock")).map_err(|_| error));
        let lock = lock.with_context(|| format!("the data directory {} is not writable", path.display()))?;
        if flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
            bail!("another node is running on {}; stop it, or give this one its own node.data_dir", path.display());
        }
        Ok(Self { path, _lock: lock, _database: None })
    }

    /// Takes hold of a SQLite ledger that lies elsewhere, too: two nodes on one file would take each other's files for
    /// garbage.
    ///
    /// # Errors
    /// When another node holds it.
    pub fn hold_beside(&mut self, database: &Path) -> Result<()> {
        let mut beside = database.as_os_str().to_owned();
        beside.push(".lock");
        if let Some(parent) = database.parent() {
            std::fs::create_dir_all(parent).with_context(|| format!("the directory {} cannot be made", parent.display()))?;
        }
        let lock =
            File::options().write(true).create(true).truncate(false).open(&beside).or_else(|error| File::open(&beside).map_err(|_| error));
        let lock = lock.with_context(|| format!("{} cannot be locked", database.display()))?;
        if flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
            bail!("another node uses the ledger {}; a ledger that nodes share is a PostgreSQL database", database.display());
        }
        self._database = Some(lock);
        Ok(())
    }

    /// The directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes down where the node can be reached.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn publish(&self, addresses: &Addresses) -> Result<()> {
        let temporary = self.path.join("node.json.new");
        std::fs::write(&temporary, serde_json::to_vec(addresses)?).context("writing node.json")?;
        std::fs::rename(&temporary, self.path.join("node.json")).context("writing node.json")
    }

    /// Takes the address file away: the node ends.
    pub fn unpublish(&self) {
        let _ = std::fs::remove_file(self.path.join("node.json"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_node_at_a_time() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("a/b");
        let held = DataDir::open(&path).unwrap();
        let error = DataDir::open(&path).err().unwrap().to_string();
        assert!(error.starts_with("another node is running"), "{error}");
        drop(held);
        assert!(DataDir::open(&path).is_ok());
    }
}
