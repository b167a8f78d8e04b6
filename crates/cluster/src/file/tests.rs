//! What is stored is loaded, whole or not at all; what stands behind it is followed, and nothing that was shown is lost.

use plinth_store::metadata::{AuditChange, AuditNote, Kind, RecordKey, Revision};
use plinth_types::TenantName;
use serde_json::json;

use super::*;

fn snapshot(revision: u64) -> Snapshot {
    Snapshot { revision: Revision(revision), ..Snapshot::default() }
}

fn at(millis: u64) -> Timestamp {
    Timestamp::from_millis(millis).unwrap()
}

fn place(small: u64) -> (tempfile::TempDir, SnapshotFile) {
    let directory = tempfile::tempdir().unwrap();
    let file = SnapshotFile::new(directory.path().into(), CrashPoints::none()).small(small);
    (directory, file)
}

fn commit(revision: u64) -> AuditEntry {
    let home = TenantName::default_tenant();
    let key = RecordKey::new(Kind::Plan, home.clone(), format!("p{}", revision % 60));
    let note = AuditNote {
        at: at(revision),
        tenant: home,
        actor: "a".into(),
        action: "apply".into(),
        subject: "s".into(),
        comment: String::new(),
    };
    let after = (!revision.is_multiple_of(7)).then(|| json!({ "weight": revision, "description": "x".repeat(150) }));
    AuditEntry { revision: Revision(revision), note, changes: vec![AuditChange { key, before: None, after }] }
}

/// A snapshot of some size and the commits that lead on from it.
fn large() -> Snapshot {
    let mut snapshot = snapshot(0);
    (1..=50).for_each(|n| snapshot.follow(&commit(n)).unwrap());
    snapshot
}

#[test]
fn what_is_stored_is_loaded_and_replaced() {
    let (directory, file) = place(SMALL);
    assert!(file.load().unwrap().is_none());
    for revision in [1, 2] {
        file.store(&snapshot(revision), at(revision)).unwrap();
        let stored = file.load().unwrap().unwrap();
        assert_eq!((stored.snapshot, stored.checked_at), (snapshot(revision), at(revision)));
    }
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1, "no temporary file stays");
}

