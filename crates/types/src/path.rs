//! The path of a file inside a model version.
//!
//! Invariant: relative, `/` between segments, every segment an ordinary name. So joining it to a
//! directory cannot leave that directory (links aside, which never enter an artifact).
//! Opening files is left to the crates that own directories.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// The longest path in bytes, and the deepest nesting.
pub const MAX_LENGTH: usize = 1024;
const MAX_DEPTH: usize = 32;
const MAX_SEGMENT: usize = 255;

/// A relative POSIX path of a file inside a version, such as `model.onnx` or `tokenizer/vocab.txt`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ArtifactPath(Arc<str>);

/// Why a text is not an artifact path. The text itself is not repeated: it may be hostile.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParsePathError {
    /// Empty, or longer or deeper than allowed.
    #[error("a path has 1 to {MAX_LENGTH} bytes, at most {MAX_DEPTH} segments and at most {MAX_SEGMENT} bytes in each")]
    Length,
    /// Absolute, or with empty segments, `.` or `..`.
    #[error("a path is relative and has no empty segment, no '.' and no '..'")]
    Escapes,
    /// A backslash, a colon or a control character.
    #[error("a path holds no backslash, no colon and no control character")]
    Character,
}

impl ArtifactPath {
    /// The path as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The place of this file under `directory`.
    #[must_use]
    pub fn under(&self, directory: &Path) -> PathBuf {
        directory.join(&*self.0)
    }

    /// What two paths share when a file system that ignores case takes them for one.
    #[must_use]
    pub fn case_folded(&self) -> String {
        self.0.to_lowercase()
    }
}

impl FromStr for ArtifactPath {
    type Err = ParsePathError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.is_empty() || text.len() > MAX_LENGTH || text.split('/').count() > MAX_DEPTH {
            return Err(ParsePathError::Length);
        }
        if text.chars().any(|c| c == '\\' || c == ':' || c.is_control()) {
            return Err(ParsePathError::Character);
        }
        for segment in text.split('/') {
            if segment.is_empty() || segment == "." || segment == ".." {
                return Err(ParsePathError::Escapes);
            }
            if segment.len() > MAX_SEGMENT {
                return Err(ParsePathError::Length);
            }
        }
        Ok(Self(text.into()))
    }
}

impl fmt::Display for ArtifactPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for ArtifactPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl Serialize for ArtifactPath {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for ArtifactPath {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        std::borrow::Cow::<'de, str>::deserialize(d)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn accepts_files_and_refuses_tricks() {
        for good in ["model.onnx", "a/b/c.txt", ".gitattributes", "with space.bin", "…/é"] {
            assert!(good.parse::<ArtifactPath>().is_ok(), "{good:?}");
        }
        for bad in ["", "/", "/etc/passwd", "../x", "a/../b", "a/./b", "a//b", "a/", "C:\\x", "a\\..\\b", "file:x", "a\0b", "a\nb", ".."] {
            assert!(bad.parse::<ArtifactPath>().is_err(), "{bad:?}");
        }
        assert!("a/".repeat(600).parse::<ArtifactPath>().is_err());
        assert!("x".repeat(256).parse::<ArtifactPath>().is_err());
    }

    proptest! {
        #[test]
        fn never_leaves_its_directory(text in "[a./\\\\:~ ]{0,24}") {
            if let Ok(path) = text.parse::<ArtifactPath>() {
                let base = Path::new("/base");
                let full = path.under(base);
                prop_assert!(full.starts_with(base));
                prop_assert!(full.components().all(|c| !matches!(c, std::path::Component::ParentDir)));
            }
        }
    }
}
