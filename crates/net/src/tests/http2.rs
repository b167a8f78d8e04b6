//! HTTP/2 without TLS, with hyper as the client.

use http_body_util::{BodyExt, Empty, Full};
use hyper::client::conn::http2::{SendRequest, handshake};
use hyper_util::rt::{TokioExecutor, TokioIo};
use plinth_runtime::OnEnd;

use super::*;

async fn client(fixture: &Fixture) -> SendRequest<Full<Bytes>> {
    let stream = TcpStream::connect(fixture.server.local_addr()).await.unwrap();
    let (sender, connection) = within("the handshake", handshake(TokioExecutor::new(), TokioIo::new(stream))).await.unwrap();
    TaskGroup::new("client").spawn("connection", OnEnd::Ignore, async {
        let _ = connection.await;
    });
    sender
}

fn request(path: &str, body: &'static [u8]) -> http::Request<Full<Bytes>> {
    http::Request::post(format!("http://localhost{path}")).body(Full::new(Bytes::from_static(body))).unwrap()
}

async fn body(response: http::Response<hyper::body::Incoming>) -> Bytes {
    within("the body", response.into_body().collect()).await.unwrap().to_bytes()
}

#[tokio::test]
async fn requests_share_a_connection() {
    let fixture = start(limits());
    let mut client = client(&fixture).await;
    let slow = client.send_request(request("/slow", b""));
    let echo = client.send_request(request("/echo", b"abc"));
    let large = client.send_request(request("/large", b""));
    let (slow, echo, large) = tokio::join!(slow, echo, large);
    assert_eq!(body(slow.unwrap()).await, "slow");
    assert_eq!(body(echo.unwrap()).await, "abc");
    assert_eq!(body(large.unwrap()).await.len(), LARGE);
    let panicked = client.send_request(request("/panic", b"")).await.unwrap();
    assert_eq!(panicked.status(), 500);
    assert_eq!(body(client.send_request(request("/", b"")).await.unwrap()).await, "hello");
    assert_eq!(fixture.metrics.accepted.value(), 1);
    until("the guards are given back", || fixture.live() == 0).await;
}

#[tokio::test]
async fn a_dropped_request_is_cancelled() {
    let fixture = start(limits());
    let mut client = client(&fixture).await;
    let stuck = client.send_request(request("/stuck", b""));
    let run = tokio::time::timeout(Duration::from_millis(100), stuck);
    assert!(run.await.is_err());
    until("the request is dropped", || fixture.live() == 0).await;
    assert_eq!(body(client.send_request(request("/", b"")).await.unwrap()).await, "hello");
}

#[tokio::test]
async fn a_drain_says_goodbye_and_lets_streams_end() {
    let fixture = start(limits());
    let mut client = client(&fixture).await;
    let slow = async {
        let answer = client.send_request(request("/slow", b"")).await.unwrap();
        body(answer).await
    };
    let drain = async {
        until("the request runs", || fixture.live() == 1).await;
        fixture.server.drain(Duration::from_secs(5)).await
    };
    let (slow, report) = tokio::join!(slow, drain);
    assert_eq!((slow, report), (Bytes::from_static(b"slow"), DrainReport { cut: 0 }));
    assert!(client.send_request(request("/", b"")).await.is_err());
}

#[tokio::test]
async fn idle_and_silent_connections_are_closed() {
    let short = Duration::from_millis(150);
    let fixture = start(ConnectionLimits { header_timeout: short, idle_timeout: short, ..limits() });
    let mut used = client(&fixture).await;
    assert_eq!(body(used.send_request(request("/", b"")).await.unwrap()).await, "hello");
    let silent = client(&fixture).await;
    until("both are closed", || fixture.metrics.open.value() == 0).await;
    assert_eq!(fixture.metrics.timeouts.value(), 1, "only the silent one was cut");
    drop(silent);
}

#[tokio::test]
async fn large_heads_are_refused() {
    let fixture = start(limits());
    let stream = TcpStream::connect(fixture.server.local_addr()).await.unwrap();
    let (mut sender, connection) = handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    TaskGroup::new("client").spawn("connection", OnEnd::Ignore, async {
        let _ = connection.await;
    });
    let head = http::Request::get("http://localhost/").header("x", "a".repeat(20_000)).body(Empty::<Bytes>::new()).unwrap();
    let refused = within("the refusal", sender.send_request(head)).await;
    assert!(refused.map_or(true, |answer| answer.status() == 431));
    assert_eq!(fixture.demo.served.load(Ordering::SeqCst), 0);
}

