//! Where ONNX Runtime's shared library is.

use std::path::{Path, PathBuf};

/// No library was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LibraryNotFound {
    /// Where it was looked for.
    pub looked: Vec<PathBuf>,
}

impl std::fmt::Display for LibraryNotFound {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ONNX Runtime's shared library was not found; `make setup` fetches it, or set engine.onnxruntime")
    }
}

const NAME: &str = "libonnxruntime.so";

/// Finds the library: the configured one, else in the data directory, beside the binary, under the working directory's
/// `.plinth`, and where systems keep shared libraries.
///
/// # Errors
/// When none of them is there. A configured path is not replaced by a guess.
pub fn find_onnxruntime(configured: Option<&Path>, data_dir: &Path) -> Result<PathBuf, LibraryNotFound> {
    let candidates = match configured {
        Some(path) => vec![path.to_owned()],
        None => candidates(data_dir),
    };
    let found = candidates.iter().find(|path| path.is_file()).and_then(|path| path.canonicalize().ok());
    found.ok_or(LibraryNotFound { looked: candidates })
}

fn candidates(data_dir: &Path) -> Vec<PathBuf> {
    let mut places = vec![data_dir.join("lib")];
    let binary = std::env::current_exe().unwrap_or_default();
    // `bin/../lib` of an installation, the binary's own directory, and the checkout of a build in `target/release`.
    places.extend(binary.ancestors().nth(2).map(|prefix| prefix.join("lib")));
    places.extend(binary.parent().map(Path::to_owned));
    places.extend(binary.ancestors().nth(3).map(|checkout| checkout.join(".plinth/lib")));
    places.push(PathBuf::from(".plinth/lib"));
    places.extend(["/usr/local/lib", "/usr/lib", "/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu"].map(PathBuf::from));
    let mut candidates: Vec<_> = Vec::with_capacity(places.len());
    for candidate in places.into_iter().map(|place| place.join(NAME)) {
        if !candidates.contains(&candidate) {
            candidates.push(candidate);
        }
    }
    candidates
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_place_is_looked_at_once_and_named_plainly() {
        let places = candidates(Path::new(".plinth"));
        assert_eq!(places[0], Path::new(".plinth/lib/libonnxruntime.so"));
        assert_eq!(places.iter().filter(|place| **place == places[0]).count(), 1);
        assert!(places.iter().all(|place| !place.to_string_lossy().contains("..")), "{places:?}");
    }

    #[test]
    fn a_configured_path_is_not_guessed_around() {
        let data = tempfile::tempdir().unwrap();
        std::fs::create_dir(data.path().join("lib")).unwrap();
        std::fs::write(data.path().join("lib").join(NAME), b"x").unwrap();
        assert!(find_onnxruntime(None, data.path()).is_ok());
        let error = find_onnxruntime(Some(Path::new("/nowhere/lib.so")), data.path()).unwrap_err();
        assert_eq!(error.looked, vec![PathBuf::from("/nowhere/lib.so")]);
    }
}
