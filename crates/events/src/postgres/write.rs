//! What a group of submissions does to PostgreSQL, in one transaction of a few statements, however many events it has.
//!
//! Invariants: the rows of the partitions that a group touches are locked first, in their order, so groups of one partition, of this node
//! or of another, are committed one after the other, their offsets ascend in the order of commits, and what a statement reads of a
//! partition is what the last group left. A stream that was deleted has no such rows. That nothing is there twice is the unique index's
//! promise. A group is first tried as if all of it were new, which it nearly always is; when something is there, it is undone and done
//! again with a look first, so that what is not stored uses no offset.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use plinth_types::Timestamp;
use sqlx::postgres::PgRow;
use sqlx::{Executor, PgConnection, Row};

use crate::batcher::{Answer, Placed, Submission};
use crate::error::EventsError;
use crate::event::{Appended, Event, Position};
use crate::stream::Mode;

const LOCK_LANES: &str = "SELECT l.stream, l.partition, l.next, l.swept FROM event_lanes l
    JOIN UNNEST($1::bigint[], $2::integer[]) AS w (stream, partition) ON l.stream = w.stream AND l.partition = w.partition
    ORDER BY l.stream, l.partition FOR UPDATE OF l";
const LAST_OF_KEYS: &str = "SELECT w.stream, w.key, e.position, e.data IS NOT NULL
    FROM UNNEST($1::bigint[], $2::text[]) AS w (stream, key)
    CROSS JOIN LATERAL (SELECT position, data FROM events
        WHERE events.stream = w.stream AND events.key = w.key COLLATE \"C\" ORDER BY position DESC LIMIT 1) AS e";
const INSERT: &str = "INSERT INTO events (stream, partition, position, id, key, at, stored_at, data)
    SELECT stream, partition, position, id, key, at, $7, data
    FROM UNNEST($1::bigint[], $2::integer[], $3::bigint[], $4::text[], $5::text[], $6::bigint[], $8::bytea[])
        AS w (stream, partition, position, id, key, at, data)
    ON CONFLICT (stream, id, key) DO NOTHING";
const FIND: &str = "SELECT e.stream, e.id, e.key, e.position, e.at, e.data
    FROM UNNEST($1::bigint[], $2::text[], $3::text[]) AS w (stream, id, key)
    JOIN events e ON e.stream = w.stream AND e.id = w.id COLLATE \"C\" AND e.key = w.key COLLATE \"C\"";
const REMOVE: &str = "DELETE FROM events e USING UNNEST($1::bigint[], $2::integer[], $3::bigint[]) AS w (stream, partition, position)
    WHERE e.stream = w.stream AND e.partition = w.partition AND e.position = w.position";
const UPDATE_LANES: &str = "UPDATE event_lanes l SET next = w.next, live = l.live + w.live
    FROM UNNEST($1::bigint[], $2::integer[], $3::bigint[], $4::bigint[]) AS w (stream, partition, next, live)
    WHERE l.stream = w.stream AND l.partition = w.partition";

/// A partition as it is within the transaction.
struct Lane {
    next: i64,
    swept: i64,
    live: i64,
}

/// An event of the group.
struct Item<'a> {
    stream: i64,
    partition: u16,
    mode: Mode,
    event: &'a Event,
    /// The place that it has if it is new.
    offset: i64,
}

/// Stream, id and key.
type Identity<'a> = (i64, &'a str, &'a str);
/// Events that were there before.
type Found = HashMap<(i64, String, String), There>;
/// Stream and partition.
type LaneId = (i64, i32);

impl<'a> Item<'a> {
    fn identity(&self) -> Identity<'a> {
        (self.stream, self.event.id.as_str(), self.event.key.as_str())
    }

    fn owned(&self) -> (i64, String, String) {
        (self.stream, self.event.id.as_str().to_owned(), self.event.key.as_str().to_owned())
    }

    fn is_in(&self, found: &Found) -> bool {
        !found.is_empty() && found.contains_key(&self.owned())
    }

    fn lane(&self) -> LaneId {
        (self.stream, i32::from(self.partition))
    }

    fn position(&self, offset: i64) -> Position {
        Position { partition: self.partition, offset: offset.cast_unsigned() }
    }
}

/// Stores a group in the transaction that is open.
pub(super) async fn apply(db: &mut PgConnection, group: &[Submission], now: Timestamp) -> Result<Vec<Answer>, sqlx::Error> {
    if let Some(answers) = attempt(db, group, now, false).await? {
        return Ok(answers);
    }
    db.execute("ROLLBACK").await?;
    db.execute(super::BEGIN).await?;
    // The partitions are locked while it looks, so what it did not find is not there.
    attempt(db, group, now, true).await?.ok_or(sqlx::Error::RowNotFound)
}

