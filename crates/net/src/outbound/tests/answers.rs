//! Well-formed requests and answers, over HTTP/1.

use futures_util::StreamExt;
use http_body::{Body as _, Frame};
use http_body_util::BodyExt;

use super::*;
use crate::RequestBody;

#[tokio::test]
async fn bodies_pass_in_both_directions() {
    let world = world();
    let upstream = world.serving(false, echo).await;
    let endpoint = world.endpoint("http", &upstream);
    for size in [0, 1, 2047, 2049, 8 << 10, 100_000, 3 << 20] {
        let body = Bytes::from((0..size).map(|n| (n % 251) as u8).collect::<Vec<_>>());
        assert_eq!(exchange(&endpoint, post("/", body.clone())).await.unwrap(), (200, body.clone()), "{size}");
        let pieces: Vec<_> = body.chunks(10_000).map(Bytes::copy_from_slice).collect();
        assert_eq!(exchange(&endpoint, post("/", RequestBody::pieces(pieces))).await.unwrap(), (200, body), "{size} in pieces");
    }
    assert_eq!((upstream.connections(), endpoint.idle(), endpoint.in_flight()), (1, 1, 0));
}

#[tokio::test]
async fn a_small_request_leaves_in_one_piece_also_through_a_proxy() {
    let world = world();
    let upstream = world
        .scripted(|mut stream, _| async move {
            let mut piece = [0; 4096];
            let count = stream.read(&mut piece).await.unwrap();
            let whole = piece[..count].ends_with(b"abc");
            let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n{whole:<5}");
            stream.write_all(answer.as_bytes()).await.unwrap();
            std::future::pending().await
        })
        .await;
    let endpoint = world.endpoint("http", &upstream);
    assert_eq!(exchange(&endpoint, post("/", Bytes::from_static(b"abc"))).await.unwrap().1, "true ");
    let (other, activity) = (world.endpoint("http", &upstream), crate::half_open::HalfOpen::new(1).enter());
    let activity = crate::activity::Activity::new(activity);
    let proxy = world
        .serving(false, move |request| {
            let (endpoint, activity) = (other.clone(), activity.clone());
            let request = request.map(|body| OutBody::streaming(RequestBody::incoming(body, &activity)));
            async move { endpoint.send(request, &Deadlines::default()).await.unwrap() }
        })
        .await;
    let mut client = TcpStream::connect(proxy.address).await.unwrap();
    client.write_all(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 3\r\n\r\n").await.unwrap();
    until("the head is with the proxy", || proxy.requests() == 1).await;
    client.write_all(b"abc").await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"true ") {
        assert_ne!(within("the answer", client.read_buf(&mut answer)).await.unwrap(), 0, "{}", answer.escape_ascii());
        assert!(!answer.ends_with(b"false"));
    }
}

