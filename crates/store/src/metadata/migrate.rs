//! Brings a database to this release's schema, step by step.
//!
//! Invariants: a step and the note that it happened are one transaction; steps run in order, each once, whoever else is
//! starting at the same time; a database of a newer release, or one whose old steps differ from ours, is not touched.
//! A step that was released is never edited: append another. While nodes of two releases may run together, a step must
//! leave the older release working (add, fill, and drop only a release later).

use plinth_runtime::{CrashPoint, World};
use plinth_types::Digest;

use super::MetadataError;
use super::rows::time_param;
use super::session::{Param, Session, failed};
use super::statements::{COMMIT, Dialect, ROLLBACK};

const OPERATION: &str = "migrate";

/// A step: the same change in the words of each database.
pub(super) struct Step {
    version: u32,
    sqlite: &'static str,
    postgres: &'static str,
}

/// All steps, in order, numbered from 1 without gaps.
pub(super) const STEPS: &[Step] = &[
    Step {
        version: 1,
        sqlite: "CREATE TABLE head (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    revision INTEGER NOT NULL CHECK (revision >= 0)
) STRICT;
INSERT INTO head (id, revision) VALUES (1, 0);
CREATE TABLE records (
    kind TEXT NOT NULL,
    tenant TEXT NOT NULL,
    name TEXT NOT NULL CHECK (name <> ''),
    revision INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    value TEXT NOT NULL,
    PRIMARY KEY (kind, tenant, name)
) STRICT, WITHOUT ROWID;
CREATE TABLE audit (
    revision INTEGER PRIMARY KEY,
    at INTEGER NOT NULL,
    tenant TEXT NOT NULL,
    actor TEXT NOT NULL,
    action TEXT NOT NULL,
    subject TEXT NOT NULL,
    comment TEXT NOT NULL,
    changes TEXT NOT NULL
) STRICT;",
        postgres: "CREATE TABLE head (
    id SMALLINT PRIMARY KEY CHECK (id = 1),
    revision BIGINT NOT NULL CHECK (revision >= 0)
);
INSERT INTO head (id, revision) VALUES (1, 0);
CREATE TABLE records (
    kind TEXT COLLATE \"C\" NOT NULL,
    tenant TEXT COLLATE \"C\" NOT NULL,
    name TEXT COLLATE \"C\" NOT NULL CHECK (name <> ''),
    revision BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    value TEXT NOT NULL,
    PRIMARY KEY (kind, tenant, name)
);
CREATE TABLE audit (
    revision BIGINT PRIMARY KEY,
    at BIGINT NOT NULL,
    tenant TEXT COLLATE \"C\" NOT NULL,
    actor TEXT NOT NULL,
    action TEXT NOT NULL,
    subject TEXT COLLATE \"C\" NOT NULL,
    comment TEXT NOT NULL,
    changes TEXT NOT NULL
);",
    },
    Step {
        version: 2,
        sqlite: "CREATE INDEX audit_by_subject ON audit (tenant, subject, revision);",
        postgres: "CREATE INDEX audit_by_subject ON audit (tenant, subject, revision);",
    },
    Step {
        version: 3,
        // Empty beside what older releases have written, and still write while they run.
        sqlite: "ALTER TABLE audit ADD COLUMN link TEXT NOT NULL DEFAULT '';",
        postgres: "ALTER TABLE audit ADD COLUMN link TEXT NOT NULL DEFAULT '';",
    },
];

/// Text and not JSON types: what was stored comes back byte for byte, whichever database it lay in.
const CREATE_LOG: &str =
    "CREATE TABLE IF NOT EXISTS schema_migrations (version BIGINT PRIMARY KEY, applied_at BIGINT NOT NULL, checksum TEXT NOT NULL)";
const READ_LOG: &str = "SELECT version, checksum FROM schema_migrations ORDER BY version";
const ADD_LOG: &str = "INSERT INTO schema_migrations (version, applied_at, checksum) VALUES ($1, $2, $3)";

/// Which column of [`Step`] a database reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Flavour {
    Sqlite,
    Postgres,
}

impl Step {
    const fn sql(&self, flavour: Flavour) -> &'static str {
        match flavour {
            Flavour::Sqlite => self.sqlite,
            Flavour::Postgres => self.postgres,
        }
    }
}

/// Runs the steps that are missing.
pub(super) async fn migrate(session: &mut dyn Session, dialect: &Dialect, flavour: Flavour, world: &World) -> Result<(), MetadataError> {
    // Each round looks again under the lock: another node may have run the next step meanwhile.
    loop {
        for statement in dialect.begin_migration {
            session.script(statement).await.map_err(failed(OPERATION))?;
        }
        session.script(CREATE_LOG).await.map_err(failed(OPERATION))?;
        let applied = applied(session).await?;
        let Some(step) = next_step(&applied, STEPS, flavour)? else {
            return session.script(ROLLBACK).await.map_err(failed(OPERATION));
        };
        run(session, step, flavour, world).await?;
    }
}

