//! Upstreams that fail, hang, are full or ask for peace.

use plinth_policy::resilience::breaker::State;

use super::*;

#[tokio::test]
async fn one_that_hangs_is_left_alone_and_comes_back() {
    let fixture = tuned(|tuning| tuning.ejection.consecutive = 0);
    let [backend] = fixture.backends();
    let record =
        UpstreamRecord { response_timeout_ms: Some(20), attempts: Some(1), ..with_breaker(of(std::slice::from_ref(&backend)), 200) };
    let upstream = fixture.apply(&record);
    backend.act(Act::Hang);
    for _ in 0..20 {
        assert_eq!(reason(&upstream, get("/"), how()).await, Reason::UpstreamTimeout);
    }
    assert_eq!(upstream.view()[0].breaker, State::Open);
    let asked = backend.requests();
    for _ in 0..20 {
        let error = ask(&upstream, get("/"), how()).await.unwrap_err();
        assert_eq!((error.reason(), error.retry_delay().is_some()), (Reason::UpstreamUnavailable, true));
    }
    assert_eq!(backend.requests(), asked, "nothing is sent to it");
    // Its first probe fails, and it is open for longer.
    until("a probe", || upstream.view()[0].breaker == State::HalfOpen).await;
    assert_eq!(reason(&upstream, get("/"), how()).await, Reason::UpstreamTimeout);
    assert_eq!(upstream.view()[0].breaker, State::Open);
    backend.act(Act::Echo);
    until("a probe", || upstream.view()[0].breaker == State::HalfOpen).await;
    for _ in 0..5 {
        assert_eq!(ask(&upstream, get("/"), how()).await.unwrap().0, 200);
    }
    assert_eq!(upstream.view()[0].breaker, State::Closed);
}

