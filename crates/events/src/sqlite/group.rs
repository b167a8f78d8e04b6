//! What a group of submissions does to a file, in one transaction.
//!
//! Invariants: an event is compared with what is stored before it is inserted, so the same one is stored once however often it comes,
//! also within a group; a lane's `next` and `live` are written in the transaction that changed its rows. Statements are prepared once for
//! a group. It may run twice (the first time in a transaction that was undone), so it changes nothing but the database.

use std::collections::{BTreeSet, HashMap};

use plinth_types::Timestamp;
use rusqlite::{CachedStatement, Connection, OptionalExtension, Result, params};

use super::index::{Entry, Index, text};
use super::schema::{Kind, LAST_OFFSET, hash, lane, offset, row};
use crate::batcher::{Answer, Submission};
use crate::error::EventsError;
use crate::event::{Appended, Event, Position};
use crate::stream::Mode;

/// What a group has done. Holds once it is committed.
pub(super) struct Applied {
    pub(super) answers: Vec<Answer>,
    pub(super) added: BTreeSet<Entry>,
    pub(super) folded: usize,
}

/// A lane as it is within the transaction.
struct Lane {
    lane: i64,
    next: i64,
    live: i64,
    swept: i64,
    touched: bool,
}

/// A transaction at work.
struct Group<'a> {
    db: &'a Connection,
    index: &'a Index,
    now: i64,
    insert: CachedStatement<'a>,
    finds: CachedStatement<'a>,
    event: CachedStatement<'a>,
    lanes: HashMap<(i64, u16), Lane>,
    added: BTreeSet<Entry>,
}

/// Stores a group, and writes the next slice of the index.
pub(super) fn apply(db: &Connection, index: &Index, group: &[Submission], now: Timestamp) -> Result<Applied> {
    let mut work = Group {
        db,
        index,
        now: millis(now),
        insert: db.prepare_cached("INSERT INTO events (row, id, key, at, stored_at, data) VALUES (?1, ?2, ?3, ?4, ?5, ?6)")?,
        finds: db.prepare_cached("SELECT row FROM finds WHERE hash = ?1")?,
        event: db.prepare_cached("SELECT id, key, at, data FROM events WHERE row = ?1")?,
        lanes: HashMap::new(),
        added: BTreeSet::new(),
    };
    let answers = group.iter().map(|submission| work.submission(submission)).collect::<Result<Vec<_>>>()?;
    work.write_lanes()?;
    // Four times what came in, so that a frozen half is written long before the other is full.
    let folded = index.fold(db, work.added.len() * 4 + 256)?;
    Ok(Applied { answers, added: work.added, folded })
}

