//! Commits behind a large snapshot, so that it is not written anew for each of them.
//!
//! Format of `snapshot.journal`: lines of JSON. The first names the digest of the snapshot's body (`base`); each further one
//! has a `body` and in `sha256` the digest of the one before together with that body. Invariants: a line that was shown is
//! whole, because it was synced before; what a crash has cut is the last line and was not shown, so it is left out; a
//! journal of another snapshot is left out as a whole.

use std::fs::File;
use std::io::{BufRead, BufReader, ErrorKind, Seek, SeekFrom, Write};
use std::path::Path;

use plinth_store::metadata::AuditEntry;
use plinth_types::{Digest, DigestHasher, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::{SnapshotFileError, options};
use crate::Snapshot;

/// The end of a journal, to which more can be added.
#[derive(Debug)]
pub(super) struct Journal {
    base: Digest,
    /// The digest of its last line, or of the snapshot while it has none.
    end: Digest,
    /// The length of what is good in the file; 0 while there is no journal of this snapshot.
    length: u64,
}

#[derive(Serialize, Deserialize)]
struct First {
    base: Digest,
}

#[derive(Serialize, Deserialize)]
struct Line {
    sha256: Digest,
    body: Box<RawValue>,
}

/// What a line says: the ledger was seen to stand here, after this commit when there is one.
#[derive(Deserialize)]
struct Step {
    checked_at: Timestamp,
    #[serde(default)]
    commit: Option<AuditEntry>,
}

/// The same for writing.
#[derive(Serialize)]
struct StepOf<'a> {
    checked_at: Timestamp,
    #[serde(skip_serializing_if = "Option::is_none")]
    commit: Option<&'a AuditEntry>,
}

impl Journal {
    /// The journal of a snapshot behind which nothing stands yet.
    pub fn new(base: Digest) -> Self {
        Self { base, end: base, length: 0 }
    }

    /// Puts commits behind the snapshot, or when there are none that it was looked for some; not when the journal would be
    /// longer than `most` then. Blocking. When it returns `Ok(true)` they are on disk for good.
    ///
    /// # Errors
    /// [`SnapshotFileError::Io`]; the journal ends where it did.
    pub fn append(&mut self, path: &Path, commits: &[AuditEntry], checked_at: Timestamp, most: u64) -> Result<bool, SnapshotFileError> {
        let io = |source| SnapshotFileError::Io { operation: "writing behind", source };
        let (mut text, mut end) = (Vec::new(), self.end);
        if self.length == 0 {
            write_line(&mut text, &First { base: self.base }).map_err(io)?;
        }
        let steps: Vec<_> = if commits.is_empty() { vec![None] } else { commits.iter().map(Some).collect() };
        for commit in steps {
            let body = serde_json::value::to_raw_value(&StepOf { checked_at, commit }).map_err(|e| io(e.into()))?;
            end = chained(&end, body.get());
            write_line(&mut text, &Line { sha256: end, body }).map_err(io)?;
        }
        let length = self.length + text.len() as u64;
        if length > most {
            return Ok(false);
        }
        let mut file = options().write(true).truncate(false).open(path).map_err(io)?;
        // Takes away what a crash or a full disk has left behind the good part.
        file.set_len(self.length).map_err(io)?;
        file.seek(SeekFrom::Start(self.length)).map_err(io)?;
        file.write_all(&text).and_then(|()| file.sync_data()).map_err(io)?;
        if let (0, Some(directory)) = (self.length, path.parent()) {
            File::open(directory).and_then(|d| d.sync_all()).map_err(io)?;
        }
        (self.end, self.length) = (end, length);
        Ok(true)
    }
}

fn write_line(text: &mut Vec<u8>, line: &impl Serialize) -> std::io::Result<()> {
    serde_json::to_writer(&mut *text, line)?;
    text.push(b'\n');
    Ok(())
}

fn chained(before: &Digest, body: &str) -> Digest {
    let mut hasher = DigestHasher::new();
    hasher.update(before.hex().as_bytes());
    hasher.update(body.as_bytes());
    hasher.finish()
}

/// Lets a snapshot follow the journal behind it; also says when the ledger was last seen to stand there.
///
/// # Errors
/// [`SnapshotFileError`]: `Damaged` when a line that is not the last does not fit.
pub(super) fn follow(path: &Path, base: &Digest, snapshot: &mut Snapshot) -> Result<(Journal, Option<Timestamp>), SnapshotFileError> {
    let io = |source| SnapshotFileError::Io { operation: "reading behind", source };
    let mut journal = Journal::new(*base);
    let mut file = match File::open(path) {
        Ok(file) => BufReader::new(file),
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok((journal, None)),
        Err(e) => return Err(io(e)),
    };
    let mut line = Vec::new();
    let first = file.read_until(b'\n', &mut line).map_err(io)?;
    let whole = line.strip_suffix(b"\n").and_then(|line| serde_json::from_slice::<First>(line).ok());
    if whole.is_none_or(|first| first.base != *base) {
        return Ok((journal, None));
    }
    journal.length = first as u64;
    let mut checked_at = None;
    loop {
        line.clear();
        let read = file.read_until(b'\n', &mut line).map_err(io)?;
        if read == 0 {
            return Ok((journal, checked_at));
        }
        let Some(step) = read_step(&line, &mut journal) else {
            // Only the last line can be one that was being written when the machine stopped.
            if file.fill_buf().map_err(io)?.is_empty() {
                tracing::warn!("the last line behind the snapshot was not written whole and is left out");
                return Ok((journal, checked_at));
            }
            return Err(SnapshotFileError::Damaged("what stands behind it does not fit"));
        };
        if let Some(commit) = &step.commit {
            snapshot.follow(commit).map_err(|_| SnapshotFileError::Damaged("a commit behind it cannot be followed"))?;
        }
        checked_at = Some(step.checked_at);
        journal.length += read as u64;
    }
}

/// A line that fits behind the journal; the journal ends with it then.
fn read_step(line: &[u8], journal: &mut Journal) -> Option<Step> {
    let line: Line = serde_json::from_slice(line.strip_suffix(b"\n")?).ok()?;
    let end = chained(&journal.end, line.body.get());
    if line.sha256 != end {
        return None;
    }
    let step = serde_json::from_str(line.body.get()).ok()?;
    journal.end = end;
    Some(step)
}
