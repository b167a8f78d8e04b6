//! Small files that the user named: read up to a limit, written so that nothing is overwritten or shown by accident.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use crate::exit::{Exit, Failure};

/// The bytes of a file, or of standard input for `-`; an error above `limit`.
pub fn read(path: &Path, limit: u64) -> Result<Vec<u8>, Failure> {
    let failed = |e: std::io::Error| Failure::new(Exit::Failed, format!("'{}' cannot be read: {e}", path.display()));
    let mut bytes = Vec::new();
    if path.as_os_str() == "-" {
        std::io::stdin().lock().take(limit + 1).read_to_end(&mut bytes).map_err(failed)?;
    } else {
        File::open(path).map_err(failed)?.take(limit + 1).read_to_end(&mut bytes).map_err(failed)?;
    }
    if bytes.len() as u64 > limit {
        let limit = plinth_types::ByteSize(limit);
        return Err(Failure::new(Exit::Failed, format!("'{}' is larger than {limit}", path.display())));
    }
    Ok(bytes)
}

/// As [`read`], for text.
pub fn read_text(path: &Path, limit: u64) -> Result<String, Failure> {
    String::from_utf8(read(path, limit)?).map_err(|_| Failure::new(Exit::Failed, format!("'{}' is not text (UTF-8)", path.display())))
}

/// Writes a new file; refuses to touch one that is there.
pub fn create(path: &Path, text: &[u8], mode: u32) -> Result<(), Failure> {
    let opened = OpenOptions::new().write(true).create_new(true).mode(mode).open(path);
    let written = opened.and_then(|mut file| file.write_all(text).and_then(|()| file.sync_all()));
    written.map_err(|e| match e.kind() {
        std::io::ErrorKind::AlreadyExists => {
            Failure::new(Exit::Conflict, format!("'{}' is there already and is not overwritten", path.display()))
                .next("choose another name")
        }
        _ => Failure::new(Exit::Failed, format!("'{}' cannot be written: {e}", path.display())),
    })
}

/// Replaces a file in one step, so that a reader sees the old or the new one.
pub fn replace(path: &Path, text: &[u8], mode: u32) -> Result<(), Failure> {
    let failed = |e: &dyn std::fmt::Display| Failure::new(Exit::Failed, format!("'{}' cannot be written: {e}", path.display()));
    let parent = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."));
    let permissions = std::os::unix::fs::PermissionsExt::from_mode(mode);
    let mut file = tempfile::Builder::new().prefix(".plinth-").permissions(permissions).tempfile_in(parent).map_err(|e| failed(&e))?;
    file.write_all(text).and_then(|()| file.as_file().sync_all()).map_err(|e| failed(&e))?;
    file.persist(path).map_err(|e| failed(&e.error))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn creating_refuses_to_overwrite_and_sets_the_mode() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("key.pem");
        create(&path, b"a", 0o600).unwrap();
        assert_eq!(path.metadata().unwrap().mode() & 0o777, 0o600);
        assert_eq!(create(&path, b"b", 0o600).unwrap_err().exit, Exit::Conflict);
        assert_eq!(read(&path, 10).unwrap(), b"a");
        replace(&path, b"c", 0o600).unwrap();
        assert_eq!((read(&path, 10).unwrap(), path.metadata().unwrap().mode() & 0o777), (b"c".to_vec(), 0o600));
        assert!(read(&path, 0).is_err());
    }
}
