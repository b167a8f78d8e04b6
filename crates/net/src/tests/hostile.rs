//! Clients that do not mean well, or are broken.

use std::io;
use std::sync::Mutex;

use tokio::net::TcpListener;

use super::*;
use crate::accept::{self, Acceptor};

fn impatient() -> ConnectionLimits {
    ConnectionLimits { header_timeout: Duration::from_millis(150), ..limits() }
}

#[tokio::test]
async fn slow_heads_are_cut_and_others_do_not_notice() {
    let fixture = start(impatient());
    let begin = tokio::time::Instant::now();
    let slow = ["", "G", "GET / HTTP/1.1\r\nhost: localhost\r\nx-slow: ", "PRI * HTTP/2.0\r\n"].map(async |opening| {
        let mut raw = fixture.send(opening).await;
        for _ in 0..1000 {
            tokio::time::sleep(Duration::from_millis(20)).await;
            if raw.0.write_all(b"a").await.is_err() {
                return;
            }
            match raw.0.try_read(&mut [0; 64]) {
                Ok(0) => return,
                Ok(read) => assert!(opening.starts_with("PRI"), "{opening:?} got an answer of {read} bytes"),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => return,
            }
        }
        panic!("{opening:?} was never cut");
    });
    let good = async {
        for _ in 0..20 {
            assert_eq!(fixture.connect().await.get("/").await.status, 200);
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::join!(within("the slow ones", futures_util::future::join_all(slow)), good);
    assert!(begin.elapsed() < Duration::from_secs(2), "{:?}", begin.elapsed());
    until("all are gone", || fixture.metrics.open.value() == 0).await;
    assert!(fixture.metrics.timeouts.value() >= 3);
}

#[tokio::test]
async fn a_silent_connection_is_cut() {
    let fixture = start(impatient());
    let mut raw = fixture.connect().await;
    assert_eq!(raw.rest().await, "");
    assert_eq!(fixture.metrics.timeouts.value(), 1);
}

#[tokio::test]
async fn a_second_head_may_not_be_slow_either() {
    let fixture = start(impatient());
    let mut raw = fixture.connect().await;
    assert_eq!(raw.get("/").await.status, 200);
    raw.send("GET / HTT").await;
    assert_eq!(raw.rest().await, "");
    assert_eq!(fixture.metrics.timeouts.value(), 1);
}

#[tokio::test]
async fn large_heads_are_refused() {
    let fixture = start(limits());
    let long = format!("GET / HTTP/1.1\r\nhost: localhost\r\nx: {}\r\n\r\n", "a".repeat(20_000));
    let many = format!("GET / HTTP/1.1\r\nhost: localhost\r\n{}\r\n", "a: b\r\n".repeat(150));
    let target = format!("GET /{} HTTP/1.1\r\nhost: localhost\r\n\r\n", "a".repeat(20_000));
    for request in [long, many, target] {
        let text = fixture.send(request).await.rest().await;
        assert!(text.starts_with("HTTP/1.1 431 "), "{text}");
    }
    // One that never ends is cut off while it grows.
    let mut raw = fixture.send("GET / HTTP/1.1\r\nx: ").await;
    let endless = async { while raw.0.write_all(&[b'a'; 4096]).await.is_ok() {} };
    within("an endless head", endless).await;
    assert_eq!(fixture.demo.served.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn requests_that_two_readers_may_split_differently_are_refused() {
    let fixture = start(limits());
    let smuggled = "GET /smuggled HTTP/1.1\r\nhost: localhost\r\n\r\n";
    for headers in [
        "content-length: 4\r\ncontent-length: 5\r\n",
        "content-length: 4, 5\r\n",
        "content-length: +5\r\n",
        "content-length: -1\r\n",
        "content-length: 0x5\r\n",
        "content-length: 99999999999999999999999\r\n",
        "content-length : 5\r\n",
        "transfer-encoding: gzip\r\n",
        "transfer-encoding: chunked, gzip\r\n",
        "transfer-encoding: xchunked\r\n",
        "transfer-encoding : chunked\r\n",
        "transfer-encoding:\u{b}chunked\r\n",
        "x: y\r\n folded\r\n",
        "x\r\n",
        "x y: z\r\n",
    ] {
        let request = format!("POST /echo HTTP/1.1\r\nhost: localhost\r\n{headers}\r\n0\r\n\r\n{smuggled}");
        let text = fixture.send(request).await.rest().await;
        assert!(text.starts_with("HTTP/1.1 400 "), "{headers:?}: {text}");
        assert_eq!(text.matches("HTTP/1.1 ").count(), 1, "{headers:?}: {text}");
    }
    for request in
        ["POST / HTTP/1.0\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n", "GET / HTTP/1.2\r\n\r\n", "GET /\r\n\r\n", "\0\0\0\0\r\n\r\n"]
    {
        let text = fixture.send(format!("{request}{smuggled}")).await.rest().await;
        assert!(text.starts_with("HTTP/1.") && text[8..].starts_with(" 400 "), "{request:?}: {text}");
        assert_eq!(text.matches(" 400 ").count() + text.matches(" 200 ").count(), 1, "{request:?}: {text}");
    }
    assert_eq!(fixture.demo.served.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn broken_chunks_are_an_incomplete_upload() {
    let fixture = start(limits());
    for chunks in ["zz\r\nabc\r\n0\r\n\r\n", "ffffffffffffffffff\r\na\r\n", "1\r\nabc\r\n0\r\n\r\n"] {
        let request = format!("POST /echo HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n{chunks}");
        let text = fixture.send(request).await.rest().await;
        assert!(text.starts_with("HTTP/1.1 400 ") && text.ends_with("upload_incomplete"), "{chunks:?}: {text}");
    }
}

#[tokio::test]
async fn a_body_that_breaks_off_or_crawls_is_given_up() {
    let fixture = start(limits());
    let post = "POST /echo HTTP/1.1\r\nhost: localhost\r\ncontent-length: 100000\r\n\r\nabc";
    let begin = tokio::time::Instant::now();
    let text = fixture.send(post).await.rest().await;
    assert!(text.starts_with("HTTP/1.1 400 ") && text.ends_with("upload_incomplete"), "{text}");
    assert!(begin.elapsed() >= Duration::from_millis(200));
    let raw = fixture.send(post).await;
    until("the request runs", || fixture.demo.served.load(Ordering::SeqCst) == 2).await;
    drop(raw);
    until("the connection is gone", || fixture.metrics.open.value() == 0).await;
}

#[tokio::test]
async fn the_answer_to_a_too_large_body_reaches_a_client_that_sends_first() {
    let fixture = start(limits());
    let mut raw = fixture.send(format!("POST /echo HTTP/1.1\r\nhost: localhost\r\ncontent-length: {}\r\n\r\n", 8 << 20)).await;
    let piece = vec![0; 64 << 10];
    for _ in 0..128 {
        within("sending on", raw.0.write_all(&piece)).await.expect("the server reads on for a moment");
    }
    let text = raw.rest().await;
    assert!(text.starts_with("HTTP/1.1 413 ") && text.ends_with("body_too_large"), "{text}");
    assert!(text.contains("connection: close"), "{text}");
}

#[tokio::test]
async fn a_client_that_takes_nothing_is_cut() {
    let fixture = start(ConnectionLimits { write_timeout: Duration::from_millis(150), ..limits() });
    let raw = fixture.send("GET /large HTTP/1.1\r\nhost: localhost\r\n\r\n").await;
    until("the answer is given up", || fixture.metrics.timeouts.value() == 1 && fixture.live() == 0).await;
    drop(raw);
}

#[tokio::test]
async fn a_client_that_takes_too_little_is_cut() {
    let write_timeout = Duration::from_millis(300);
    let fixture = start(ConnectionLimits { write_timeout, min_write_rate: ByteSize::mib(100), ..limits() });
    let mut raw = fixture.send("GET /large HTTP/1.1\r\nhost: localhost\r\n\r\n").await;
    let mut taken = 0;
    within("the cut", async {
        let mut part = vec![0; 256 << 10];
        while let Ok(read @ 1..) = raw.0.read(&mut part).await {
            taken += read;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    // It took all the time, so the deadline for taking nothing was never reached.
    assert!(taken < LARGE, "{taken}");
    assert_eq!((fixture.metrics.timeouts.value(), fixture.live()), (1, 0));
}

#[tokio::test]
async fn over_the_cap_connections_are_refused_at_once() {
    let fixture = start(ConnectionLimits { max_connections: 2, ..limits() });
    let (mut first, mut second) = (fixture.connect().await, fixture.connect().await);
    assert_eq!((first.get("/").await.status, second.get("/").await.status), (200, 200));
    let text = fixture.connect().await.rest().await;
    assert!(text.starts_with("HTTP/1.1 503 ") && text.contains("retry-after: 1"), "{text}");
    assert_eq!(fixture.metrics.refused.value(), 1);
    drop(first);
    until("a slot is free", || fixture.metrics.open.value() == 1).await;
    assert_eq!(fixture.connect().await.get("/").await.status, 200);
}

/// Fails as a kernel without descriptors does, then takes connections.
struct Failing {
    failures_left: usize,
    calls: Arc<Mutex<usize>>,
    listener: TcpListener,
}

impl Acceptor for Failing {
    async fn accept(&mut self) -> io::Result<(TcpStream, SocketAddr)> {
        *self.calls.lock().unwrap() += 1;
        if self.failures_left > 0 {
            self.failures_left -= 1;
            return Err(io::Error::from_raw_os_error(24));
        }
        self.listener.accept().await
    }
}

async fn failing(failures_left: usize, limits: ConnectionLimits) -> (TaskGroup, SocketAddr, Arc<Mutex<usize>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, calls, tasks) = (listener.local_addr().unwrap(), Arc::default(), TaskGroup::new("test"));
    let config = ListenerConfig::new("test", address, limits, ConnectionMetrics::default());
    let shared = Arc::new(crate::connection::Shared::new(Arc::new(Demo::default()), config, tasks.clone(), Arc::default()));
    let failing = Failing { failures_left, calls: Arc::clone(&calls), listener };
    tasks.spawn("accept loop", plinth_runtime::OnEnd::CancelGroup, accept::run(failing, shared));
    (tasks, address, calls)
}

#[tokio::test(start_paused = true)]
async fn without_descriptors_the_loop_waits_instead_of_spinning() {
    let (tasks, _, calls) = failing(usize::MAX, limits()).await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    let calls = *calls.lock().unwrap();
    assert!((50..80).contains(&calls), "{calls} calls in a minute");
    assert!(tasks.close(Duration::from_secs(1)).await.is_empty(), "the loop ends when it is asked to");
}

#[tokio::test]
async fn the_loop_recovers_when_descriptors_are_back() {
    let (_tasks, address, _) = failing(3, limits()).await;
    assert_eq!(Raw(TcpStream::connect(address).await.unwrap()).get("/").await.status, 200);
}