impl Group<'_> {
    fn submission(&mut self, submission: &Submission) -> Result<Answer> {
        // Looked at here, where nothing else writes: what is left of a deleted stream is removed by this same writer later.
        if submission.stream.is_deleted() {
            return Ok(Err(EventsError::NoSuchStream));
        }
        let (stream, mode) = (submission.stream.number, submission.stream.mode);
        let appended = submission.events.iter().map(|placed| self.append(stream, mode, placed.partition, &placed.event));
        appended.collect::<Result<Vec<_>>>().map(Ok)
    }

    fn append(&mut self, stream: i64, mode: Mode, partition: u16, event: &Event) -> Result<Appended> {
        let (id, key) = (event.id.as_str(), event.key.as_str());
        let id_hash = hash(Kind::Id, stream, id);
        for candidate in self.candidates(id_hash)? {
            let mut found = self.event.query([candidate])?;
            // One whose row is gone was forgotten.
            let Some(found) = found.next()? else { continue };
            if text(found, 0)? == id && text(found, 1)? == key {
                let position = Position { partition, offset: offset(candidate).cast_unsigned() };
                let same = event.same(time(found.get(2)?), found.get_ref(3)?.as_bytes_or_null()?);
                return Ok(if same { Appended::Already(position) } else { Appended::Differs(position) });
            }
        }
        let key_hash = hash(Kind::Key, stream, key);
        let before = if mode == Mode::Latest { self.last_of_key(key_hash, key)? } else { None };
        self.lane(stream, partition)?;
        let Some(at) = self.lanes.get_mut(&(stream, partition)) else { return Err(rusqlite::Error::QueryReturnedNoRows) };
        if at.next >= LAST_OFFSET {
            return Err(rusqlite::Error::IntegralValueOutOfRange(0, i64::MAX));
        }
        let (number, position) = (row(at.lane, at.next), Position { partition, offset: at.next.cast_unsigned() });
        at.next += 1;
        at.touched = true;
        at.live += i64::from(event.data.is_some()) - i64::from(before.is_some_and(|(_, live)| live));
        // Retention has passed it while it was its key's row; now it is not, and nobody would look at it again.
        let passed = before.map(|(row, _)| row).filter(|row| lane(*row) == at.lane && offset(*row) <= at.swept);
        self.insert.execute(params![number, id, key, event.at.map(millis), self.now, event.data])?;
        self.added.insert((id_hash, number));
        self.added.insert((key_hash, number));
        if let Some(passed) = passed {
            remove(self.db, stream, passed)?;
        }
        Ok(Appended::New(position))
    }

    /// The rows that may have a hash: of this group, of the index in memory and of the file.
    fn candidates(&mut self, hash: i64) -> Result<BTreeSet<i64>> {
        let mut rows: BTreeSet<i64> = self.added.range((hash, 0)..=(hash, i64::MAX)).map(|(_, row)| *row).collect();
        self.index.rows(hash, 0, &mut rows);
        let mut found = self.finds.query([hash])?;
        while let Some(found) = found.next()? {
            rows.insert(found.get(0)?);
        }
        Ok(rows)
    }

    /// The last event of a key, and whether it is live.
    fn last_of_key(&mut self, key_hash: i64, key: &str) -> Result<Option<(i64, bool)>> {
        let newest = last_in_file(self.db, key_hash, i64::MAX)?;
        let mut rows: BTreeSet<i64> = self.added.range((key_hash, 0)..=(key_hash, i64::MAX)).map(|(_, row)| *row).collect();
        self.index.rows(key_hash, 0, &mut rows);
        rows.extend(newest);
        // All of a key are in one lane, and of one lane the highest is the last. Those of another key with the same hash are passed over.
        while let Some(candidate) = rows.pop_last() {
            let mut found = self.event.query([candidate])?;
            if let Some(found) = found.next()?
                && text(found, 1)? == key
            {
                return Ok(Some((candidate, !matches!(found.get_ref(3)?, rusqlite::types::ValueRef::Null))));
            }
            if Some(candidate) == newest || rows.is_empty() {
                rows.extend(last_in_file(self.db, key_hash, candidate)?);
            }
        }
        Ok(None)
    }

    /// Reads a lane, or makes it.
    fn lane(&mut self, stream: i64, partition: u16) -> Result<()> {
        if self.lanes.contains_key(&(stream, partition)) {
            return Ok(());
        }
        let mut find = self.db.prepare_cached("SELECT lane, next, live, swept FROM lanes WHERE stream = ?1 AND partition = ?2")?;
        let read = |row: &rusqlite::Row<'_>| {
            Ok(Lane { lane: row.get(0)?, next: row.get(1)?, live: row.get(2)?, swept: row.get(3)?, touched: false })
        };
        let lane = match find.query_row(params![stream, partition], read).optional()? {
            Some(lane) => lane,
            None => {
                let mut make = self.db.prepare_cached("INSERT INTO lanes (stream, partition) VALUES (?1, ?2)")?;
                Lane { lane: make.insert(params![stream, partition])?, next: 1, live: 0, swept: 0, touched: false }
            }
        };
        self.lanes.insert((stream, partition), lane);
        Ok(())
    }

    fn write_lanes(&self) -> Result<()> {
        let mut update = self.db.prepare_cached("UPDATE lanes SET next = ?2, live = ?3 WHERE lane = ?1")?;
        for lane in self.lanes.values().filter(|lane| lane.touched) {
            update.execute(params![lane.lane, lane.next, lane.live])?;
        }
        Ok(())
    }
}

fn last_in_file(db: &Connection, hash: i64, before: i64) -> Result<Option<i64>> {
    let mut find = db.prepare_cached("SELECT row FROM finds WHERE hash = ?1 AND row < ?2 ORDER BY row DESC LIMIT 1")?;
    find.query_row([hash, before], |row| row.get(0)).optional()
}

/// Removes a row and its entries. It must be in the index of the file.
pub(super) fn remove(db: &Connection, stream: i64, number: i64) -> Result<()> {
    let mut find = db.prepare_cached("DELETE FROM events WHERE row = ?1 RETURNING id, key")?;
    let read = |found: &rusqlite::Row<'_>| Ok((hash(Kind::Id, stream, text(found, 0)?), hash(Kind::Key, stream, text(found, 1)?)));
    let Some((id, key)) = find.query_row([number], read).optional()? else { return Ok(()) };
    let mut delete = db.prepare_cached("DELETE FROM finds WHERE (hash = ?1 OR hash = ?2) AND row = ?3")?;
    delete.execute([id, key, number])?;
    Ok(())
}

/// A moment as SQLite's integer.
pub(super) fn millis(time: Timestamp) -> i64 {
    time.millis().cast_signed()
}

/// A moment from SQLite's integer.
pub(super) fn time(millis: Option<i64>) -> Option<Timestamp> {
    millis.and_then(|millis| Timestamp::from_millis(millis.cast_unsigned()).ok())
}
