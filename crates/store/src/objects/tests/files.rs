//! What is the files' alone: kill -9, a full disk, what lies in the directory.

use std::path::{Path, PathBuf};

use plinth_runtime::CrashPoint;

use super::*;
use crate::conformance;
use crate::faults::{TinyDisk, die_at, orders};

async fn open_directory(path: &Path) -> Arc<dyn Objects> {
    open_url(ObjectsUrl::File(path.to_owned())).await
}

fn files_below(path: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { files_below(&path) } else { vec![path] }).collect()
}

/// What holds of every object directory, whatever happened to it: each listed object has its digest, and `tmp` is empty.
async fn check_directory(path: &Path) -> Vec<Digest> {
    let store = open_directory(path).await;
    let mut found = Vec::new();
    for info in store.list().try_collect::<Vec<_>>().await.unwrap() {
        let content = read(&*store, &info.digest).await;
        assert_eq!((Digest::of(&content), content.len() as u64), (info.digest, info.size));
        found.push(info.digest);
    }
    assert_eq!(files_below(&path.join("tmp")), Vec::<PathBuf>::new());
    assert_eq!(files_below(&path.join("sha256")).len(), found.len());
    found
}

#[tokio::test]
async fn files_conform() {
    let root = tempfile::tempdir().unwrap();
    let made = std::sync::atomic::AtomicU32::new(0);
    conformance::objects(|| {
        let path = root.path().join(made.fetch_add(1, std::sync::atomic::Ordering::Relaxed).to_string());
        async move { open_directory(&path).await }
    })
    .await;
    // Whatever the suite did to them, nothing lies around.
    for number in 0..made.into_inner() {
        check_directory(&root.path().join(number.to_string())).await;
    }
}

#[tokio::test]
async fn a_put_that_fails_or_is_dropped_removes_its_file() {
    let root = tempfile::tempdir().unwrap();
    let store = open_directory(root.path()).await;
    let tmp = root.path().join("tmp");
    let mut wrong = whole(b"wrong");
    assert!(store.put(&Digest::of(b"right"), 5, wrong).await.is_err());
    assert!(files_below(&tmp).is_empty());

    // Two megabytes, so that some have been written, and then nothing more.
    wrong = whole(&vec![0; 2 << 20]).chain(futures_util::stream::pending()).boxed();
    let digest = Digest::of(b"x");
    let mut stuck = store.put(&digest, 3 << 20, wrong);
    while files_below(&tmp).iter().all(|path| std::fs::metadata(path).unwrap().len() < 2 << 20) {
        assert!(futures_util::poll!(&mut stuck).is_pending());
        tokio::task::yield_now().await;
    }
    drop(stuck);
    // A write that was under way ends on its own thread, and takes the file with it.
    tokio::time::timeout(std::time::Duration::from_secs(10), async {
        while !files_below(&tmp).is_empty() {
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        }
    })
    .await
    .expect("the temporary file goes away");
}

#[tokio::test]
async fn push_survives_kill_at_every_point() {
    const TEST: &str = concat!(module_path!(), "::push_survives_kill_at_every_point");
    let (first, second) = (b"acknowledged before", vec![7; 3 << 20]);
    if let Some(orders) = orders() {
        let store = open(&ObjectsOptions::new(ObjectsUrl::File(orders.place.into())), &orders.world).await.unwrap();
        put(&*store, first).await.unwrap();
        put(&*store, &second).await.unwrap();
        return;
    }
    for point in [CrashPoint::PushBlobWritten, CrashPoint::PushBlobSynced, CrashPoint::PushBlobRenamed] {
        let root = tempfile::tempdir().unwrap();
        die_at(TEST, point, 2, root.path().to_str().unwrap());
        let left = files_below(&root.path().join("tmp")).len();
        assert_eq!(left, usize::from(point != CrashPoint::PushBlobRenamed), "{}", point.name());
        let found = check_directory(root.path()).await;
        assert!(found.contains(&Digest::of(first)), "{}: what was acknowledged is gone", point.name());
        // The interrupted push can be done again.
        let store = open_directory(root.path()).await;
        let again = put(&*store, &second).await.unwrap();
        assert_eq!(again == PutOutcome::AlreadyThere, point == CrashPoint::PushBlobRenamed);
        drop(store);
        assert_eq!(check_directory(root.path()).await.len(), 2);
    }
}

#[tokio::test]
async fn a_start_does_not_sweep_what_another_process_is_writing() {
    let root = tempfile::tempdir().unwrap();
    let store = open_directory(root.path()).await;
    let stray = root.path().join("tmp/of-another");
    std::fs::write(&stray, "half").unwrap();
    let other = open_directory(root.path()).await;
    assert!(stray.exists(), "swept while somebody works here");
    drop((store, other));
    open_directory(root.path()).await;
    assert!(!stray.exists(), "nobody works here, so it is swept");
}

#[tokio::test]
async fn a_full_disk_is_full_and_loses_nothing() {
    let Some(disk) = TinyDisk::mount("2m") else { return };
    let path = disk.path().join("objects");
    let store = open_directory(&path).await;
    assert_eq!(put(&*store, b"small").await.unwrap(), PutOutcome::Stored);
    let (ballast, large) = (disk.path().join("ballast"), vec![1; 1 << 20]);
    std::fs::write(&ballast, vec![0; 1 << 20]).unwrap();
    for _ in 0..3 {
        let error = put(&*store, &large).await.unwrap_err();
        assert!(matches!(error, ObjectsError::Full), "{error:?}");
        assert!(files_below(&path.join("tmp")).is_empty(), "what did not fit still takes space");
    }
    assert_eq!(read(&*store, &Digest::of(b"small")).await, b"small");
    std::fs::remove_file(ballast).unwrap();
    assert_eq!(put(&*store, &large).await.unwrap(), PutOutcome::Stored);
    drop(store);
    assert_eq!(check_directory(&path).await.len(), 2);
}

#[tokio::test]
async fn a_truncated_object_is_replaced_by_a_good_one() {
    let root = tempfile::tempdir().unwrap();
    let store = open_directory(root.path()).await;
    put(&*store, b"content").await.unwrap();
    let digest = Digest::of(b"content");
    let path = root.path().join("sha256").join(&digest.hex()[..2]).join(&digest.hex()[2..]);
    std::fs::write(&path, "cont").unwrap();
    assert_eq!(put(&*store, b"content").await.unwrap(), PutOutcome::Stored);
    assert_eq!(read(&*store, &digest).await, b"content");
}

#[tokio::test]
async fn what_is_no_object_is_not_listed() {
    let root = tempfile::tempdir().unwrap();
    let store = open_directory(root.path()).await;
    put(&*store, b"content").await.unwrap();
    for name in ["x", ".hidden", &"g".repeat(62), &"a".repeat(61)] {
        std::fs::write(root.path().join("sha256/00").join(name), "").unwrap();
    }
    let listed: Vec<_> = store.list().try_collect().await.unwrap();
    assert_eq!(listed.iter().map(|info| info.digest).collect::<Vec<_>>(), [Digest::of(b"content")]);
}
