//! How documents of token issuers are fetched: through the guarded client, with the networks that an issuer's record opens.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Buf, BufMut, Bytes, BytesMut};
use http::{Method, Request, StatusCode};
use http_body_util::BodyExt;
use ipnet::IpNet;
use plinth_identity::token::{FetchError, FetchJwks, MAX_DOCUMENT};
use plinth_net::outbound::{
    Address, Deadlines, Guard, OutBody, Outbound, OutboundMetrics, OutboundOptions, Resolver, ResolverOptions, SystemLookup, TlsRoots,
};
use plinth_runtime::TaskGroup;
use tokio::time::Instant;
use url::Url;

/// How long a provider may think, and how long a document may take altogether.
const PATIENCE: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(8));

/// Clients are few: one for each different list of networks. Beyond this they are made anew.
const MAX_CLIENTS: usize = 64;

/// Asks providers.
pub struct Providers {
    tasks: TaskGroup,
    resolver: Resolver,
    clients: Mutex<HashMap<Vec<IpNet>, Outbound>>,
}

impl Providers {
    /// Connections end with `tasks`.
    pub fn new(tasks: &TaskGroup) -> Self {
        Self { tasks: tasks.clone(), resolver: Resolver::new(ResolverOptions::default(), SystemLookup), clients: Mutex::default() }
    }

    /// The client that may dial these networks besides public addresses.
    fn client(&self, networks: &[String]) -> Result<Outbound, FetchError> {
        let parse = |text: &String| text.parse::<IpNet>().map_err(|error| FetchError(format!("allow_networks: '{text}': {error}")));
        let networks = networks.iter().map(parse).collect::<Result<Vec<_>, _>>()?;
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = clients.get(&networks) {
            return Ok(known.clone());
        }
        let options = OutboundOptions {
            connect_timeout: Duration::from_secs(2),
            max_connections: 2,
            max_idle: 0,
            http2: false,
            tls: Some(TlsRoots::System),
            ..OutboundOptions::default()
        };
        let guard = Guard::new(networks.iter().copied());
        let made = Outbound::new(options, guard, self.resolver.clone(), OutboundMetrics::default(), &self.tasks);
        let made = made.map_err(|error| FetchError(error.to_string()))?;
        if clients.len() >= MAX_CLIENTS {
            clients.clear();
        }
        clients.insert(networks, made.clone());
        Ok(made)
    }
}

#[async_trait]
impl FetchJwks for Providers {
    async fn fetch(&self, url: &str, allow_networks: &[String]) -> Result<Bytes, FetchError> {
        let url = Url::parse(url).map_err(|error| FetchError(format!("'{url}' is no URL: {error}")))?;
        let failed = |error: &dyn std::error::Error| FetchError(format!("{url}: {error}"));
        // The endpoint is the place; path and query are the request's.
        let place: Address = url[..url::Position::BeforePath].parse().map_err(|error| failed(&error))?;
        let endpoint = self.client(allow_networks)?.endpoint(place);
        let request = Request::builder()
            .method(Method::GET)
            .uri(&url[url::Position::BeforePath..url::Position::AfterQuery])
            .header(http::header::ACCEPT, "application/json")
            .body(OutBody::empty())
            .map_err(|error| failed(&error))?;
        let total = Instant::now() + PATIENCE.1;
        let deadlines = Deadlines { first_byte: PATIENCE.0, total: Some(total), ..Deadlines::default() };
        let answer = endpoint.send(request, &deadlines).await.map_err(|error| failed(&error))?;
        if answer.status() != StatusCode::OK {
            return Err(FetchError(format!("{url}: answered with {}", answer.status())));
        }
        let (mut body, mut document) = (answer.into_body(), BytesMut::new());
        while let Some(frame) = body.frame().await {
            let Ok(piece) = frame.map_err(|error| failed(&error))?.into_data() else { continue };
            if document.len() + piece.remaining() > MAX_DOCUMENT {
                return Err(FetchError(format!("{url}: the document is longer than {MAX_DOCUMENT} bytes")));
            }
            document.put(piece);
        }
        Ok(document.freeze())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    /// Answers once with this, whatever is asked; its address.
    async fn server(answer: Vec<u8>, tasks: &TaskGroup) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}/keys?x=1", listener.local_addr().unwrap());
        tasks.spawn("server", plinth_runtime::OnEnd::Ignore, async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut head = vec![0; 1024];
            let length = stream.read(&mut head).await.unwrap();
            assert!(head[..length].starts_with(b"GET /keys?x=1 HTTP/1.1\r\n"));
            let _ = stream.write_all(&answer).await;
        });
        address
    }

    #[tokio::test]
    async fn a_document_is_fetched_where_the_record_allows_it_and_no_further() {
        let tasks = TaskGroup::new("test");
        let providers = Providers::new(&tasks);
        let open = ["127.0.0.0/8".to_owned()];
        let answer =
            |head: &str, body: &[u8]| [format!("HTTP/1.1 {head}\r\ncontent-length: {}\r\n\r\n", body.len()).as_bytes(), body].concat();
        let good = server(answer("200 OK", b"{}"), &tasks).await;
        assert!(providers.fetch(&good, &[]).await.is_err(), "loopback is not allowed by itself");
        assert_eq!(providers.fetch(&good, &open).await.unwrap(), "{}");
        let elsewhere = server(answer("302 Found\r\nlocation: http://127.0.0.1/", b""), &tasks).await;
        assert!(providers.fetch(&elsewhere, &open).await.unwrap_err().to_string().contains("302"));
        let long = server(answer("200 OK", &vec![b' '; MAX_DOCUMENT + 1]), &tasks).await;
        assert!(providers.fetch(&long, &open).await.unwrap_err().to_string().contains("longer"));
        for bad in ["", "file:///etc/passwd", "http://user@host/", "http://169.254.169.254/keys"] {
            assert!(providers.fetch(bad, &open).await.is_err(), "{bad}");
        }
        assert!(providers.fetch(&good, &["nonsense".to_owned()]).await.is_err());
        tasks.close(Duration::from_secs(1)).await;
    }
}
