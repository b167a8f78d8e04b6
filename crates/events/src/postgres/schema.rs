//! The tables in PostgreSQL, brought to this release's schema step by step.
//!
//! Invariants: a step and the note that it happened are one transaction, under a lock that whoever migrates takes; a step that was
//! released is never changed. One table holds the events of all streams; texts compare by their bytes (`COLLATE "C"`).

use sqlx::{AssertSqlSafe, Executor, PgConnection};

use super::failed;
use crate::error::EventsError;

/// One lock for whoever migrates anything in this database; the number is "plinth" in ASCII.
pub(super) const LOCK: &str = "SELECT pg_advisory_xact_lock(123610927625320)";

/// Step `n` makes version `n + 1`.
const STEPS: &[&str] = &["CREATE TABLE event_streams (
    stream BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    tenant TEXT COLLATE \"C\" NOT NULL,
    name TEXT COLLATE \"C\" NOT NULL,
    settings TEXT NOT NULL,
    deleted BOOLEAN NOT NULL DEFAULT false
);
CREATE UNIQUE INDEX event_streams_by_name ON event_streams (tenant, name) WHERE NOT deleted;
CREATE TABLE event_lanes (
    stream BIGINT NOT NULL,
    partition INTEGER NOT NULL,
    next BIGINT NOT NULL DEFAULT 1,
    live BIGINT NOT NULL DEFAULT 0 CHECK (live >= 0),
    swept BIGINT NOT NULL DEFAULT 0,
    PRIMARY KEY (stream, partition)
) WITH (fillfactor = 20);
CREATE TABLE events (
    stream BIGINT NOT NULL,
    partition INTEGER NOT NULL,
    position BIGINT NOT NULL,
    id TEXT COLLATE \"C\" NOT NULL,
    key TEXT COLLATE \"C\" NOT NULL,
    at BIGINT,
    stored_at BIGINT NOT NULL,
    data BYTEA,
    PRIMARY KEY (stream, partition, position)
);
CREATE UNIQUE INDEX events_by_id ON events (stream, id, key);
CREATE INDEX events_by_key ON events (stream, key, position);"];

/// Runs the steps that are missing.
pub(super) async fn migrate(db: &mut PgConnection) -> Result<(), EventsError> {
    let failed = failed("migrate");
    db.execute("BEGIN; SET LOCAL statement_timeout = '10min'; SET LOCAL lock_timeout = '60s'").await.map_err(&failed)?;
    db.execute(LOCK).await.map_err(&failed)?;
    db.execute("CREATE TABLE IF NOT EXISTS event_migrations (version INTEGER PRIMARY KEY)").await.map_err(&failed)?;
    let found: Option<i32> = sqlx::query_scalar("SELECT max(version) FROM event_migrations").fetch_one(&mut *db).await.map_err(&failed)?;
    let found = u32::try_from(found.unwrap_or(0)).unwrap_or(u32::MAX);
    let known = u32::try_from(STEPS.len()).unwrap_or(u32::MAX);
    if found > known {
        db.execute("ROLLBACK").await.map_err(&failed)?;
        return Err(EventsError::TooNew { found, known });
    }
    for (step, version) in STEPS.iter().zip(1u32..).skip(found as usize) {
        db.execute(sqlx::raw_sql(*step)).await.map_err(&failed)?;
        let note = format!("INSERT INTO event_migrations (version) VALUES ({version})");
        db.execute(sqlx::raw_sql(AssertSqlSafe(note))).await.map_err(&failed)?;
    }
    db.execute("COMMIT").await.map_err(&failed)?;
    Ok(())
}
