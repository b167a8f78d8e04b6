//! What a directory would be as a version: its files with their digests.
//!
//! Invariants: only ordinary files enter; a link or a special file refuses the whole directory instead of being
//! followed or skipped; no two paths are one on a file system that ignores case; memory is bounded by the number of
//! files, never by their size. Reading blocks, so call it outside async code or on a blocking thread.
//!
//! Left out: at the top of the directory everything whose name begins with `.git`, as the public signing tool does, and
//! `model.sig`, which is the version's signature and not one of its files. Uploading is left to `push`.

use std::collections::BTreeMap;
use std::fs::{self, File, Metadata};
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use plinth_types::path::ParsePathError;
use plinth_types::{ArtifactPath, ByteSize, DigestHasher};

use crate::wire;

/// The file that holds a version's signature.
pub const SIGNATURE_FILE: &str = "model.sig";

const BUFFER: usize = 1 << 20;

/// What a directory may hold.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// The most files.
    pub files: usize,
    /// The most bytes of all files together.
    pub bytes: ByteSize,
    /// The most bytes of the signature.
    pub signature: ByteSize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { files: 10_000, bytes: ByteSize(4 << 40), signature: ByteSize::mib(4) }
    }
}

/// Why a directory cannot become a version. Paths are the user's own and may be shown.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Something cannot be read.
    #[error("'{}' cannot be read: {source}", path.display())]
    Read {
        /// What.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The path given is not a directory.
    #[error("'{}' is not a directory", .0.display())]
    NotADirectory(PathBuf),
    /// No files at all.
    #[error("'{}' holds no files", .0.display())]
    Empty(PathBuf),
    /// A symbolic link.
    #[error("'{0}' is a symbolic link")]
    Link(String),
    /// A socket, a pipe or a device.
    #[error("'{0}' is neither a file nor a directory")]
    Special(String),
    /// A name that no version may hold.
    #[error("'{path}' cannot be the path of a file in a version: {source}")]
    Path {
        /// The path, with what is not text replaced.
        path: String,
        /// Why.
        source: ParsePathError,
    },
    /// Two paths that differ in case only.
    #[error("'{0}' and '{1}' are one file on systems that ignore case")]
    Case(String, String),
    /// More files than allowed.
    #[error("'{}' holds more than {limit} files", path.display())]
    TooMany {
        /// The directory.
        path: PathBuf,
        /// The limit.
        limit: usize,
    },
    /// More bytes than allowed, in all files or in the signature.
    #[error("{what} larger than {limit}")]
    TooLarge {
        /// Whose size, with its verb.
        what: &'static str,
        /// The limit.
        limit: ByteSize,
    },
    /// A file changed between two looks at it.
    #[error("the file '{0}' changed while it was read")]
    Changed(ArtifactPath),
}

impl Error {
    /// What to do about it.
    #[must_use]
    pub const fn advice(&self) -> Option<&'static str> {
        match self {
            Self::Link(_) => Some("replace the link by what it points to: `cp -rL DIR COPY` copies a directory that way"),
            Self::Special(_) | Self::TooMany { .. } => Some("push a directory that holds the model's files and nothing else"),
            Self::Path { .. } | Self::Case(..) => Some("rename the file"),
            Self::Changed(_) => Some("let whatever writes the directory finish, then try again"),
            Self::Empty(_) | Self::NotADirectory(_) => Some("name the directory that holds the model's files, such as model.onnx"),
            Self::Read { .. } | Self::TooLarge { .. } => None,
        }
    }
}

/// How far reading has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Bytes read.
    pub done: u64,
    /// Bytes of all files.
    pub total: u64,
}

/// A directory as a version.
#[derive(Debug)]
pub struct Plan {
    root: PathBuf,
    files: Vec<wire::File>,
    stamps: Vec<Stamp>,
    signature: Option<String>,
    skipped: Vec<String>,
}

