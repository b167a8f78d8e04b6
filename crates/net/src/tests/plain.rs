//! Clients that mean well.

use super::*;

#[tokio::test]
async fn one_connection_serves_many_requests_also_sent_at_once() {
    let fixture = start(limits());
    let get = "GET / HTTP/1.1\r\nhost: localhost\r\n\r\n";
    let mut raw = fixture.send(format!("{get}GET /pieces HTTP/1.1\r\nhost: localhost\r\n\r\n{get}")).await;
    for body in ["hello", "one,two", "hello"] {
        let answer = raw.answer().await;
        assert_eq!((answer.status, &answer.body[..]), (200, body.as_bytes()));
    }
    assert_eq!(raw.get("/").await.body, b"hello");
    assert_eq!((fixture.metrics.accepted.value(), fixture.metrics.open.value()), (1, 1));
    drop(raw);
    until("the connection is gone", || fixture.metrics.open.value() == 0).await;
}

#[tokio::test]
async fn old_clients_and_head_requests() {
    let fixture = start(limits());
    let text = fixture.send("GET / HTTP/1.0\r\n\r\n").await.rest().await;
    assert!(text.starts_with("HTTP/1.0 200 OK\r\n") && text.ends_with("\r\n\r\nhello"), "{text}");
    let text = fixture.send("HEAD / HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").await.rest().await;
    assert!(text.contains("content-length: 5\r\n") && text.ends_with("\r\n\r\n"), "{text}");
}

#[tokio::test]
async fn bodies_come_in_every_form() {
    let fixture = start(limits());
    let chunked = "POST /echo HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n2;x=y\r\nde\r\n0\r\n\r\n";
    assert_eq!(fixture.send(chunked).await.answer().await.body, b"abcde");
    let mut raw = fixture.send("POST /echo HTTP/1.1\r\nhost: localhost\r\ncontent-length: 4\r\nexpect: 100-continue\r\n\r\n").await;
    assert_eq!(raw.answer().await.status, 100);
    raw.send("abcd").await;
    assert_eq!(raw.answer().await.body, b"abcd");
    // The connection goes on, and a body may come in many pieces.
    raw.send("POST /echo HTTP/1.1\r\nhost: localhost\r\ncontent-length: 900000\r\n\r\n").await;
    for _ in 0..9 {
        raw.send(vec![b'z'; 100_000]).await;
    }
    assert_eq!(raw.answer().await.body, vec![b'z'; 900_000]);
    assert_eq!(body_limits().memory.used(), 0);
}

#[tokio::test]
async fn a_panic_costs_one_request() {
    let fixture = start(limits());
    let mut raw = fixture.connect().await;
    let answer = raw.get("/panic").await;
    assert_eq!(answer.status, 500);
    assert!(answer.head.contains("application/problem+json"));
    assert_eq!(raw.get("/").await.status, 200);
    assert_eq!(fixture.metrics.panics.value(), 1);
}

#[tokio::test]
async fn streams_end_whole_or_visibly_broken() {
    let fixture = start(limits());
    let get = |path: &str| format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
    assert!(fixture.send(get("/stream")).await.rest().await.ends_with("1\r\na\r\n1\r\nb\r\n0\r\n\r\n"));
    assert!(!fixture.send(get("/broken")).await.rest().await.contains("0\r\n\r\n"));
    until("the guards are given back", || fixture.live() == 0).await;
}

#[tokio::test]
async fn a_client_that_leaves_cancels_its_request() {
    let fixture = start(limits());
    let raw = fixture.send("GET /stuck HTTP/1.1\r\nhost: localhost\r\n\r\n").await;
    until("the request runs", || fixture.live() == 1).await;
    drop(raw);
    until("the request is dropped", || fixture.live() == 0).await;
}

#[tokio::test]
async fn a_guard_lives_until_the_last_byte_has_left() {
    let fixture = start(limits());
    let mut raw = fixture.send("GET /large HTTP/1.1\r\nhost: localhost\r\n\r\n").await;
    let mut first = [0; 1024];
    within("the first bytes", raw.0.read_exact(&mut first)).await.unwrap();
    // The sockets of both sides hold a few MiB at most, so most of the answer is still with the server.
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(fixture.live(), 1);
    let mut rest = vec![0; LARGE - 1024];
    within("the rest", raw.0.read_exact(&mut rest)).await.unwrap();
    until("the guard is given back", || fixture.live() == 0).await;
}

#[tokio::test]
async fn an_idle_connection_may_stay_longer_than_a_head_may_take() {
    let fixture =
        start(ConnectionLimits { header_timeout: Duration::from_millis(100), idle_timeout: Duration::from_millis(400), ..limits() });
    let mut raw = fixture.connect().await;
    assert_eq!(raw.get("/").await.status, 200);
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(raw.get("/").await.status, 200);
    let start = tokio::time::Instant::now();
    assert_eq!(raw.rest().await, "");
    assert!(start.elapsed() >= Duration::from_millis(300), "{:?}", start.elapsed());
    assert_eq!(fixture.metrics.timeouts.value(), 0);
}

#[tokio::test]
async fn a_small_body_that_nobody_reads_does_not_cost_the_connection() {
    let fixture = start(limits());
    let mut raw = fixture.connect().await;
    for path in ["/", "/panic"] {
        for body in ["x".to_owned(), "x".repeat(60 << 10)] {
            raw.send(format!("POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-length: {}\r\n\r\n{body}", body.len())).await;
            assert!(!raw.answer().await.head.contains("connection: close"), "{path}");
        }
        let chunked = format!("POST {path} HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n");
        raw.send(chunked).await;
        assert!(!raw.answer().await.head.contains("connection: close"), "{path}");
    }
    assert_eq!(raw.get("/").await.body, b"hello");
    assert_eq!(fixture.metrics.accepted.value(), 1);
}

#[tokio::test]
async fn a_body_that_nobody_reads_and_that_is_large_late_or_held_back_does() {
    let fixture = start(limits());
    for (head, body) in [
        ("content-length: 70000", &b"x"[..]),
        ("content-length: 10", b"x"),
        ("content-length: 10\r\nexpect: 100-continue", b""),
        ("transfer-encoding: chunked", b"fffff\r\nabc"),
    ] {
        let mut raw = fixture.send(format!("POST / HTTP/1.1\r\nhost: localhost\r\n{head}\r\n\r\n")).await;
        raw.send(body).await;
        let answer = raw.answer().await;
        assert_eq!((answer.status, &answer.body[..]), (200, &b"hello"[..]), "{head}");
        assert!(answer.head.contains("connection: close"), "{head}: {}", answer.head);
        assert_eq!(raw.rest().await, "", "{head}");
    }
}
