//! kill -9 while migrating and while committing.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::Stdio;

use plinth_runtime::CrashPoint;

use super::postgres::{admin, open_schema, schemas};
use super::sqlite::{open_file, raw};
use super::*;
use crate::faults::{child, die_at, orders};

const POINTS: [CrashPoint; 3] = [CrashPoint::MigrateBeforeStep, CrashPoint::MigrateBeforeCommit, CrashPoint::MigrateAfterCommit];

/// The child's half: opens what its orders say and dies on the way.
async fn migrate_as_ordered() -> bool {
    let Some(orders) = orders() else { return false };
    let options = match orders.place.strip_prefix("schema:") {
        Some(schema) => super::postgres::options(&schema.parse().unwrap()),
        None => MetadataOptions::new(MetadataUrl::Sqlite(orders.place.into())),
    };
    open(&options, &orders.world).await.unwrap();
    true
}

/// Everything that the schema consists of.
async fn schema(path: &Path) -> Vec<String> {
    raw(path, async |session| {
        let rows =
            session.fetch("SELECT type || ' ' || name || ' ' || coalesce(sql, '') FROM sqlite_master ORDER BY 1", &[]).await.unwrap();
        rows.into_iter().map(|mut row| row.text().unwrap()).collect()
    })
    .await
}

#[tokio::test]
async fn sqlite_survives_kill_at_every_migrate_point() {
    if migrate_as_ordered().await {
        return;
    }
    let root = tempfile::tempdir().unwrap();
    let clean = root.path().join("clean");
    open_file(&clean).await.close().await;
    let want = schema(&clean).await;
    assert!(want.iter().any(|line| line.starts_with("index audit_by_subject")), "{want:?}");
    for point in POINTS {
        for pass in 1..=2 {
            let path = root.path().join(format!("{}.{pass}", point.name()));
            die_at(concat!(module_path!(), "::sqlite_survives_kill_at_every_migrate_point"), point, pass, path.to_str().unwrap());
            check_works(&*open_file(&path).await).await;
            assert_eq!(schema(&path).await, want, "killed at {} (pass {pass})", point.name());
        }
    }
}

#[tokio::test]
async fn what_was_stored_survives_a_kill_in_the_next_step() {
    if migrate_as_ordered().await {
        return;
    }
    const TEST: &str = concat!(module_path!(), "::what_was_stored_survives_a_kill_in_the_next_step");
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("ledger");
    let ledger = open_file(&path).await;
    ledger.commit(set("old", "value")).await.unwrap();
    ledger.close().await;
    // Back to the schema of the first step, with what was stored in it.
    raw(&path, async |session| {
        session
            .script("DROP INDEX audit_by_subject; ALTER TABLE audit DROP COLUMN link; DELETE FROM schema_migrations WHERE version > 1")
            .await
            .unwrap();
    })
    .await;
    let first_step = root.path().join("first_step");
    for point in POINTS {
        std::fs::copy(&path, &first_step).unwrap();
        die_at(TEST, point, 1, first_step.to_str().unwrap());
        let ledger = open_file(&first_step).await;
        assert_eq!(ledger.get(&key("old")).await.unwrap().unwrap().value, json!("value"));
        check_works(&*ledger).await;
        ledger.close().await;
    }
}

#[tokio::test]
async fn postgres_survives_kill_at_every_migrate_point() {
    if migrate_as_ordered().await {
        return;
    }
    const TEST: &str = concat!(module_path!(), "::postgres_survives_kill_at_every_migrate_point");
    let Some(schemas) = schemas() else { return };
    let shape = async |schema: &SchemaName| {
        let sql = format!(
            "SELECT concat_ws(' ', table_name, column_name, data_type, is_nullable, collation_name) FROM information_schema.columns \
             WHERE table_schema = '{0}' UNION ALL \
             SELECT replace(indexdef, '{0}', '') FROM pg_indexes WHERE schemaname = '{0}' ORDER BY 1",
            schema.as_str()
        );
        admin(&sql).await
    };
    let clean = schemas.next();
    open_schema(&clean).await.close().await;
    let want = shape(&clean).await;
    assert!(want.iter().any(|line| line.contains("audit_by_subject")), "{want:?}");
    for point in POINTS {
        for pass in 1..=2 {
            let schema = schemas.next();
            die_at(TEST, point, pass, &format!("schema:{}", schema.as_str()));
            let ledger = open_schema(&schema).await;
            check_works(&*ledger).await;
            ledger.close().await;
            assert_eq!(shape(&schema).await, want, "killed at {} (pass {pass})", point.name());
        }
    }
    schemas.remove().await;
}

#[tokio::test]
async fn an_acknowledged_commit_survives_a_kill() {
    const TEST: &str = concat!(module_path!(), "::an_acknowledged_commit_survives_a_kill");
    if let Some(orders) = orders() {
        let ledger = open_file(Path::new(&orders.place)).await;
        for i in 0..100_000 {
            let revision = ledger.commit(set(&format!("r{}", i % 7), i)).await.unwrap();
            println!("committed {revision}");
        }
        return;
    }
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("ledger");
    let mut acknowledged = 0;
    for round in 1..=4 {
        let mut child = child(TEST, None, 0, path.to_str().unwrap()).stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let told = lines.map_while(Result::ok).filter_map(|line| line.strip_prefix("committed ")?.parse::<u64>().ok());
        // Killed while the next commit is under way.
        acknowledged = told.take(20 * round).last().unwrap_or(acknowledged);
        child.kill().unwrap();
        child.wait().unwrap();
        let ledger = open_file(&path).await;
        let head = check_ledger(&*ledger).await;
        assert!(head.0 >= acknowledged && acknowledged > 0, "head {head}, acknowledged were {acknowledged}");
        ledger.close().await;
    }
}