/// By what a file is known again: a change of its bytes changes one of these.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    fn of(meta: &Metadata) -> Self {
        Self {
            device: meta.dev(),
            inode: meta.ino(),
            size: meta.len(),
            modified: (meta.mtime(), meta.mtime_nsec()),
            changed: (meta.ctime(), meta.ctime_nsec()),
        }
    }
}

impl Plan {
    /// Walks `directory` and hashes its files. `on_progress` is called after each MiB and each file.
    ///
    /// # Errors
    /// When something cannot be read, may not be in a version, or changes meanwhile.
    pub fn read(directory: &Path, limits: &Limits, on_progress: &dyn Fn(Progress)) -> Result<Self, Error> {
        let mut walk = Walk::new(directory, limits);
        walk.enter(directory, "")?;
        walk.files.sort_by(|a, b| a.0.cmp(&b.0));
        if walk.files.is_empty() {
            return Err(Error::Empty(directory.to_owned()));
        }
        let signature = walk.signature.map(|path| read_signature(&path, limits.signature)).transpose()?;
        let mut progress = Progress { done: 0, total: walk.bytes };
        let mut plan = Self { root: directory.to_owned(), files: Vec::new(), stamps: Vec::new(), signature, skipped: walk.skipped };
        for (path, stamp) in walk.files {
            plan.files.push(hash(directory, path, stamp, &mut progress, on_progress)?);
            plan.stamps.push(stamp);
        }
        Ok(plan)
    }

    /// The directory.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Its files, sorted by path.
    #[must_use]
    pub fn files(&self) -> &[wire::File] {
        &self.files
    }

    /// What `model.sig` says, when there is one.
    #[must_use]
    pub fn signature(&self) -> Option<&str> {
        self.signature.as_deref()
    }

    /// The names at the top that were left out, `model.sig` not among them.
    #[must_use]
    pub fn skipped(&self) -> &[String] {
        &self.skipped
    }

    /// The sum of the files' lengths in bytes.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.files.iter().map(|f| f.size).sum()
    }

    /// Whether every file is still what it was. Blocks.
    ///
    /// # Errors
    /// [`Error::Changed`] names the first that is not.
    pub fn check_unchanged(&self) -> Result<(), Error> {
        for (file, stamp) in self.files.iter().zip(&self.stamps) {
            let now = fs::symlink_metadata(file.path.under(&self.root)).ok();
            if now.is_none_or(|meta| Stamp::of(&meta) != *stamp) {
                return Err(Error::Changed(file.path.clone()));
            }
        }
        Ok(())
    }
}

struct Walk<'a> {
    root: &'a Path,
    limits: &'a Limits,
    files: Vec<(ArtifactPath, Stamp)>,
    bytes: u64,
    signature: Option<PathBuf>,
    skipped: Vec<String>,
    /// Each path and each directory as a file system that ignores case sees it, and as it is.
    folded: BTreeMap<String, String>,
}

impl<'a> Walk<'a> {
    fn new(root: &'a Path, limits: &'a Limits) -> Self {
        Self { root, limits, files: Vec::new(), bytes: 0, signature: None, skipped: Vec::new(), folded: BTreeMap::new() }
    }