/// The next frame of a raw connection: its kind, flags and stream.
async fn frame(raw: &mut Raw) -> (u8, u8, u32) {
    let mut head = [0; 9];
    within("a frame", raw.0.read_exact(&mut head)).await.unwrap();
    let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
    within("its payload", raw.0.read_exact(&mut vec![0; length])).await.unwrap();
    (head[3], head[4], u32::from_be_bytes([head[5] & 0x7f, head[6], head[7], head[8]]))
}

#[tokio::test]
async fn a_drain_sends_goaway_before_the_stream_in_flight_has_ended() {
    const GOAWAY: u8 = 7;
    const DATA: u8 = 0;
    const END_STREAM: u8 = 1;
    let fixture = start(limits());
    let mut raw = fixture.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await;
    // HEADERS on stream 1: method GET and scheme http from the static table, path and authority as literals (RFC 7541).
    let block = [&b"\x82\x86\x04\x05/slow\x01\x09"[..], b"localhost"].concat();
    raw.send([&[0, 0, block.len() as u8, 1, 5, 0, 0, 0, 1][..], &block].concat()).await;
    until("the request runs", || fixture.live() == 1).await;
    let frames = async move {
        let mut kinds = Vec::new();
        loop {
            let (kind, flags, stream) = frame(&mut raw).await;
            kinds.push(kind);
            if (kind, stream) == (DATA, 1) && flags & END_STREAM != 0 {
                return kinds;
            }
        }
    };
    let (report, kinds) = tokio::join!(fixture.server.drain(Duration::from_secs(5)), frames);
    assert_eq!(report, DrainReport { cut: 0 });
    let (goaway, data) = (kinds.iter().position(|kind| *kind == GOAWAY), kinds.iter().position(|kind| *kind == DATA));
    assert!(goaway.is_some() && goaway < data, "{kinds:?}");
}

/// A raw connection whose streams may send so many bytes each, with a request of this path on stream 1.
async fn windowed(fixture: &Fixture, window: u8, path: &str) -> Raw {
    // SETTINGS with INITIAL_WINDOW_SIZE.
    let settings = [0, 0, 6, 4, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0, window];
    let mut raw = fixture.send([&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..], &settings].concat()).await;
    let block = [&b"\x82\x86\x04"[..], &[path.len() as u8], path.as_bytes(), b"\x01\x09localhost"].concat();
    raw.send([&[0, 0, block.len() as u8, 1, 5, 0, 0, 0, 1][..], &block].concat()).await;
    raw
}

/// Answers pings, and does nothing else, until the server closes.
async fn ponging(raw: Raw) {
    let (mut reads, mut writes) = raw.0.into_split();
    let pings = async {
        for number in 0_u64.. {
            let ping = [&[0, 0, 8, 6, 0, 0, 0, 0, 0][..], &number.to_be_bytes()].concat();
            if writes.write_all(&ping).await.is_err() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let rest = async {
        let mut piece = vec![0; 4096];
        while reads.read(&mut piece).await.is_ok_and(|count| count > 0) {}
    };
    let end = async {
        tokio::select! { () = pings => {} () = rest => {} }
    };
    within("the cut", Box::pin(end)).await;
}

#[tokio::test]
async fn an_answer_whose_window_stays_shut_is_cut_though_pings_are_answered() {
    for (window, path) in [(0, "/large"), (9, "/large"), (3, "/pieces"), (0, "/")] {
        let fixture = start(ConnectionLimits { write_timeout: Duration::from_millis(150), ..limits() });
        let began = tokio::time::Instant::now();
        Box::pin(ponging(windowed(&fixture, window, path).await)).await;
        assert!(began.elapsed() >= Duration::from_millis(150), "{window} {path}: {:?}", began.elapsed());
        until("what was held is given back", || fixture.metrics.open.value() == 0 && fixture.live() == 0).await;
        assert_eq!(fixture.metrics.timeouts.value(), 1, "{window} {path}");
    }
}

#[tokio::test]
async fn who_waits_for_a_stream_to_say_something_is_left_alone() {
    let fixture = start(ConnectionLimits { write_timeout: Duration::from_millis(100), ..limits() });
    let mut client = client(&fixture).await;
    assert_eq!(body(client.send_request(request("/trickle", b"")).await.unwrap()).await, "xxx");
    assert_eq!(body(client.send_request(request("/", b"")).await.unwrap()).await, "hello");
    assert_eq!((fixture.metrics.timeouts.value(), fixture.metrics.accepted.value()), (0, 1));
}
