//! What holds for a kind, and schedules.

use plinth_types::Timestamp;

use super::*;
use crate::jobs::{KindLimits, KindSettings, ScheduleRow};

fn settings(paused: bool, limits: KindLimits) -> KindSettings {
    KindSettings { kind: "k".into(), paused, limits }
}

pub(super) async fn a_paused_kind_does_not_begin(b: &Bench<'_>) {
    b.submit(b.job()).await;
    b.ledger.set_kind(settings(true, KindLimits::default())).await.unwrap();
    assert!(b.claim(1).await.is_empty());
    assert_eq!(b.ledger.kinds().await.unwrap(), [settings(true, KindLimits::default())]);
    b.ledger.set_kind(settings(false, KindLimits::default())).await.unwrap();
    b.claim_one().await;
}

pub(super) async fn concurrency_and_rate_of_a_kind(b: &Bench<'_>) {
    b.submit_for("acme", 10).await;
    b.ledger.set_kind(settings(false, KindLimits { concurrency: Some(2), rate_per_second: None })).await.unwrap();
    let two = b.claim(10).await;
    assert_eq!((two.len(), b.claim(10).await.len()), (2, 0));
    b.succeed(&two[0]).await;
    assert_eq!(b.claim(10).await.len(), 1, "who ends makes room");
    let limits = KindLimits { concurrency: None, rate_per_second: Some(3.0) };
    b.ledger.set_kind(settings(false, limits)).await.unwrap();
    assert_eq!(b.claim(10).await.len(), 3, "a second's worth at once");
    assert_eq!(b.claim(10).await.len(), 0);
    pass(340).await;
    assert_eq!(b.claim(10).await.len(), 1, "and one each third of a second");
    assert_eq!(b.ledger.kinds().await.unwrap()[0].limits, limits);
}

pub(super) async fn a_tick_fires_once(b: &Bench<'_>) {
    let at = |millis| Timestamp::from_millis(millis).unwrap();
    let row = ScheduleRow { tenant: b.tenant.clone(), name: "nightly".into(), spec: "{}".into(), next_at: Some(at(1000)), last_at: None };
    b.ledger.put_schedule(row.clone()).await.unwrap();
    let fire = async |seen: u64, next: u64| {
        let jobs = vec![b.job()];
        b.ledger.fire(&b.tenant, "nightly", at(seen), Some(at(next)), jobs).await.unwrap()
    };
    // As if several nodes saw the tick at once.
    let outcomes = futures_util::future::join_all((0..8).map(|_| fire(1000, 2000))).await;
    assert_eq!(outcomes.iter().filter(|fired| **fired).count(), 1, "{outcomes:?}");
    assert!(!fire(1000, 2000).await && fire(2000, 3000).await);
    assert_eq!(b.claim(10).await.len(), 2);
    let moved = ScheduleRow { next_at: Some(at(3000)), last_at: Some(at(2000)), ..row.clone() };
    assert_eq!(b.ledger.schedules(Some(&b.tenant)).await.unwrap(), std::slice::from_ref(&moved));
    assert_eq!(b.ledger.schedules(None).await.unwrap(), [moved]);
    assert!(b.ledger.schedules(Some(&tenant("other"))).await.unwrap().is_empty());
    assert!(!b.ledger.delete_schedule(&tenant("other"), "nightly").await.unwrap());
    assert!(b.ledger.delete_schedule(&b.tenant, "nightly").await.unwrap());
    assert!(!fire(3000, 4000).await, "what is gone does not fire");
}

pub(super) async fn secrets_belong_to_a_tenant(b: &Bench<'_>) {
    let own = async |name: &str| b.ledger.secret(&b.tenant, name).await.unwrap();
    assert_eq!(own("hooks").await, None);
    b.ledger.set_secret(&b.tenant, "hooks", Some("one".into())).await.unwrap();
    b.ledger.set_secret(&b.tenant, "hooks", Some("two".into())).await.unwrap();
    b.ledger.set_secret(&tenant("other"), "hooks", Some("theirs".into())).await.unwrap();
    assert_eq!(own("hooks").await.as_deref(), Some("two"));
    b.ledger.set_secret(&b.tenant, "hooks", None).await.unwrap();
    assert_eq!(own("hooks").await, None);
    assert_eq!(b.ledger.secret(&tenant("other"), "hooks").await.unwrap().as_deref(), Some("theirs"));
}