/// A body whose length nobody knows, as of a client that sends chunks.
async fn unknown_length(world: &World, pieces: &[&'static str]) -> RequestBody {
    let (sender, receiver) = tokio::sync::oneshot::channel();
    let sender = std::sync::Mutex::new(Some(sender));
    let pieces: Vec<_> = pieces.iter().map(|piece| format!("{:x}\r\n{piece}\r\n", piece.len())).collect();
    let activity = crate::activity::Activity::new(crate::half_open::HalfOpen::new(1).enter());
    let sender = Arc::new(sender);
    let taker = world
        .serving(false, move |request| {
            let (sender, activity) = (sender.clone(), activity.clone());
            async move {
                let sender = sender.lock().unwrap().take().unwrap();
                let _ = sender.send(RequestBody::incoming(request.into_body(), &activity));
                std::future::pending().await
            }
        })
        .await;
    let mut client = TcpStream::connect(taker.address).await.unwrap();
    client.write_all(b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n").await.unwrap();
    world.tasks.spawn("client", OnEnd::Ignore, async move {
        for piece in pieces {
            tokio::time::sleep(Duration::from_millis(5)).await;
            client.write_all(piece.as_bytes()).await.unwrap();
        }
        client.write_all(b"0\r\n\r\n").await.unwrap();
        std::future::pending().await
    });
    receiver.await.unwrap()
}

#[tokio::test]
async fn a_body_of_unknown_length_goes_in_chunks() {
    let world = world();
    let upstream = world.serving(false, echo).await;
    let endpoint = world.endpoint("http", &upstream);
    let body = unknown_length(&world, &["one,", "two,", "three"]).await;
    assert_eq!(body.size_hint().exact(), None);
    assert_eq!(exchange(&endpoint, post("/", body)).await.unwrap(), (200, "one,two,three".into()));
    assert_eq!(endpoint.idle(), 1);
}

#[tokio::test]
async fn every_framing_is_read() {
    let world = world();
    for (bytes, status, body, kept) in [
        ("HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nabc", 200, "abc", 1),
        ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\na\r\n2\r\nbc\r\n0\r\n\r\n", 200, "abc", 1),
        ("HTTP/1.1 200 OK\r\n\r\nabc", 200, "abc", 0),
        ("HTTP/1.0 200 OK\r\ncontent-length: 3\r\n\r\nabc", 200, "abc", 0),
        ("HTTP/1.1 204 No Content\r\n\r\n", 204, "", 1),
        ("HTTP/1.1 304 Not Modified\r\ncontent-length: 9\r\n\r\n", 304, "", 1),
        ("HTTP/1.1 307 x\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n", 307, "", 1),
        ("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 x\r\nlink: y\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\nx", 200, "x", 1),
        ("HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\nx and more", 200, "x", 0),
        ("HTTP/1.1 200 OK\r\ncontent-length: 1\r\nconnection: close\r\n\r\nx", 200, "x", 0),
        ("HTTP/1.1 200 OK\r\ncontent-length: 1\r\nkeep-alive: timeout=1\r\n\r\nx", 200, "x", 0),
    ] {
        // Whole, and byte by byte.
        for step in [usize::MAX, 1] {
            if step == 1 && bytes.ends_with("more") {
                // Comes when the connection is idle again, and is found there.
                continue;
            }
            let upstream = world
                .scripted(move |mut stream, _| async move {
                    read_head(&mut stream).await;
                    for part in bytes.as_bytes().chunks(step.min(bytes.len())) {
                        stream.write_all(part).await.unwrap();
                        tokio::task::yield_now().await;
                    }
                    if kept == 1 {
                        std::future::pending::<()>().await;
                    }
                })
                .await;
            let endpoint = world.endpoint("http", &upstream);
            assert_eq!(exchange(&endpoint, get("/")).await.unwrap(), (status, body.into()), "{bytes:?}");
            assert_eq!((endpoint.idle(), endpoint.in_flight()), (kept, 0), "{bytes:?}");
        }
    }
}

#[tokio::test]
async fn a_head_has_no_body_whatever_it_says() {
    let world = world();
    let upstream = world.serving(false, |_| async { Response::new(Body::full("hello")) }).await;
    let endpoint = world.endpoint("http", &upstream);
    let answer = endpoint.send(Request::head("/").body(OutBody::empty()).unwrap(), &Deadlines::default()).await.unwrap();
    assert_eq!((answer.headers()["content-length"].to_str().unwrap(), answer.body().is_empty()), ("5", true));
    assert_eq!(exchange(&endpoint, get("/")).await.unwrap().1, "hello");
    assert_eq!(upstream.connections(), 1);
}

#[tokio::test]
async fn a_small_answer_is_whole_at_once() {
    let world = world();
    let upstream = world.serving(false, echo).await;
    let endpoint = world.endpoint("http", &upstream);
    let answer = endpoint.send(post("/", Bytes::from_static(b"abc")), &Deadlines::default()).await.unwrap();
    assert_eq!((answer.body().len(), endpoint.idle()), (Some(3), 1), "the connection is free before the body is read");
}

#[tokio::test]
async fn pieces_pass_as_they_come_and_dropping_the_body_is_noticed() {
    let world = world();
    let (gone, mut heard) = tokio::sync::mpsc::channel(1);
    let upstream = world
        .scripted(move |mut stream, _| {
            let gone = gone.clone();
            async move {
                read_head(&mut stream).await;
                let head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
                stream.write_all(head).await.unwrap();
                let mut count = 0;
                while stream.write_all(format!("8\r\ndata: {count}\n\r\n").as_bytes()).await.is_ok() {
                    count = (count + 1) % 10;
                    let mut byte = [0];
                    if tokio::time::timeout(Duration::from_millis(20), stream.read(&mut byte)).await.is_ok() {
                        break;
                    }
                }
                let _ = gone.send(()).await;
            }
        })
        .await;
    let endpoint = world.endpoint("http", &upstream);
    let mut body = endpoint.send(get("/"), &Deadlines::default()).await.unwrap().into_body();
    for count in 0..3 {
        let piece = within("an event", body.frame()).await.unwrap().unwrap().into_data().ok().unwrap();
        assert_eq!(bytes::Buf::chunk(&piece), format!("data: {count}\n").as_bytes());
    }
    let start = tokio::time::Instant::now();
    drop(body);
    within("the end of the connection", heard.recv()).await.unwrap();
    assert!(start.elapsed() < Duration::from_millis(100));
    assert_eq!((endpoint.idle(), endpoint.in_flight(), world.outbound.metrics().open.value()), (0, 0, 0));
}

#[tokio::test]
async fn dropping_the_request_is_noticed_too() {
    let world = world();
    let (gone, mut heard) = tokio::sync::mpsc::channel(1);
    let upstream = world
        .scripted(move |mut stream, _| {
            let gone = gone.clone();
            async move {
                read_head(&mut stream).await;
                let _ = gone.send(stream.read(&mut [0]).await.unwrap_or(0)).await;
            }
        })
        .await;
    let endpoint = world.endpoint("http", &upstream);
    let short = tokio::time::timeout(Duration::from_millis(30), endpoint.send(get("/"), &Deadlines::default())).await;
    assert!(short.is_err());
    assert_eq!(within("the end of the connection", heard.recv()).await, Some(0));
    assert_eq!(endpoint.in_flight(), 0);
}

#[tokio::test]
async fn an_early_answer_is_taken_while_the_request_goes_on() {
    let world = world();
    // Answers after the head, and again when the body is there.
    let upstream = world
        .serving(false, |request| async move {
            let body = request.into_body().into_data_stream().map(|piece| piece.map_err(std::io::Error::other));
            Response::new(Body::frames(body.map(|piece| piece.map(Frame::data))))
        })
        .await;
    let endpoint = world.endpoint("http", &upstream);
    let body = unknown_length(&world, &["a", "b", "c"]).await;
    assert_eq!(exchange(&endpoint, post("/", body)).await.unwrap(), (200, "abc".into()));
    // Refuses without reading.
    let refuses = world.saying("HTTP/1.1 413 x\r\ncontent-length: 2\r\nconnection: close\r\n\r\nno").await;
    let endpoint = world.endpoint("http", &refuses);
    let answer = exchange(&endpoint, post("/", Bytes::from(vec![0; 64 << 10]))).await;
    assert!(matches!(answer, Ok((413, _)) | Err(OutboundError { kind: Kind::Reset, .. })), "{answer:?}");
    let stuck = exchange(&endpoint, post("/", RequestBody::stuck())).await;
    assert_eq!(stuck.unwrap(), (413, "no".into()));
}

#[tokio::test]
async fn headers_of_the_connection_do_not_pass() {
    let world = world();
    let seen = Arc::new(std::sync::Mutex::new(None));
    let keep = seen.clone();
    let upstream = world
        .serving(false, move |request| {
            *keep.lock().unwrap() = Some((request.uri().clone(), request.headers().clone()));
            async {
                let answer = Response::builder().header("connection", "x-own").header("x-own", "1").header("x-kept", "2");
                answer.body(Body::full("x")).unwrap()
            }
        })
        .await;
    let endpoint = world.outbound.endpoint(format!("http://{}/base/", upstream.address).parse().unwrap());
    let request = Request::get("http://public.example/x?y")
        .header("host", "public.example")
        .header("connection", "x-mine")
        .header("x-mine", "1")
        .header("te", "trailers")
        .header("x-kept", "2");
    let answer = endpoint.send(request.body(OutBody::empty()).unwrap(), &Deadlines::default()).await.unwrap();
    let mut names: Vec<_> = answer.headers().keys().map(|name| name.as_str()).collect();
    names.sort_unstable();
    assert_eq!(names, ["content-length", "date", "x-kept"]);
    let (uri, headers) = seen.lock().unwrap().take().unwrap();
    let names: Vec<_> = headers.keys().map(|name| name.as_str()).collect();
    assert_eq!((uri.to_string().as_str(), names), ("/base/x?y", vec!["host", "x-kept"]));
    assert_eq!(headers["host"].to_str().unwrap(), upstream.address.to_string());
}
