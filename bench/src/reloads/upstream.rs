//! A service behind the nodes that says who it is, at once or in pieces.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Result;
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::StreamBody;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::{Frame, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

/// The pieces of a long answer, and the time between them.
pub const PIECES: usize = 6;
pub const PIECE: usize = 1000;
const BETWEEN: Duration = Duration::from_millis(50);

/// Serves until the process ends; where.
pub async fn start(name: &'static str) -> Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let service = service_fn(move |request| async move { Ok::<_, Infallible>(answer(name, &request)) });
            tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
        }
    });
    Ok(address)
}

fn answer(name: &'static str, request: &Request<Incoming>) -> Response<BoxBody<Bytes, Infallible>> {
    let body = if request.uri().path().ends_with("/stream") {
        let pieces = futures_util::stream::unfold(0, |sent| async move {
            if sent == PIECES {
                return None;
            }
            tokio::time::sleep(BETWEEN).await;
            Some((Ok(Frame::data(Bytes::from(vec![b'x'; PIECE]))), sent + 1))
        });
        BodyExt::boxed(StreamBody::new(Box::pin(pieces)))
    } else {
        Full::new(Bytes::from(format!("upstream {name}"))).boxed()
    };
    let mut answer = Response::new(body);
    answer.headers_mut().insert("x-upstream", http::HeaderValue::from_static(name));
    answer
}
