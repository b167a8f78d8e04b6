//! Many connections, of one client and of those that never say anything.

use super::*;

/// Ways to hold a connection without a request.
const LORIS: [&str; 4] =
    ["", "GET / HTTP/1.1\r\nhost: localhost\r\nx-slow: ", "PRI * HTTP/2.0\r\n", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0"];

#[tokio::test]
async fn slow_loris_connections_do_not_keep_others_out() {
    let places = 64;
    let header_timeout = Duration::from_secs(60);
    let fixture = start(ConnectionLimits { max_connections: places, max_per_client: 1000, header_timeout, ..limits() });
    let mut known = Vec::new();
    for _ in 0..8 {
        let mut raw = fixture.connect().await;
        assert_eq!(raw.get("/").await.status, 200);
        known.push(raw);
    }
    let mut busy = fixture.send("GET /slow HTTP/1.1\r\nhost: localhost\r\n\r\n").await;
    until("the request runs", || fixture.live() == 1).await;
    let mut loris = Vec::new();
    for number in 0..200 {
        loris.push(fixture.send(LORIS[number % LORIS.len()]).await);
        if number % 10 == 0 {
            assert_eq!(fixture.connect().await.get("/").await.status, 200, "a newcomer after {number}");
        }
    }
    for raw in &mut known {
        assert_eq!(raw.get("/").await.status, 200, "who was heard is not given up");
    }
    assert_eq!(busy.answer().await.body, b"slow");
    assert!(fixture.metrics.given_up.value() >= 200 - places as u64, "{}", fixture.metrics.given_up.value());
    assert_eq!(fixture.metrics.refused.value(), 0);
    assert!(usize::try_from(fixture.metrics.open.value()).unwrap() <= places, "{}", fixture.metrics.open.value());
}

#[tokio::test]
async fn a_client_has_its_most_connections() {
    let fixture = start(ConnectionLimits { max_per_client: 3, ..limits() });
    let mut held = Vec::new();
    for _ in 0..3 {
        let mut raw = fixture.connect().await;
        assert_eq!(raw.get("/").await.status, 200);
        held.push(raw);
    }
    let text = fixture.connect().await.rest().await;
    assert!(text.starts_with("HTTP/1.1 503 "), "{text}");
    assert_eq!((fixture.metrics.over_client_cap.value(), fixture.metrics.refused.value()), (1, 0));
    // Somebody else, who has another address of the loopback.
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::from(([127, 0, 0, 2], 0))).unwrap();
    let mut other = Raw(socket.connect(fixture.server.local_addr()).await.unwrap());
    assert_eq!(other.get("/").await.status, 200);
    drop(held.pop());
    until("a place is free", || fixture.metrics.open.value() == 3).await;
    assert_eq!(fixture.connect().await.get("/").await.status, 200);
}
