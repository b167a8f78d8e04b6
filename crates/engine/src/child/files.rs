//! Taking a version's files into memory, verified.
//!
//! Invariant: what is returned has the lengths and digests that the node named; nothing has looked inside.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};

use bytes::Bytes;
use plinth_types::{ArtifactPath, ByteSize, Digest};

use crate::channel::message::{Init, StartFailure};
use crate::spec::FileSpec;

pub(super) fn read(init: &Init) -> Result<BTreeMap<ArtifactPath, Bytes>, StartFailure> {
    let total = init.files.iter().try_fold(0u64, |sum, file| sum.checked_add(file.size));
    let fits = |total: &u64| init.memory.is_none_or(|limit| *total <= limit);
    if total.filter(fits).is_none() {
        let limit = ByteSize(init.memory.unwrap_or(u64::MAX));
        return Err(StartFailure::Load(format!("the model's files alone are larger than its memory limit of {limit}; raise the limit")));
    }
    init.files.iter().map(|file| Ok((file.path.clone(), read_one(init, file)?))).collect()
}

fn read_one(init: &Init, spec: &FileSpec) -> Result<Bytes, StartFailure> {
    let bytes = match contents(&spec.path.under(&init.directory), spec.size) {
        Ok(bytes) => bytes,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory | io::ErrorKind::InvalidData) => None,
        Err(error) => return Err(StartFailure::Machine(format!("reading '{}': {error}", spec.path))),
    };
    match bytes {
        Some(bytes) if Digest::of(&bytes) == spec.digest => Ok(bytes.into()),
        _ => Err(StartFailure::Altered(spec.path.clone())),
    }
}

/// The file's bytes; `None` when they are not `size`.
fn contents(path: &std::path::Path, size: u64) -> io::Result<Option<Vec<u8>>> {
    let file = File::open(path)?;
    let found = file.metadata()?;
    if !found.is_file() || found.len() != size {
        return Ok(None);
    }
    let mut bytes = Vec::new();
    bytes.try_reserve_exact(usize::try_from(size).unwrap_or(usize::MAX))?;
    // The file may grow while it is read.
    file.take(size.saturating_add(1)).read_to_end(&mut bytes)?;
    Ok((bytes.len() as u64 == size).then_some(bytes))
}
