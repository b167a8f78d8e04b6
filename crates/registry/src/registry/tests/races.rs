//! Many callers at once, in many orders: the stores in memory yield at every call.

use futures_util::future::{join, join_all};
use proptest::prelude::*;

use super::*;

/// Lets others go first so many times.
async fn after(yields: usize) {
    for _ in 0..yields {
        tokio::task::yield_now().await;
    }
}

/// Uploads and pushes as a client does: again from the start when told that a blob is going away.
async fn push_stubbornly(s: &Setup, bytes: &str) -> Result<Pushed> {
    let digest = Digest::of(bytes.as_bytes());
    let mut outcome = Err(Error::internal("not tried"));
    for _ in 0..20 {
        let body = stream::iter([Ok(bytes.to_owned().into())]).boxed();
        let put = s.registry.put_blob(&digest, bytes.len() as u64, body).await;
        if put.is_ok() {
            let file = FileEntry { path: "m".parse().unwrap(), size: bytes.len() as u64, digest };
            let new = NewVersion { files: vec![file], ..NewVersion::default() };
            outcome = s.registry.create_version(&s.actor, &s.model, new).await;
            if !outcome.as_ref().is_err_and(|e| matches!(e.reason(), Reason::EditConflict | Reason::BlobNotFound)) {
                return outcome;
            }
        }
        after(3).await;
    }
    outcome
}

fn run<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap().block_on(future)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// A collection at any moment of a push: the push succeeds in the end, and what it made is whole.
    #[test]
    fn a_push_and_a_collection_never_lose_a_blob(delays in proptest::collection::vec(0usize..30, 6)) {
        run(async {
            let s = Setup::new();
            s.objects.insert("old rubbish");
            let pushes = ["a", "b", "a"].iter().zip(&delays).map(|(bytes, delay)| async { after(*delay).await; push_stubbornly(&s, bytes).await });
            let collections = delays[3..].iter().map(|delay| async { after(*delay).await; let _ = s.collect().await; });
            let (pushed, _) = join(join_all(pushes), join_all(collections)).await;
            for push in pushed {
                push.unwrap();
            }
            s.sound().await;
        });
    }

    /// Retiring, promoting and deleting the same version at once: whatever wins, no alias is left hanging.
    #[test]
    fn changes_of_one_version_exclude_each_other(delays in proptest::collection::vec(0usize..12, 5)) {
        run(async {
            let s = Setup::new();
            s.push("one", &[]).await.unwrap();
            s.push("two", &["champion"]).await.unwrap();
            let promote = async { after(delays[0]).await; drop(s.promote("champion", 1).await) };
            let retire = async { after(delays[1]).await; drop(s.registry.retire_version(&s.actor, &s.model, n(1)).await) };
            let delete = async { after(delays[2]).await; drop(s.registry.delete_version(&s.actor, &s.model, n(1)).await) };
            let pin = async {
                after(delays[3]).await;
                let record = DeploymentRecord { versions: vec![n(1)], ..DeploymentRecord::default() };
                drop(s.registry.set_deployment(&s.actor, &s.model, Some(record)).await);
            };
            let undo = async { after(delays[4]).await; drop(s.undo(Revision(2)).await) };
            join(join(promote, retire), join(join(delete, pin), undo)).await;
            s.sound().await;
        });
    }
}

#[test]
fn concurrent_pushes_get_numbers_of_their_own() {
    run(async {
        let s = Setup::new();
        let names: Vec<_> = (0..6).map(|i| format!("bytes {i}")).collect();
        let pushed = join_all(names.iter().map(|bytes| s.push(bytes, &["canary"]))).await;
        let mut numbers: Vec<_> = pushed.into_iter().map(|p| p.unwrap().version.number.get()).collect();
        numbers.sort_unstable();
        assert_eq!(numbers, [1, 2, 3, 4, 5, 6]);
        s.sound().await;
    });
}

#[test]
fn the_same_push_many_times_at_once_makes_one_version() {
    run(async {
        let s = Setup::new();
        let pushed = join_all((0..5).map(|_| s.push("same", &["champion"]))).await;
        let created = pushed.into_iter().filter(|p| p.as_ref().unwrap().outcome == PushOutcome::Created).count();
        assert_eq!((created, s.head().await), (1, Revision(1)));
        s.sound().await;
    });
}
