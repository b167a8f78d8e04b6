//! What stands behind `--input` of a job: JSON on the command line, in a file, or on standard input (`-`).
//!
//! Invariant: the JSON is passed on as it was written; numbers keep all their digits.

use std::path::Path;

use serde_json::value::RawValue;

use crate::exit::{Exit, Failure};
use crate::files;

/// The longest file. The node has a limit of its own, which is usually lower.
const MAX_FILE: u64 = 256 << 20;

/// The JSON that `text` is or names. `option` is for what is said when it is none.
pub fn read(option: &str, text: &str) -> Result<Box<RawValue>, Failure> {
    let (from, json) = if is_json(text) {
        ("the text".to_owned(), text.to_owned())
    } else {
        let from = if text == "-" { "standard input".to_owned() } else { format!("'{text}'") };
        (from, files::read_text(Path::new(text), MAX_FILE).map_err(|failure| unreadable(failure, option, text))?)
    };
    serde_json::from_str(json.trim()).map_err(|error| {
        Failure::new(Exit::Failed, format!("{from} is not JSON: {error}"))
            .next(format!("`{option}` takes JSON, the name of a file with JSON, or - for standard input"))
    })
}

/// Something that begins like JSON is JSON; everything else is a file.
fn is_json(text: &str) -> bool {
    let text = text.trim_start();
    text.starts_with(['{', '[', '"']) || matches!(text.trim_end(), "true" | "false" | "null") || text.parse::<f64>().is_ok()
}

fn unreadable(failure: Failure, option: &str, text: &str) -> Failure {
    if Path::new(text).exists() || text == "-" {
        return failure;
    }
    failure.next(format!("`{option}` takes JSON, the name of a file with JSON, or - for standard input"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_and_files_are_told_apart_and_passed_on_as_they_are() {
        for text in [r#"{"a": 1.00000000000000000001}"#, "[1]", r#""x""#, "17", "null", " {} "] {
            assert_eq!(read("--input", text).unwrap().get(), text.trim());
        }
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("request.json");
        std::fs::write(&path, "{\"b\":  2}\n").unwrap();
        assert_eq!(read("--input", path.to_str().unwrap()).unwrap().get(), "{\"b\":  2}");
        std::fs::write(&path, "b = 2").unwrap();
        let failure = read("--input", path.to_str().unwrap()).unwrap_err();
        assert!(failure.message.contains("is not JSON") && !failure.next.is_empty(), "{failure:?}");
        assert!(read("--input", "{").unwrap_err().message.starts_with("the text is not JSON"));
        let missing = read("--input", "missing.json").unwrap_err();
        assert!(missing.message.contains("'missing.json' cannot be read") && missing.next[0].contains("--input"), "{missing:?}");
    }
}
