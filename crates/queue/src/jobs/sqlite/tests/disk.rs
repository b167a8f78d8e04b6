//! A disk that fails: every sync, or every write, of the ledger's process fails from some moment on.
//!
//! The kernel refuses the calls (a seccomp filter over all threads of a child), so SQLite sees what it would see of a dying or a full disk. What was
//! acknowledged before is there when the file is opened again, what failed was not acknowledged, and nothing is half done.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use plinth_runtime::World;
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter};

use super::super::SqliteJobs;
use super::super::simulated::{leftovers, picture};
use super::kill::{VARIABLE, job, orders};
use crate::QueueError;
use crate::jobs::*;

/// From now on these calls fail in all threads of this process.
fn refuse(calls: &[i64], error: i32) {
    let rules = calls.iter().map(|call| (*call, Vec::new())).collect::<BTreeMap<_, _>>();
    let action = SeccompAction::Errno(u32::try_from(error).unwrap());
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, action, std::env::consts::ARCH.try_into().unwrap()).unwrap();
    let program: BpfProgram = filter.try_into().unwrap();
    seccompiler::apply_filter_all_threads(&program).unwrap();
}

/// The child's half.
async fn child(what: &str, path: &str) {
    let ledger = SqliteJobs::open(Path::new(path), &World::real()).await.unwrap();
    let ids = JobIds::new(World::real());
    let submit = async || {
        let new = job(&ids);
        let id = new.id;
        let outcome = ledger.submit(Submission { tenant: "acme".parse().unwrap(), key: None, jobs: vec![new] }).await;
        (id, outcome)
    };
    for _ in 0..20 {
        let (id, outcome) = submit().await;
        outcome.unwrap();
        println!("\nstored {id}");
    }
    let (calls, error) = match what {
        "sync" => (&[libc::SYS_fsync, libc::SYS_fdatasync][..], libc::EIO),
        _ => (&[libc::SYS_pwrite64, libc::SYS_ftruncate, libc::SYS_fallocate][..], libc::ENOSPC),
    };
    // SQLite writes by pwrite64; plain writes also wake threads, and stay.
    refuse(calls, error);
    for _ in 0..5 {
        match (what, submit().await.1) {
            ("sync", Err(QueueError::Unavailable { .. })) | ("write", Err(QueueError::Full | QueueError::Unavailable { .. })) => {}
            _ => std::process::exit(3),
        }
    }
    std::process::exit(7);
}

async fn dies(what: &str, test: &str) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("jobs");
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test.split_once("::").unwrap().1, "--nocapture"])
        .env(VARIABLE, format!("{what}\n{}", path.display()))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let said = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
    let stored: Vec<JobId> = said.filter_map(|line| line.strip_prefix("stored ")?.parse().ok()).collect();
    assert_eq!((stored.len(), child.wait().unwrap().code()), (20, Some(7)), "3 stands for a submission that was acknowledged all the same");

    let ledger = SqliteJobs::open(&path, &World::real()).await.unwrap();
    let (tenant, ids) = ("acme".parse().unwrap(), JobIds::new(World::real()));
    for id in &stored {
        assert!(ledger.get(&tenant, *id).await.unwrap().is_some(), "{id} was acknowledged");
    }
    let again = Submission { tenant: tenant.clone(), key: None, jobs: vec![job(&ids)] };
    assert_eq!(ledger.submit(again).await.unwrap(), Submitted::Created);
    ledger.close().await;
    let db = rusqlite::Connection::open(&path).unwrap();
    assert_eq!(leftovers(&db).unwrap(), Vec::<String>::new());
    // A submission whose sync failed may be there, whole; nobody was told so.
    assert!((21..=26).contains(&picture(&db).unwrap().len()));
}

#[tokio::test]
async fn a_sync_that_fails_is_never_acknowledged() {
    if let Some((what, path)) = orders() {
        return child(&what, &path).await;
    }
    dies("sync", concat!(module_path!(), "::a_sync_that_fails_is_never_acknowledged")).await;
}

#[tokio::test]
async fn a_disk_without_room_refuses_and_keeps_what_it_has() {
    if let Some((what, path)) = orders() {
        return child(&what, &path).await;
    }
    dies("write", concat!(module_path!(), "::a_disk_without_room_refuses_and_keeps_what_it_has")).await;
}
