//! The files of the log: `refusals.jsonl`, which grows, and `refusals-<sequence>.jsonl`, named after their first line.
//! The calls block.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use plinth_types::Digest;
use serde::Serialize;

use super::line::{Entry, Line};
use crate::files;

/// A file that has grown beyond this is put aside.
pub const MAX_FILE: u64 = 16 << 20;

/// So many files that were put aside are kept.
pub const KEPT: usize = 7;

/// No line is longer.
const MAX_LINE: u64 = 16 << 10;

const CURRENT: &str = "refusals.jsonl";

/// The end of the chain, to which lines are added.
pub(super) struct Chain {
    directory: PathBuf,
    /// Found out at the first line.
    open: Option<Open>,
}

struct Open {
    file: File,
    length: u64,
    /// The sequence of the first line in the file.
    first: u64,
    sequence: u64,
    last: Digest,
}

impl Chain {
    pub(super) const fn new(directory: PathBuf) -> Self {
        Self { directory, open: None }
    }

    /// Adds lines; all of them are on the disk when this returns, or none counts.
    pub(super) fn append(&mut self, entries: &[Entry]) -> io::Result<()> {
        let mut open = match self.open.take() {
            Some(open) if open.length < MAX_FILE => open,
            Some(open) => self.turn(open)?,
            None => self.find()?,
        };
        let mut text = Vec::new();
        let (mut sequence, mut last) = (open.sequence, open.last);
        for entry in entries {
            sequence += 1;
            let line = serde_json::to_vec(&Line { sequence, previous: last, entry: entry.clone() })?;
            last = Digest::of(&line);
            text.extend_from_slice(&line);
            text.push(b'\n');
        }
        // After a failure the file is looked at again, and what was half written is cut off.
        open.file.write_all(&text)?;
        open.file.sync_data()?;
        open.length += text.len() as u64;
        self.open = Some(Open { sequence, last, ..open });
        Ok(())
    }

    /// Finds the end of the chain. What stands behind the last line feed was never whole and is cut off.
    fn find(&self) -> io::Result<Open> {
        files::make_directory(&self.directory)?;
        let path = self.directory.join(CURRENT);
        let mut file = OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(&path)?;
        files::sync_parent(&path)?;
        let length = whole_lines(&mut file)?;
        file.set_len(length)?;
        let mut end = last_line(&mut file, length)?;
        let first = first_sequence(&mut file)?;
        if length == 0
            && let Some(path) = aside(&self.directory)?.pop()
        {
            let mut before = File::open(path)?;
            let length = before.metadata()?.len();
            end = last_line(&mut before, length)?;
        }
        let (sequence, last) = match end {
            None => (0, Digest::of(b"")),
            Some(bytes) => {
                let line: Line = serde_json::from_slice(&bytes).map_err(|error| {
                    io::Error::other(format!("the last line is damaged ({error}); move the files of 'audit' away to begin anew"))
                })?;
                (line.sequence, Digest::of(&bytes))
            }
        };
        Ok(Open { file, length, first: first.unwrap_or(sequence + 1), sequence, last })
    }

    /// Puts the file aside, begins another, and deletes the oldest.
    fn turn(&self, open: Open) -> io::Result<Open> {
        let path = self.directory.join(CURRENT);
        std::fs::rename(&path, self.directory.join(format!("refusals-{:020}.jsonl", open.first)))?;
        tracing::info!(sequence = open.sequence, digest = %open.last, "a file of the log of refusals is full");
        let mut old = aside(&self.directory)?;
        old.truncate(old.len().saturating_sub(KEPT));
        old.iter().try_for_each(std::fs::remove_file)?;
        self.find()
    }
}

/// The files that were put aside, oldest first.
fn aside(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let digits = name.strip_prefix("refusals-").and_then(|rest| rest.strip_suffix(".jsonl"));
        if digits.is_some_and(|digits| digits.len() == 20 && digits.bytes().all(|b| b.is_ascii_digit())) {
            found.push(path);
        }
    }
    found.sort_unstable();
    Ok(found)
}

