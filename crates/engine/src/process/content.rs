//! A version's files, held against their digests before a command may read them.
//!
//! Invariant: when [`verify`] says yes, the directory held exactly the listed files, each with its bytes, and no link. It
//! blocks. That nobody who can write into the node's directories changes them afterwards is the operator's to keep; the
//! server itself cannot (see [`super::supervisor`]).

use std::collections::BTreeSet;
use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use plinth_types::{ArtifactPath, DigestHasher};

use super::manifest::{MAX_BYTES, Manifest};
use crate::spec::{FileSpec, RunnerError};

const BUFFER: usize = 256 << 10;
/// Files beside the listed ones end the search; this many directories are looked through at most.
const MAX_DIRECTORIES: usize = 10_000;

/// Checks all files and gives back the bytes of `process.toml`.
pub(crate) fn verify(directory: &Path, files: &[FileSpec]) -> Result<Vec<u8>, RunnerError> {
    let mut manifest = None;
    for file in files {
        let wanted = file.path.as_str() == Manifest::FILE;
        if wanted && file.size > MAX_BYTES {
            return Err(RunnerError::Load("process.toml is too large".to_owned()));
        }
        match hash(directory, file, wanted) {
            Ok(Some(kept)) => manifest = if wanted { Some(kept) } else { manifest },
            Ok(None) => return Err(RunnerError::Altered(file.path.clone())),
            Err(error) if altered(&error) => return Err(RunnerError::Altered(file.path.clone())),
            Err(error) => return Err(RunnerError::Start(format!("reading '{}': {error}", file.path))),
        }
    }
    if let Some(stranger) = stranger(directory, files).map_err(|error| RunnerError::Start(error.to_string()))? {
        return Err(RunnerError::Altered(stranger));
    }
    manifest.ok_or_else(|| RunnerError::Load("the version has no file 'process.toml'".to_owned()))
}

fn altered(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory | io::ErrorKind::IsADirectory)
        || error.raw_os_error() == Some(libc::ELOOP)
}

/// The bytes if they are to be kept, else none of them; `None` when they are not the listed ones.
fn hash(directory: &Path, spec: &FileSpec, keep: bool) -> io::Result<Option<Vec<u8>>> {
    let mut file: File = OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW).open(spec.path.under(directory))?;
    let found = file.metadata()?;
    if !found.is_file() || found.len() != spec.size {
        return Ok(None);
    }
    let (mut hasher, mut kept) = (DigestHasher::new(), Vec::new());
    let mut buffer = vec![0; BUFFER];
    loop {
        let bytes = match file.read(&mut buffer)? {
            0 => break,
            n => buffer.get(..n).unwrap_or_default(),
        };
        hasher.update(bytes);
        if hasher.length() > spec.size {
            return Ok(None);
        }
        if keep {
            kept.extend_from_slice(bytes);
        }
    }
    Ok((hasher.length() == spec.size && hasher.finish() == spec.digest).then_some(kept))
}

/// A file that lies there without being listed: the command would read it as if it had been approved.
fn stranger(directory: &Path, files: &[FileSpec]) -> io::Result<Option<ArtifactPath>> {
    let listed: BTreeSet<_> = files.iter().map(|file| file.path.under(directory)).collect();
    let (mut open, mut seen) = (vec![directory.to_owned()], 0);
    while let Some(place) = open.pop() {
        seen += 1;
        if seen > MAX_DIRECTORIES {
            return Err(io::Error::other("too many directories in a version"));
        }
        for entry in std::fs::read_dir(place)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                open.push(entry.path());
            } else if !listed.contains(&entry.path()) {
                let path = entry.path();
                let shown = path.strip_prefix(directory).ok().and_then(|path| path.to_str()?.parse().ok());
                let unnamed = || Manifest::FILE.parse().map_err(|_| io::Error::other("a file that was not listed"));
                return shown.map_or_else(unnamed, Ok).map(Some);
            }
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use plinth_types::Digest;

    #[test]
    fn exactly_the_listed_bytes() {
        let directory = tempfile::tempdir().unwrap();
        let write = |name: &str, bytes: &[u8]| {
            let path = directory.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, bytes).unwrap();
        };
        let file = |name: &str, bytes: &[u8]| FileSpec { path: name.parse().unwrap(), size: bytes.len() as u64, digest: Digest::of(bytes) };
        write("process.toml", b"x = 1");
        write("code/server.py", b"print()");
        let files = [file("process.toml", b"x = 1"), file("code/server.py", b"print()")];
        assert_eq!(verify(directory.path(), &files).unwrap(), b"x = 1");
        let altered = |path: &str| match verify(directory.path(), &files) {
            Err(RunnerError::Altered(found)) => assert_eq!(found.as_str(), path),
            other => panic!("{other:?}"),
        };
        write("code/server.py", b"print!!");
        altered("code/server.py");
        write("code/server.py", b"print()");
        write("code/sitecustomize.py", b"");
        altered("code/sitecustomize.py");
        std::fs::remove_file(directory.path().join("code/sitecustomize.py")).unwrap();
        std::fs::remove_file(directory.path().join("code/server.py")).unwrap();
        altered("code/server.py");
        write("elsewhere", b"print()");
        std::os::unix::fs::symlink(directory.path().join("elsewhere"), directory.path().join("code/server.py")).unwrap();
        altered("code/server.py");
    }
}
