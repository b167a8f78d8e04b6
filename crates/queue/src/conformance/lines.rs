//! Whose turn it is, and what can be seen of the line.

use std::collections::BTreeMap;

use plinth_policy::jobs::State;

use super::*;
use crate::jobs::ListJobs;

pub(super) async fn tenants_take_turns(b: &Bench<'_>) {
    b.submit_for("busy", 60).await;
    b.submit_for("quiet", 4).await;
    let mut order = Vec::new();
    while order.len() < 16 {
        let claimed = b.claim(2).await;
        assert_eq!(claimed.len(), 2);
        order.extend(claimed.into_iter().map(|job| job.tenant.as_str().to_owned()));
    }
    let quiet: Vec<_> = order.iter().enumerate().filter(|(_, tenant)| *tenant == "quiet").map(|(at, _)| at).collect();
    assert!(quiet.len() == 4 && quiet[3] <= 9, "the quiet one's four are among the first ten: {order:?}");
    // Who was away earns no credit: it shares from then on and is not served alone.
    b.submit_for("quiet", 20).await;
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for job in b.claim(12).await {
        *counts.entry(job.tenant.as_str().to_owned()).or_default() += 1;
    }
    assert!((5..=7).contains(&counts["busy"]), "{counts:?}");
    // One who is alone gets everything.
    let mut left = 0;
    loop {
        let claimed = b.claim(50).await;
        if claimed.is_empty() {
            break;
        }
        left += claimed.len();
    }
    assert_eq!(left, 60 + 4 + 20 - 16 - 12);
}

/// Who sends one job at a time, each after the last was taken, gets its share and no more.
pub(super) async fn one_at_a_time_is_no_way_to_the_front(b: &Bench<'_>) {
    b.submit_for("queue", 40).await;
    let mut served = [0, 0];
    for _ in 0..30 {
        b.submit_for("drip", 1).await;
        let claimed = b.claim_one().await;
        served[usize::from(claimed.tenant.as_str() == "drip")] += 1;
    }
    assert!(served.iter().all(|count| (12..=18).contains(count)), "{served:?}");
    // The same when the job comes back each time, as one does that finds no room.
    while let [job, rest @ ..] = &*b.claim(50).await {
        assert!(rest.len() < 50 && job.attempt == 1);
    }
    b.submit_for("queue", 40).await;
    b.submit_for("drip", 1).await;
    let mut served = [0, 0];
    for _ in 0..30 {
        let claimed = b.claim_one().await;
        let drip = claimed.tenant.as_str() == "drip";
        served[usize::from(drip)] += 1;
        if drip {
            assert_eq!(b.end(&claimed, End::Released { after_millis: 0 }).await, Finished::Done);
        }
    }
    assert!(served.iter().all(|count| (12..=18).contains(count)), "{served:?}");
}

pub(super) async fn classes_and_priorities(b: &Bench<'_>) {
    let mut want = Vec::new();
    for (class, priority) in [(3, 0), (1, 5), (1, -5), (0, 9), (1, 5), (2, 0)] {
        want.push((class, priority, b.submit(NewJob { class, priority, ..b.job() }).await));
    }
    want.sort_unstable();
    let first = b.ledger.claim(ClaimWish { lowest_class: 2, ..b.wish(3) }).await.unwrap();
    let rest = b.ledger.claim(ClaimWish { lowest_class: 2, ..b.wish(10) }).await.unwrap();
    let got: Vec<_> = first.iter().chain(&rest).map(|job| job.id).collect();
    assert_eq!(got, want.iter().take(5).map(|(_, _, id)| *id).collect::<Vec<_>>());
    assert_eq!(b.claim_one().await.id, want[5].2, "the background when there is room");
    // What it cannot do a worker does not get.
    b.submit(NewJob { kind: "other".into(), ..b.job() }).await;
    assert!(b.claim(10).await.is_empty());
}

pub(super) async fn positions_and_counts(b: &Bench<'_>) {
    let own = b.submit_for("acme", 5).await;
    b.submit_for("other", 2).await;
    b.submit_for("third", 50).await;
    let position = async |id: JobId| b.ledger.position(&b.tenant, id, 1000).await.unwrap();
    // Each other tenant goes first at most once for each of one's own, and once more.
    assert_eq!(position(own[0]).await, Some(2));
    assert_eq!(position(own[3]).await, Some(3 + 2 + 4));
    assert_eq!(b.ledger.position(&b.tenant, own[3], 4).await.unwrap(), Some(4), "no further than asked");
    b.submit(NewJob { class: 0, ..b.job() }).await;
    assert_eq!(position(own[0]).await, Some(3));
    assert_eq!(b.claim_one().await.class, 0);
    let counts = b.ledger.counts(Some(&b.tenant)).await.unwrap();
    assert_eq!(
        counts.iter().map(|c| (c.kind.as_str(), c.state, c.jobs)).collect::<Vec<_>>(),
        [("k", State::Ready, 5), ("k", State::Running, 1)]
    );
    assert_eq!(b.ledger.counts(None).await.unwrap().iter().map(|c| c.jobs).sum::<u64>(), 58);
    let claimed = b.claim(57).await;
    assert_eq!(position(own[0]).await, None, "it runs");
    assert_eq!(claimed.len(), 57);
}

pub(super) async fn lists_have_pages_and_filters(b: &Bench<'_>) {
    let parent = b.submit(NewJob { labels: "run=7 owner=ann".into(), ..b.job() }).await;
    let mut ids = vec![parent];
    for at in 0..5 {
        let kind = if at % 2 == 0 { "k" } else { "other" };
        ids.push(b.submit(NewJob { kind: kind.into(), parent: Some(parent), ..b.job() }).await);
    }
    b.submit_for("stranger", 3).await;
    let all = ListJobs { tenant: b.tenant.clone(), kind: None, state: None, parent: None, label: None, before: None, limit: 100 };
    let list = async |query: ListJobs| b.ledger.list(&query).await.unwrap().iter().map(|job| job.id).collect::<Vec<_>>();
    let newest_first: Vec<_> = ids.iter().rev().copied().collect();
    assert_eq!(list(all.clone()).await, newest_first);
    assert_eq!(list(ListJobs { limit: 2, ..all.clone() }).await, newest_first[..2]);
    assert_eq!(list(ListJobs { before: Some(newest_first[1]), limit: 2, ..all.clone() }).await, newest_first[2..4]);
    assert_eq!(list(ListJobs { kind: Some("other".into()), ..all.clone() }).await.len(), 2);
    assert_eq!(list(ListJobs { parent: Some(parent), ..all.clone() }).await.len(), 5);
    assert_eq!(list(ListJobs { label: Some("owner=ann".into()), ..all.clone() }).await, [parent]);
    let claimed = b.claim_one().await;
    b.end(&claimed, End::Dead(failure("x"))).await;
    assert_eq!(list(ListJobs { state: Some(State::Dead), ..all.clone() }).await, [claimed.id]);
    assert_eq!(list(ListJobs { state: Some(State::Ready), ..all }).await.len(), 5);
}
