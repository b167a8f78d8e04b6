//! The entries of `finds` that are not in the file yet: a small log-structured merge.
//!
//! Ids and keys come in no order, so with an index kept by SQLite each event dirties two pages of 4 KiB that must be logged, synced and
//! moved. Here new entries gather in memory, and are written to `finds` in their order, a slice with each commit, so a page is dirtied
//! once for many. Invariants: this changes only after a commit, so it and the file together hold every entry of every committed row; what
//! a crash takes is read again from the rows past each lane's `folded`; memory is bounded by [`FREEZE`] entries, twice.

use std::collections::{BTreeSet, HashMap};

use rusqlite::{Connection, Result, params};

use super::schema::{Kind, hash, lane, offset, row};

/// Entries that gather before they begin to be written: of 64 Ki events.
pub(super) const FREEZE: usize = 128 * 1024;

/// A hash and a row that has it.
pub(super) type Entry = (i64, i64);

/// The entries that are not in the file yet.
#[derive(Debug, Default)]
pub(super) struct Index {
    young: BTreeSet<Entry>,
    /// The highest offset of each lane in `young`.
    ends: HashMap<i64, i64>,
    frozen: Option<Frozen>,
}

/// Entries that are being written.
#[derive(Debug)]
struct Frozen {
    /// Ascending.
    entries: Vec<Entry>,
    done: usize,
    ends: HashMap<i64, i64>,
}

impl Index {
    /// Reads what is not in the file yet, as after a crash.
    pub(super) fn load(db: &Connection) -> Result<Self> {
        let mut index = Self::default();
        let mut lanes = db.prepare("SELECT lane, stream, folded, next FROM lanes WHERE next > folded + 1")?;
        let lanes = lanes.query_map([], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?, row.get(2)?, row.get(3)?)))?;
        let mut rows = db.prepare("SELECT row, id, key FROM events WHERE row > ?1 AND row < ?2")?;
        for found in lanes {
            let (lane, stream, folded, next): (i64, i64, i64, i64) = found?;
            let mut rows = rows.query(params![row(lane, folded), row(lane, next)])?;
            while let Some(found) = rows.next()? {
                let (number, id, key): (i64, &str, &str) = (found.get(0)?, text(found, 1)?, text(found, 2)?);
                index.young.insert((hash(Kind::Id, stream, id), number));
                index.young.insert((hash(Kind::Key, stream, key), number));
            }
            index.ends.insert(lane, next - 1);
        }
        Ok(index)
    }

    /// The rows with this hash past `after`, of those that are not in the file yet.
    pub(super) fn rows(&self, hash: i64, after: i64, rows: &mut BTreeSet<i64>) {
        let range = (hash, after.saturating_add(1))..=(hash, i64::MAX);
        rows.extend(self.young.range(range.clone()).map(|(_, row)| *row));
        if let Some(frozen) = &self.frozen {
            let first = frozen.entries.partition_point(|entry| entry < range.start());
            rows.extend(frozen.entries[first..].iter().take_while(|entry| *entry <= range.end()).map(|(_, row)| *row));
        }
    }

    /// Writes the next slice, at most `most` entries, and says how many it wrote. Changes nothing here.
    pub(super) fn fold(&self, db: &Connection, most: usize) -> Result<usize> {
        let Some(frozen) = &self.frozen else { return Ok(0) };
        let slice = &frozen.entries[frozen.done..];
        let slice = &slice[..most.min(slice.len())];
        write(db, slice.iter())?;
        if frozen.done + slice.len() == frozen.entries.len() {
            mark(db, &frozen.ends)?;
        }
        Ok(slice.len())
    }

    /// Writes all that is left. The caller begins with an empty index after the commit.
    pub(super) fn fold_all(&self, db: &Connection) -> Result<()> {
        if let Some(frozen) = &self.frozen {
            write(db, frozen.entries[frozen.done..].iter())?;
            mark(db, &frozen.ends)?;
        }
        write(db, self.young.iter())?;
        mark(db, &self.ends)
    }

    /// Takes what a commit has brought: entries that are new and `folded` ones that are in the file now.
    pub(super) fn accept(&mut self, added: impl IntoIterator<Item = Entry>, folded: usize, freeze: usize) {
        for (hash, row) in added {
            let end = self.ends.entry(lane(row)).or_default();
            *end = offset(row).max(*end);
            self.young.insert((hash, row));
        }
        if let Some(frozen) = &mut self.frozen {
            frozen.done += folded;
            if frozen.done >= frozen.entries.len() {
                self.frozen = None;
            }
        }
        if self.frozen.is_none() && self.young.len() >= freeze {
            let entries = std::mem::take(&mut self.young).into_iter().collect();
            self.frozen = Some(Frozen { entries, done: 0, ends: std::mem::take(&mut self.ends) });
        }
    }
}

/// The text of a column without a copy.
pub(super) fn text<'a>(row: &'a rusqlite::Row<'_>, column: usize) -> Result<&'a str> {
    Ok(row.get_ref(column)?.as_str()?)
}

fn write<'a>(db: &Connection, entries: impl Iterator<Item = &'a Entry>) -> Result<()> {
    // A slice that was written before a crash is written again.
    let mut insert = db.prepare_cached("INSERT OR IGNORE INTO finds (hash, row) VALUES (?1, ?2)")?;
    for (hash, row) in entries {
        insert.execute([hash, row])?;
    }
    Ok(())
}

fn mark(db: &Connection, ends: &HashMap<i64, i64>) -> Result<()> {
    let mut update = db.prepare_cached("UPDATE lanes SET folded = max(folded, ?2) WHERE lane = ?1")?;
    for (lane, end) in ends {
        update.execute(params![lane, end])?;
    }
    Ok(())
}
