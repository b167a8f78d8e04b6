//! The files of the repository, read once.
//!
//! Invariant: what cargo, Python and Node put beside the sources is left out, also when it lies inside the repository.
//! Links are not followed.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

/// Hidden entries that belong to the project all the same.
const HIDDEN: [&str; 6] = [".cargo", ".ci", ".config", ".github", ".gitignore", ".gitattributes"];
/// Directories that tools fill.
const FILLED_BY_TOOLS: [&str; 3] = ["target", "node_modules", "__pycache__"];

/// Every file by its path under the root, with `/` between the parts.
#[derive(Debug, Default)]
pub struct Tree {
    files: BTreeMap<String, Vec<u8>>,
}

impl Tree {
    /// Reads everything under a directory.
    ///
    /// # Errors
    /// When something cannot be read.
    pub fn read(root: &Path) -> Result<Self> {
        let mut tree = Self::default();
        tree.add(root, "")?;
        Ok(tree)
    }

    fn add(&mut self, directory: &Path, prefix: &str) -> Result<()> {
        for entry in fs::read_dir(directory).with_context(|| format!("cannot list {}", directory.display()))? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let kind = entry.file_type()?;
            if name.starts_with('.') && !HIDDEN.contains(&name.as_str()) {
                continue;
            }
            if kind.is_dir() && !FILLED_BY_TOOLS.contains(&name.as_str()) {
                self.add(&entry.path(), &format!("{prefix}{name}/"))?;
            } else if kind.is_file() {
                let bytes = fs::read(entry.path()).with_context(|| format!("cannot read {}", entry.path().display()))?;
                self.files.insert(format!("{prefix}{name}"), bytes);
            }
        }
        Ok(())
    }

    /// A tree that was made up.
    #[cfg(test)]
    pub fn of(files: &[(&str, &str)]) -> Self {
        Self { files: files.iter().map(|(path, text)| ((*path).to_owned(), text.as_bytes().to_vec())).collect() }
    }

    /// Whether there is such a file or directory.
    pub fn contains(&self, path: &str) -> bool {
        let directory = format!("{}/", path.trim_end_matches('/'));
        path.is_empty() || self.files.contains_key(path) || self.files.keys().any(|file| file.starts_with(&directory))
    }

    /// A file as text; `None` when it is not there or not text.
    pub fn text(&self, path: &str) -> Option<&str> {
        std::str::from_utf8(self.files.get(path)?).ok()
    }

    /// Every file with its bytes, sorted by path.
    pub fn files(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.files.iter().map(|(path, bytes)| (path.as_str(), bytes.as_slice()))
    }

    /// The text files whose names end so, sorted by path.
    pub fn ending<'a>(&'a self, suffix: &'a str) -> impl Iterator<Item = (&'a str, &'a str)> {
        self.files()
            .filter(move |(path, _)| path.ends_with(suffix))
            .filter_map(|(path, bytes)| Some((path, std::str::from_utf8(bytes).ok()?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_tools_put_there_is_left_out() {
        let root = tempfile::tempdir().unwrap();
        for path in ["a.rs", "target/b.rs", ".plinth/c.rs", ".ci/run", "web/node_modules/d.js", "web/e.js"] {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "x").unwrap();
        }
        let tree = Tree::read(root.path()).unwrap();
        assert_eq!(tree.files().map(|(path, _)| path).collect::<Vec<_>>(), [".ci/run", "a.rs", "web/e.js"]);
        assert!(tree.contains("web") && tree.contains("web/") && tree.contains("web/e.js") && !tree.contains("we"));
    }
}
