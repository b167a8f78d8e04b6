//! Removing what the retention lets go, and what is left of deleted streams, in PostgreSQL.
//!
//! Invariants: a partition's row is locked before its events are removed, as by those who write; a row of a log that goes is no longer
//! counted, in the same transaction; the current row of a key in a stream of `Latest` stays as long as it is live.

use plinth_types::Timestamp;
use sqlx::{PgConnection, Row};

use super::failed;
use super::write::millis;
use crate::error::EventsError;
use crate::port::Swept;
use crate::stream::{Mode, Settings};

/// Those that keep all are left away: this is how serde writes a retention without bounds.
const LANES: &str = "SELECT l.stream, l.partition, s.settings FROM event_lanes l JOIN event_streams s USING (stream)
    WHERE s.settings NOT LIKE '%\"age_millis\":null,\"count\":null%' ORDER BY l.stream, l.partition";
const LOCK: &str = "SELECT next, swept FROM event_lanes WHERE stream = $1 AND partition = $2 FOR UPDATE";
/// The oldest rows that retention has not looked at; those from the first that must stay are left away.
const CANDIDATES: &str = "SELECT position, stored_at FROM events
    WHERE stream = $1 AND partition = $2 AND position > $3 ORDER BY position LIMIT $4";
const REMOVE: &str = "DELETE FROM events e WHERE stream = $1 AND partition = $2 AND position > $3 AND position <= $4 AND NOT ($5
    AND data IS NOT NULL AND NOT EXISTS (SELECT 1 FROM events l WHERE l.stream = e.stream AND l.key = e.key AND l.position > e.position))";
const UPDATE: &str = "UPDATE event_lanes SET swept = $3, live = live - $4 WHERE stream = $1 AND partition = $2";
const PURGE: &str = "DELETE FROM events WHERE ctid IN (SELECT ctid FROM events WHERE stream = $1 LIMIT $2)";

/// Sweeps, in the transaction that is open.
pub(super) async fn sweep(db: &mut PgConnection, now: Timestamp, most: u32) -> Result<Swept, EventsError> {
    let failed = failed("sweep");
    let mut swept = Swept::default();
    let mut budget = i64::from(most.max(1));
    for row in sqlx::query(LANES).fetch_all(&mut *db).await.map_err(&failed)? {
        let (stream, partition): (i64, i32) = (row.try_get(0).map_err(&failed)?, row.try_get(1).map_err(&failed)?);
        let settings = Settings::from_text(row.try_get(2).map_err(&failed)?)?;
        if budget == 0 {
            swept.more = true;
            break;
        }
        let (seen, removed) = lane(db, now, (stream, partition), &settings, budget).await?;
        swept.more |= seen == budget;
        swept.removed += removed;
        budget -= seen;
    }
    let gone: Vec<i64> = sqlx::query_scalar("SELECT stream FROM event_streams WHERE deleted").fetch_all(&mut *db).await.map_err(&failed)?;
    for stream in gone {
        let removed = sqlx::query(PURGE).bind(stream).bind(budget).execute(&mut *db).await.map_err(&failed)?.rows_affected();
        swept.removed += removed;
        if removed >= budget.unsigned_abs() {
            swept.more = true;
            break;
        }
        budget -= removed.cast_signed();
        sqlx::query("DELETE FROM event_streams WHERE stream = $1").bind(stream).execute(&mut *db).await.map_err(&failed)?;
    }
    Ok(swept)
}

/// Sweeps a partition; how many rows it looked at and how many it removed.
async fn lane(
    db: &mut PgConnection,
    now: Timestamp,
    (stream, partition): (i64, i32),
    settings: &Settings,
    most: i64,
) -> Result<(i64, u64), EventsError> {
    let failed = failed("sweep");
    let lane = sqlx::query(LOCK).bind(stream).bind(partition).fetch_optional(&mut *db).await.map_err(&failed)?;
    // Deleted since it was listed.
    let Some(lane) = lane else { return Ok((0, 0)) };
    let (next, from): (i64, i64) = (lane.try_get(0).map_err(&failed)?, lane.try_get(1).map_err(&failed)?);
    let rows = sqlx::query(CANDIDATES).bind(stream).bind(partition).bind(from).bind(most).fetch_all(&mut *db).await.map_err(&failed)?;
    let (mut seen, mut to) = (0, from);
    for row in rows {
        let (position, stored_at): (i64, i64) = (row.try_get(0).map_err(&failed)?, row.try_get(1).map_err(&failed)?);
        let behind = (next - 1).saturating_sub(position).max(0).unsigned_abs();
        if !settings.retention.over(behind, millis(now).saturating_sub(stored_at).max(0).unsigned_abs()) {
            break;
        }
        (seen, to) = (seen + 1, position);
    }
    if seen == 0 {
        return Ok((0, 0));
    }
    let keep = settings.mode == Mode::Latest;
    let remove = sqlx::query(REMOVE).bind(stream).bind(partition).bind(from).bind(to).bind(keep);
    let removed = remove.execute(&mut *db).await.map_err(&failed)?.rows_affected();
    let uncounted = if keep { 0 } else { removed.cast_signed() };
    sqlx::query(UPDATE).bind(stream).bind(partition).bind(to).bind(uncounted).execute(db).await.map_err(&failed)?;
    Ok((seen, removed))
}
