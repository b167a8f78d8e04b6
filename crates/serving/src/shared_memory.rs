//! Regions of POSIX shared memory that clients on this machine register, to place tensors in them.
//!
//! A region is an open file, read and written at positions and never mapped: a client that shortens its file gets an error,
//! where a mapping would end the node with SIGBUS. Invariants: a tenant sees its own regions only; what is opened is a
//! regular file directly in the shared-memory file system, under a checked name and without following links, and is not
//! opened by the power of root alone; a request reads and writes inside what was registered. A region that is unregistered
//! lives on until the last request that found it has ended. How requests name regions is left to `api`.

mod key;
mod region;

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use plinth_types::{Error, Reason, Result, TenantName};

pub use region::Region;

/// The longest name of a region in bytes.
pub const MAX_NAME: usize = 256;

/// Whether and which regions may be registered. Values from the configuration.
#[derive(Debug, Clone)]
pub struct RegionOptions {
    /// Whether any may.
    pub enabled: bool,
    /// What a key must begin with after its slash; empty for anything.
    pub prefix: String,
    /// The most regions at a time, of all tenants together.
    pub max_regions: usize,
    /// Where the shared-memory file system is mounted.
    pub directory: PathBuf,
}

impl Default for RegionOptions {
    fn default() -> Self {
        Self { enabled: false, prefix: String::new(), max_regions: 64, directory: PathBuf::from("/dev/shm") }
    }
}

/// A registered region as the status shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegionStatus {
    /// Its name.
    pub name: String,
    /// The key that it was registered with.
    pub key: String,
    /// Where it begins in the shared-memory object, in bytes.
    pub offset: u64,
    /// How long it is, in bytes.
    pub byte_size: u64,
}

type Map = HashMap<TenantName, BTreeMap<String, Arc<Region>>>;

/// The registered regions.
pub struct Regions {
    options: RegionOptions,
    map: ArcSwap<Map>,
    /// Held while the map is replaced; requests read it without.
    writing: Mutex<()>,
}

impl Regions {
    /// None are registered yet.
    #[must_use]
    pub fn new(options: RegionOptions) -> Self {
        Self { options, map: ArcSwap::default(), writing: Mutex::new(()) }
    }

    /// Whether regions may be registered.
    #[must_use]
    pub const fn enabled(&self) -> bool {
        self.options.enabled
    }

    /// Opens a region. A few system calls on a file system in memory; blocks no longer than they take.
    ///
    /// # Errors
    /// [`Reason::NotImplemented`] when shared memory is off, [`Reason::InvalidSharedMemory`] for a name, key, offset or size
    /// that cannot be used, [`Reason::AlreadyExists`], [`Reason::OverCapacity`] when there are too many.
    pub fn register(&self, tenant: &TenantName, name: &str, key: &str, offset: u64, byte_size: u64) -> Result<()> {
        self.must_be_enabled()?;
        if name.is_empty() || name.len() > MAX_NAME || name.chars().any(char::is_control) {
            let text = format!("the name of a shared memory region has 1 to {MAX_NAME} bytes and no control characters");
            return Err(Error::new(Reason::InvalidSharedMemory, text).field("name"));
        }
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let map = self.map.load_full();
        if map.get(tenant).is_some_and(|regions| regions.contains_key(name)) {
            let text = format!("shared memory region '{name}' already in manager: unregister it first, or choose another name");
            return Err(Error::new(Reason::AlreadyExists, text));
        }
        if map.values().map(BTreeMap::len).sum::<usize>() >= self.options.max_regions {
            let text = format!(
                "failed to register shared memory region '{name}': there are {} already, the most that this server takes (shared_memory.max_regions); unregister one",
                self.options.max_regions
            );
            return Err(Error::new(Reason::OverCapacity, text));
        }
        let file_name = key::file_name(key, &self.options.prefix).map_err(|e| region::cannot_register(name, &e).field("key"))?;
        let region = Region::open(&self.options.directory.join(file_name), name, key, offset, byte_size)?;
        let mut map = Map::clone(&map);
        map.entry(tenant.clone()).or_default().insert(name.to_owned(), Arc::new(region));
        self.map.store(Arc::new(map));
        Ok(())
    }

    /// Forgets a region, or all of the tenant's when `name` is `None`. Forgetting what is not there changes nothing.
    pub fn unregister(&self, tenant: &TenantName, name: Option<&str>) {
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut map = Map::clone(&self.map.load());
        let empty = map.get_mut(tenant).is_none_or(|regions| match name {
            None => true,
            Some(name) => {
                regions.remove(name);
                regions.is_empty()
            }
        });
        if empty {
            map.remove(tenant);
        }
        self.map.store(Arc::new(map));
    }

    /// The tenant's regions by name, or the named one. None when shared memory is off.
    ///
    /// # Errors
    /// [`Reason::SharedMemoryNotFound`].
    pub fn status(&self, tenant: &TenantName, name: Option<&str>) -> Result<Vec<RegionStatus>> {
        if !self.options.enabled {
            return Ok(Vec::new());
        }
        let map = self.map.load();
        let regions = map.get(tenant);
        match name {
            None => Ok(regions.into_iter().flat_map(BTreeMap::values).map(|region| region.status()).collect()),
            Some(name) => {
                let region = regions.and_then(|regions| regions.get(name));
                region.map(|region| vec![region.status()]).ok_or_else(|| not_found(name))
            }
        }
    }

    /// A registered region. It stays usable for as long as it is held, unregistered or not.
    ///
    /// # Errors
    /// [`Reason::SharedMemoryNotFound`], [`Reason::NotImplemented`] when shared memory is off.
    pub fn find(&self, tenant: &TenantName, name: &str) -> Result<Arc<Region>> {
        self.must_be_enabled()?;
        self.map.load().get(tenant).and_then(|regions| regions.get(name)).cloned().ok_or_else(|| not_found(name))
    }

    fn must_be_enabled(&self) -> Result<()> {
        if self.options.enabled {
            return Ok(());
        }
        let text = "system shared memory is off on this server; send tensors with the request, or have shared_memory.enabled = true set";
        Err(Error::new(Reason::NotImplemented, text))
    }
}

fn not_found(name: &str) -> Error {
    let name: String = name.chars().filter(|c| !c.is_control()).take(64).collect();
    Error::new(Reason::SharedMemoryNotFound, format!("Unable to find shared memory region: '{name}'; register it first"))
}

#[cfg(test)]
mod tests;
