//! The labels of outputs, for the classification extension: files of the version, one label a line.
//!
//! Invariant: a file is hashed before it is used, and all of them together have at most [`MAX_BYTES`] bytes.

use std::collections::BTreeMap;

use plinth_types::{Digest, Error, Reason, Result};

use crate::LocalVersion;
use crate::model_config::ModelConfig;

/// The most bytes of all label files of a version.
const MAX_BYTES: u64 = 4 << 20;

/// Labels by output.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Labels(BTreeMap<String, Vec<String>>);

impl Labels {
    /// Reads the files that the configuration names.
    pub(crate) async fn read(config: &ModelConfig, local: &LocalVersion) -> Result<Self> {
        let refuse = |text: String| Error::new(Reason::ModelLoadFailed, text).field("label_filename");
        let mut labels = BTreeMap::new();
        let mut bytes = 0u64;
        for (output, path) in config.label_files() {
            let Some(file) = local.files.iter().find(|f| f.path == path) else {
                return Err(refuse(format!("the label file '{path}' is not among the version's files")));
            };
            bytes = bytes.saturating_add(file.size);
            if bytes > MAX_BYTES {
                return Err(refuse(format!("the label files have more than {MAX_BYTES} bytes")));
            }
            let read = tokio::fs::read(path.under(&local.directory)).await;
            let text = read.map_err(|e| Error::internal("reading a label file").source(e))?;
            if Digest::of(&text) != file.digest {
                return Err(Error::new(Reason::ContentAltered, format!("the label file '{path}' was altered on disk")));
            }
            let text = String::from_utf8(text).map_err(|_| refuse(format!("the label file '{path}' is not UTF-8")))?;
            labels.insert(output, text.lines().map(str::to_owned).collect());
        }
        Ok(Self(labels))
    }

    /// The labels of an output, by index, if it has any.
    #[must_use]
    pub fn of(&self, output: &str) -> Option<&[String]> {
        self.0.get(output).map(Vec::as_slice)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use plinth_engine::FileSpec;

    #[tokio::test]
    async fn labels_are_read_and_checked() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("l.txt"), "zero\r\none\n").unwrap();
        let file = |digest: Digest| FileSpec { path: "l.txt".parse().unwrap(), size: 11, digest };
        let local = |files| LocalVersion { directory: directory.path().to_owned(), files };
        let config = ModelConfig::parse_pbtxt(br#"output { name: "y" label_filename: "l.txt" } output { name: "z" }"#).unwrap();
        let labels = Labels::read(&config, &local(vec![file(Digest::of(b"zero\r\none\n"))])).await.unwrap();
        assert_eq!((labels.of("y"), labels.of("z")), (Some(&["zero".to_owned(), "one".to_owned()][..]), None));
        let altered = Labels::read(&config, &local(vec![file(Digest::of(b"other"))])).await.unwrap_err();
        assert_eq!(altered.reason(), Reason::ContentAltered);
        let missing = Labels::read(&config, &local(vec![])).await.unwrap_err();
        assert_eq!(missing.reason(), Reason::ModelLoadFailed);
        let large = FileSpec { size: MAX_BYTES + 1, ..file(Digest::of(b"")) };
        assert_eq!(Labels::read(&config, &local(vec![large])).await.unwrap_err().reason(), Reason::ModelLoadFailed);
    }
}
