//! One request and its answer.

use super::*;

#[tokio::test]
async fn a_request_and_its_answer_pass() {
    let fixture = fixture();
    let [backend] = fixture.backends();
    let upstream = fixture.apply(&of(std::slice::from_ref(&backend)));
    let mut request = post("hello");
    for (name, value) in [("authorization", "Bearer x"), ("connection", "x-secret"), ("x-secret", "1"), ("content-encoding", "gzip")] {
        request.headers_mut().insert(name, value.parse().unwrap());
    }
    let (status, name, body, attempted) = ask(&upstream, request, how()).await.unwrap();
    assert_eq!((status, name, &body[..]), (200, 0, &b"hello"[..]));
    assert_eq!(attempted, Attempted { endpoint: 0, attempts: 1, hedged: false });
    let headers = backend.seen.headers.lock().unwrap().clone();
    for (name, value) in [
        ("x-forwarded-for", "192.0.2.7"),
        ("x-forwarded-proto", "http"),
        ("via", "1.1 plinth"),
        ("x-plinth-hops", "1"),
        ("content-encoding", "gzip"),
        ("content-length", "5"),
    ] {
        assert_eq!(headers.get(name).unwrap(), value, "{name}");
    }
    assert!(["authorization", "x-secret"].iter().all(|name| !headers.contains_key(*name)));
    assert_eq!(upstream.view()[0].in_flight, 0);
}

#[tokio::test]
async fn http2_and_its_trailers_pass() {
    struct Grpc;
    impl Service for Grpc {
        async fn call(&self, request: Request, _peer: Peer) -> Response {
            assert_eq!(request.headers()["te"], "trailers");
            let trailers = HeaderMap::from_iter([(http::HeaderName::from_static("grpc-status"), "0".parse().unwrap())]);
            Response::new(Body::full(read(request).await).with_trailers(trailers))
        }
    }
    let fixture = fixture();
    let config = ListenerConfig::new("g", ([127, 0, 0, 1], 0).into(), ConnectionLimits::default(), ConnectionMetrics::default());
    let server = Server::start(config, Arc::new(Grpc), &fixture.tasks).unwrap();
    let mut record = record([server.local_addr()]);
    record.endpoints[0].url = format!("h2c://{}", server.local_addr());
    let upstream = fixture.apply(&record);
    let mut request = post("message");
    request.headers_mut().insert("te", "trailers".parse().unwrap());
    let (answer, _) = within("an answer", upstream.forward(request, how())).await.unwrap();
    assert_eq!(upstream.view()[0].in_flight, 1, "its trailers are to come");
    let (body, trailers) = answer.into_body().into_parts().await.unwrap();
    assert_eq!((&body[..], trailers.unwrap()["grpc-status"].as_bytes()), (&b"message"[..], &b"0"[..]));
    assert_eq!(upstream.view()[0].in_flight, 0);
}

#[tokio::test]
async fn private_addresses_need_a_permission() {
    let fixture = fixture();
    let [backend] = fixture.backends();
    let forbidden = UpstreamRecord { allow_networks: Vec::new(), ..of(std::slice::from_ref(&backend)) };
    let upstream = fixture.apply(&forbidden);
    let error = ask(&upstream, get("/"), how()).await.unwrap_err();
    assert_eq!((error.reason(), error.class().status()), (Reason::UpstreamRefused, 502));
    assert!(!error.public_text().contains("127."), "{error}");
    assert_eq!(backend.requests(), 0);
}

#[tokio::test]
async fn a_loop_ends() {
    let fixture = fixture();
    let [backend] = fixture.backends();
    let upstream = fixture.apply(&of(std::slice::from_ref(&backend)));
    let mut request = get("/");
    request.headers_mut().insert("x-plinth-hops", 8.into());
    assert_eq!(reason(&upstream, request, how()).await, Reason::RouteLoop);
    assert_eq!(backend.requests(), 0);
    let connect = http::Request::connect("a:1").body(RequestBody::empty()).unwrap();
    assert_eq!(reason(&upstream, connect, how()).await, Reason::NotImplemented);
}

#[tokio::test]
async fn the_same_key_goes_to_the_same_endpoint() {
    let fixture = fixture();
    let backends: [_; 4] = fixture.backends();
    let upstream = fixture.apply(&of(&backends));
    let mut used = std::collections::BTreeSet::new();
    for key in 0..32 {
        let mut places = Vec::new();
        for _ in 0..4 {
            let sticky = Some(plinth_policy::balance::hash::mix(key, 3));
            places.push(ask(&upstream, get("/"), Forward { sticky, ..how() }).await.unwrap().1);
        }
        assert!(places.iter().all(|place| *place == places[0]), "{places:?}");
        used.insert(places[0]);
    }
    assert_eq!(used.len(), 4);
}

#[tokio::test]
async fn a_key_moves_when_its_endpoint_is_full() {
    let fixture = fixture();
    let backends: [_; 2] = fixture.backends();
    let upstream = fixture.apply(&of(&backends));
    let sticky = Forward { sticky: Some(11), ..how() };
    let home = ask(&upstream, get("/"), sticky.clone()).await.unwrap().1;
    backends.iter().for_each(|backend| backend.act(Act::Stream));
    let mut held = Vec::new();
    for _ in 0..10 {
        held.push(within("a head", upstream.forward(get("/"), sticky.clone())).await.unwrap().0);
    }
    let at_home = upstream.view()[home].in_flight;
    assert!((5..=7).contains(&at_home), "a quarter more than its part: {at_home}");
}

#[tokio::test]
async fn the_caller_s_own_failure_says_nothing_of_the_upstream() {
    let fixture = fixture();
    let [backend] = fixture.backends();
    let record = UpstreamRecord { response_timeout_ms: Some(50), ..of(std::slice::from_ref(&backend)) };
    let upstream = fixture.apply(&record);
    let stuck = http::Request::post("/").body(RequestBody::stuck()).unwrap();
    assert_eq!(reason(&upstream, stuck, how()).await, Reason::UploadIncomplete);
    backend.act(Act::Hang);
    for _ in 0..30 {
        let deadline = Some(Instant::now() + Duration::from_millis(2));
        assert_eq!(reason(&upstream, post("x"), Forward { deadline, ..how() }).await, Reason::UpstreamTimeout);
    }
    let view = upstream.view()[0];
    assert!(!view.is_ejected && view.breaker == plinth_policy::resilience::breaker::State::Closed, "{view:?}");
    assert_eq!(upstream.pool.metrics.attempts(Outcome::Cancelled), 31);
}
