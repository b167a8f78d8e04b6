//! Looking at a whole ledger, in memory or in a file that nobody has open.

use rusqlite::{Connection, Result};

use super::watch::{COLUMNS, seen};
use crate::simulation::Seen;

/// All jobs as they stand, the oldest first.
///
/// # Errors
/// Those of SQLite.
pub fn picture(db: &Connection) -> Result<Vec<Seen>> {
    let mut find = db.prepare_cached(&format!("SELECT {COLUMNS} FROM jobs ORDER BY id"))?;
    find.query_map([], |row| seen(row, 0))?.collect()
}

/// What must not be there between two transactions, each with how many rows of it there are.
const NEVER: [(&str, &str); 8] = [
    (
        "ready jobs without a place in line",
        "SELECT count(*) FROM jobs j WHERE j.state = 2 AND NOT EXISTS \
         (SELECT 1 FROM flows f WHERE f.kind = j.kind AND f.class = j.class AND f.tenant = j.tenant)",
    ),
    (
        "blocked jobs that wait for nothing",
        "SELECT count(*) FROM jobs j WHERE j.state = 0 AND NOT EXISTS (SELECT 1 FROM dependencies d JOIN jobs o ON o.id = d.on_job \
         WHERE d.job = j.id AND o.state < 4)",
    ),
    (
        "blocked jobs that count other jobs than they wait for",
        "SELECT count(*) FROM jobs j WHERE j.state = 0 AND j.waits <> (SELECT count(*) FROM dependencies d WHERE d.job = j.id)",
    ),
    (
        "dependencies on what has ended or is not there",
        "SELECT count(*) FROM dependencies d LEFT JOIN jobs o ON o.id = d.on_job WHERE o.id IS NULL OR o.state > 3",
    ),
    ("running jobs without worker or lease", "SELECT count(*) FROM jobs WHERE state = 3 AND (worker IS NULL OR lease_until IS NULL)"),
    ("jobs that are held and do not run", "SELECT count(*) FROM jobs WHERE state <> 3 AND (worker IS NOT NULL OR lease_until IS NOT NULL)"),
    (
        "jobs that ended well without a result",
        "SELECT count(*) FROM jobs j WHERE j.state = 4 AND NOT EXISTS (SELECT 1 FROM results r WHERE r.id = j.id)",
    ),
    (
        "payloads, results, attempts and events of no job",
        "SELECT (SELECT count(*) FROM payloads WHERE id NOT IN (SELECT id FROM jobs)) + (SELECT count(*) FROM results WHERE id NOT IN \
         (SELECT id FROM jobs)) + (SELECT count(*) FROM attempts WHERE id NOT IN (SELECT id FROM jobs)) + (SELECT count(*) FROM job_events \
         WHERE id NOT IN (SELECT id FROM jobs)) + (SELECT count(*) FROM jobs WHERE id NOT IN (SELECT id FROM payloads))",
    ),
];

/// What is there and must not be, in words; empty when the ledger is sound.
///
/// # Errors
/// Those of SQLite.
pub fn leftovers(db: &Connection) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for (name, sql) in NEVER {
        let count: i64 = db.prepare_cached(sql)?.query_row([], |row| row.get(0))?;
        if count > 0 {
            found.push(format!("{count} {name}"));
        }
    }
    Ok(found)
}
