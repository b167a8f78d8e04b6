//! kill -9 at each crash point of a job, and at any moment while many tasks submit, claim and end: what was acknowledged is there.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use plinth_policy::jobs::RetryPolicy;
use plinth_runtime::{CrashPoint, CrashPoints, World};

use super::super::SqliteJobs;
use super::super::simulated::{leftovers, picture};
use crate::jobs::*;
use crate::simulation::{Bounds, Checker};

/// Carries a child's orders: the point at which it dies, a line feed, the ledger's path.
pub(super) const VARIABLE: &str = "PLINTH_TEST_CHILD";

#[allow(clippy::disallowed_methods, reason = "children are told by their caller what to do")]
pub(super) fn orders() -> Option<(String, String)> {
    let text = std::env::var(VARIABLE).ok()?;
    text.split_once('\n').map(|(point, path)| (point.to_owned(), path.to_owned()))
}

pub(super) fn job(ids: &JobIds) -> NewJob {
    NewJob {
        id: ids.next(),
        kind: "k".into(),
        class: 1,
        priority: 0,
        run_at: None,
        expires_at: None,
        timeout_millis: 1000,
        retry: RetryPolicy { max_attempts: 100, ..RetryPolicy::default() },
        keep_millis: 86_400_000,
        actor: "child".into(),
        parent: None,
        waits_for: Vec::new(),
        on_failure: OnFailure::Fail,
        webhook: None,
        labels: String::new(),
        payload: Payload { meta: "{}".into(), body: Body::Inline(b"x".to_vec()) },
    }
}

/// Submits, claims and ends for ever, and says what was acknowledged.
async fn work(ledger: Arc<SqliteJobs>, ids: Arc<JobIds>, task: u32) {
    loop {
        let new = job(&ids);
        let id = new.id;
        let submission = Submission { tenant: "acme".parse().unwrap(), key: None, jobs: vec![new] };
        ledger.submit(submission).await.unwrap();
        println!("\nstored {id}");
        let kinds = vec![KindWish { kind: "k".into(), most: 1 }];
        let worker = WorkerId(format!("n/{task}"));
        let wish = ClaimWish { worker, kinds, most: 1, lowest_class: 3, lease_millis: 15_000 };
        for claimed in ledger.claim(wish).await.unwrap() {
            let end = End::Succeeded(Payload { meta: "{}".into(), body: Body::Inline(b"done".to_vec()) });
            let ended = ledger.finish(Finish { id: claimed.id, epoch: claimed.epoch, end }).await.unwrap();
            assert_eq!(ended, Finished::Done);
            println!("\nended {}", claimed.id);
        }
    }
}

#[tokio::test]
async fn what_was_acknowledged_survives_a_kill_anywhere() {
    const TEST: &str = concat!(module_path!(), "::what_was_acknowledged_survives_a_kill_anywhere");
    if let Some((point, path)) = orders() {
        let crash = if point.is_empty() { CrashPoints::none() } else { CrashPoints::arm(&point, 5).unwrap() };
        let world = World { crash, ..World::real() };
        let ledger = Arc::new(SqliteJobs::open(Path::new(&path), &world).await.unwrap());
        let ids = Arc::new(JobIds::new(World::real()));
        futures_util::future::join_all((0..8).map(|task| work(ledger.clone(), ids.clone(), task))).await;
        return;
    }
    use CrashPoint as P;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("jobs");
    let points = [P::JobSubmitted, P::JobBeforeClaim, P::JobAfterClaim, P::JobBeforeCommit, P::JobAfterCommit].map(P::name);
    // The same file through all deaths; those without a point are killed after so many lines.
    let rounds = points.into_iter().map(|point| (point, usize::MAX)).chain([7, 40, 123, 250].map(|lines| ("", lines)));
    let mut stored = std::collections::BTreeSet::new();
    let mut ended = std::collections::BTreeSet::new();
    for (point, lines) in rounds {
        let test = TEST.split_once("::").unwrap().1;
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", test, "--nocapture"])
            .env(VARIABLE, format!("{point}\n{}", path.display()))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let said = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        for line in said.filter(|line| line.starts_with("stored ") || line.starts_with("ended ")).take(lines) {
            let (what, id) = line.split_once(' ').unwrap();
            let id: JobId = id.parse().unwrap();
            if what == "stored" {
                stored.insert(id)
            } else {
                ended.insert(id)
            };
        }
        let _ = child.kill();
        let status = child.wait().unwrap();
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(9), "at '{point}': {status}");
        let db = rusqlite::Connection::open(&path).unwrap();
        assert_eq!(leftovers(&db).unwrap(), Vec::<String>::new(), "after '{point}'");
        // Nobody saw what was offered: the judge gets what is there as offers, and what was acknowledged as its demand.
        let all = picture(&db).unwrap();
        let mut checker = Checker::new(Bounds { sweep_millis: 2000, unfair: 100 });
        for seen in &all {
            let offer = crate::simulation::Offer {
                key: None,
                submission: 0,
                waits_for: Vec::new(),
                on_failure: OnFailure::Fail,
                webhook: false,
                tick: None,
            };
            checker.offered(seen.id, offer);
        }
        checker.picture(0, &all).unwrap();
        checker.acknowledged(None, &stored.iter().copied().collect::<Vec<_>>()).unwrap();
        for id in &ended {
            assert_eq!(checker.state(*id), Some(plinth_policy::jobs::State::Succeeded), "{id}, after '{point}'");
        }
    }
    assert!(stored.len() > 50 && ended.len() > 20, "{} stored, {} ended", stored.len(), ended.len());
}