/// As [`apply`]; `None` when something was there that was not looked for.
async fn attempt(db: &mut PgConnection, group: &[Submission], now: Timestamp, look: bool) -> Result<Option<Vec<Answer>>, sqlx::Error> {
    let mut lanes = lock(db, group).await?;
    // A lane is gone only when its stream was deleted.
    let here = |submission: &Submission| {
        submission.events.iter().all(|placed| lanes.contains_key(&(submission.stream.number, i32::from(placed.partition))))
    };
    let there: Vec<bool> = group.iter().map(here).collect();
    let mut items: Vec<Item<'_>> = Vec::new();
    for (submission, _) in group.iter().zip(&there).filter(|(_, there)| **there) {
        let (stream, mode) = (submission.stream.number, submission.stream.mode);
        for Placed { partition, event } in &submission.events {
            items.push(Item { stream, partition: *partition, mode, event, offset: 0 });
        }
    }
    let Some(appended) = insert(db, &mut items, &mut lanes, now, look).await? else { return Ok(None) };
    let mut appended = appended.into_iter();
    let answer = |(submission, there): (&Submission, bool)| {
        if there { Ok(appended.by_ref().take(submission.events.len()).collect()) } else { Err(EventsError::NoSuchStream) }
    };
    Ok(Some(group.iter().zip(there).map(answer).collect()))
}

async fn lock(db: &mut PgConnection, group: &[Submission]) -> Result<BTreeMap<LaneId, Lane>, sqlx::Error> {
    let wanted = group.iter().flat_map(|s| s.events.iter().map(|placed| (s.stream.number, i32::from(placed.partition))));
    let wanted: BTreeSet<_> = wanted.collect();
    let (streams, partitions): (Vec<i64>, Vec<i32>) = wanted.into_iter().unzip();
    let rows = sqlx::query(LOCK_LANES).bind(streams).bind(partitions).fetch_all(db).await?;
    let lane = |row: &PgRow| Ok(((row.try_get(0)?, row.try_get(1)?), Lane { next: row.try_get(2)?, swept: row.try_get(3)?, live: 0 }));
    rows.iter().map(lane).collect()
}

