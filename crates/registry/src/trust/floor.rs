//! The node's own memory of how far each model has come.
//!
//! The registry could be set back by whoever controls its database; this file is the node's. Invariants: it is
//! replaced atomically and synced; it is read whole or not at all: a damaged file is an error, never an empty book,
//! because an empty book forbids nothing. Blocking; a few milliseconds for a sync.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use plinth_types::{Digest, Error, ModelName, Reason, Result, TenantName, VersionNumber};
use serde::{Deserialize, Serialize};

/// Below what a model may not go back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Floor {
    /// The highest version that this node served since the last permitted step back; `None` before the first.
    pub version: Option<VersionNumber>,
    /// The sequence of the last permission that was used; 0 before the first.
    #[serde(default)]
    pub permission_sequence: u64,
    /// The version that answers by default.
    #[serde(default)]
    pub answering: Option<Known>,
    /// The version that did before it: the one to which the node may fall back on its own.
    #[serde(default)]
    pub before: Option<Known>,
}

/// A version that this node has judged and served, by its number and what it consists of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Known {
    /// Its number.
    pub version: VersionNumber,
    /// The digest of its content.
    pub content: Digest,
}

impl Floor {
    /// The floor once `now` answers by default.
    #[must_use]
    pub fn answered_by(self, now: Known) -> Self {
        if self.answering == Some(now) { self } else { Self { answering: Some(now), before: self.answering, ..self } }
    }

    /// Whether the node may go back to this version without a permission, because what answers has failed: only to the
    /// one that it served itself just before, or to what answers already.
    #[must_use]
    pub fn may_fall_back_to(&self, version: Known) -> bool {
        self.before == Some(version) || self.answering == Some(version)
    }
}

/// Floors by `tenant/model`.
type Floors = BTreeMap<String, Floor>;

const MAX_FILE_BYTES: u64 = 64 << 20;
const FORMAT: u32 = 1;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct OnDisk {
    format: u32,
    /// Of the floors as compact JSON with sorted keys.
    checksum: Digest,
    floors: Floors,
}

/// The floors of all models on this node, in one file.
#[derive(Debug)]
pub struct FloorBook {
    path: PathBuf,
    floors: Mutex<Floors>,
}

impl FloorBook {
    /// Opens the book; a file that is not there is an empty book.
    ///
    /// # Errors
    /// `Internal`, with a text that names the remedy, when the file is damaged or cannot be read.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self> {
        let path = path.into();
        let floors = match read(&path) {
            Ok(text) => parse(&text).map_err(|why| damaged(&path, &why))?,
            Err(e) if e.kind() == io::ErrorKind::NotFound => Floors::new(),
            Err(e) => return Err(damaged(&path, &e.to_string())),
        };
        Ok(Self { path, floors: Mutex::new(floors) })
    }

    /// The floor of a model.
    pub fn floor(&self, tenant: &TenantName, model: &ModelName) -> Floor {
        let floors = self.floors.lock().unwrap_or_else(PoisonError::into_inner);
        floors.get(&name(tenant, model)).copied().unwrap_or_default()
    }

    /// Records a floor; synced when it returns. Recording what stands costs nothing.
    ///
    /// # Errors
    /// `StorageFull` or `Internal`; the book then says what it said before.
    pub fn record(&self, tenant: &TenantName, model: &ModelName, floor: Floor) -> Result<()> {
        let mut floors = self.floors.lock().unwrap_or_else(PoisonError::into_inner);
        if floors.get(&name(tenant, model)) == Some(&floor) {
            return Ok(());
        }
        let mut next = floors.clone();
        next.insert(name(tenant, model), floor);
        write(&self.path, &next).map_err(|e| {
            let full = matches!(e.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
            let (reason, text) = if full {
                (Reason::StorageFull, "the node's disk is full: the version it serves could not be recorded")
            } else {
                (Reason::Internal, "the node could not record the version it serves; the log says why")
            };
            Error::new(reason, text).diagnostic(format!("writing {}", self.path.display())).source(e)
        })?;
        *floors = next;
        Ok(())
    }
}

fn name(tenant: &TenantName, model: &ModelName) -> String {
    format!("{tenant}/{model}")
}

fn checksum(floors: &Floors) -> Result<Digest, serde_json::Error> {
    serde_json::to_vec(floors).map(|bytes| Digest::of(&bytes))
}

fn read(path: &Path) -> io::Result<String> {
    use io::Read as _;
    let mut text = String::new();
    File::open(path)?.take(MAX_FILE_BYTES).read_to_string(&mut text)?;
    Ok(text)
}

