//! Answers that take long, callers that go away, and connections that leave HTTP.

use bytes::Buf;
use futures_util::StreamExt;
use plinth_policy::resilience::breaker::State;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::*;

fn stream(body: Body) -> impl futures_util::Stream<Item = std::io::Result<Bytes>> + Unpin {
    let mut body = Box::pin(body);
    futures_util::stream::poll_fn(move |cx| {
        http_body::Body::poll_frame(body.as_mut(), cx).map(|frame| {
            let bytes = |mut chunk: plinth_net::Chunk| chunk.copy_to_bytes(chunk.remaining());
            frame.map(|frame| frame.map(|frame| bytes(frame.into_data().ok().unwrap())))
        })
    })
}

#[tokio::test]
async fn a_stream_passes_as_it_comes_and_counts_to_its_end() {
    let fixture = fixture();
    let [backend] = fixture.backends();
    let upstream = fixture.apply(&of(std::slice::from_ref(&backend)));
    backend.act(Act::Stream);
    let (answer, _) = within("the head", upstream.forward(get("/"), how())).await.unwrap();
    let mut pieces = stream(answer.into_body());
    assert_eq!(within("the first piece", pieces.next()).await.unwrap().unwrap(), "data: 1\n\n");
    assert_eq!(upstream.view()[0].in_flight, 1);
    backend.seen.end.notify_one();
    assert_eq!(within("the second", pieces.next()).await.unwrap().unwrap(), "data: 2\n\n");
    assert!(within("the end", pieces.next()).await.is_none());
    assert_eq!(upstream.view()[0].in_flight, 0, "the end has come, though its body is still held");
}

#[tokio::test]
async fn a_stream_that_breaks_speaks_against_its_endpoint() {
    let fixture = tuned(|tuning| tuning.ejection.consecutive = 0);
    let [backend] = fixture.backends();
    let upstream = fixture.apply(&of(std::slice::from_ref(&backend)));
    backend.act(Act::Stream);
    backend.seen.is_broken.store(true, SeqCst);
    for _ in 0..10 {
        let (answer, _) = within("the head", upstream.forward(get("/"), how())).await.unwrap();
        backend.seen.end.notify_one();
        within("the end", answer.into_body().into_bytes()).await.unwrap_err();
    }
    assert_eq!(upstream.view()[0].breaker, State::Open);
}

#[tokio::test]
async fn who_goes_away_ends_it_at_the_upstream_too() {
    let fixture = fixture();
    let [backend] = fixture.backends();
    let upstream = fixture.apply(&of(std::slice::from_ref(&backend)));
    for act in [Act::Hang, Act::Stream] {
        backend.act(act);
        let asking = upstream.forward(get("/"), how());
        match act {
            Act::Hang => assert!(tokio::time::timeout(Duration::from_millis(50), asking).await.is_err()),
            _ => drop(within("the head", asking).await.unwrap()),
        }
        let gone = Instant::now();
        until("the upstream to notice", || backend.open() == 0).await;
        assert!(gone.elapsed() < Duration::from_millis(100), "{act:?}: {:?}", gone.elapsed());
        assert_eq!(upstream.view()[0].in_flight, 0);
    }
    assert_eq!(upstream.pool.metrics.attempts(Outcome::Cancelled), 1);
    assert_eq!(upstream.view()[0].breaker, State::Closed);
}

/// Answers in capitals until it hears "bye".
async fn shouting(mut wire: TcpStream) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        wire.read_buf(&mut head).await.unwrap();
    }
    let head = String::from_utf8(head).unwrap();
    assert!(head.contains("\r\nupgrade: websocket\r\n") && head.contains("\r\nx-forwarded-for: 192.0.2.7\r\n"), "{head}");
    wire.write_all(b"HTTP/1.1 101 x\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n").await.unwrap();
    let mut piece = [0; 16];
    while let Ok(count @ 1..) = wire.read(&mut piece).await {
        wire.write_all(&piece[..count].to_ascii_uppercase()).await.unwrap();
        if &piece[..count] == b"bye" {
            return;
        }
    }
}

struct Gateway(Arc<Upstream>);

impl Service for Gateway {
    async fn call(&self, request: Request, _peer: Peer) -> Response {
        self.0.upgrade(request, how()).await.unwrap()
    }
}

#[tokio::test]
async fn a_connection_may_leave_http() {
    let fixture = fixture();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let upstream = fixture.apply(&record([listener.local_addr().unwrap()]));
    fixture.tasks.spawn("upstream", OnEnd::Ignore, async move { shouting(listener.accept().await.unwrap().0).await });
    let metrics = ConnectionMetrics::default();
    let config = ListenerConfig::new("g", ([127, 0, 0, 1], 0).into(), ConnectionLimits::default(), metrics.clone());
    let server = Server::start(config, Arc::new(Gateway(upstream.clone())), &fixture.tasks).unwrap();
    let mut client = TcpStream::connect(server.local_addr()).await.unwrap();
    client.write_all(b"GET /ws HTTP/1.1\r\nhost: x\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\r\n").await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        within("the head", client.read_buf(&mut head)).await.unwrap();
    }
    assert!(head.starts_with(b"HTTP/1.1 101 "), "{}", String::from_utf8_lossy(&head));
    for said in ["one", "bye"] {
        client.write_all(said.as_bytes()).await.unwrap();
        let mut heard = vec![0; said.len()];
        within("an echo", client.read_exact(&mut heard)).await.unwrap();
        assert_eq!(heard, said.to_ascii_uppercase().as_bytes());
        assert!(said == "bye" || (upstream.view()[0].in_flight, metrics.open.value()) == (1, 1), "it counts as long as it is carried");
    }
    until("the end of the tunnel", || (upstream.view()[0].in_flight, metrics.open.value()) == (0, 0)).await;
}
