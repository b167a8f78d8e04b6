//! One TLS connection to a node, with HTTP/1.1 or HTTP/2 on it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::ClientConfig;
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// How long connecting and an answer may take.
const PATIENCE: Duration = Duration::from_secs(30);

pub type Body = Full<Bytes>;

/// A connection that is open, as far as is known.
pub enum Wire {
    One(http1::SendRequest<Body>),
    Two(http2::SendRequest<Body>),
}

/// Why there is no answer.
pub enum Trouble {
    /// Nothing of the request was sent, or the node says that it did nothing with it: another connection may take it.
    Unsent,
    /// The request is lost.
    Failed(anyhow::Error),
}

/// Connects; also the certificate that the node has shown.
pub async fn connect(address: SocketAddr, tls: &Arc<ClientConfig>) -> Result<(Wire, CertificateDer<'static>)> {
    tokio::time::timeout(PATIENCE, open(address, tls)).await.context("connecting took too long")?
}

async fn open(address: SocketAddr, tls: &Arc<ClientConfig>) -> Result<(Wire, CertificateDer<'static>)> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let stream = TlsConnector::from(tls.clone()).connect(ServerName::try_from("localhost")?, stream).await?;
    let shown = stream.get_ref().1.peer_certificates().and_then(<[_]>::first).context("no certificate")?.clone().into_owned();
    let two = stream.get_ref().1.alpn_protocol() == Some(b"h2");
    let io = TokioIo::new(stream);
    // How a connection ends is seen by who uses it.
    let wire = if two {
        let (wire, connection) = http2::handshake(TokioExecutor::new(), io).await?;
        tokio::spawn(connection);
        Wire::Two(wire)
    } else {
        let (wire, connection) = http1::handshake(io).await?;
        tokio::spawn(connection);
        Wire::One(wire)
    };
    Ok((wire, shown))
}

impl Wire {
    /// Whether it speaks HTTP/2.
    pub const fn is_two(&self) -> bool {
        matches!(self, Self::Two(_))
    }

    /// Sends and reads the answer to its end.
    pub async fn exchange(&mut self, request: Request<Body>) -> Result<Response<Bytes>, Trouble> {
        tokio::time::timeout(PATIENCE, self.send(request)).await.unwrap_or_else(|_| Err(Trouble::Failed(anyhow!("no answer in time"))))
    }

    async fn send(&mut self, request: Request<Body>) -> Result<Response<Bytes>, Trouble> {
        let (ready, two) = match self {
            Self::One(wire) => (wire.ready().await, false),
            Self::Two(wire) => (wire.ready().await, true),
        };
        if ready.is_err() {
            return Err(Trouble::Unsent);
        }
        let sent = match self {
            Self::One(wire) => wire.try_send_request(request).await,
            Self::Two(wire) => wire.try_send_request(request).await,
        };
        let (head, body) = match sent {
            Ok(answer) => answer.into_parts(),
            Err(mut error) => {
                let sent = error.take_message().is_none();
                let error = error.into_error();
                return Err(if !sent || (two && untouched(&error)) {
                    Trouble::Unsent
                } else {
                    Trouble::Failed(anyhow::Error::new(error).context("no answer"))
                });
            }
        };
        match body.collect().await {
            Ok(body) => Ok(Response::from_parts(head, body.to_bytes())),
            Err(error) => Err(Trouble::Failed(anyhow::Error::new(error).context(format!("the answer {} broke off", head.status)))),
        }
    }
}

/// Whether the node says that it has done nothing with a request (RFC 9113, 6.8 and 8.7): its stream was above the last one of a GOAWAY, or
/// was refused.
fn untouched(error: &hyper::Error) -> bool {
    let source = std::error::Error::source(error).and_then(|source| source.downcast_ref::<h2::Error>());
    source.is_some_and(|error| {
        error.reason() == Some(h2::Reason::REFUSED_STREAM)
            || (error.is_go_away() && error.is_remote() && error.reason() == Some(h2::Reason::NO_ERROR))
    })
}