async fn run(session: &mut dyn Session, step: &Step, flavour: Flavour, world: &World) -> Result<(), MetadataError> {
    world.crash.reach(CrashPoint::MigrateBeforeStep);
    let sql = step.sql(flavour);
    session.script(sql).await.map_err(failed(OPERATION))?;
    let checksum = Digest::of(sql.as_bytes()).hex();
    let params = [Param::Int(step.version.into()), Param::Int(time_param(world.clock.now())), Param::Text(&checksum)];
    session.fetch(ADD_LOG, &params).await.map_err(failed(OPERATION))?;
    world.crash.reach(CrashPoint::MigrateBeforeCommit);
    session.script(COMMIT).await.map_err(failed(OPERATION))?;
    world.crash.reach(CrashPoint::MigrateAfterCommit);
    tracing::info!(schema = step.version, "database schema migrated");
    Ok(())
}

async fn applied(session: &mut dyn Session) -> Result<Vec<(u64, String)>, MetadataError> {
    let rows = session.fetch(READ_LOG, &[]).await.map_err(failed(OPERATION))?;
    rows.into_iter().map(|mut row| Ok((row.count()?, row.text()?))).collect()
}

/// The step to run next, if one is missing; refuses a database that this release must not touch.
fn next_step<'s>(applied: &[(u64, String)], steps: &'s [Step], flavour: Flavour) -> Result<Option<&'s Step>, MetadataError> {
    let known = steps.last().map_or(0, |step| step.version);
    if let Some((found, _)) = applied.last().filter(|(found, _)| *found > known.into()) {
        return Err(MetadataError::TooNew { found: u32::try_from(*found).unwrap_or(u32::MAX), known });
    }
    for (step, (version, checksum)) in steps.iter().zip(applied) {
        if *version != u64::from(step.version) {
            return Err(MetadataError::Damaged(format!("the schema lacks step {}", step.version)));
        }
        if *checksum != Digest::of(step.sql(flavour).as_bytes()).hex() {
            return Err(MetadataError::Damaged(format!("the schema's step {version} was made by another text than this release has")));
        }
    }
    Ok(steps.get(applied.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(versions: &[u64]) -> Vec<(u64, String)> {
        let checksum = |version: u64| match usize::try_from(version - 1).ok().and_then(|i| STEPS.get(i)) {
            Some(step) => Digest::of(step.sqlite.as_bytes()).hex(),
            None => "of a newer release".to_owned(),
        };
        versions.iter().map(|version| (*version, checksum(*version))).collect()
    }

    fn next(applied: &[(u64, String)]) -> Result<Option<u32>, MetadataError> {
        next_step(applied, STEPS, Flavour::Sqlite).map(|step| step.map(|step| step.version))
    }

    #[test]
    fn steps_are_numbered_from_one_without_gaps() {
        let versions: Vec<_> = STEPS.iter().map(|step| step.version).collect();
        assert_eq!(versions, (1..=u32::try_from(STEPS.len()).unwrap()).collect::<Vec<_>>());
    }

    #[test]
    fn released_steps_are_never_edited() {
        // When this fails: do not change the digests, undo the edit and append a step.
        let released = [(1, "e956b6771313", "3d8b4a020d30"), (2, "64748fe4315a", "64748fe4315a")];
        for (version, sqlite, postgres) in released {
            let step = STEPS.iter().find(|step| step.version == version).unwrap();
            assert_eq!(Digest::of(step.sqlite.as_bytes()).short(), sqlite);
            assert_eq!(Digest::of(step.postgres.as_bytes()).short(), postgres);
        }
    }

    #[test]
    fn the_next_step_follows_the_last() {
        assert_eq!(next(&log(&[])).unwrap(), Some(1));
        assert_eq!(next(&log(&[1])).unwrap(), Some(2));
        assert_eq!(next(&log(&[1, 2])).unwrap(), Some(3));
        assert_eq!(next(&log(&[1, 2, 3])).unwrap(), None);
    }

    #[test]
    fn a_newer_an_edited_or_a_gappy_database_is_refused() {
        assert!(matches!(next(&log(&[1, 2, 3, 4])), Err(MetadataError::TooNew { found: 4, known: 3 })));
        assert!(matches!(next(&log(&[1, 2, 3, 9_999_999_999])), Err(MetadataError::TooNew { found: u32::MAX, known: 3 })));
        assert!(matches!(next(&[(1, "other".to_owned())]), Err(MetadataError::Damaged(_))));
        assert!(matches!(next(&log(&[2])), Err(MetadataError::Damaged(_))));
    }
}
