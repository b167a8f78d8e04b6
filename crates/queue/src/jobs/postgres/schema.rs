//! The tables of the ledger of jobs, in PostgreSQL, and how a database is brought to them.
//!
//! As in SQLite: small rows that are rewritten apart from large ones that are written once, and an index for each question that holds
//! only the jobs that it is about. `turns` has how far each class is, for classes 0 to 3. `lease_until` is in no index, so a heartbeat
//! rewrites a row and nothing else; what runs is few.
//!
//! Invariants: steps run in order, each once, whoever else starts at the same time (one advisory lock, one transaction with the note that
//! it happened); a database of a newer release, or one whose steps differ from ours, is not touched. A step that was released is never
//! edited.

use plinth_types::Digest;
use sqlx::{PgConnection, Row};

use super::database::{damaged, now_sql};
use crate::QueueError;

/// All steps; step `n` makes version `n + 1`.
pub(super) const STEPS: &[&str] = &[r#"
CREATE TABLE jobs (
    id BYTEA NOT NULL PRIMARY KEY,
    tenant TEXT COLLATE "C" NOT NULL,
    kind TEXT COLLATE "C" NOT NULL,
    state SMALLINT NOT NULL,
    class SMALLINT NOT NULL,
    priority SMALLINT NOT NULL,
    epoch BIGINT NOT NULL DEFAULT 0,
    attempt INTEGER NOT NULL DEFAULT 0,
    max_attempts INTEGER NOT NULL,
    retry_base BIGINT NOT NULL,
    retry_factor INTEGER NOT NULL,
    retry_cap BIGINT NOT NULL,
    timeout BIGINT NOT NULL,
    keep BIGINT NOT NULL,
    cancel BOOLEAN NOT NULL DEFAULT FALSE,
    waits INTEGER NOT NULL,
    on_failure SMALLINT NOT NULL,
    created_at BIGINT NOT NULL,
    run_at BIGINT NOT NULL,
    expires_at BIGINT,
    started_at BIGINT,
    ended_at BIGINT,
    keep_until BIGINT,
    worker TEXT COLLATE "C",
    lease_until BIGINT,
    progress SMALLINT NOT NULL DEFAULT 0,
    checkpoint TEXT,
    events BIGINT NOT NULL DEFAULT 0,
    parent BYTEA,
    actor TEXT NOT NULL,
    labels TEXT COLLATE "C" NOT NULL,
    webhook TEXT,
    reason TEXT,
    failure TEXT,
    result_size BIGINT
) WITH (fillfactor = 90);
CREATE INDEX jobs_ready ON jobs (kind, class, tenant, priority, id) WHERE state = 2;
CREATE INDEX jobs_due ON jobs (run_at) WHERE state = 1;
CREATE INDEX jobs_running ON jobs (kind) WHERE state = 3;
CREATE INDEX jobs_expiring ON jobs (expires_at) WHERE expires_at IS NOT NULL AND state < 3;
CREATE INDEX jobs_kept ON jobs (keep_until) WHERE keep_until IS NOT NULL;
CREATE INDEX jobs_dead ON jobs (tenant, id) WHERE state = 5;
CREATE INDEX jobs_of_tenant ON jobs (tenant, id);
CREATE INDEX jobs_of_parent ON jobs (parent, id) WHERE parent IS NOT NULL;
CREATE TABLE payloads (id BYTEA NOT NULL PRIMARY KEY, meta TEXT NOT NULL, bytes BYTEA, digest TEXT, size BIGINT NOT NULL);
CREATE TABLE results (id BYTEA NOT NULL PRIMARY KEY, meta TEXT NOT NULL, bytes BYTEA, digest TEXT, size BIGINT NOT NULL);
CREATE TABLE keys (
    tenant TEXT COLLATE "C" NOT NULL,
    key TEXT COLLATE "C" NOT NULL,
    fingerprint BYTEA NOT NULL,
    jobs BYTEA NOT NULL,
    expires_at BIGINT NOT NULL,
    PRIMARY KEY (tenant, key)
);
CREATE INDEX keys_expiring ON keys (expires_at);
CREATE TABLE dependencies (on_job BYTEA NOT NULL, job BYTEA NOT NULL, PRIMARY KEY (on_job, job));
CREATE TABLE attempts (
    id BYTEA NOT NULL,
    epoch BIGINT NOT NULL,
    attempt INTEGER NOT NULL,
    worker TEXT NOT NULL,
    started_at BIGINT NOT NULL,
    ended_at BIGINT NOT NULL,
    reason TEXT NOT NULL,
    failure TEXT NOT NULL,
    PRIMARY KEY (id, epoch)
);
CREATE TABLE job_events (
    id BYTEA NOT NULL,
    seq BIGINT NOT NULL,
    at BIGINT NOT NULL,
    name TEXT NOT NULL,
    data TEXT NOT NULL,
    PRIMARY KEY (id, seq)
);
CREATE TABLE flows (
    kind TEXT COLLATE "C" NOT NULL,
    class SMALLINT NOT NULL,
    tenant TEXT COLLATE "C" NOT NULL,
    pass DOUBLE PRECISION NOT NULL,
    PRIMARY KEY (kind, class, tenant)
) WITH (fillfactor = 50);
CREATE INDEX flows_in_turn ON flows (class, pass);
CREATE TABLE turns (class SMALLINT NOT NULL PRIMARY KEY, pass DOUBLE PRECISION NOT NULL) WITH (fillfactor = 50);
INSERT INTO turns SELECT class, 0 FROM generate_series(0, 3) AS class;
CREATE TABLE kinds (
    kind TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    paused BOOLEAN NOT NULL,
    concurrency BIGINT,
    rate DOUBLE PRECISION,
    next_at DOUBLE PRECISION NOT NULL DEFAULT 0
) WITH (fillfactor = 50);
CREATE TABLE schedules (
    tenant TEXT COLLATE "C" NOT NULL,
    name TEXT COLLATE "C" NOT NULL,
    spec TEXT NOT NULL,
    next_at BIGINT,
    last_at BIGINT,
    PRIMARY KEY (tenant, name)
);
CREATE TABLE secrets (
    tenant TEXT COLLATE "C" NOT NULL,
    name TEXT COLLATE "C" NOT NULL,
    secret TEXT NOT NULL,
    PRIMARY KEY (tenant, name)
);
"#];

/// One lock for whoever migrates anything in this database; the same number as the ledger's, which is "plinth" in ASCII.
pub(super) const LOCK: &str = "SELECT pg_advisory_xact_lock(123610927625320)";

/// Brings the tables up to date: all missing steps in one transaction, which is then committed or, when the connection is dropped, undone.
pub(super) async fn migrate(db: &mut PgConnection) -> Result<(), QueueError> {
    let failed = super::database::failed("migrate");
    for sql in [
        "BEGIN",
        "SET LOCAL statement_timeout = '10min'",
        "SET LOCAL lock_timeout = '60s'",
        LOCK,
        "CREATE TABLE IF NOT EXISTS queue_migrations (version BIGINT PRIMARY KEY, applied_at BIGINT NOT NULL, checksum TEXT NOT NULL)",
    ] {
        sqlx::raw_sql(sql).execute(&mut *db).await.map_err(&failed)?;
    }
    let rows = sqlx::query("SELECT version, checksum FROM queue_migrations ORDER BY version").fetch_all(&mut *db).await.map_err(&failed)?;
    let read = |row: &sqlx::postgres::PgRow| Ok::<_, sqlx::Error>((row.try_get(0)?, row.try_get(1)?));
    let applied: Vec<(i64, String)> = rows.iter().map(read).collect::<Result<_, _>>().map_err(&failed)?;
    check(&applied, STEPS)?;
    for (step, version) in STEPS.iter().zip(1i64..).skip(applied.len()) {
        sqlx::raw_sql(*step).execute(&mut *db).await.map_err(&failed)?;
        sqlx::query(concat!("INSERT INTO queue_migrations (version, applied_at, checksum) VALUES ($1, ", now_sql!(), ", $2)"))
            .bind(version)
            .bind(checksum(step))
            .execute(&mut *db)
            .await
            .map_err(&failed)?;
        tracing::info!(version, "queue's tables migrated");
    }
    sqlx::raw_sql("COMMIT").execute(&mut *db).await.map_err(&failed)?;
    Ok(())
}

fn checksum(step: &str) -> String {
    Digest::of(step.as_bytes()).hex()
}

/// Refuses a database that this release must not touch.
fn check(applied: &[(i64, String)], steps: &[&str]) -> Result<(), QueueError> {
    let known = u32::try_from(steps.len()).unwrap_or(u32::MAX);
    if let Some((found, _)) = applied.last().filter(|(found, _)| *found > i64::from(known)) {
        return Err(QueueError::TooNew { found: u32::try_from(*found).unwrap_or(u32::MAX), known });
    }
    for ((step, version), (found, sum)) in steps.iter().zip(1i64..).zip(applied) {
        if *found != version {
            return Err(damaged(format!("the schema lacks step {version}")));
        }
        if *sum != checksum(step) {
            return Err(damaged(format!("the schema's step {version} was made by another text than this release has")));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_newer_an_edited_or_a_gappy_database_is_refused() {
        let steps = ["a", "b"];
        let log = |entries: &[(i64, &str)]| -> Vec<(i64, String)> { entries.iter().map(|(n, text)| (*n, checksum(text))).collect() };
        for good in [&[][..], &[(1, "a")], &[(1, "a"), (2, "b")]] {
            assert!(check(&log(good), &steps).is_ok(), "{good:?}");
        }
        assert!(matches!(check(&log(&[(1, "a"), (2, "b"), (3, "c")]), &steps), Err(QueueError::TooNew { found: 3, known: 2 })));
        assert!(matches!(check(&log(&[(1, "x")]), &steps), Err(QueueError::Damaged(_))));
        assert!(matches!(check(&log(&[(2, "b")]), &steps), Err(QueueError::Damaged(_))));
    }
}
