//! Removing what the retention lets go, and what is left of deleted streams.
//!
//! Invariants: a row is removed with its entries of `finds`, which are written first when they were still in memory; a row of a log that
//! goes is no longer counted, in the same transaction; the current row of a key in a stream of `Latest` stays, and is counted as long as
//! it is live.

use std::collections::HashMap;

use plinth_types::Timestamp;
use rusqlite::{Connection, OptionalExtension, Result, params};

use super::group::remove;
use super::index::{Index, text};
use super::schema::{Kind, hash, offset, row};
use crate::port::Swept;
use crate::stream::{Mode, Retention};

/// What the streams say to a sweep.
pub(super) struct Rules {
    pub(super) now: Timestamp,
    pub(super) kept: HashMap<i64, (Mode, Retention)>,
    pub(super) deleted: Vec<i64>,
    pub(super) most: u32,
}

/// What a sweep of one file has done. Holds once it is committed.
#[derive(Default)]
pub(super) struct Outcome {
    pub(super) swept: Swept,
    /// The index in memory was written.
    pub(super) folded: bool,
}

/// A lane that may be swept.
struct Lane {
    lane: i64,
    stream: i64,
    next: i64,
    swept: i64,
    /// `None` for what is left of a deleted stream.
    rule: Option<(Mode, Retention)>,
}

/// Sweeps a file. May run twice, so it changes nothing but the database.
pub(super) fn sweep(db: &Connection, index: &Index, rules: &Rules) -> Result<Outcome> {
    let mut outcome = Outcome::default();
    let mut budget = rules.most.max(1);
    for lane in lanes(db, rules)? {
        if budget == 0 {
            outcome.swept.more = true;
            break;
        }
        let rows = candidates(db, rules, &lane, budget)?;
        let all = rows.len() < budget as usize;
        outcome.swept.more |= !all;
        if !rows.is_empty() && !outcome.folded {
            index.fold_all(db)?;
            outcome.folded = true;
        }
        budget -= u32::try_from(rows.len()).unwrap_or(budget);
        let (mut removed, mut uncounted) = (0_i64, 0_i64);
        for (number, key) in &rows {
            if matches!(lane.rule, Some((Mode::Latest, _))) && is_current_and_live(db, lane.stream, *number, key)? {
                continue;
            }
            remove(db, lane.stream, *number)?;
            removed += 1;
            uncounted += i64::from(matches!(lane.rule, Some((Mode::Log, _))));
        }
        outcome.swept.removed += removed.unsigned_abs();
        if lane.rule.is_none() && all {
            db.execute("DELETE FROM lanes WHERE lane = ?1", [lane.lane])?;
        } else if let Some((last, _)) = rows.last() {
            let mut update = db.prepare_cached("UPDATE lanes SET swept = ?2, live = live - ?3 WHERE lane = ?1")?;
            update.execute(params![lane.lane, offset(*last), uncounted])?;
        }
    }
    Ok(outcome)
}

fn lanes(db: &Connection, rules: &Rules) -> Result<Vec<Lane>> {
    let mut find = db.prepare_cached("SELECT lane, stream, next, swept FROM lanes ORDER BY lane")?;
    let found = find.query_map([], |row| Ok((row.get(0)?, row.get::<_, i64>(1)?, row.get(2)?, row.get(3)?)))?;
    let mut lanes = Vec::new();
    for found in found {
        let (lane, stream, next, swept) = found?;
        match rules.kept.get(&stream) {
            Some((_, retention)) if retention.age_millis.is_none() && retention.count.is_none() => {}
            Some(rule) => lanes.push(Lane { lane, stream, next, swept, rule: Some(*rule) }),
            None if rules.deleted.contains(&stream) => lanes.push(Lane { lane, stream, next, swept: 0, rule: None }),
            // Made since the rules were read.
            None => {}
        }
    }
    Ok(lanes)
}

/// The oldest rows that retention has not looked at and may go.
fn candidates(db: &Connection, rules: &Rules, lane: &Lane, most: u32) -> Result<Vec<(i64, String)>> {
    let mut find = db.prepare_cached("SELECT row, key, stored_at FROM events WHERE row > ?1 AND row < ?2 ORDER BY row LIMIT ?3")?;
    let mut found = find.query(params![row(lane.lane, lane.swept), row(lane.lane + 1, 0), most])?;
    let mut rows = Vec::new();
    while let Some(found) = found.next()? {
        let (number, stored_at): (i64, i64) = (found.get(0)?, found.get(2)?);
        let behind = (lane.next - 1 - offset(number)).max(0).unsigned_abs();
        if lane.rule.is_some_and(|(_, retention)| !retention.over(behind, rules.now.millis().saturating_sub(stored_at.cast_unsigned()))) {
            break;
        }
        rows.push((number, text(found, 1)?.to_owned()));
    }
    Ok(rows)
}

fn is_current_and_live(db: &Connection, stream: i64, number: i64, key: &str) -> Result<bool> {
    let mut live = db.prepare_cached("SELECT data IS NOT NULL FROM events WHERE row = ?1")?;
    if !live.query_row([number], |row| row.get(0)).optional()?.unwrap_or(false) {
        return Ok(false);
    }
    // All are in the file's index by now; one of another key with the same hash is passed over.
    let mut later = db.prepare_cached("SELECT 1 FROM finds JOIN events USING (row) WHERE hash = ?1 AND row > ?2 AND key = ?3 LIMIT 1")?;
    Ok(!later.exists(params![hash(Kind::Key, stream, key), number, key])?)
}
