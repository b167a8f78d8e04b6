//! Triggers that write down what a transaction changes.
//!
//! Invariant: each insert, change and removal of a job, of a place in line and of a result is seen, in its order. The triggers are
//! temporary: they belong to this connection and leave the schema as the product makes it.

use rusqlite::{Connection, Result, Row};

use super::super::rows;
use crate::simulation::{Change, Seen};

/// What is kept of a job, from `old` or `new`.
macro_rules! columns {
    ($row:literal) => {
        concat!(
            $row,
            ".id, ",
            $row,
            ".tenant, ",
            $row,
            ".kind, ",
            $row,
            ".class, ",
            $row,
            ".state, ",
            $row,
            ".epoch, ",
            $row,
            ".attempt, ",
            $row,
            ".max_attempts, ",
            $row,
            ".worker, ",
            $row,
            ".lease_until, ",
            $row,
            ".run_at, ",
            $row,
            ".expires_at, ",
            $row,
            ".keep_until, ",
            $row,
            ".parent, ",
            $row,
            ".reason"
        )
    };
}

const INSTALL: &str = concat!(
    "PRAGMA temp_store = MEMORY;
     CREATE TEMP TABLE seen (n INTEGER PRIMARY KEY, what INTEGER, id, tenant, kind, class, state, epoch, attempt, max_attempts, worker, \
        lease_until, run_at, expires_at, keep_until, parent, reason);
     CREATE TEMP TRIGGER job_in AFTER INSERT ON main.jobs BEGIN INSERT INTO seen SELECT NULL, 0, ",
    columns!("new"),
    "; END;
     CREATE TEMP TRIGGER job_up AFTER UPDATE OF state, epoch, attempt, lease_until, reason ON main.jobs BEGIN INSERT INTO seen SELECT NULL, 0, ",
    columns!("new"),
    "; END;
     CREATE TEMP TRIGGER job_out AFTER DELETE ON main.jobs BEGIN INSERT INTO seen SELECT NULL, 1, ",
    columns!("old"),
    "; END;
     CREATE TEMP TRIGGER flow_in AFTER INSERT ON main.flows BEGIN \
        INSERT INTO seen (what, kind, class, tenant) VALUES (2, new.kind, new.class, new.tenant); END;
     CREATE TEMP TRIGGER flow_out AFTER DELETE ON main.flows BEGIN \
        INSERT INTO seen (what, kind, class, tenant) VALUES (3, old.kind, old.class, old.tenant); END;
     CREATE TEMP TRIGGER result_in AFTER INSERT ON main.results BEGIN INSERT INTO seen (what, id, reason) VALUES (4, new.id, new.meta); END;"
);

/// From here on everything is seen.
pub(super) fn install(db: &Connection) -> Result<()> {
    db.execute_batch(INSTALL)
}

/// Empties all tables.
pub(super) fn empty(db: &Connection) -> Result<()> {
    for table in
        ["jobs", "payloads", "results", "keys", "dependencies", "attempts", "job_events", "flows", "turns", "kinds", "schedules", "seen"]
    {
        db.prepare_cached(&format!("DELETE FROM {table}"))?.execute([])?;
    }
    Ok(())
}

/// What was changed since this was last asked.
pub(super) fn changes(db: &Connection) -> Result<Vec<Change>> {
    let mut find = db.prepare_cached(
        "SELECT what, id, tenant, kind, class, state, epoch, attempt, max_attempts, worker, lease_until, run_at, expires_at, keep_until, \
         parent, reason FROM seen ORDER BY n",
    )?;
    let changes: Vec<Change> = find.query_map([], change)?.collect::<Result<_>>()?;
    if !changes.is_empty() {
        db.prepare_cached("DELETE FROM seen")?.execute([])?;
    }
    Ok(changes)
}

fn change(row: &Row<'_>) -> Result<Change> {
    Ok(match row.get(0)? {
        0u8 => Change::Job(seen(row, 1)?),
        1 => Change::Gone(rows::id(row, 1)?),
        4 => Change::Result { id: rows::id(row, 1)?, meta: row.get(15)? },
        what => Change::Flow { kind: row.get(3)?, class: row.get(4)?, tenant: row.get(2)?, there: what == 2 },
    })
}

/// A job from fifteen columns in the order of [`COLUMNS`].
pub(super) fn seen(row: &Row<'_>, first: usize) -> Result<Seen> {
    Ok(Seen {
        id: rows::id(row, first)?,
        tenant: row.get(first + 1)?,
        kind: row.get(first + 2)?,
        class: row.get(first + 3)?,
        state: rows::state(row, first + 4)?,
        epoch: rows::count(row, first + 5)?,
        attempt: row.get(first + 6)?,
        max_attempts: row.get(first + 7)?,
        worker: row.get(first + 8)?,
        lease_until: row.get(first + 9)?,
        run_at: row.get(first + 10)?,
        expires_at: row.get(first + 11)?,
        keep_until: row.get(first + 12)?,
        parent: row.get_ref(first + 13)?.as_blob_or_null()?.and_then(super::JobId::from_slice),
        reason: row.get(first + 14)?,
    })
}

/// What [`seen`] reads.
pub(super) const COLUMNS: &str = columns!("jobs");