/// The length of a file up to its last line feed.
fn whole_lines(file: &mut File) -> io::Result<u64> {
    let length = file.metadata()?.len();
    let start = length.saturating_sub(2 * MAX_LINE);
    let tail = read_from(file, start, length)?;
    Ok(tail.iter().rposition(|byte| *byte == b'\n').map_or(start, |place| start + place as u64 + 1))
}

/// The last line of a file that ends with a line feed at `length`.
fn last_line(file: &mut File, length: u64) -> io::Result<Option<Vec<u8>>> {
    let Some(end) = length.checked_sub(1) else { return Ok(None) };
    let mut tail = read_from(file, end.saturating_sub(2 * MAX_LINE), end)?;
    let begin = tail.iter().rposition(|byte| *byte == b'\n').map_or(0, |place| place + 1);
    Ok(Some(tail.split_off(begin)))
}

fn first_sequence(file: &mut File) -> io::Result<Option<u64>> {
    file.seek(SeekFrom::Start(0))?;
    let mut line = Vec::new();
    BufReader::new(file.take(MAX_LINE)).read_until(b'\n', &mut line)?;
    Ok(serde_json::from_slice::<Line>(&line).ok().map(|line| line.sequence))
}

fn read_from(file: &mut File, start: u64, end: u64) -> io::Result<Vec<u8>> {
    file.seek(SeekFrom::Start(start))?;
    let mut bytes = Vec::new();
    file.take(end.saturating_sub(start)).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// What a look at the whole log has found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct RefusalsReport {
    /// How many lines hold together.
    pub lines: u64,
    /// The number of the first line that is kept; older ones were deleted for room.
    pub first: u64,
    /// The number of the last of them.
    pub last: u64,
    /// The digest of the last of them. Kept elsewhere, it shows later whether lines were taken from the end.
    pub digest: Option<Digest>,
    /// Where the chain is broken, if it is.
    pub broken: Option<Broken>,
}

/// A place at which the chain is broken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Broken {
    /// The name of the file.
    pub file: String,
    /// The line in it, from 1.
    pub line: u64,
    /// What is wrong.
    pub why: String,
}

/// Looks at every line that is kept. Blocks; takes about a second for each 100 MiB.
///
/// # Errors
/// When the files cannot be read. A chain that is broken is a finding, no error.
pub fn verify(directory: &Path) -> io::Result<RefusalsReport> {
    let mut report = RefusalsReport::default();
    if !directory.exists() {
        return Ok(report);
    }
    let mut paths = aside(directory)?;
    paths.push(directory.join(CURRENT));
    for path in paths.iter().filter(|path| path.exists()) {
        let mut file = BufReader::new(File::open(path)?);
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        for number in 1.. {
            let mut bytes = Vec::new();
            if (&mut file).take(MAX_LINE).read_until(b'\n', &mut bytes)? == 0 {
                break;
            }
            if let Err(why) = follow(&mut report, &bytes) {
                report.broken = Some(Broken { file: name.into_owned(), line: number, why: why.to_owned() });
                return Ok(report);
            }
        }
    }
    Ok(report)
}

/// Takes in the next line.
fn follow(report: &mut RefusalsReport, bytes: &[u8]) -> Result<(), &'static str> {
    let bytes = bytes.strip_suffix(b"\n").ok_or("the line has no end")?;
    let line: Line = serde_json::from_slice(bytes).map_err(|_| "the line cannot be read")?;
    match report.digest {
        None if line.sequence == 1 && line.previous != Digest::of(b"") => return Err("the first line has one before it"),
        None => report.first = line.sequence,
        Some(digest) if line.previous != digest => return Err("the line before it was changed, or lines are missing"),
        Some(_) if line.sequence != report.last + 1 => return Err("the number does not follow"),
        Some(_) => {}
    }
    (report.lines, report.last, report.digest) = (report.lines + 1, line.sequence, Some(Digest::of(bytes)));
    Ok(())
}
