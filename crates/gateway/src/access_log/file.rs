//! The file of the access log, and those that were put aside: `NAME.1` is the newest of them. The calls block.
//!
//! Invariant: all of them together take at most `size × (files + 1)` bytes, and a write more. The file is opened for each write, so that who
//! moves it away (logrotate) gets a new one at once.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

/// Where lines are written.
#[derive(Debug, Clone)]
pub(super) struct File {
    pub path: PathBuf,
    /// What it has grown beyond when it is put aside.
    pub size: u64,
    /// How many that were put aside are kept.
    pub kept: u32,
}

impl File {
    /// Adds text to the end.
    pub(super) fn append(&self, text: &[u8]) -> io::Result<()> {
        let mut file = OpenOptions::new().append(true).create(true).mode(0o600).open(&self.path)?;
        file.write_all(text)?;
        if file.metadata()?.len() >= self.size {
            drop(file);
            self.turn()?;
        }
        Ok(())
    }

    fn turn(&self) -> io::Result<()> {
        if self.kept == 0 {
            return fs::remove_file(&self.path);
        }
        for number in (1..self.kept).rev() {
            match fs::rename(self.aside(number), self.aside(number + 1)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        fs::rename(&self.path, self.aside(1))
    }

    fn aside(&self, number: u32) -> PathBuf {
        let mut name = self.path.as_os_str().to_owned();
        name.push(format!(".{number}"));
        name.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn full_files_are_put_aside_and_the_oldest_goes() {
        let directory = tempfile::tempdir().unwrap();
        let file = File { path: directory.path().join("access.jsonl"), size: 10, kept: 2 };
        for line in ["one one one\n", "two two two\n", "three three\n", "four\n"] {
            file.append(line.as_bytes()).unwrap();
        }
        let read = |name: &str| fs::read_to_string(directory.path().join(name)).unwrap_or_default();
        assert_eq!((read("access.jsonl"), read("access.jsonl.1")), ("four\n".to_owned(), "three three\n".to_owned()));
        assert_eq!((read("access.jsonl.2"), read("access.jsonl.3")), ("two two two\n".to_owned(), String::new()));
        let gone = File { kept: 0, ..file };
        gone.append(b"long enough to go\n").unwrap();
        assert!(!gone.path.exists());
    }
}
