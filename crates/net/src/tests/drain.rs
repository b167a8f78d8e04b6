//! The end of a listener.

use super::*;

#[tokio::test]
async fn a_drain_lets_requests_end_and_closes_the_rest() {
    let fixture = start(limits());
    let mut idle = fixture.connect().await;
    assert_eq!(idle.get("/").await.status, 200);
    let mut fresh = fixture.connect().await;
    let mut busy = fixture.send("GET /slow HTTP/1.1\r\nhost: localhost\r\n\r\n").await;
    until("the request runs", || fixture.live() == 1).await;
    let address = fixture.server.local_addr();
    let (report, answer, idle, fresh) =
        tokio::join!(fixture.server.drain(Duration::from_secs(5)), busy.answer(), idle.rest(), fresh.rest());
    assert_eq!(report, DrainReport { cut: 0 });
    assert_eq!((answer.status, &answer.body[..]), (200, &b"slow"[..]));
    assert!(answer.head.contains("connection: close"), "{}", answer.head);
    assert_eq!((idle.as_str(), fresh.as_str()), ("", ""));
    assert!(TcpStream::connect(address).await.is_err());
    assert_eq!((fixture.server.tasks(), fixture.metrics.open.value()), (0, 0));
}

#[tokio::test]
async fn what_does_not_end_in_time_is_cut() {
    let fixture = start(limits());
    let mut raw = fixture.send("GET /stuck HTTP/1.1\r\nhost: localhost\r\n\r\n").await;
    until("the request runs", || fixture.live() == 1).await;
    let begin = tokio::time::Instant::now();
    assert_eq!(fixture.server.drain(Duration::from_millis(100)).await, DrainReport { cut: 1 });
    assert!(begin.elapsed() < Duration::from_secs(2));
    assert_eq!((raw.rest().await.as_str(), fixture.live()), ("", 0));
}

#[tokio::test]
async fn a_lame_duck_serves_and_asks_to_close() {
    let fixture = start(limits());
    let mut raw = fixture.connect().await;
    assert!(!raw.get("/").await.head.contains("connection: close"));
    fixture.server.lame_duck();
    assert!(raw.get("/").await.head.contains("connection: close"));
    assert_eq!(raw.rest().await, "");
    assert_eq!(fixture.connect().await.get("/").await.status, 200);
}

#[tokio::test]
async fn the_end_of_the_tasks_around_it_ends_the_listener() {
    let fixture = start(limits());
    let mut raw = fixture.connect().await;
    assert_eq!(raw.get("/").await.status, 200);
    fixture.tasks.cancel();
    assert_eq!(raw.rest().await, "");
    until("all tasks are gone", || fixture.server.tasks() == 0).await;
}

#[tokio::test]
async fn an_address_in_use_is_an_error() {
    let fixture = start(limits());
    let config = ListenerConfig::new("second", fixture.server.local_addr(), limits(), ConnectionMetrics::default());
    let error = Server::start(config, fixture.demo.clone(), &fixture.tasks).err().unwrap();
    assert_eq!(error.source.kind(), std::io::ErrorKind::AddrInUse);
    assert!(error.to_string().contains("second"));
}