    /// `prefix` is empty or ends in `/`. The depth is bounded by the rule for paths.
    fn enter(&mut self, directory: &Path, prefix: &str) -> Result<(), Error> {
        let failed = |source: std::io::Error| match source.kind() {
            std::io::ErrorKind::NotADirectory => Error::NotADirectory(directory.to_owned()),
            _ => Error::Read { path: directory.to_owned(), source },
        };
        for entry in fs::read_dir(directory).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let name = entry
                .file_name()
                .into_string()
                .map_err(|name| Error::Path { path: format!("{prefix}{}", name.display()), source: ParsePathError::Character })?;
            if prefix.is_empty() && name.starts_with(".git") {
                self.skipped.push(name);
                continue;
            }
            self.take(&entry.path(), &format!("{prefix}{name}"))?;
        }
        Ok(())
    }

    fn take(&mut self, full: &Path, relative: &str) -> Result<(), Error> {
        let path: ArtifactPath = relative.parse().map_err(|source| Error::Path { path: crate::client::printable(relative), source })?;
        let meta = fs::symlink_metadata(full).map_err(|source| Error::Read { path: full.to_owned(), source })?;
        if meta.is_symlink() {
            return Err(Error::Link(relative.to_owned()));
        }
        if let Some(other) = self.folded.insert(path.case_folded(), relative.to_owned()) {
            return Err(Error::Case(other, relative.to_owned()));
        }
        if meta.is_dir() {
            return self.enter(full, &format!("{relative}/"));
        }
        if !meta.is_file() {
            return Err(Error::Special(relative.to_owned()));
        }
        if relative == SIGNATURE_FILE {
            self.signature = Some(full.to_owned());
            return Ok(());
        }
        if self.files.len() >= self.limits.files {
            return Err(Error::TooMany { path: self.root.to_owned(), limit: self.limits.files });
        }
        self.bytes = self.bytes.saturating_add(meta.len());
        if self.bytes > self.limits.bytes.0 {
            return Err(Error::TooLarge { what: "the files together are", limit: self.limits.bytes });
        }
        self.files.push((path, Stamp::of(&meta)));
        Ok(())
    }
}

fn read_signature(path: &Path, limit: ByteSize) -> Result<String, Error> {
    let failed = |source| Error::Read { path: path.to_owned(), source };
    let mut text = String::new();
    File::open(path).map_err(failed)?.take(limit.0 + 1).read_to_string(&mut text).map_err(failed)?;
    if text.len() as u64 > limit.0 {
        return Err(Error::TooLarge { what: "model.sig is", limit });
    }
    Ok(text)
}