fn parse(text: &str) -> std::result::Result<Floors, String> {
    let disk: OnDisk = serde_json::from_str(text).map_err(|e| e.to_string())?;
    if disk.format != FORMAT {
        return Err(format!("format {} is not known, this release writes {FORMAT}", disk.format));
    }
    match checksum(&disk.floors) {
        Ok(sum) if sum == disk.checksum => Ok(disk.floors),
        Ok(_) => Err("the checksum does not fit".to_owned()),
        Err(e) => Err(e.to_string()),
    }
}

/// Writes beside, syncs, renames, syncs the folder: at every moment the old or the new book is there whole.
fn write(path: &Path, floors: &Floors) -> io::Result<()> {
    let disk = OnDisk { format: FORMAT, checksum: checksum(floors)?, floors: floors.clone() };
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::create_dir_all(folder)?;
    let mut beside = path.as_os_str().to_owned();
    beside.push(".new");
    let mut file = File::create(&beside)?;
    file.write_all(&serde_json::to_vec(&disk)?)?;
    file.sync_all()?;
    fs::rename(&beside, path)?;
    File::open(folder)?.sync_all()
}

fn damaged(path: &Path, why: &str) -> Error {
    let text = "the node's record of the versions it has served is damaged: restore the file from a backup, or delete it \
                and accept that older signed versions are no longer refused until newer ones have been served; the log names the file";
    Error::new(Reason::Internal, text).diagnostic(format!("{}: {why}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn names() -> (TenantName, ModelName) {
        (TenantName::default_tenant(), "digits".parse().unwrap())
    }

    #[test]
    fn the_node_falls_back_only_to_what_it_served_just_before() {
        let known = |version: &str| Known { version: version.parse().unwrap(), content: Digest::of(version.as_bytes()) };
        let floor = Floor::default().answered_by(known("1")).answered_by(known("2")).answered_by(known("2"));
        assert!(floor.may_fall_back_to(known("1")) && floor.may_fall_back_to(known("2")));
        assert!(!floor.may_fall_back_to(Known { content: Digest::of(b"x"), ..known("1") }), "the same number with other content");
        assert!(!floor.answered_by(known("3")).may_fall_back_to(known("1")));
    }

    fn floor(version: &str, permission_sequence: u64) -> Floor {
        Floor { version: Some(version.parse().unwrap()), permission_sequence, ..Floor::default() }
    }

    #[test]
    fn floors_outlive_the_process() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("trust/floors.json");
        let (tenant, model) = names();
        let book = FloorBook::open(&path).unwrap();
        assert_eq!(book.floor(&tenant, &model), Floor::default());
        book.record(&tenant, &model, floor("3", 7)).unwrap();
        book.record(&tenant, &"other".parse().unwrap(), floor("1", 0)).unwrap();
        let book = FloorBook::open(&path).unwrap();
        assert_eq!(book.floor(&tenant, &model), floor("3", 7));
        assert_eq!(book.floor(&"acme".parse().unwrap(), &model), Floor::default());
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1, "nothing is left beside the book");
    }

    #[test]
    fn a_failed_write_changes_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("floors.json");
        let (tenant, model) = names();
        let book = FloorBook::open(&path).unwrap();
        book.record(&tenant, &model, floor("3", 0)).unwrap();
        fs::create_dir(directory.path().join("floors.json.new")).unwrap();
        assert_eq!(book.record(&tenant, &model, floor("4", 0)).unwrap_err().reason(), Reason::Internal);
        assert_eq!(book.floor(&tenant, &model), floor("3", 0));
        assert_eq!(FloorBook::open(&path).unwrap().floor(&tenant, &model), floor("3", 0));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// Cut short or with another byte anywhere, it is refused with the remedy; it is never taken for another book.
        #[test]
        fn a_damaged_book_is_an_error(at in any::<prop::sample::Index>(), byte in any::<u8>(), cut in any::<bool>()) {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("floors.json");
            let (tenant, model) = names();
            FloorBook::open(&path).unwrap().record(&tenant, &model, floor("3", 7)).unwrap();
            let mut bytes = fs::read(&path).unwrap();
            let at = at.index(bytes.len());
            let before = bytes.clone();
            if cut { bytes.truncate(at) } else { bytes[at] = byte }
            fs::write(&path, &bytes).unwrap();
            match FloorBook::open(&path) {
                Ok(book) => prop_assert!(bytes == before && book.floor(&tenant, &model) == floor("3", 7)),
                Err(error) => prop_assert!(error.public_text().contains("restore") && !error.public_text().contains("floors.json")),
            }
        }
    }
}
