//! The log over restarts, floods, full files and harm.

use super::*;
use plinth_runtime::World;
use std::path::Path;

fn refusal(last: u8, reason: Reason) -> Refusal {
    Refusal { who: None, address: [10, 0, 0, last].into(), route: "oip.infer", reason }
}

fn counter() -> Counter {
    Counter::default()
}

/// Notes these, lets them be written, and ends.
async fn log(directory: &Path, refusals: impl IntoIterator<Item = Refusal>) -> Counter {
    let (tasks, lost) = (TaskGroup::new("test"), counter());
    let log = Refusals::start(directory.to_owned(), lost.clone(), &World::real(), &tasks);
    for refusal in refusals {
        log.note(refusal);
        // The queue is read by another task of this thread.
        tokio::task::yield_now().await;
    }
    assert!(tasks.close(Duration::from_secs(5)).await.is_empty());
    lost
}

fn lines(directory: &Path) -> Vec<serde_json::Value> {
    let text = std::fs::read_to_string(directory.join("refusals.jsonl")).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[tokio::test(start_paused = true)]
async fn like_refusals_of_a_second_are_one_line_and_the_chain_outlives_a_restart() {
    let root = tempfile::tempdir().unwrap();
    let directory = root.path().join("audit");
    assert_eq!(verify(&directory).unwrap(), RefusalsReport::default());
    let who = Who::from(&Principal::anybody());
    let named = Refusal { who: Some(who), ..refusal(1, Reason::NotPermitted) };
    log(&directory, (0..500).map(|_| refusal(1, Reason::CredentialsInvalid)).chain([named])).await;
    let found = lines(&directory);
    assert_eq!(found.len(), 2, "{found:?}");
    let counts: Vec<_> = found.iter().map(|line| (line["who"].as_str().unwrap(), line["count"].as_u64().unwrap())).collect();
    assert!(counts.contains(&("unknown", 500)) && counts.contains(&("anybody", 1)), "{counts:?}");
    assert_eq!((&found[0]["address"], &found[0]["route"]), (&"10.0.0.1".into(), &"oip.infer".into()));

    // A line that a crash has cut is not one.
    let path = directory.join("refusals.jsonl");
    let mut text = std::fs::read(&path).unwrap();
    text.extend_from_slice(b"{\"sequence\":3,\"prev");
    std::fs::write(&path, text).unwrap();
    assert!(verify(&directory).unwrap().broken.is_some());
    log(&directory, [refusal(2, Reason::TenantSuspended)]).await;
    let report = verify(&directory).unwrap();
    assert_eq!((report.lines, report.first, report.last, report.broken), (3, 1, 3, None));
}

#[tokio::test(start_paused = true)]
async fn a_line_that_was_changed_or_taken_out_shows() {
    let root = tempfile::tempdir().unwrap();
    log(root.path(), (0..9).map(|n| refusal(n, Reason::CredentialsInvalid))).await;
    let path = root.path().join("refusals.jsonl");
    let text = std::fs::read_to_string(&path).unwrap();
    let all: Vec<_> = text.lines().collect();
    assert_eq!((all.len(), verify(root.path()).unwrap().broken), (9, None));
    let broken_at = |changed: Vec<String>| {
        std::fs::write(&path, changed.join("\n") + "\n").unwrap();
        verify(root.path()).unwrap().broken.map(|broken| broken.line)
    };
    let owned = |lines: &[&str]| lines.iter().map(|line| (*line).to_owned()).collect::<Vec<_>>();
    let mut changed = owned(&all);
    changed[4] = changed[4].replace("10.0.0.", "10.0.1.");
    assert_eq!(broken_at(changed), Some(6));
    assert_eq!(broken_at([owned(&all[..3]), owned(&all[4..])].concat()), Some(4));
    let mut swapped = owned(&all);
    swapped.swap(2, 3);
    assert_eq!(broken_at(swapped), Some(3));
    let mut bad = owned(&all);
    bad[8] = "nonsense".to_owned();
    assert_eq!(broken_at(bad), Some(9));
    assert_eq!(broken_at(owned(&all)), None);
}

#[tokio::test(start_paused = true)]
async fn a_flood_is_bounded_and_what_is_missing_is_counted() {
    let root = tempfile::tempdir().unwrap();
    let flood = (0..=255_u8).flat_map(|last| [Reason::CredentialsInvalid, Reason::CredentialsMissing].map(|reason| refusal(last, reason)));
    let lost = log(root.path(), flood).await;
    assert_eq!((lines(root.path()).len(), lost.value()), (MAX_LINES, 256));
    log(root.path(), [refusal(0, Reason::NotPermitted)]).await;
    // More than the queue takes, before anybody reads it.
    let (tasks, lost) = (TaskGroup::new("test"), counter());
    let log = Refusals::start(root.path().to_owned(), lost.clone(), &World::real(), &tasks);
    for _ in 0..QUEUE + 10 {
        log.note(refusal(7, Reason::NotPermitted));
    }
    tasks.close(Duration::from_secs(5)).await;
    let mine: Vec<_> =
        lines(root.path()).into_iter().filter(|line| line["address"] == "10.0.0.7" && line["reason"] == "not_permitted").collect();
    let sum = |field: &str| mine.iter().map(|line| line[field].as_u64().unwrap()).sum::<u64>();
    assert_eq!((lost.value(), sum("lost"), sum("count")), (10, 10, QUEUE as u64));
    assert_eq!(verify(root.path()).unwrap().broken, None);
}

#[test]
fn full_files_are_put_aside_and_the_oldest_go() {
    let root = tempfile::tempdir().unwrap();
    let mut chain = file::Chain::new(root.path().to_owned());
    // About 4 MiB in each call.
    let entry = Entry { route: "r".repeat(8000), ..Entry::new(&refusal(1, Reason::NotPermitted), Timestamp::from_millis(1).unwrap(), 1) };
    let many = vec![entry; 512];
    for _ in 0..5 * (file::KEPT + 3) {
        chain.append(&many).unwrap();
    }
    let files = std::fs::read_dir(root.path()).unwrap().count();
    assert_eq!(files, file::KEPT + 1);
    let report = verify(root.path()).unwrap();
    assert!(report.broken.is_none() && report.first > 1 && report.last == 512 * 5 * (file::KEPT as u64 + 3), "{report:?}");
}

#[tokio::test(start_paused = true)]
async fn a_directory_that_cannot_be_written_costs_lines_and_nothing_else() {
    let root = tempfile::tempdir().unwrap();
    let directory = root.path().join("audit");
    std::fs::write(&directory, b"a file").unwrap();
    let lost = log(&directory, [refusal(1, Reason::NotPermitted)]).await;
    assert_eq!(lost.value(), 1);
}
