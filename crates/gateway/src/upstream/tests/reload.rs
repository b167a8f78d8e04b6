//! Snapshots that come while requests are on their way.

use super::*;

#[tokio::test]
async fn snapshots_under_load_cost_nobody_anything() {
    let fixture = fixture();
    let backends: [_; 3] = fixture.backends();
    fixture.apply(&of(&backends));
    let (stop, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let clients = (0..8).map(|_| async {
        while !stop.load(SeqCst) {
            let upstream = fixture.upstreams.get(&tenant(), &label("u")).unwrap();
            let (status, ..) = ask(&upstream, post("x"), how()).await.unwrap();
            assert_eq!(status, 200);
            answered.fetch_add(1, SeqCst);
        }
    });
    let changes = async {
        for round in 0..100_usize {
            let mut record = of(&backends[..1 + round % 3]);
            record.attempts = Some(1 + round as u32 % 3);
            record.max_connections = (round % 5 == 0).then_some(50);
            fixture.apply(&record);
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        stop.store(true, SeqCst);
    };
    within("clients and changes", futures_util::future::join(futures_util::future::join_all(clients), changes)).await;
    assert!(answered.load(SeqCst) > 100);
}

#[tokio::test]
async fn what_did_not_change_stays() {
    let fixture = fixture();
    let backends: [_; 2] = fixture.backends();
    let first = fixture.apply(&of(&backends));
    ask(&first, get("/"), how()).await.unwrap();
    assert!(Arc::ptr_eq(&first, &fixture.apply(&of(&backends))));
    backends.iter().for_each(|backend| backend.act(Act::Peace(429, 100)));
    ask(&first, get("/"), how()).await.unwrap();
    // Other attempts, another order, another endpoint: what is known of the old ones is still known.
    let mut record = of(&[backends[1].clone(), fixture.backend(2), backends[0].clone()]);
    record.attempts = Some(3);
    let second = fixture.apply(&record);
    let (old, new) = (first.view(), second.view());
    for (before, after) in [(0, 2), (1, 0)] {
        assert_eq!(old[before].throttled.is_some(), new[after].throttled.is_some());
        assert!(Arc::ptr_eq(&first.pool.places()[before].core, &second.pool.places()[after].core));
    }
    // Another breaker is a new breaker; who asked for peace keeps it.
    let third = fixture.apply(&with_breaker(record, 100));
    let peace = |upstream: &Upstream| upstream.view().iter().filter(|view| view.throttled.is_some()).count();
    assert_eq!((peace(&second), peace(&third)), (1, 1));
    fixture.upstreams.apply(std::iter::empty());
    assert!(fixture.upstreams.get(&tenant(), &label("u")).is_none());
    assert_eq!(fixture.catalogue.upstream_requests.len(), 0);
}

#[tokio::test]
async fn a_record_that_cannot_be_used_leaves_the_others() {
    let fixture = fixture();
    let [backend] = fixture.backends();
    let mut bad = of(std::slice::from_ref(&backend));
    bad.endpoints[0].url = "ftp://x".into();
    let good = of(std::slice::from_ref(&backend));
    let (tenant, names) = (tenant(), [label("bad"), label("good")]);
    fixture.upstreams.apply([(&tenant, &names[0], &bad), (&tenant, &names[1], &good)].into_iter());
    assert!(fixture.upstreams.get(&tenant, &names[0]).is_none());
    let upstream = fixture.upstreams.get(&tenant, &names[1]).unwrap();
    assert_eq!(ask(&upstream, get("/"), how()).await.unwrap().0, 200);
}
