//! Upstreams that say what they must not, or nothing.

use super::*;
use crate::RequestBody;

/// What an upstream says before it closes, and what becomes of it. A head that is right may be followed by a body that is not.
const ANSWERS: [(&str, &str, Kind); 34] = [
    ("nothing", "", Kind::Reset),
    ("half a line", "HTTP/1.1 200", Kind::Reset),
    ("half a head", "HTTP/1.1 200 OK\r\ncontent-length: 3\r\n", Kind::Reset),
    ("half a body", "HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nab", Kind::Reset),
    ("a head without its body", "HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\n", Kind::Reset),
    ("chunks without an end", "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n", Kind::Reset),
    ("half a chunk", "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nab", Kind::Reset),
    ("no last line", "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n", Kind::Reset),
    ("garbage", "\x01\x02\x03\x04\r\n\r\n", PROTOCOL),
    ("a request", "GET / HTTP/1.1\r\n\r\n", PROTOCOL),
    ("HTTP/2", "HTTP/2 200\r\n\r\n", PROTOCOL),
    ("HTTP/0.9", "<html>hello</html>\r\n\r\n", PROTOCOL),
    ("SSH", "SSH-2.0-OpenSSH_9.6\r\n", PROTOCOL),
    ("no status", "HTTP/1.1 OK\r\n\r\n", PROTOCOL),
    ("status 42", "HTTP/1.1 42 x\r\n\r\n", PROTOCOL),
    ("status 000", "HTTP/1.1 000 x\r\n\r\n", PROTOCOL),
    ("both framings", "HTTP/1.1 200 OK\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n", PROTOCOL),
    ("two lengths", "HTTP/1.1 200 OK\r\ncontent-length: 3\r\ncontent-length: 4\r\n\r\nabcd", PROTOCOL),
    ("a list of lengths", "HTTP/1.1 200 OK\r\ncontent-length: 3, 4\r\n\r\nabcd", PROTOCOL),
    ("a negative length", "HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n", PROTOCOL),
    ("a length of letters", "HTTP/1.1 200 OK\r\ncontent-length: abc\r\n\r\n", PROTOCOL),
    ("a huge length", "HTTP/1.1 200 OK\r\ncontent-length: 99999999999999999999999\r\n\r\n", PROTOCOL),
    ("an unknown coding", "HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n", PROTOCOL),
    ("chunks of 1.0", "HTTP/1.0 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n", PROTOCOL),
    ("a chunk of letters", "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nxyz\r\n", PROTOCOL),
    ("a chunk that is too long", "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\nabc\r\n0\r\n\r\n", PROTOCOL),
    ("a huge chunk", "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nfffffffffffffffff\r\n", PROTOCOL),
    ("a folded line", "HTTP/1.1 200 OK\r\nx: a\r\n b\r\ncontent-length: 0\r\n\r\n", PROTOCOL),
    ("a zero in a value", "HTTP/1.1 200 OK\r\nx: a\0b\r\n\r\n", PROTOCOL),
    ("a return in a value", "HTTP/1.1 200 OK\r\nx: a\rset-cookie: b\r\n\r\n", PROTOCOL),
    ("a space in a name", "HTTP/1.1 200 OK\r\ncontent-length : 3\r\n\r\nabc", PROTOCOL),
    ("no name", "HTTP/1.1 200 OK\r\n: x\r\n\r\n", PROTOCOL),
    ("a switch that nobody asked for", "HTTP/1.1 101 x\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n", PROTOCOL),
    ("only informational", "HTTP/1.1 100 Continue\r\n\r\n", Kind::Reset),
];

/// Stands for every breach.
const PROTOCOL: Kind = Kind::Protocol("");

fn same(found: Kind, expected: Kind) -> bool {
    found == expected || matches!((found, expected), (Kind::Protocol(_), Kind::Protocol(_)))
}

#[tokio::test]
async fn a_malformed_answer_is_an_error_and_its_connection_is_not_used_again() {
    let world = world();
    for (what, bytes, kind) in ANSWERS {
        let upstream = world.saying(bytes).await;
        let endpoint = world.endpoint("http", &upstream);
        let error = exchange(&endpoint, post("/", Bytes::from_static(b"x"))).await.expect_err(what);
        assert!(same(error.kind, kind), "{what}: {error:?}");
        let reached = if bytes.is_empty() { Reached::MaybeSent } else { Reached::FirstByte };
        assert_eq!((error.reached, endpoint.idle(), endpoint.in_flight()), (reached, 0, 0), "{what}");
        assert_eq!(upstream.connections(), 1, "{what}: sent once");
    }
    until("all are closed", || world.outbound.metrics().open.value() == 0).await;
}

