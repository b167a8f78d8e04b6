//! Connections that are kept: how many there are, and what happens when the upstream closes one.

use std::sync::atomic::AtomicBool;

use super::*;
use crate::RequestBody;

#[tokio::test]
async fn one_connection_serves_many_requests_in_turn() {
    let world = world();
    let upstream = world.serving(false, echo).await;
    let endpoint = world.endpoint("http", &upstream);
    for n in 0..200 {
        let body = format!("request {n}");
        assert_eq!(exchange(&endpoint, post("/", Bytes::from(body.clone()))).await.unwrap().1, body);
    }
    let metrics = world.outbound.metrics();
    assert_eq!((upstream.connections(), upstream.requests()), (1, 200));
    assert_eq!((metrics.connects.value(), metrics.reused.value(), metrics.resent.value(), metrics.open.value()), (1, 199, 0, 1));
}

#[tokio::test]
async fn many_at_a_time_are_bounded_and_none_gets_the_answer_of_another() {
    let options = OutboundOptions { max_connections: 16, max_idle: 8, ..OutboundOptions::default() };
    let world = world_with(options);
    let upstream = world.serving(false, echo).await;
    let endpoint = world.endpoint("http", &upstream);
    let requests = (0..64).map(|n| {
        let endpoint = endpoint.clone();
        async move {
            for turn in 0..20 {
                let body = Bytes::from(format!("{n}/{turn} ").repeat(1 + n * turn));
                assert_eq!(exchange(&endpoint, post("/", body.clone())).await.unwrap(), (200, body));
            }
        }
    });
    futures_util::future::join_all(requests).await;
    assert_eq!(upstream.requests(), 64 * 20);
    let open = world.outbound.metrics().open.value();
    assert!(endpoint.idle() <= 8 && open <= 16 && endpoint.in_flight() == 0, "{} idle, {open} open", endpoint.idle());
}

#[tokio::test]
async fn who_finds_all_in_use_waits_but_not_for_ever() {
    let options = OutboundOptions { max_connections: 1, queue_timeout: Duration::from_millis(50), ..OutboundOptions::default() };
    let world = world_with(options);
    let open = Arc::new(tokio::sync::Semaphore::new(0));
    let gate = open.clone();
    let upstream = world
        .serving(false, move |_| {
            let gate = gate.clone();
            async move {
                let _ = gate.acquire().await;
                Response::new(Body::full("x"))
            }
        })
        .await;
    let endpoint = world.endpoint("http", &upstream);
    let (first, second) = tokio::join!(exchange(&endpoint, get("/")), async {
        until("the first is there", || upstream.requests() == 1).await;
        let refused = exchange(&endpoint, get("/")).await.unwrap_err();
        open.add_permits(1);
        refused
    });
    assert!(first.is_ok());
    assert_eq!((second.kind, second.reached), (Kind::Busy, Reached::NotSent));
    // And one who waits is served as soon as the other is done.
    open.add_permits(10);
    let both = tokio::join!(exchange(&endpoint, get("/")), exchange(&endpoint, get("/")));
    assert!(both.0.is_ok() && both.1.is_ok());
    assert_eq!(upstream.connections(), 1);
}

const OK: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

/// Answers one request on each connection, then does `then` with it.
async fn once(world: &World, then: fn(usize) -> Then) -> (Upstream, Arc<AtomicBool>) {
    let closed = Arc::new(AtomicBool::new(false));
    let keep = closed.clone();
    let upstream = world
        .scripted(move |mut stream, count| {
            let closed = keep.clone();
            async move {
                read_head(&mut stream).await;
                stream.write_all(OK).await.unwrap();
                match then(count) {
                    Then::Close => {}
                    Then::Say => stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nsecret").await.unwrap(),
                    Then::CloseOnNext => {
                        read_head(&mut stream).await;
                    }
                    Then::AnswerHalf => {
                        read_head(&mut stream).await;
                        stream.write_all(b"HTTP/1.1 2").await.unwrap();
                    }
                }
                if !matches!(then(count), Then::Say) {
                    drop(stream);
                    closed.store(true, Ordering::SeqCst);
                } else {
                    closed.store(true, Ordering::SeqCst);
                    std::future::pending::<()>().await;
                }
            }
        })
        .await;
    (upstream, closed)
}