/// Nothing stands beside it, and no checks say how it does: its breaker holds all the same.
#[tokio::test]
async fn the_breaker_of_the_only_endpoint_holds_and_its_probes_do_not_become_rarer() {
    let fixture = fixture();
    let [backend] = fixture.backends();
    let breaker = Some(BreakerSpec { enabled: true, failure_percent: None, slow_ms: None, open_ms: Some(300) });
    let upstream = fixture.apply(&UpstreamRecord { breaker, attempts: Some(1), ..of(std::slice::from_ref(&backend)) });
    backend.act(Act::Status(500));
    for _ in 0..20 {
        assert_eq!(ask(&upstream, get("/"), how()).await.unwrap().0, 500);
    }
    let began = Instant::now();
    for _ in 0..4 {
        let asked = backend.requests();
        for _ in 0..10 {
            let error = ask(&upstream, get("/"), how()).await.unwrap_err();
            assert_eq!(error.reason(), Reason::UpstreamUnavailable);
            assert!(error.retry_delay().is_some_and(|left| left <= Duration::from_secs(1)), "{:?}", error.retry_delay());
        }
        assert_eq!((backend.requests(), upstream.view()[0].is_ejected), (asked, false), "nothing is sent, and there is no outlier of one");
        until("a probe", || upstream.view()[0].breaker == State::HalfOpen).await;
        assert_eq!(ask(&upstream, get("/"), how()).await.unwrap().0, 500);
    }
    // Doubled each time it would have been more than three seconds.
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    backend.act(Act::Echo);
    let recovered = async {
        while upstream.view()[0].breaker != State::Closed {
            let _ = ask(&upstream, get("/"), how()).await;
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    Box::pin(within("its return", recovered)).await;
}

/// Of eight, `k` fail: the pool is never empty, up to half cost hardly anything, and all come back.
#[tokio::test]
async fn k_of_eight_fail() {
    for k in 0..=8 {
        let fixture = tuned(|tuning| tuning.ejection.base = Duration::from_millis(300));
        let backends: [_; 8] = fixture.backends();
        let upstream = fixture.apply(&UpstreamRecord {
            breaker: Some(BreakerSpec { enabled: true, failure_percent: None, slow_ms: None, open_ms: Some(200) }),
            ..of(&backends)
        });
        backends[..k].iter().for_each(|backend| backend.act(Act::Status(500)));
        let mut good = 0;
        for _ in 0..300 {
            match ask(&upstream, get("/"), how()).await {
                Ok((status, ..)) => good += usize::from(status == 200),
                // That nobody may be asked is said only where nobody is well, and with a time.
                Err(error) => assert!(k == 8 && error.reason() == Reason::UpstreamUnavailable && error.retry_delay().is_some(), "k = {k}"),
            }
        }
        let least = match k {
            0..=4 => 290,
            // Breakers need twenty failures each where ejection needs five.
            5..=7 => 300 - 20 * k,
            _ => 0,
        };
        assert!(good >= least, "k = {k}: {good} of 300");
        assert!(upstream.view().iter().filter(|view| view.is_ejected).count() <= 4);
        backends[..k].iter().for_each(|backend| backend.act(Act::Echo));
        let recovered = async {
            let well = |view: &EndpointView| !view.is_ejected && view.breaker == State::Closed;
            while !upstream.view().iter().all(well) {
                let _ = ask(&upstream, get("/"), how()).await;
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        Box::pin(within("all to be back", recovered)).await;
        for _ in 0..50 {
            assert_eq!(ask(&upstream, get("/"), how()).await.unwrap().0, 200, "k = {k}: afterwards");
        }
    }
}

#[tokio::test]
async fn who_asks_for_peace_gets_it() {
    let fixture = fixture();
    let backends: [_; 2] = fixture.backends();
    let upstream = fixture.apply(&of(&backends));
    backends.iter().for_each(|backend| backend.act(Act::Peace(429, 1)));
    // The answer is the caller's: only he knows what he has asked for.
    let (status, first, ..) = ask(&upstream, get("/"), how()).await.unwrap();
    assert_eq!(status, 429);
    let other = &backends[1 - first];
    other.act(Act::Echo);
    for _ in 0..20 {
        assert_eq!(ask(&upstream, get("/"), how()).await.unwrap().1, 1 - first);
    }
    other.act(Act::Peace(503, 1));
    assert_eq!(ask(&upstream, get("/"), how()).await.unwrap().0, 503);
    let asked = (backends[0].requests(), backends[1].requests());
    let error = ask(&upstream, get("/"), how()).await.unwrap_err();
    assert_eq!(error.reason(), Reason::UpstreamUnavailable);
    assert!(error.retry_delay().is_some_and(|left| left <= Duration::from_millis(1100)), "{:?}", error.retry_delay());
    assert_eq!((backends[0].requests(), backends[1].requests()), asked, "nobody was asked");
    assert!(upstream.view().iter().all(|view| view.breaker == State::Closed && !view.is_ejected));
    backends.iter().for_each(|backend| backend.act(Act::Echo));
    until("the end of the peace", || upstream.view().iter().any(|view| view.throttled.is_none())).await;
    assert_eq!(ask(&upstream, get("/"), how()).await.unwrap().0, 200);
}

#[tokio::test]
async fn what_is_full_says_so_soon() {
    let fixture = tuned(|tuning| (tuning.limit.initial, tuning.limit.least) = (2, 2));
    let [backend] = fixture.backends();
    let upstream = fixture.apply(&of(std::slice::from_ref(&backend)));
    backend.act(Act::Stream);
    let first = within("a head", upstream.forward(get("/"), how())).await.unwrap();
    let second = within("a head", upstream.forward(get("/"), how())).await.unwrap();
    let began = Instant::now();
    assert_eq!(reason(&upstream, get("/"), how()).await, Reason::UpstreamUnavailable);
    // As long as a burst may wait for its turn.
    assert!((Duration::from_millis(90)..Duration::from_secs(2)).contains(&began.elapsed()), "{:?}", began.elapsed());
    assert_eq!(fixture.count(&fixture.catalogue.upstream_refused), 1);
    drop(first);
    let third = within("a head", upstream.forward(get("/"), how())).await.unwrap();
    drop((second, third));
    assert_eq!(upstream.view()[0].in_flight, 0);
}

#[tokio::test]
async fn checks_take_out_and_bring_back() {
    let fixture = fixture();
    let backends: [_; 2] = fixture.backends();
    let upstream = fixture.apply(&with_breaker(of(&backends), 10_000));
    let (mut head, ()) = http::Request::get("/health").body(()).unwrap().into_parts();
    head.uri = "/health".parse().unwrap();
    let check = async |at: usize| {
        let core = upstream.pool.places()[at].core.clone();
        checks::check(&upstream.pool, core, &head, Duration::from_millis(50)).await;
        upstream.view()[at].fails_checks
    };
    backends[0].act(Act::Status(500));
    assert!(!check(0).await, "once may be chance");
    assert!(check(0).await && !check(1).await);
    for _ in 0..20 {
        assert_eq!(ask(&upstream, get("/"), how()).await.unwrap().1, 1);
    }
    backends[0].act(Act::Hang);
    assert!(check(0).await);
    backends[0].act(Act::Echo);
    assert!(!check(0).await);
    let mut names = std::collections::BTreeSet::new();
    for _ in 0..50 {
        names.insert(ask(&upstream, get("/"), how()).await.unwrap().1);
    }
    assert_eq!(names.len(), 2);
}

#[tokio::test]
async fn one_that_is_alone_is_asked_again_when_it_said_and_not_much_later() {
    let fixture = fixture();
    let [backend] = fixture.backends();
    let upstream = fixture.apply(&of(std::slice::from_ref(&backend)));
    backend.act(Act::Peace(503, 1));
    let began = Instant::now();
    let repaired = async {
        until("the first request", || backend.requests() == 1).await;
        backend.act(Act::Echo);
    };
    let (answer, ()) = futures_util::future::join(ask(&upstream, get("/"), how()), repaired).await;
    assert_eq!((answer.unwrap().0, backend.requests()), (200, 2));
    assert!(began.elapsed() >= Duration::from_secs(1), "{:?}", began.elapsed());
    backend.act(Act::Peace(503, 30));
    let (status, .., attempted) = ask(&upstream, get("/"), how()).await.unwrap();
    assert_eq!((status, attempted.attempts), (503, 1), "that long is the caller's to wait");
}
