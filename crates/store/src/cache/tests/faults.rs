//! A server that is killed, stopped, slow, silent, rude: answers come from memory, and little time is lost.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use plinth_runtime::{Clock, OnEnd, SystemClock};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::*;

const TIMEOUT: Duration = Duration::from_millis(5);

/// How long so many look-ups in vain take together.
async fn misses(node: &Node, count: usize) -> Duration {
    let start = SystemClock.monotonic();
    for n in 0..count {
        assert_eq!(node.both.get(&key(&format!("miss {n}"))).await, None);
    }
    SystemClock.monotonic() - start
}

async fn warm(node: &Node) {
    for n in 0..50 {
        node.both.put(&key(&n.to_string()), Bytes::from(vec![n]), LONG).await;
    }
}

fn memory_serves(node: &Node) {
    for n in 0..50 {
        assert_eq!(node.both.peek(&key(&n.to_string())), Some(Bytes::from(vec![n])));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_server_costs_nothing_and_is_found_again() {
    let Some(server) = Server::start().await else { return };
    let (port, node) = (server.port, Node::open(server.port, "t:", Duration::from_secs(2)).up().await);
    warm(&node).await;
    eventually("written", async || node.redis.get(&key("49")).await.is_some()).await;
    server.kill();
    // A closed connection is seen without a request.
    node.is(false).await;
    memory_serves(&node);
    let took = misses(&node, 1000).await;
    assert!(took < Duration::from_millis(500), "1000 misses took {took:?} without a server");
    let dropped = node.metrics.redis_failures(RedisFailure::Dropped);
    warm(&node).await;
    assert_eq!(node.metrics.redis_failures(RedisFailure::Dropped), dropped, "nothing is queued for a server that is lost");

    let server = Server::start_on(port).await.unwrap();
    node.is(true).await;
    assert_eq!(node.redis.get(&key("1")).await, None, "it has forgotten");
    node.redis.put(&key("1"), Bytes::from_static(b"new"), LONG).await;
    assert_eq!(node.redis.get(&key("1")).await, Some(Bytes::from_static(b"new")));
    drop(server);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_was_never_there_costs_nothing() {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let node = Node::open(port, "t:", TIMEOUT);
    warm(&node).await;
    memory_serves(&node);
    let took = misses(&node, 1000).await;
    assert!(took < Duration::from_millis(500), "1000 misses took {took:?} without a server");
    eventually("it is tried again and again", async || node.metrics.redis_failures(RedisFailure::Connection) >= 3).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stopped_server_costs_three_timeouts() {
    let Some(server) = Server::start().await else { return };
    let node = Node::open(server.port, "t:", Duration::from_millis(50)).up().await;
    warm(&node).await;
    eventually("written", async || node.redis.get(&key("49")).await.is_some()).await;
    server.pause(true);
    memory_serves(&node);
    // The machine's own pauses may have counted already, so at most three.
    let timeouts = node.metrics.redis_failures(RedisFailure::Timeout);
    let took = misses(&node, 1000).await;
    assert!(!node.redis.is_up());
    assert!((1..=3).contains(&(node.metrics.redis_failures(RedisFailure::Timeout) - timeouts)));
    assert!(took < Duration::from_millis(3 * 50 + 500), "1000 misses took {took:?}");
    memory_serves(&node);
    server.pause(false);
    node.is(true).await;
    assert_eq!(node.redis.get(&key("7")).await, Some(Bytes::from(vec![7])), "it has forgotten nothing");
}

/// What a rude server says to whatever it is asked, after it has said PONG.
#[derive(Clone)]
enum Says {
    Once(Vec<u8>),
    /// This, and then bytes without end.
    EndlesslyAfter(Vec<u8>),
    Nothing,
    /// Closes the connection.
    Goodbye,
    /// A byte at a time, with pauses.
    Slowly(Vec<u8>),
}

struct Rude {
    port: u16,
    tasks: TaskGroup,
    sent: Arc<AtomicUsize>,
    connections: Arc<AtomicU64>,
}

impl Rude {
    async fn start(says: Says) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (port, tasks) = (listener.local_addr().unwrap().port(), TaskGroup::new("rude server"));
        let (sent, connections) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicU64::new(0)));
        let (group, total, count) = (tasks.clone(), sent.clone(), connections.clone());
        tasks.spawn("accept", OnEnd::Ignore, async move {
            let end = group.cancelled().clone();
            while let Some(Ok((stream, _))) = end.run_until_cancelled(listener.accept()).await {
                count.fetch_add(1, Ordering::Relaxed);
                let (says, total, end) = (says.clone(), total.clone(), end.clone());
                group.spawn("connection", OnEnd::Ignore, async move {
                    end.run_until_cancelled(serve(stream, says, &total)).await;
                });
            }
        });
        Self { port, tasks, sent, connections }
    }
}

impl Drop for Rude {
    fn drop(&mut self) {
        self.tasks.cancel();
    }
}

async fn serve(mut stream: TcpStream, says: Says, total: &AtomicUsize) {
    let mut buffer = vec![0; 64 << 10];
    while let Ok(read @ 1..) = stream.read(&mut buffer).await {
        if buffer[..read].windows(4).any(|part| part == b"PING") {
            let _ = stream.write_all(b"+PONG\r\n").await;
            continue;
        }
        match &says {
            Says::Once(bytes) => drop(stream.write_all(bytes).await),
            Says::EndlesslyAfter(bytes) => {
                let _ = stream.write_all(bytes).await;
                let filler = vec![b'x'; 64 << 10];
                while let Ok(written) = stream.write(&filler).await {
                    total.fetch_add(written, Ordering::Relaxed);
                }
                return;
            }
            Says::Nothing => {}
            Says::Goodbye => return,
            Says::Slowly(bytes) => {
                for byte in bytes {
                    let _ = stream.write_all(&[*byte]).await;
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            }
        }
    }
}

fn bulk(bytes: &[u8]) -> Vec<u8> {
    [format!("${}\r\n", bytes.len()).as_bytes(), bytes, b"\r\n"].concat()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rude_server_gives_misses_and_nothing_else() {
    let foreign = frame::seal(&key("foreign"), b"another's answer", SystemClock.now().plus(LONG));
    let mut damaged = frame::seal(&key("asked"), b"an answer", SystemClock.now().plus(LONG));
    *damaged.last_mut().unwrap() ^= 1;
    let good = frame::seal(&key("asked"), b"an answer", SystemClock.now().plus(LONG));
    let cases = [
        ("foreign", Says::Once(bulk(&foreign))),
        ("damaged", Says::Once(bulk(&damaged))),
        ("short", Says::Once(bulk(b"x"))),
        ("a number", Says::Once(b":12\r\n".to_vec())),
        ("an array", Says::Once(b"*2\r\n:1\r\n:2\r\n".to_vec())),
        ("an array without end", Says::EndlesslyAfter(b"*9223372036854775807\r\n".to_vec())),
        ("a map without end", Says::EndlesslyAfter(b"%9223372036854775807\r\n".to_vec())),
        ("arrays in arrays", Says::Once(b"*1\r\n".repeat(10_000))),
        ("an error", Says::Once(b"-ERR no\r\n".to_vec())),
        ("garbage", Says::Once(b"\0\xff\x13\x37 HTTP/1.1 400 Bad Request\r\n\r\n".to_vec())),
        ("a negative length", Says::Once(b"$-5\r\n".to_vec())),
        ("a length that is none", Says::Once(b"$twelve\r\n".to_vec())),
        ("a huge length", Says::EndlesslyAfter(b"$9223372036854775807\r\n".to_vec())),
        ("a large value without end", Says::EndlesslyAfter(b"$536870912\r\n".to_vec())),
        ("a line without end", Says::EndlesslyAfter(b"+".to_vec())),
        ("two answers", Says::Once([bulk(&damaged), bulk(&damaged)].concat())),
        ("nothing", Says::Nothing),
        ("goodbye", Says::Goodbye),
        ("a good answer, too slowly", Says::Slowly(bulk(&good))),
    ];
    for (name, says) in cases {
        let rude = Rude::start(says).await;
        let node = Node::open(rude.port, "t:", Duration::from_millis(100)).up().await;
        warm(&node).await;
        let start = SystemClock.monotonic();
        for n in 0..5 {
            assert_eq!(node.both.get(&key("asked")).await, None, "{name}, {n}");
        }
        // Three time-outs at the most, and the machine's own pauses.
        let took = SystemClock.monotonic() - start;
        assert!(took < Duration::from_millis(3 * 100 + 700), "{name}: five misses took {took:?}");
        memory_serves(&node);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_sends_without_end_is_cut_off() {
    let rude = Rude::start(Says::EndlesslyAfter(b"$536870912\r\n".to_vec())).await;
    let node = Node::open(rude.port, "t:", Duration::from_secs(20)).up().await;
    // The call ends because the connection does, long before its time.
    assert_eq!(node.redis.get(&key("asked")).await, None);
    assert_eq!(node.metrics.redis_failures(RedisFailure::Connection), 1);
    node.tasks.cancel();
    // What it could send: the limit, and what sockets hold.
    let sent = rude.sent.load(Ordering::Relaxed);
    assert!(sent < 64 << 20, "{sent} bytes were taken");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_fails_again_and_again_is_asked_less_and_less() {
    let rude = Rude::start(Says::Goodbye).await;
    let node = Node::open(rude.port, "t:", Duration::from_secs(1)).up().await;
    let start = SystemClock.monotonic();
    eventually("four connections", async || {
        node.both.get(&key("asked")).await;
        rude.connections.load(Ordering::Relaxed) >= 4
    })
    .await;
    // Waits of at least 50, 100 and 200 ms stand between them.
    assert!(SystemClock.monotonic() - start >= Duration::from_millis(350));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writes_that_a_slow_server_does_not_take_are_given_up() {
    let rude = Rude::start(Says::Nothing).await;
    let node = Node::open(rude.port, "t:", Duration::from_secs(20)).up().await;
    let value = Bytes::from(vec![0; 200_000]);
    for n in 0..200 {
        node.both.put(&key(&format!("large {n}")), value.clone(), LONG).await;
    }
    // 16 MiB wait; the rest is given up at once.
    assert!(node.metrics.redis_failures(RedisFailure::Dropped) >= 200 - (16 << 20) / 200_000 - 8);
}