enum Then {
    Close,
    Say,
    CloseOnNext,
    AnswerHalf,
}

#[tokio::test]
async fn what_was_closed_or_said_while_idle_is_seen_before_it_is_used() {
    let world = world();
    for then in [|_| Then::Close, |_| Then::Say] {
        let (upstream, closed) = once(&world, then).await;
        let endpoint = world.endpoint("http", &upstream);
        for turn in 1..4 {
            closed.store(false, Ordering::SeqCst);
            // A body that can be sent once, and a method that must not be repeated: only what is certain helps here.
            let answer = exchange(&endpoint, post("/", RequestBody::from(Bytes::from_static(b"x")))).await.unwrap();
            assert_eq!((answer.1, upstream.connections()), ("ok".into(), turn));
            until("it is closed", || closed.load(Ordering::SeqCst)).await;
            // The kernel of the same machine brings it at once, the reactor at its next turn.
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert_eq!(world.outbound.metrics().resent.value(), 0);
    }
}

#[tokio::test]
async fn a_connection_that_closes_under_a_request_is_replaced_only_where_that_is_safe() {
    let world = world();
    let then = |count| if count == 0 { Then::CloseOnNext } else { Then::Close };
    for (request, safe) in [
        (get("/"), true),
        (Request::put("/").body(OutBody::full("x")).unwrap(), true),
        (Request::post("/").header("idempotency-key", "1").body(OutBody::full("x")).unwrap(), true),
        (post("/", Bytes::from_static(b"x")), false),
        (Request::put("/").body(OutBody::streaming(RequestBody::from(Bytes::from_static(b"x")))).unwrap(), false),
        (Request::patch("/").body(OutBody::empty()).unwrap(), false),
    ] {
        let (upstream, _) = once(&world, then).await;
        let endpoint = world.endpoint("http", &upstream);
        exchange(&endpoint, get("/")).await.unwrap();
        assert_eq!(endpoint.idle(), 1);
        let before = world.outbound.metrics().resent.value();
        let answer = exchange(&endpoint, request).await;
        assert_eq!(world.outbound.metrics().resent.value() - before, u64::from(safe));
        match answer {
            Ok((_, body)) => assert!(safe && body == "ok"),
            Err(error) => assert!(!safe && error.kind == Kind::Reset && error.reached == Reached::MaybeSent, "{error:?}"),
        }
    }
}

#[tokio::test]
async fn after_a_byte_of_answer_nothing_is_sent_again() {
    let world = world();
    let (upstream, _) = once(&world, |count| if count == 0 { Then::AnswerHalf } else { Then::Close }).await;
    let endpoint = world.endpoint("http", &upstream);
    exchange(&endpoint, get("/")).await.unwrap();
    let error = exchange(&endpoint, get("/")).await.unwrap_err();
    assert_eq!((error.kind, error.reached, upstream.connections()), (Kind::Reset, Reached::FirstByte, 1));
}

#[tokio::test]
async fn idle_connections_grow_old() {
    let world = world_with(OutboundOptions { idle_timeout: Duration::from_millis(30), ..OutboundOptions::default() });
    let upstream = world.serving(false, echo).await;
    let endpoint = world.endpoint("http", &upstream);
    exchange(&endpoint, get("/")).await.unwrap();
    assert_eq!(endpoint.idle(), 1);
    tokio::time::sleep(Duration::from_millis(40)).await;
    world.outbound.0.sweep();
    assert_eq!((endpoint.idle(), world.outbound.metrics().open.value()), (0, 0));
    exchange(&endpoint, get("/")).await.unwrap();
    tokio::time::sleep(Duration::from_millis(40)).await;
    exchange(&endpoint, get("/")).await.unwrap();
    assert_eq!(upstream.connections(), 3, "an old one is not used even before it is swept");
    drop(endpoint);
    world.outbound.0.sweep();
    assert!(world.outbound.0.endpoints.lock().unwrap().is_empty());
}
