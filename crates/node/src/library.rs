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
    if let Some(beside) = std::env::current_exe().ok().and_then(|exe| Some(exe.parent()?.to_owned())) {
        places.extend([beside.join("../lib"), beside.clone()]);
        // A build in `target/release` of a checkout.
        places.push(beside.join("../../.plinth/lib"));
    }
    places.push(PathBuf::from(".plinth/lib"));
    places.extend(["/usr/local/lib", "/usr/lib", "/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu"].map(PathBuf::from));
    places.into_iter().map(|place| place.join(NAME)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

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
