//! What do 100,000 tenants with 1,000,000 keys cost the snapshot: memory, the start, one change, one interval?
//!
//! Unit: milliseconds of wall time, MiB of resident memory. Needs 2 GiB of disk; the ledger is SQLite in a temporary directory.
//! Command: `cargo run --release -p plinth-cluster --example snapshot_scale [TENANTS] [KEYS]`

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a measurement prints, reads the real clock, and stops where it cannot be made"
)]

use std::sync::Arc;
use std::time::{Duration, Instant};

use plinth_cluster::{Keeper, KeeperOptions, KeeperParts, SnapshotFile};
use plinth_runtime::{CrashPoints, TaskGroup, World};
use plinth_store::Metadata;
use plinth_store::metadata::{AuditNote, Change, Commit, Expect, Kind, MetadataOptions, MetadataUrl, RecordKey};
use plinth_telemetry::{BuildInfo, Catalogue};
use plinth_types::{Digest, TenantName, Timestamp};
use serde_json::{Value, json};

fn memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line =
        |name: &str| status.lines().find(|l| l.starts_with(name)).unwrap().split_whitespace().nth(1).unwrap().parse::<u64>().unwrap();
    println!("    memory {} MiB, peak {} MiB", line("VmRSS") >> 10, line("VmHWM") >> 10);
    // The next peak begins now.
    let _ = std::fs::write("/proc/self/clear_refs", "5");
    line("VmRSS")
}

fn key(n: usize) -> Value {
    json!({ "secret_hash": Digest::of(&n.to_le_bytes()), "role": "developer", "created_at": "2026-01-31T12:00:00.000Z" })
}

async fn commit(store: &dyn Metadata, changes: Vec<(RecordKey, Value)>) {
    let home = TenantName::default_tenant();
    let note = AuditNote {
        at: Timestamp::from_millis(1).unwrap(),
        tenant: home,
        actor: "a".into(),
        action: "x".into(),
        subject: "s".into(),
        comment: String::new(),
    };
    let changes = changes.into_iter().map(|(key, value)| Change { key, expect: Expect::Any, value: Some(value) }).collect();
    store.commit(Commit { changes, guards: Vec::new(), if_head: None, note }).await.unwrap();
}

async fn fill(store: &dyn Metadata, tenants: usize, keys: usize) {
    let name = |n: usize| format!("tenant-{n:06}").parse::<TenantName>().unwrap();
    let home = TenantName::default_tenant();
    let all = (0..tenants).map(|n| {
        let value = json!({ "created_at": "2026-01-31T12:00:00.000Z", "plan": "free" });
        (RecordKey::new(Kind::Tenant, home.clone(), name(n).as_str()), value)
    });
    let all = all.chain((0..keys).map(|n| (RecordKey::new(Kind::Key, name(n % tenants), format!("{n:016x}")), key(n))));
    let mut part = Vec::new();
    for change in all {
        part.push(change);
        if part.len() == 10_000 {
            commit(store, std::mem::take(&mut part)).await;
        }
    }
    if !part.is_empty() {
        commit(store, part).await;
    }
}

async fn shown(keeper: &Keeper, revision: u64) {
    assert!(keeper.wait_for(revision, Duration::from_secs(120)).await);
}

#[tokio::main]
async fn main() {
    let mut arguments = std::env::args().skip(1).map(|a| a.parse::<usize>().unwrap());
    let (tenants, keys) = (arguments.next().unwrap_or(100_000), arguments.next().unwrap_or(1_000_000));
    let directory = tempfile::tempdir().unwrap();
    let world = World::real();
    let url = MetadataUrl::Sqlite(directory.path().join("metadata.sqlite"));
    let store = plinth_store::metadata::open(&MetadataOptions::new(url), &world).await.unwrap();
    let began = Instant::now();
    fill(&*store, tenants, keys).await;
    println!("filled {tenants} tenants, {keys} keys in {} s", began.elapsed().as_secs());
    let empty = memory();

    for start in ["without a file", "from the file"] {
        let tasks = TaskGroup::new("measure");
        let parts = KeeperParts {
            metadata: store.clone(),
            file: SnapshotFile::new(directory.path().into(), CrashPoints::none()),
            options: KeeperOptions { poll: Duration::from_millis(50), interval: Duration::from_secs(5) },
            metrics: Arc::new(Catalogue::new(BuildInfo { version: "0", commit: "unknown" })),
        };
        let began = Instant::now();
        let keeper = Keeper::start(parts, &world, &tasks).await.unwrap();
        println!("start {start}: {} ms", began.elapsed().as_millis());
        let full = memory();
        println!("    {} bytes a key", (full.saturating_sub(empty) << 10) / keys as u64);
        println!("    file {} MiB", std::fs::metadata(directory.path().join("snapshot.json")).unwrap().len() >> 20);
        let mut times = Vec::new();
        for n in 0..30 {
            let tenant: TenantName = format!("tenant-{:06}", n * 97 % tenants).parse().unwrap();
            commit(&*store, vec![(RecordKey::new(Kind::Key, tenant, format!("{n:016x}")), key(n + 1))]).await;
            let revision = store.head().await.unwrap().0;
            let began = Instant::now();
            shown(&keeper, revision).await;
            times.push(began.elapsed());
        }
        times.sort_unstable();
        println!("one key changed, until it is shown: median {:.1} ms, worst {:.1} ms", ms(times[15]), ms(times[29]));
        memory();
        let before = cpu();
        tokio::time::sleep(Duration::from_secs(11)).await;
        println!("processor time at rest: {} ms in 11 s", cpu() - before);
        drop(keeper);
        tasks.close(Duration::from_secs(30)).await;
    }
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// Processor time of this process in milliseconds.
fn cpu() -> u64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    (fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()) * 10
}