fn hash(
    root: &Path,
    path: ArtifactPath,
    stamp: Stamp,
    progress: &mut Progress,
    on_progress: &dyn Fn(Progress),
) -> Result<wire::File, Error> {
    let full = path.under(root);
    let failed = |source| Error::Read { path: full.clone(), source };
    let mut file = File::open(&full).map_err(failed)?;
    if Stamp::of(&file.metadata().map_err(failed)?) != stamp {
        return Err(Error::Changed(path));
    }
    let mut hasher = DigestHasher::new();
    let mut buffer = vec![0; BUFFER.min(usize::try_from(stamp.size).unwrap_or(BUFFER)).max(1)];
    loop {
        let count = file.read(&mut buffer).map_err(failed)?;
        if count == 0 {
            break;
        }
        hasher.update(&buffer[..count]);
        progress.done += count as u64;
        on_progress(*progress);
        if hasher.length() > stamp.size {
            return Err(Error::Changed(path));
        }
    }
    if hasher.length() != stamp.size || Stamp::of(&file.metadata().map_err(failed)?) != stamp {
        return Err(Error::Changed(path));
    }
    Ok(wire::File { path, size: stamp.size, digest: hasher.finish() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use plinth_types::Digest;

    fn read(directory: &Path) -> Result<Plan, Error> {
        Plan::read(directory, &Limits::default(), &|_| {})
    }

    fn directory(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let full = root.path().join(path);
            fs::create_dir_all(full.parent().unwrap()).unwrap();
            fs::write(full, text).unwrap();
        }
        root
    }

    #[test]
    fn files_are_sorted_hashed_and_the_rest_is_left_out() {
        let root = directory(&[
            ("model.onnx", "graph"),
            ("a/b.txt", "text"),
            (".git/config", "x"),
            (".gitignore", "x"),
            ("a/.gitkeep", "kept"),
            ("model.sig", "{}"),
        ]);
        let plan = read(root.path()).unwrap();
        let paths: Vec<_> = plan.files().iter().map(|f| f.path.as_str()).collect();
        assert_eq!(paths, ["a/.gitkeep", "a/b.txt", "model.onnx"]);
        assert_eq!(plan.files()[2].digest, Digest::of(b"graph"));
        assert_eq!((plan.size(), plan.signature()), (13, Some("{}")));
        let mut skipped = plan.skipped().to_vec();
        skipped.sort();
        assert_eq!(skipped, [".git", ".gitignore"]);
    }

    #[test]
    fn progress_ends_at_the_total() {
        let root = directory(&[("a", "12345"), ("b", "678")]);
        let last = std::cell::Cell::new(None);
        Plan::read(root.path(), &Limits::default(), &|p| last.set(Some(p))).unwrap();
        assert_eq!(last.get(), Some(Progress { done: 8, total: 8 }));
    }

    #[test]
    fn links_refuse_the_whole_directory() {
        let root = directory(&[("model.onnx", "graph")]);
        std::os::unix::fs::symlink("/etc/passwd", root.path().join("link")).unwrap();
        assert!(matches!(read(root.path()), Err(Error::Link(name)) if name == "link"));
        fs::remove_file(root.path().join("link")).unwrap();
        std::os::unix::fs::symlink(root.path(), root.path().join("loop")).unwrap();
        assert!(matches!(read(root.path()), Err(Error::Link(_))));
    }

    #[test]
    fn special_files_are_refused_without_opening_them() {
        let root = directory(&[("model.onnx", "graph")]);
        let _socket = std::os::unix::net::UnixListener::bind(root.path().join("socket")).unwrap();
        assert!(matches!(read(root.path()), Err(Error::Special(name)) if name == "socket"));
    }

    #[test]
    fn paths_that_collide_or_are_malformed_are_refused() {
        for files in [&[("Model.onnx", ""), ("model.onnx", "")][..], &[("A/x", ""), ("a", "")], &[("D/x", ""), ("d/y", "")]] {
            let root = directory(files);
            assert!(matches!(read(root.path()), Err(Error::Case(..))), "{files:?}");
        }
        let root = directory(&[("back\\slash", "x")]);
        assert!(matches!(read(root.path()), Err(Error::Path { .. })));
        use std::os::unix::ffi::OsStrExt;
        let root = directory(&[("ok", "x")]);
        fs::write(root.path().join(std::ffi::OsStr::from_bytes(b"\xff")), "x").unwrap();
        assert!(matches!(read(root.path()), Err(Error::Path { .. })));
    }

    #[test]
    fn limits_hold() {
        let root = directory(&[("a", "12345"), ("b", "6")]);
        let limits = Limits { files: 1, ..Limits::default() };
        assert!(matches!(Plan::read(root.path(), &limits, &|_| {}), Err(Error::TooMany { .. })));
        let limits = Limits { bytes: ByteSize(5), ..Limits::default() };
        assert!(matches!(Plan::read(root.path(), &limits, &|_| {}), Err(Error::TooLarge { .. })));
        let root = directory(&[("a", "1"), ("model.sig", "123")]);
        let limits = Limits { signature: ByteSize(2), ..Limits::default() };
        assert!(matches!(Plan::read(root.path(), &limits, &|_| {}), Err(Error::TooLarge { .. })));
        let empty = directory(&[(".git/x", ""), ("model.sig", "{}")]);
        assert!(matches!(read(empty.path()), Err(Error::Empty(_))));
        assert!(matches!(read(&root.path().join("a")), Err(Error::NotADirectory(_))));
        assert!(matches!(read(&root.path().join("missing")), Err(Error::Read { .. })));
    }

    #[test]
    fn a_change_is_seen_while_and_after_hashing() {
        let root = directory(&[("a", "12345"), ("b", "678")]);
        let path = root.path().to_owned();
        let error = Plan::read(root.path(), &Limits::default(), &|p| {
            if p.done == 5 {
                fs::write(path.join("b"), "changed").unwrap();
            }
        });
        assert!(matches!(error, Err(Error::Changed(path)) if path.as_str() == "b"));
        let plan = read(root.path()).unwrap();
        plan.check_unchanged().unwrap();
        fs::OpenOptions::new().append(true).open(root.path().join("a")).and_then(|mut f| std::io::Write::write_all(&mut f, b"!")).unwrap();
        assert!(matches!(plan.check_unchanged(), Err(Error::Changed(path)) if path.as_str() == "a"));
    }
}
