//! Question: what does a request to an upstream cost, by the client of this crate and by hyper's? Units: requests per second and
//! microseconds of the processor for each request, of one thread; 16 at a time on as many kept connections, 128 bytes each way.
//! The second is the better figure: the upstream may be the slower of the two.
//!
//! Command: `cargo run --release -p plinth-net --example outbound_echo [seconds for each]`. The upstream runs on a thread of its own
//! and does as little as it can, so on two cores the client is what is measured; both clients do the same and take turns.
#![allow(clippy::print_stdout, clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a measurement, not a part of the node")]

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::SendRequest;
use hyper_util::rt::TokioIo;
use plinth_net::outbound::{Deadlines, Guard, OutBody, Outbound, OutboundMetrics, OutboundOptions, Resolver};
use plinth_runtime::{Clock, OnEnd, SystemClock, TaskGroup};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const CONCURRENCY: usize = 16;
const BODY: [u8; 128] = [b'x'; 128];
const ROUNDS: usize = 3;

/// Answers each request with 128 bytes, with as little work as can be: one thread for all connections, and no parser.
fn upstream() -> SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (listener, tasks) = (tokio::net::TcpListener::from_std(listener).unwrap(), TaskGroup::new("upstream"));
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                tasks.spawn("connection", OnEnd::Ignore, answer(stream));
            }
        });
    });
    address
}

async fn answer(mut stream: TcpStream) {
    stream.set_nodelay(true).unwrap();
    let head =
        "HTTP/1.1 200 OK\r\ncontent-type: application/octet-stream\r\ndate: Thu, 01 Jan 1970 00:00:00 GMT\r\ncontent-length: 128\r\n\r\n";
    let answer = [head.as_bytes(), &BODY].concat();
    let (mut buffer, mut have) = ([0; 4096], 0);
    while let Ok(count @ 1..) = stream.read(&mut buffer[have..]).await {
        have += count;
        // Each request here ends in its body.
        if buffer[..have].ends_with(&BODY) {
            have = 0;
            stream.write_all(&answer).await.unwrap();
        }
    }
}

fn request<B>(body: B, address: &str) -> Request<B> {
    let builder = Request::post("/v2/models/echo/infer").header("host", address).header("content-type", "application/octet-stream");
    builder.header("accept", "*/*").header("user-agent", "bench/1").header("x-request-id", "01J8Z3F5Y6").body(body).unwrap()
}

async fn own(address: SocketAddr, time: Duration, tasks: &TaskGroup) -> u64 {
    let guard = Guard::new(["127.0.0.0/8".parse().unwrap()]);
    let outbound = Outbound::new(OutboundOptions::default(), guard, Resolver::default(), OutboundMetrics::default(), tasks).unwrap();
    let endpoint = outbound.endpoint(format!("http://{address}").parse().unwrap());
    let name = address.to_string();
    let (done, clock, deadlines) = (Cell::new(0), SystemClock, Deadlines::default());
    let end = clock.monotonic() + time;
    let senders = (0..CONCURRENCY).map(|_| async {
        while clock.monotonic() < end {
            let answer = endpoint.send(request(OutBody::full(Bytes::from_static(&BODY)), &name), &deadlines).await.unwrap();
            assert_eq!(answer.into_body().pieces().unwrap().len(), 1);
            done.set(done.get() + 1);
        }
    });
    futures_util::future::join_all(senders).await;
    done.get()
}

async fn hyper(address: SocketAddr, time: Duration, tasks: &TaskGroup) -> u64 {
    let name = address.to_string();
    let pool: RefCell<Vec<SendRequest<Full<Bytes>>>> = RefCell::default();
    for _ in 0..CONCURRENCY {
        let stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
        tasks.spawn("connection", OnEnd::Ignore, async { drop(connection.await) });
        pool.borrow_mut().push(sender);
    }
    let (done, clock) = (Cell::new(0), SystemClock);
    let end = clock.monotonic() + time;
    let senders = (0..CONCURRENCY).map(|_| async {
        while clock.monotonic() < end {
            let mut sender = pool.borrow_mut().pop().unwrap();
            sender.ready().await.unwrap();
            // A deadline as the other client has it.
            let sent =
                tokio::time::timeout(Duration::from_secs(60), sender.send_request(request(Full::new(Bytes::from_static(&BODY)), &name)));
            let answer = sent.await.unwrap().unwrap();
            assert_eq!(answer.into_body().collect().await.unwrap().to_bytes().len(), BODY.len());
            pool.borrow_mut().push(sender);
            done.set(done.get() + 1);
        }
    });
    futures_util::future::join_all(senders).await;
    done.get()
}

/// The time that this thread has had of the processor (Linux).
fn busy() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    Duration::from_nanos(text.split(' ').next().and_then(|nanos| nanos.parse().ok()).unwrap_or_default())
}

/// Requests per second, and microseconds for each.
async fn measured(client: impl Future<Output = u64>) -> (f64, f64) {
    let (start, before) = (SystemClock.monotonic(), busy());
    let count = client.await as f64;
    let (passed, busy) = (SystemClock.monotonic() - start, busy() - before);
    (count / passed.as_secs_f64(), busy.as_secs_f64() * 1e6 / count)
}

fn main() {
    let seconds = std::env::args().nth(1).and_then(|text| text.parse().ok()).unwrap_or(2.0);
    let (time, address) = (Duration::from_secs_f64(seconds), upstream());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let tasks = TaskGroup::new("bench");
        for round in 1..=ROUNDS {
            let own = measured(own(address, time, &tasks)).await;
            let hyper = measured(hyper(address, time, &tasks)).await;
            println!(
                "round {round}: plinth {:.0}/s at {:.2} us, hyper {:.0}/s at {:.2} us: {:.2} of its time",
                own.0,
                own.1,
                hyper.0,
                hyper.1,
                own.1 / hyper.1
            );
        }
        tasks.cancel();
    });
}
