//! HTTP/2 and gRPC.

use futures_util::StreamExt;
use http::HeaderMap;
use http_body::Frame;
use http_body_util::BodyExt;

use super::*;

#[tokio::test]
async fn many_requests_share_a_connection() {
    let world = world();
    let upstream = world.serving(true, echo).await;
    let endpoint = world.endpoint("h2c", &upstream);
    let requests = (0..64).map(|n| {
        let endpoint = endpoint.clone();
        async move {
            let body = Bytes::from(format!("{n} ").repeat(n * 100));
            assert_eq!(exchange(&endpoint, post("/", body.clone())).await.unwrap(), (200, body));
        }
    });
    futures_util::future::join_all(requests).await;
    assert_eq!((upstream.connections(), upstream.requests(), endpoint.in_flight()), (1, 64, 0));
}

#[tokio::test]
async fn another_connection_is_made_when_one_has_its_fill() {
    let world = world_with(OutboundOptions { max_streams: 4, ..OutboundOptions::default() });
    let upstream = world
        .serving(true, |_| async {
            tokio::time::sleep(Duration::from_millis(50)).await;
            Response::new(Body::full("x"))
        })
        .await;
    let endpoint = world.endpoint("h2c", &upstream);
    futures_util::future::join_all((0..12).map(|_| exchange(&endpoint, get("/")))).await;
    assert_eq!(upstream.connections(), 3);
}

#[tokio::test]
async fn trailers_and_the_request_s_head_pass() {
    let world = world();
    let upstream = world
        .serving(true, |request| async move {
            let head = format!("{} {}", request.uri(), request.headers()["te"].to_str().unwrap());
            let (body, trailers) = {
                let collected = request.into_body().collect().await.unwrap();
                let trailers = collected.trailers().cloned().unwrap_or_default();
                (collected.to_bytes(), trailers)
            };
            let mut status = HeaderMap::new();
            status.insert("grpc-status", "0".parse().unwrap());
            status.insert("seen", trailers.get("x").map_or("none", |x| x.to_str().unwrap()).parse().unwrap());
            let frames = [Ok(Frame::data(head.into())), Ok(Frame::data(body)), Ok(Frame::trailers(status))];
            Response::new(Body::frames(futures_util::stream::iter(frames)))
        })
        .await;
    let endpoint = world.outbound.endpoint(format!("grpc://{}/p", upstream.address).parse().unwrap());
    let request = Request::post("/s/M").header("connection", "x-mine").header("x-mine", "1").body(OutBody::full("abc")).unwrap();
    let answer = endpoint.send(request, &Deadlines::default()).await.unwrap();
    let (body, trailers) = answer.into_body().into_parts().await.unwrap();
    assert_eq!(body, format!("http://{}/p/s/M trailersabc", upstream.address));
    let trailers = trailers.unwrap();
    assert_eq!((trailers["grpc-status"].to_str().unwrap(), trailers["seen"].to_str().unwrap()), ("0", "none"));
}

#[tokio::test]
async fn trailers_of_a_request_pass_through() {
    let world = world();
    let upstream = world
        .serving(true, |request| async move {
            let collected = request.into_body().collect().await.unwrap();
            let trailers = collected.trailers().cloned().unwrap();
            Response::new(Body::full(collected.to_bytes()).with_trailers(trailers))
        })
        .await;
    let endpoint = world.endpoint("grpc", &upstream);
    let gateway = world
        .serving(true, move |request| {
            let endpoint = endpoint.clone();
            async move {
                let activity = crate::activity::Activity::new(crate::half_open::HalfOpen::new(1).enter());
                let request = request.map(|body| OutBody::streaming(crate::RequestBody::incoming(body, &activity)));
                endpoint.send(request, &Deadlines::default()).await.unwrap()
            }
        })
        .await;
    let stream = TokioIo::new(TcpStream::connect(gateway.address).await.unwrap());
    let (mut sender, connection) = hyper::client::conn::http2::handshake(Spawner(world.tasks.clone()), stream).await.unwrap();
    world.tasks.spawn("client", OnEnd::Ignore, async { drop(connection.await) });
    let trailers = HeaderMap::from_iter([(http::HeaderName::from_static("x-check"), http::HeaderValue::from_static("7"))]);
    let frames = [Frame::data(Bytes::from_static(b"one,")), Frame::data("two".into()), Frame::trailers(trailers.clone())];
    let body = http_body_util::StreamBody::new(futures_util::stream::iter(frames.map(Ok::<_, Infallible>)));
    let uri = format!("http://{}/s/M", gateway.address);
    let answer = within("an answer", sender.send_request(Request::post(uri).body(body).unwrap())).await.unwrap();
    let collected = within("its body", answer.into_body().collect()).await.unwrap();
    assert_eq!(collected.trailers(), Some(&trailers));
    assert_eq!(collected.to_bytes(), "one,two");
}

