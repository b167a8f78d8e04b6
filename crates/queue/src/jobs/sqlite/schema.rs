//! The tables of the ledger of jobs, in SQLite.
//!
//! What changes often is apart from what is large: `jobs` is small rows that are rewritten, `payloads` and `results` are written once.
//! Each partial index holds only the jobs that its question is about, so a million jobs that ended cost a claim nothing, and a
//! million that wait cost it the depth of a tree. `flows` has a row for each kind, class and tenant that has (or lately had) ready jobs:
//! whose turn it is. `turns` has how far each class is: who begins to wait, or was kept waiting by a pause, goes on from there.

use crate::sqlite::Migrations;

/// All steps.
pub(super) const STEPS: Migrations = &[r#"
CREATE TABLE jobs (
    id BLOB NOT NULL PRIMARY KEY,
    tenant TEXT NOT NULL,
    kind TEXT NOT NULL,
    state INTEGER NOT NULL,
    class INTEGER NOT NULL,
    priority INTEGER NOT NULL,
    epoch INTEGER NOT NULL DEFAULT 0,
    attempt INTEGER NOT NULL DEFAULT 0,
    max_attempts INTEGER NOT NULL,
    retry_base INTEGER NOT NULL,
    retry_factor INTEGER NOT NULL,
    retry_cap INTEGER NOT NULL,
    timeout INTEGER NOT NULL,
    keep INTEGER NOT NULL,
    cancel INTEGER NOT NULL DEFAULT 0,
    waits INTEGER NOT NULL DEFAULT 0,
    on_failure INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    run_at INTEGER NOT NULL,
    expires_at INTEGER,
    started_at INTEGER,
    ended_at INTEGER,
    keep_until INTEGER,
    worker TEXT,
    lease_until INTEGER,
    progress INTEGER NOT NULL DEFAULT 0,
    checkpoint TEXT,
    events INTEGER NOT NULL DEFAULT 0,
    parent BLOB,
    actor TEXT NOT NULL,
    labels TEXT NOT NULL,
    webhook TEXT,
    reason TEXT,
    failure TEXT,
    result_size INTEGER
) STRICT;
CREATE INDEX jobs_ready ON jobs (kind, class, tenant, priority, id) WHERE state = 2;
CREATE INDEX jobs_due ON jobs (run_at) WHERE state = 1;
CREATE INDEX jobs_leased ON jobs (lease_until) WHERE state = 3;
CREATE INDEX jobs_expiring ON jobs (expires_at) WHERE expires_at IS NOT NULL AND state < 3;
CREATE INDEX jobs_kept ON jobs (keep_until) WHERE keep_until IS NOT NULL;
CREATE INDEX jobs_dead ON jobs (tenant, id) WHERE state = 5;
CREATE INDEX jobs_of_tenant ON jobs (tenant, id);
CREATE INDEX jobs_of_parent ON jobs (parent, id) WHERE parent IS NOT NULL;
CREATE TABLE payloads (id BLOB NOT NULL PRIMARY KEY, meta TEXT NOT NULL, bytes BLOB, digest TEXT, size INTEGER NOT NULL) STRICT;
CREATE TABLE results (id BLOB NOT NULL PRIMARY KEY, meta TEXT NOT NULL, bytes BLOB, digest TEXT, size INTEGER NOT NULL) STRICT;
CREATE TABLE keys (
    tenant TEXT NOT NULL,
    key TEXT NOT NULL,
    fingerprint BLOB NOT NULL,
    jobs BLOB NOT NULL,
    expires_at INTEGER NOT NULL,
    PRIMARY KEY (tenant, key)
) STRICT, WITHOUT ROWID;
CREATE INDEX keys_expiring ON keys (expires_at);
CREATE TABLE dependencies (on_job BLOB NOT NULL, job BLOB NOT NULL, PRIMARY KEY (on_job, job)) STRICT, WITHOUT ROWID;
CREATE TABLE attempts (
    id BLOB NOT NULL,
    epoch INTEGER NOT NULL,
    attempt INTEGER NOT NULL,
    worker TEXT NOT NULL,
    started_at INTEGER NOT NULL,
    ended_at INTEGER NOT NULL,
    reason TEXT NOT NULL,
    failure TEXT NOT NULL,
    PRIMARY KEY (id, epoch)
) STRICT, WITHOUT ROWID;
CREATE TABLE job_events (
    id BLOB NOT NULL,
    seq INTEGER NOT NULL,
    at INTEGER NOT NULL,
    name TEXT NOT NULL,
    data TEXT NOT NULL,
    PRIMARY KEY (id, seq)
) STRICT, WITHOUT ROWID;
CREATE TABLE flows (
    kind TEXT NOT NULL,
    class INTEGER NOT NULL,
    tenant TEXT NOT NULL,
    pass REAL NOT NULL,
    PRIMARY KEY (kind, class, tenant)
) STRICT, WITHOUT ROWID;
CREATE INDEX flows_in_turn ON flows (class, pass);
CREATE TABLE turns (class INTEGER NOT NULL PRIMARY KEY, pass REAL NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE kinds (
    kind TEXT NOT NULL PRIMARY KEY,
    paused INTEGER NOT NULL,
    concurrency INTEGER,
    rate REAL,
    next_at REAL NOT NULL DEFAULT 0
) STRICT, WITHOUT ROWID;
CREATE TABLE schedules (
    tenant TEXT NOT NULL,
    name TEXT NOT NULL,
    spec TEXT NOT NULL,
    next_at INTEGER,
    last_at INTEGER,
    PRIMARY KEY (tenant, name)
) STRICT, WITHOUT ROWID;
CREATE TABLE secrets (tenant TEXT NOT NULL, name TEXT NOT NULL, secret TEXT NOT NULL, PRIMARY KEY (tenant, name)) STRICT, WITHOUT ROWID;
"#];