#[tokio::test]
async fn what_never_ends_is_bounded() {
    let world = world();
    let head = "HTTP/1.1 200 OK\r\n";
    let floods: [(&str, String, &'static str, Kind); 7] = [
        ("one endless line", head.to_owned() + "x: ", "yyyyyyyyyyyyyyyy", Kind::TooLarge),
        ("endless headers", head.to_owned(), "x: y\r\n", Kind::TooLarge),
        ("an endless name", head.to_owned(), "xxxxxxxxxxxxxxxx", Kind::TooLarge),
        ("empty lines", String::new(), "\r\n\r\n\r\n\r\n", Kind::TooLarge),
        ("informational answers", String::new(), "HTTP/1.1 100 Continue\r\n\r\n", PROTOCOL),
        ("an endless extension", head.to_owned() + "transfer-encoding: chunked\r\n\r\n1;", "xxxxxxxxxxxxxxxx", PROTOCOL),
        ("endless trailers", head.to_owned() + "transfer-encoding: chunked\r\n\r\n0\r\n", "x: y\r\nz: v\r\n", PROTOCOL),
    ];
    for (what, first, again, kind) in floods {
        let upstream = world
            .scripted(move |mut stream, _| {
                let first = first.clone();
                async move {
                    read_head(&mut stream).await;
                    let _ = stream.write_all(first.as_bytes()).await;
                    let again = again.repeat(64);
                    while stream.write_all(again.as_bytes()).await.is_ok() {}
                }
            })
            .await;
        let endpoint = world.endpoint("http", &upstream);
        let error = exchange(&endpoint, get("/")).await.expect_err(what);
        assert!(same(error.kind, kind), "{what}: {error:?}");
    }
}

async fn silent(world: &World, first: &'static str) -> Upstream {
    world
        .scripted(move |mut stream, _| async move {
            read_head(&mut stream).await;
            stream.write_all(first.as_bytes()).await.unwrap();
            let _ = stream.read(&mut [0]).await;
        })
        .await
}

#[tokio::test]
async fn silence_ends_at_the_deadline_of_its_stage() {
    let world = world();
    let short = Duration::from_millis(40);
    let deadlines = Deadlines { first_byte: short, idle: short, total: None };
    for (first, stage) in [
        ("", Stage::FirstByte),
        ("HTTP/1.1 200 OK\r\ncontent-le", Stage::FirstByte),
        ("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nab", Stage::Idle),
    ] {
        let upstream = silent(&world, first).await;
        let endpoint = world.endpoint("http", &upstream);
        for (deadlines, stage) in
            [(deadlines, stage), (Deadlines { total: Some(tokio::time::Instant::now() + short), ..Deadlines::default() }, Stage::Total)]
        {
            let kind = within("the deadline", async {
                match endpoint.send(get("/"), &deadlines).await {
                    Err(error) => error.kind,
                    Ok(answer) => OutboundError::of(&answer.into_body().into_bytes().await.unwrap_err()).unwrap().kind,
                }
            })
            .await;
            assert_eq!((kind, endpoint.in_flight(), endpoint.idle()), (Kind::Timeout(stage), 0, 0), "{first:?}");
        }
    }
}

#[tokio::test]
async fn a_client_that_stops_sending_is_not_the_upstream_s_fault() {
    let world = world();
    let upstream = silent(&world, "").await;
    let endpoint = world.endpoint("http", &upstream);
    let deadlines = Deadlines { first_byte: Duration::from_millis(40), ..Deadlines::default() };
    let error = endpoint.send(post("/", RequestBody::stuck()), &deadlines).await.unwrap_err();
    assert_eq!((error.kind, error.reached), (Kind::Request("its body stopped"), Reached::MaybeSent));
}

#[tokio::test]
async fn nobody_there_and_forbidden_places() {
    let world = world();
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let endpoint = world.outbound.endpoint(format!("http://{free}").parse().unwrap());
    let error = exchange(&endpoint, get("/")).await.unwrap_err();
    assert_eq!((error.kind, error.reached), (Kind::Connect, Reached::NotSent));
    for address in ["http://169.254.169.254/latest/", "http://10.1.2.3", "http://[::ffff:a9fe:a9fe]", "http://[::1]:1", "http://0x0a.1"] {
        let endpoint = world.outbound.endpoint(address.parse().unwrap());
        let error = exchange(&endpoint, get("/")).await.unwrap_err();
        assert!(matches!((error.kind, error.reached), (Kind::Refused(_), Reached::NotSent)), "{address}: {error:?}");
    }
    let metrics = world.outbound.metrics();
    assert_eq!((metrics.connect_failures.value(), metrics.connects.value()), (6, 0));
}

/// Gives other addresses each time, as a name that is bound anew does.
struct Rebinding(AtomicUsize, Vec<Vec<&'static str>>);

impl Lookup for Rebinding {
    fn lookup(&self, _host: &str) -> futures_util::future::BoxFuture<'static, std::io::Result<Vec<std::net::IpAddr>>> {
        let turn = self.0.fetch_add(1, Ordering::SeqCst);
        let addresses = self.1[turn.min(self.1.len() - 1)].iter().map(|address| address.parse().unwrap()).collect();
        Box::pin(async move { Ok(addresses) })
    }
}

#[tokio::test]
async fn the_address_that_was_checked_is_dialled_and_every_one_is_checked() {
    let tasks = TaskGroup::new("test");
    let world = world();
    let upstream = world.saying("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nin").await;
    // The first answer may be dialled, the second may not and would be asked for by who resolves twice.
    for (answers, reached) in [
        (vec![vec!["127.0.0.1"], vec!["127.0.0.2", "169.254.169.254"]], Ok(())),
        (vec![vec!["127.0.0.1", "10.0.0.1"]], Err("private")),
        (vec![vec!["169.254.169.254"], vec!["127.0.0.1"]], Err("a metadata service, which has to be listed by itself")),
    ] {
        let resolver = Resolver::new(ResolverOptions::default(), Rebinding(AtomicUsize::new(0), answers));
        let outbound = Outbound::new(OutboundOptions::default(), loopback(), resolver, OutboundMetrics::default(), &tasks).unwrap();
        let endpoint = outbound.endpoint(format!("http://rebound.example:{}", upstream.address.port()).parse().unwrap());
        let answer = exchange(&endpoint, get("/")).await.map(|_| ());
        let refused = answer.map_err(|error| match error.kind {
            Kind::Refused(refused) => refused.range,
            other => panic!("{other:?}"),
        });
        assert_eq!(refused, reached);
    }
    tasks.cancel();
}
