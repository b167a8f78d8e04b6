//! The ledger in a file: the common suite, and what only a file can show.

mod disk;
mod kill;

use plinth_runtime::World;

use super::SqliteJobs;
use crate::jobs::Jobs;

#[tokio::test]
async fn it_conforms() {
    let directory = tempfile::tempdir().unwrap();
    let count = std::sync::atomic::AtomicU32::new(0);
    crate::conformance::jobs(|| async {
        let number = count.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let path = directory.path().join(number.to_string());
        Box::new(SqliteJobs::open(&path, &World::real()).await.unwrap()) as Box<dyn Jobs>
    })
    .await;
}

#[tokio::test]
async fn a_second_process_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("jobs");
    let first = SqliteJobs::open(&path, &World::real()).await.unwrap();
    // A lock belongs to an open file, so a second one in the same process stands for another process.
    let second = SqliteJobs::open(&path, &World::real()).await;
    assert!(matches!(second, Err(crate::QueueError::InUse)));
    first.close().await;
    SqliteJobs::open(&path, &World::real()).await.unwrap().close().await;
}