#[test]
fn a_file_of_the_first_release_opens() {
    let (directory, file) = place(SMALL);
    let body = r#"{"revision":7,"tenants":{},"keys":{},"models":{}}"#;
    let digest = Digest::of(body.as_bytes());
    let header =
        format!(r#"{{"format":1,"revision":7,"checked_at":"2026-01-31T12:00:00.000Z","sha256":"{digest}","length":{}}}"#, body.len());
    std::fs::write(directory.path().join("snapshot.json"), format!("{header}\n{body}")).unwrap();
    assert_eq!(file.load().unwrap().unwrap().snapshot, snapshot(7));
}

#[test]
fn every_changed_byte_and_every_cut_is_found() {
    let (directory, file) = place(SMALL);
    file.store(&snapshot(7), at(1)).unwrap();
    let bytes = std::fs::read(directory.path().join("snapshot.json")).unwrap();
    assert!(decode(bytes.as_slice()).is_ok());
    let body = bytes.iter().position(|b| *b == b'\n').unwrap() + 1;
    for i in body..bytes.len() {
        let mut changed = bytes.clone();
        changed[i] ^= 1;
        assert!(decode(changed.as_slice()).is_err(), "byte {i}");
    }
    for length in 0..bytes.len() {
        assert!(decode(&bytes[..length]).is_err(), "cut at {length}");
    }
    let mut longer = bytes;
    longer.push(b' ');
    assert!(decode(longer.as_slice()).is_err());
}

#[test]
fn a_newer_format_is_refused_by_name() {
    let text: &[u8] = br#"{"format":2,"something":"else"}
{}"#;
    assert!(matches!(decode(text), Err(SnapshotFileError::TooNew(2))));
}

#[test]
fn commits_are_put_behind_a_large_snapshot_until_they_are_long_themselves() {
    let (directory, file) = place(10);
    let mut shown = large();
    let mut disk = Some(file.store(&shown, at(0)).unwrap());
    let mut whole = 0;
    for revision in 51..200 {
        shown.follow(&commit(revision)).unwrap();
        disk = file.keep(&shown, disk, &[commit(revision)], at(revision)).unwrap();
        let stored = file.load().unwrap().unwrap();
        assert!(stored.snapshot == shown && stored.checked_at == at(revision), "at {revision}");
        whole += usize::from(!directory.path().join("snapshot.journal").exists());
        if revision.is_multiple_of(3) {
            disk = Some(stored.disk.unwrap()); // as after a restart
        }
    }
    assert!(whole > 0 && whole < 149, "{whole} of 149 were written whole");
}

#[test]
fn an_interval_without_a_change_costs_one_line() {
    let (directory, file) = place(10);
    let shown = large();
    let disk = file.store(&shown, at(0)).unwrap();
    let before = std::fs::read(directory.path().join("snapshot.json")).unwrap();
    file.keep(&shown, Some(disk), &[], at(9)).unwrap();
    assert_eq!(std::fs::read(directory.path().join("snapshot.json")).unwrap(), before);
    assert_eq!(file.load().unwrap().unwrap().checked_at, at(9));
}

/// A file with three commits behind it: the directory, the file, the journal's bytes, and what each line leads to.
fn three() -> (tempfile::TempDir, SnapshotFile, Vec<u8>, Vec<Snapshot>) {
    let (directory, file) = place(10);
    let mut states = vec![large()];
    let mut disk = Some(file.store(&states[0], at(0)).unwrap());
    for revision in 51..54 {
        let mut next = states.last().unwrap().clone();
        next.follow(&commit(revision)).unwrap();
        disk = file.keep(&next, disk, &[commit(revision)], at(revision)).unwrap();
        states.push(next);
    }
    let bytes = std::fs::read(directory.path().join("snapshot.journal")).unwrap();
    (directory, file, bytes, states)
}

#[test]
fn a_journal_cut_anywhere_leads_to_what_was_whole() {
    let (directory, file, bytes, states) = three();
    let path = directory.path().join("snapshot.journal");
    for length in 0..=bytes.len() {
        let lines = bytes[..length].iter().filter(|b| **b == b'\n').count().saturating_sub(1);
        std::fs::write(&path, &bytes[..length]).unwrap();
        let stored = file.load().unwrap().unwrap();
        assert!(stored.snapshot == states[lines], "cut at {length}");
        // And it goes on from there; only some of them, because each is synced.
        let edge = bytes.get(length.saturating_sub(1)..length + 1).is_none_or(|around| around.contains(&b'\n'));
        if edge || length.is_multiple_of(97) {
            let mut next = stored.snapshot;
            let commit = commit(next.revision.0 + 1);
            next.follow(&commit).unwrap();
            file.keep(&next, stored.disk, &[commit], at(99)).unwrap();
            assert!(file.load().unwrap().unwrap().snapshot == next, "cut at {length}");
            assert!(path.exists(), "it was put behind");
        }
    }
}

#[test]
fn a_changed_byte_in_a_journal_never_leads_elsewhere() {
    let (directory, file, bytes, states) = three();
    for i in 0..bytes.len() {
        let mut changed = bytes.clone();
        changed[i] ^= 1;
        std::fs::write(directory.path().join("snapshot.journal"), changed).unwrap();
        if let Ok(stored) = file.load() {
            assert!(states.contains(&stored.unwrap().snapshot), "byte {i}");
        }
    }
}

#[test]
fn a_journal_of_another_snapshot_is_left_out() {
    let (directory, file, bytes, _) = three();
    let other = snapshot(60);
    file.store(&other, at(1)).unwrap();
    assert!(!directory.path().join("snapshot.journal").exists());
    std::fs::write(directory.path().join("snapshot.journal"), &bytes).unwrap();
    assert_eq!(file.load().unwrap().unwrap().snapshot, other);
    std::fs::remove_file(directory.path().join("snapshot.json")).unwrap();
    assert!(file.load().unwrap().is_none(), "whoever deletes the snapshot deletes it all");
}
