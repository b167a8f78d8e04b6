//! What is sent again, and what is not.

use super::*;

#[tokio::test]
async fn a_failure_is_mended_elsewhere_where_that_is_safe() {
    let fixture = tuned(|tuning| tuning.ejection.consecutive = 0);
    let backends: [_; 2] = fixture.backends();
    let upstream = fixture.apply(&of(&backends));
    backends[0].act(Act::Status(500));
    let mut retried = 0;
    for _ in 0..10 {
        let (status, name, _, attempted) = ask(&upstream, get("/"), how()).await.unwrap();
        assert_eq!((status, name, attempted.endpoint), (200, 1, 1));
        retried += usize::from(attempted.attempts > 1);
    }
    assert!(retried > 0 && retried == backends[0].requests());
    // A body that was read whole is sent again with what may happen twice.
    let sticky = |at| (0..).find(|key| home(&upstream, *key) == at).unwrap();
    let to_bad = Forward { sticky: Some(sticky(0)), ..how() };
    let mut put = post("whole");
    *put.method_mut() = Method::PUT;
    let (status, _, body, attempted) = ask(&upstream, put, to_bad.clone()).await.unwrap();
    assert_eq!((status, &body[..], attempted.attempts), (200, &b"whole"[..], 2));
    // What must not happen twice is the caller's to send again.
    let (status, _, _, attempted) = ask(&upstream, post("once"), to_bad.clone()).await.unwrap();
    assert_eq!((status, attempted.attempts), (500, 1));
    // Nor while the node is under load.
    let (status, _, _, attempted) = ask(&upstream, get("/"), Forward { extra: false, ..to_bad }).await.unwrap();
    assert_eq!((status, attempted.attempts), (500, 1));
}

/// Where a key would go.
fn home(upstream: &Upstream, key: u64) -> usize {
    let wish = pool::Wish { sticky: Some(key), tried: &[], kind: pool::Kind::Hedge };
    upstream.pool.begin(upstream.pool.now(), &wish).unwrap().at()
}

#[tokio::test]
async fn one_of_two_that_is_down_costs_nobody_anything() {
    let fixture = fixture();
    let [backend] = fixture.backends();
    let upstream = fixture.apply(&record([nobody().await, backend.address]));
    for n in 0..60 {
        let request = if n % 2 == 0 { get("/") } else { post("also this") };
        let (status, name, ..) = ask(&upstream, request, how()).await.unwrap();
        assert_eq!((status, name), (200, 0));
    }
    let large = "x".repeat(65 << 10);
    let streamed = http::Request::post("/").header("content-length", large.len()).body(Bytes::from(large.clone()).into()).unwrap();
    let (status, _, body, _) = ask(&upstream, streamed, how()).await.unwrap();
    assert_eq!((status, body.len()), (200, large.len()));
    let failed = upstream.pool.metrics.attempts(Outcome::ConnectFailed);
    assert!((1..=8).contains(&failed), "its cost keeps requests away, and then its ejection: {failed}");
}

#[tokio::test]
async fn when_all_are_down_a_tenth_more_is_sent() {
    let fixture = fixture();
    let off = Some(BreakerSpec { enabled: false, failure_percent: None, slow_ms: None, open_ms: None });
    let upstream = fixture.apply(&UpstreamRecord { breaker: off, ..record([nobody().await, nobody().await, nobody().await]) });
    for _ in 0..400 {
        assert_eq!(reason(&upstream, get("/"), how()).await, Reason::UpstreamFailed);
    }
    let attempts: u64 = Outcome::ALL.iter().map(|outcome| upstream.pool.metrics.attempts(*outcome)).sum();
    assert!((400..=440).contains(&attempts), "{attempts}");
    assert!(fixture.count(&fixture.catalogue.upstream_retries_refused) > 0);
}

#[tokio::test]
async fn whoever_says_that_all_may_happen_twice_gets_it_for_posts_too() {
    let fixture = tuned(|tuning| tuning.ejection.consecutive = 0);
    let backends: [_; 2] = fixture.backends();
    let upstream = fixture.apply(&UpstreamRecord { idempotent: true, ..of(&backends) });
    backends[0].act(Act::Status(500));
    let to_bad = Forward { sticky: Some((0..).find(|key| home(&upstream, *key) == 0).unwrap()), ..how() };
    let asked = async |upstream: &Upstream, idempotent| {
        let (status, _, body, attempted) = ask(upstream, post("infer"), Forward { idempotent, ..to_bad.clone() }).await.unwrap();
        (status, body == "infer", attempted.attempts)
    };
    assert_eq!(asked(&upstream, None).await, (200, true, 2));
    assert_eq!(asked(&upstream, Some(false)).await, (500, false, 1), "its route knows better");
    let upstream = fixture.apply(&of(&backends));
    assert_eq!(asked(&upstream, None).await, (500, false, 1));
    assert_eq!(asked(&upstream, Some(true)).await, (200, true, 2));
}

#[tokio::test]
async fn the_deadline_spans_all_attempts() {
    let fixture = fixture();
    let backends: [_; 2] = fixture.backends();
    let upstream = fixture.apply(&UpstreamRecord { response_timeout_ms: Some(300), attempts: Some(10), ..of(&backends) });
    backends.iter().for_each(|backend| backend.act(Act::Hang));
    let began = Instant::now();
    let deadline = Some(began + Duration::from_millis(400));
    assert_eq!(reason(&upstream, get("/"), Forward { deadline, ..how() }).await, Reason::UpstreamTimeout);
    let took = began.elapsed();
    assert!((Duration::from_millis(300)..Duration::from_millis(600)).contains(&took), "{took:?}");
}

#[tokio::test]
async fn a_late_answer_is_overtaken() {
    let fixture = tuned(|tuning| {
        tuning.hedge.period = Duration::from_millis(100);
        tuning.hedge.least_samples = 10;
        tuning.hedge.percent = 20;
    });
    let backends: [_; 2] = fixture.backends();
    let upstream = fixture.apply(&UpstreamRecord { hedge: true, ..of(&backends) });
    let key = (0..).find(|key| home(&upstream, *key) == 0).unwrap();
    let to_first = Forward { sticky: Some(key), ..how() };
    // A period is filled, and the next one begins.
    let began = Instant::now();
    while began.elapsed() < Duration::from_millis(210) {
        for _ in 0..10 {
            ask(&upstream, get("/"), how()).await.unwrap();
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    backends[0].act(Act::Late(Duration::from_secs(3)));
    let before = fixture.count(&fixture.catalogue.upstream_hedges);
    let asked = Instant::now();
    let (status, name, _, attempted) = ask(&upstream, get("/"), to_first.clone()).await.unwrap();
    assert_eq!((status, name, attempted), (200, 1, Attempted { endpoint: 1, attempts: 2, hedged: true }));
    assert!(asked.elapsed() < Duration::from_secs(1), "{:?}", asked.elapsed());
    until("the slow copy to be cancelled", || backends[0].open() == 0).await;
    assert_eq!(upstream.view()[0].in_flight, 0);
    assert_eq!(fixture.count(&fixture.catalogue.upstream_hedges), before + 1);
    // What must not happen twice is waited for.
    backends[0].act(Act::Late(Duration::from_millis(200)));
    assert!(!ask(&upstream, post("once"), to_first).await.unwrap().3.hedged);
}