/// Inserts what is new and says of each what became of it; `None` when something was there that was not looked for.
async fn insert(
    db: &mut PgConnection,
    items: &mut [Item<'_>],
    lanes: &mut BTreeMap<LaneId, Lane>,
    now: Timestamp,
    look: bool,
) -> Result<Option<Vec<Appended>>, sqlx::Error> {
    let found = if look { find(db, items).await? } else { HashMap::new() };
    // An identity that the group has twice is stored once.
    let mut first: HashMap<Identity<'_>, usize> = HashMap::with_capacity(items.len());
    let mut new = Vec::with_capacity(items.len());
    for (at, item) in items.iter_mut().enumerate() {
        if *first.entry(item.identity()).or_insert(at) == at
            && !item.is_in(&found)
            && let Some(lane) = lanes.get_mut(&item.lane())
        {
            item.offset = lane.next;
            lane.next += 1;
            new.push(at);
        }
    }
    let new: Vec<&Item<'_>> = new.into_iter().map(|at| &items[at]).collect();
    let mut last = last_of_keys(db, &new).await?;
    if insert_rows(db, &new, now).await? != new.len() as u64 {
        return Ok(None);
    }
    let mut passed = Vec::new();
    for item in new {
        let Some(lane) = lanes.get_mut(&item.lane()) else { continue };
        let live = item.event.data.is_some();
        lane.live += i64::from(live);
        if item.mode == Mode::Latest {
            let row = Last { position: item.offset, live };
            if let Some(before) = last.insert((item.stream, item.event.key.as_str().to_owned()), row) {
                lane.live -= i64::from(before.live);
                // Retention has passed it while it was its key's row; now it is not, and nobody would look at it again.
                if before.position <= lane.swept {
                    passed.push((item.lane(), before.position));
                }
            }
        }
    }
    remove(db, &passed).await?;
    update(db, lanes).await?;
    let fate = |(at, item): (usize, &Item<'_>)| {
        let earliest = *first.get(&item.identity()).unwrap_or(&at);
        let (position, same) = match if found.is_empty() { None } else { found.get(&item.owned()) } {
            Some(there) => (there.position, item.event.same(there.at, there.data.as_deref())),
            None if earliest == at => return Appended::New(item.position(item.offset)),
            None => (items[earliest].offset, *item.event == *items[earliest].event),
        };
        if same { Appended::Already(item.position(position)) } else { Appended::Differs(item.position(position)) }
    };
    Ok(Some(items.iter().enumerate().map(fate).collect()))
}

/// The last event of a key.
struct Last {
    position: i64,
    live: bool,
}

async fn last_of_keys(db: &mut PgConnection, items: &[&Item<'_>]) -> Result<HashMap<(i64, String), Last>, sqlx::Error> {
    let wanted = items.iter().filter(|item| item.mode == Mode::Latest).map(|item| (item.stream, item.event.key.as_str()));
    let (streams, keys): (Vec<i64>, Vec<&str>) = wanted.collect::<BTreeSet<_>>().into_iter().unzip();
    if streams.is_empty() {
        return Ok(HashMap::new());
    }
    let rows = sqlx::query(LAST_OF_KEYS).bind(streams).bind(keys).fetch_all(db).await?;
    let last = |row: &PgRow| Ok(((row.try_get(0)?, row.try_get(1)?), Last { position: row.try_get(2)?, live: row.try_get(3)? }));
    rows.iter().map(last).collect()
}

/// Inserts rows; how many were not there.
async fn insert_rows(db: &mut PgConnection, items: &[&Item<'_>], now: Timestamp) -> Result<u64, sqlx::Error> {
    if items.is_empty() {
        return Ok(0);
    }
    let data: Vec<Option<&[u8]>> = items.iter().map(|item| item.event.data.as_deref()).collect();
    let insert = sqlx::query(INSERT)
        .bind(items.iter().map(|item| item.stream).collect::<Vec<_>>())
        .bind(items.iter().map(|item| i32::from(item.partition)).collect::<Vec<_>>())
        .bind(items.iter().map(|item| item.offset).collect::<Vec<_>>())
        .bind(items.iter().map(|item| item.event.id.as_str()).collect::<Vec<_>>())
        .bind(items.iter().map(|item| item.event.key.as_str()).collect::<Vec<_>>())
        .bind(items.iter().map(|item| item.event.at.map(millis)).collect::<Vec<Option<i64>>>())
        .bind(millis(now))
        .bind(data);
    Ok(insert.execute(db).await?.rows_affected())
}

/// An event that was there before.
struct There {
    position: i64,
    at: Option<Timestamp>,
    data: Option<Vec<u8>>,
}

async fn find(db: &mut PgConnection, items: &[Item<'_>]) -> Result<Found, sqlx::Error> {
    let wanted: BTreeSet<Identity<'_>> = items.iter().map(Item::identity).collect();
    let streams: Vec<i64> = wanted.iter().map(|(stream, _, _)| *stream).collect();
    let (ids, keys): (Vec<&str>, Vec<&str>) = wanted.iter().map(|(_, id, key)| (*id, *key)).unzip();
    let rows = sqlx::query(FIND).bind(streams).bind(ids).bind(keys).fetch_all(db).await?;
    let there = |row: &PgRow| {
        let there = There { position: row.try_get(3)?, at: time(row.try_get(4)?), data: row.try_get(5)? };
        Ok(((row.try_get(0)?, row.try_get(1)?, row.try_get(2)?), there))
    };
    rows.iter().map(there).collect()
}

async fn remove(db: &mut PgConnection, rows: &[(LaneId, i64)]) -> Result<(), sqlx::Error> {
    if rows.is_empty() {
        return Ok(());
    }
    let (lanes, positions): (Vec<LaneId>, Vec<i64>) = rows.iter().copied().unzip();
    let (streams, partitions): (Vec<i64>, Vec<i32>) = lanes.into_iter().unzip();
    sqlx::query(REMOVE).bind(streams).bind(partitions).bind(positions).execute(db).await.map(drop)
}

async fn update(db: &mut PgConnection, lanes: &BTreeMap<LaneId, Lane>) -> Result<(), sqlx::Error> {
    let (streams, partitions): (Vec<i64>, Vec<i32>) = lanes.keys().copied().unzip();
    let (next, live): (Vec<i64>, Vec<i64>) = lanes.values().map(|lane| (lane.next, lane.live)).unzip();
    sqlx::query(UPDATE_LANES).bind(streams).bind(partitions).bind(next).bind(live).execute(db).await.map(drop)
}

/// A moment as PostgreSQL's integer.
pub(super) fn millis(time: Timestamp) -> i64 {
    time.millis().cast_signed()
}

/// A moment from PostgreSQL's integer.
pub(super) fn time(millis: Option<i64>) -> Option<Timestamp> {
    millis.and_then(|millis| Timestamp::from_millis(millis.cast_unsigned()).ok())
}
