//! What a list of files must be so that it can become a version.
//!
//! Invariant: a list that passes can be laid out in a directory on any file system without one file
//! hiding another. Each path on its own is safe already ([`ArtifactPath`](plinth_types::ArtifactPath)).

use std::collections::HashMap;

use plinth_store::resources::FileEntry;
use plinth_types::{Error, Reason, Result};

use crate::signing::MAX_RESOURCES;

/// The most bytes of all paths together: they are copied into every snapshot.
const MAX_PATH_BYTES: usize = 1 << 20;

/// Sorts the files by path after checking them as a whole.
///
/// # Errors
/// `InvalidResource` naming the first file that cannot stand beside the others.
pub(crate) fn arrange(mut files: Vec<FileEntry>) -> Result<Vec<FileEntry>> {
    let refuse = |text: String| Error::new(Reason::InvalidResource, text).field("files");
    if files.is_empty() || files.len() > MAX_RESOURCES {
        return Err(refuse(format!("a version has 1 to {MAX_RESOURCES} files, here are {}", files.len())));
    }
    if files.iter().map(|f| f.path.as_str().len()).sum::<usize>() > MAX_PATH_BYTES {
        return Err(refuse(format!("the paths of a version's files have at most {MAX_PATH_BYTES} bytes together")));
    }
    if files.iter().try_fold(0u64, |sum, f| sum.checked_add(f.size)).is_none() {
        return Err(refuse("the files' sizes do not add up to a number".into()));
    }
    files.sort_by(|a, b| a.path.cmp(&b.path));
    let mut seen: HashMap<String, &FileEntry> = HashMap::with_capacity(files.len());
    let mut sizes: HashMap<_, u64> = HashMap::with_capacity(files.len());
    for file in &files {
        if let Some(other) = seen.insert(file.path.case_folded(), file) {
            let how = if other.path == file.path { "listed twice" } else { "the same but for upper and lower case as another file" };
            return Err(refuse(format!("the file '{}' is {how}", file.path)));
        }
        if *sizes.entry(file.digest).or_insert(file.size) != file.size {
            return Err(refuse(format!("the file '{}' has the digest of another file and another size", file.path)));
        }
    }
    for file in &files {
        let folded = file.path.case_folded();
        let parents = folded.match_indices('/').map(|(at, _)| &folded[..at]);
        if let Some(parent) = parents.into_iter().find_map(|parent| seen.get(parent)) {
            return Err(refuse(format!("'{}' is a file, and the folder of '{}'", parent.path, file.path)));
        }
    }
    drop((seen, sizes));
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;
    use plinth_types::Digest;
    use proptest::prelude::*;

    fn file(path: &str) -> FileEntry {
        FileEntry { path: path.parse().unwrap(), size: 1, digest: Digest::of(path.as_bytes()) }
    }

    #[test]
    fn files_may_not_hide_each_other() {
        for good in [&["a"][..], &["b", "a/b", "a/c"], &["a.b", "a/b"], &["ab", "a/b"]] {
            let files = arrange(good.iter().map(|p| file(p)).collect()).unwrap();
            assert!(files.is_sorted_by(|x, y| x.path < y.path));
        }
        for bad in [&[][..], &["a", "a"], &["a", "A"], &["a", "a/b"], &["A/x", "a"], &["x/y", "x/y/z"], &["É", "é"]] {
            assert_eq!(arrange(bad.iter().map(|p| file(p)).collect()).unwrap_err().reason(), Reason::InvalidResource, "{bad:?}");
        }
        let twice = vec![file("a"), FileEntry { size: 2, path: "b".parse().unwrap(), ..file("a") }];
        assert!(arrange(twice).is_err());
        let huge = vec![FileEntry { size: u64::MAX, ..file("a") }, file("b")];
        assert!(arrange(huge).is_err());
        assert!(arrange((0..=MAX_RESOURCES).map(|n| file(&n.to_string())).collect()).is_err());
    }

    proptest! {
        /// An accepted list can be laid out: no path is a folder of another, in any spelling.
        #[test]
        fn accepted_lists_can_be_laid_out(paths in proptest::collection::vec("[aAb](/[aAb]){0,2}", 1..6)) {
            if let Ok(files) = arrange(paths.iter().map(|p| file(p)).collect()) {
                let folded: Vec<_> = files.iter().map(|f| f.path.case_folded()).collect();
                for (i, a) in folded.iter().enumerate() {
                    for (j, b) in folded.iter().enumerate() {
                        let below = b.strip_prefix(a.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
                        prop_assert!(i == j || !below);
                    }
                }
            }
        }
    }
}
