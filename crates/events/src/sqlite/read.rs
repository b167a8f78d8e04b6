//! Questions to a file. Each sees what was committed before it began.
//!
//! Invariant: the index in memory is asked before the file. What moves from one to the other meanwhile is then found twice (rows are a set)
//! and never missed.

use std::collections::BTreeSet;

use plinth_types::Timestamp;
use rusqlite::{Connection, OptionalExtension, Result, Row, params};

use super::schema::{LAST_OFFSET, lane, offset, row};
use crate::event::{Event, EventId, Key, MOST_IN_PAGE, MOST_PAGE_BYTES, Position, Stored};

const COLUMNS: &str = "row, id, key, at, stored_at, data";

/// Collects a page within its bounds.
pub(crate) struct Page {
    rows: Vec<Stored>,
    limit: usize,
    bytes: usize,
}

impl Page {
    pub(crate) fn new(limit: u32) -> Self {
        Self { rows: Vec::new(), limit: limit.min(MOST_IN_PAGE) as usize, bytes: 0 }
    }

    pub(crate) fn full(&self) -> bool {
        self.rows.len() >= self.limit || self.bytes > MOST_PAGE_BYTES
    }

    pub(crate) fn push(&mut self, stored: Stored) {
        self.bytes += stored.event.weight();
        self.rows.push(stored);
    }

    pub(crate) fn done(self) -> Vec<Stored> {
        self.rows
    }
}

/// The lane of a partition.
pub(super) fn lane_of(db: &Connection, stream: i64, partition: u16) -> Result<Option<i64>> {
    let mut find = db.prepare_cached("SELECT lane FROM lanes WHERE stream = ?1 AND partition = ?2")?;
    find.query_row(params![stream, partition], |row| row.get(0)).optional()
}

/// An offset from outside.
fn place(offset: u64) -> i64 {
    i64::try_from(offset).map_or(LAST_OFFSET, |offset| offset.min(LAST_OFFSET))
}

fn damaged(column: usize, text: &'static str) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(column, rusqlite::types::Type::Text, text.into())
}

fn stored(row: &Row<'_>, partition: u16) -> Result<Stored> {
    let id = EventId::try_from(row.get::<_, String>(1)?).map_err(|_| damaged(1, "not an id"))?;
    let key = Key::try_from(row.get::<_, String>(2)?).map_err(|_| damaged(2, "not a key"))?;
    let moment = |column, millis: i64| Timestamp::from_millis(millis.cast_unsigned()).map_err(|_| damaged(column, "not a time"));
    let at = row.get::<_, Option<i64>>(3)?.map(|millis| moment(3, millis)).transpose()?;
    let position = Position { partition, offset: offset(row.get(0)?).cast_unsigned() };
    Ok(Stored { event: Event { id, key, at, data: row.get(5)? }, position, stored_at: moment(4, row.get(4)?)? })
}

/// A partition's events after an offset.
pub(super) fn read(db: &Connection, stream: i64, partition: u16, after: u64, limit: u32) -> Result<Vec<Stored>> {
    let mut page = Page::new(limit);
    let Some(lane) = lane_of(db, stream, partition)? else { return Ok(page.done()) };
    let mut find = db.prepare_cached(&format!("SELECT {COLUMNS} FROM events WHERE row > ?1 AND row < ?2 ORDER BY row"))?;
    let mut rows = find.query([row(lane, place(after)), row(lane + 1, 0)])?;
    while !page.full()
        && let Some(row) = rows.next()?
    {
        page.push(stored(row, partition)?);
    }
    Ok(page.done())
}

/// The events with an id, among `rows` and those of the file.
pub(super) fn get(db: &Connection, stream: i64, hash: i64, mut rows: BTreeSet<i64>, id: &EventId) -> Result<Vec<Stored>> {
    rows.extend(finds(db, hash, 0, u32::MAX)?);
    let mut page = Page::new(MOST_IN_PAGE);
    for number in rows {
        let mut find = db.prepare_cached("SELECT partition FROM lanes WHERE lane = ?1 AND stream = ?2")?;
        let Some(partition) = find.query_row([lane(number), stream], |row| row.get(0)).optional()? else { continue };
        if let Some(found) = one(db, number, partition)?.filter(|found| found.event.id == *id)
            && !page.full()
        {
            page.push(found);
        }
    }
    Ok(page.done())
}

/// The events of a key after an offset, among `rows` (those after it) and those of the file.
pub(super) fn by_key(db: &Connection, at: &KeyAt, mut rows: BTreeSet<i64>, after: u64, limit: u32) -> Result<Vec<Stored>> {
    let mut page = Page::new(limit);
    let Some(lane) = lane_of(db, at.stream, at.partition)? else { return Ok(page.done()) };
    let (mut last, end) = (row(lane, place(after)), row(lane + 1, 0));
    rows.retain(|number| *number > last && *number < end);
    loop {
        let found = finds(db, at.hash, last, MOST_IN_PAGE)?;
        // Past the last of a full answer the file may hold more, so nothing beyond it is taken yet.
        let known = if found.len() < MOST_IN_PAGE as usize { end } else { found.last().map_or(end, |row| row + 1) };
        rows.extend(found);
        while let Some(number) = rows.first().copied().filter(|number| *number < known.min(end)) {
            if page.full() {
                return Ok(page.done());
            }
            rows.pop_first();
            if let Some(found) = one(db, number, at.partition)?.filter(|found| found.event.key == at.key) {
                page.push(found);
            }
        }
        if known >= end || page.full() {
            return Ok(page.done());
        }
        last = known - 1;
    }
}

/// The last event of a key, among `rows` and those of the file.
pub(super) fn latest(db: &Connection, at: &KeyAt, mut rows: BTreeSet<i64>) -> Result<Option<Stored>> {
    let mut find = db.prepare_cached("SELECT row FROM finds WHERE hash = ?1 ORDER BY row DESC")?;
    let mut found = find.query([at.hash])?;
    let mut of_file = found.next()?.map(|row| row.get::<_, i64>(0)).transpose()?;
    loop {
        let newest = rows.last().copied().max(of_file);
        let Some(number) = newest else { return Ok(None) };
        rows.remove(&number);
        if of_file == newest {
            of_file = found.next()?.map(|row| row.get(0)).transpose()?;
        }
        if let Some(stored) = one(db, number, at.partition)?.filter(|stored| stored.event.key == at.key) {
            return Ok(Some(stored).filter(|stored| stored.event.data.is_some()));
        }
    }
}

/// A key and where to look for it.
pub(super) struct KeyAt {
    pub(super) stream: i64,
    pub(super) partition: u16,
    pub(super) key: Key,
    pub(super) hash: i64,
}

fn finds(db: &Connection, hash: i64, after: i64, most: u32) -> Result<Vec<i64>> {
    let mut find = db.prepare_cached("SELECT row FROM finds WHERE hash = ?1 AND row > ?2 ORDER BY row LIMIT ?3")?;
    find.query_map(params![hash, after, most], |row| row.get(0))?.collect()
}

fn one(db: &Connection, number: i64, partition: u16) -> Result<Option<Stored>> {
    let mut find = db.prepare_cached(&format!("SELECT {COLUMNS} FROM events WHERE row = ?1"))?;
    find.query_row([number], |row| stored(row, partition)).optional()
}