/// Says when it is dropped.
struct Dropped(tokio::sync::mpsc::Sender<()>);

impl Drop for Dropped {
    fn drop(&mut self) {
        let _ = self.0.try_send(());
    }
}

#[tokio::test]
async fn dropping_the_answer_or_the_request_resets_the_stream() {
    let world = world();
    let (gone, mut heard) = tokio::sync::mpsc::channel(4);
    let upstream = world
        .serving(true, move |request| {
            let dropped = Dropped(gone.clone());
            async move {
                if request.uri().path() == "/never" {
                    let _dropped = dropped;
                    return std::future::pending().await;
                }
                let ticks = futures_util::stream::unfold(dropped, |dropped| async move {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                    Some((Ok(Bytes::from_static(b"tick")), dropped))
                });
                Response::new(Body::stream(ticks))
            }
        })
        .await;
    let endpoint = world.endpoint("h2c", &upstream);
    let mut body = endpoint.send(get("/"), &Deadlines::default()).await.unwrap().into_body();
    assert!(within("a tick", body.frame()).await.unwrap().is_ok());
    let start = tokio::time::Instant::now();
    drop(body);
    within("the reset", heard.recv()).await.unwrap();
    assert!(start.elapsed() < Duration::from_millis(100));
    let short = Deadlines { first_byte: Duration::from_millis(30), ..Deadlines::default() };
    let error = endpoint.send(get("/never"), &short).await.unwrap_err();
    assert_eq!((error.kind, error.reached), (Kind::Timeout(Stage::FirstByte), Reached::MaybeSent));
    within("the reset", heard.recv()).await.unwrap();
    assert_eq!((upstream.connections(), endpoint.in_flight()), (1, 0), "the connection is not the worse for it");
}

#[tokio::test]
async fn silence_between_pieces_is_ended() {
    let world = world();
    let upstream = world
        .serving(true, |_| async {
            let first = futures_util::stream::iter([Ok(Bytes::from_static(b"x"))]);
            Response::new(Body::stream(first.chain(futures_util::stream::pending())))
        })
        .await;
    let endpoint = world.endpoint("h2c", &upstream);
    let short = Deadlines { idle: Duration::from_millis(30), ..Deadlines::default() };
    let answer = endpoint.send(get("/"), &short).await.unwrap();
    let error = within("the end", answer.into_body().into_bytes()).await.unwrap_err();
    assert_eq!(OutboundError::of(&error).unwrap().kind, Kind::Timeout(Stage::Idle));
    assert_eq!(error.kind(), std::io::ErrorKind::TimedOut);
}

#[tokio::test]
async fn a_connection_that_died_is_replaced() {
    let world = world();
    let upstream = world
        .scripted(|stream, count| async move {
            let service = service_fn(|_| async { Ok::<_, Infallible>(Response::new(Body::full("x"))) });
            let tasks = TaskGroup::new("connection");
            let connection = hyper::server::conn::http2::Builder::new(Spawner(tasks)).serve_connection(TokioIo::new(stream), service);
            // The first one dies after a moment.
            let life = if count == 0 { Duration::from_millis(30) } else { PATIENCE };
            let _ = tokio::time::timeout(life, connection).await;
        })
        .await;
    let endpoint = world.endpoint("h2c", &upstream);
    exchange(&endpoint, post("/", Bytes::from_static(b"x"))).await.unwrap();
    tokio::time::sleep(Duration::from_millis(60)).await;
    exchange(&endpoint, post("/", Bytes::from_static(b"x"))).await.unwrap();
    assert_eq!(upstream.connections(), 2);
}

#[tokio::test]
async fn an_upstream_that_speaks_something_else_is_an_error() {
    let world = world();
    let upstream = world.saying("HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n").await;
    let error = exchange(&world.endpoint("h2c", &upstream), post("/", Bytes::from_static(b"x"))).await.unwrap_err();
    assert!(matches!(error.kind, Kind::Protocol(_) | Kind::Reset), "{error:?}");
}
