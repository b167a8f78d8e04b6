//! From an address to a connection.
//!
//! Invariant: every address of the name passes the guard before any is dialled, and what is dialled is what passed, not the name
//! again (a name may answer differently the second time).

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};

use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::Client;
use super::address::Address;
use super::error::{Kind, OutboundError, Stage};
use super::link::Io;
use super::tls::Offer;

/// The addresses of one name that are tried, one after another.
const MAX_ATTEMPTS: usize = 3;

/// A connection, and whether HTTP/2 is spoken on it.
pub(super) struct Dialled {
    pub io: Io,
    pub http2: bool,
}

impl Client {
    /// Connects. `turn` spreads connections over the addresses of the name.
    pub(super) async fn dial(&self, address: &Address, offer: Offer, turn: &AtomicUsize) -> Result<Dialled, OutboundError> {
        let dialled = self.attempt(address, offer, turn).await;
        let count = if dialled.is_ok() { &self.metrics.connects } else { &self.metrics.connect_failures };
        count.inc();
        dialled
    }

    async fn attempt(&self, address: &Address, offer: Offer, turn: &AtomicUsize) -> Result<Dialled, OutboundError> {
        let stream = self.connect(address, turn).await?;
        // Requests are written whole; an answer shall not wait for an acknowledgement.
        let _ = stream.set_nodelay(true);
        if !address.scheme().is_tls() {
            return Ok(Dialled { io: Io::Plain(stream), http2: offer == Offer::Http2 });
        }
        let failed = |kind| OutboundError::unsent(kind);
        let tls = self.tls.as_ref().ok_or_else(|| failed(Kind::Tls).source("no roots are configured"))?;
        let name = match address.literal() {
            Some(ip) => ServerName::IpAddress(ip.into()),
            None => ServerName::try_from(address.host().to_owned()).map_err(|error| failed(Kind::Tls).source(error))?,
        };
        let handshake = timeout(self.options.handshake_timeout, tls.offering(offer).connect(name, stream));
        let stream = handshake.await.map_err(|_| failed(Kind::Timeout(Stage::Tls)))?.map_err(|error| failed(Kind::Tls).source(error))?;
        let http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
        if offer == Offer::Http2 && !http2 {
            return Err(failed(Kind::Tls).source("the upstream does not speak HTTP/2"));
        }
        Ok(Dialled { io: Io::Tls(Box::new(stream)), http2 })
    }

    async fn connect(&self, address: &Address, turn: &AtomicUsize) -> Result<TcpStream, OutboundError> {
        let Some(literal) = address.literal() else {
            let addresses = self.resolver.resolve(address.host()).await?;
            self.check(&addresses)?;
            let start = turn.fetch_add(1, Ordering::Relaxed);
            let mut last = OutboundError::unsent(Kind::Resolve);
            for ip in addresses.iter().cycle().skip(start % addresses.len().max(1)).take(addresses.len().min(MAX_ATTEMPTS)) {
                match self.connect_to(*ip, address.port()).await {
                    Ok(stream) => return Ok(stream),
                    Err(error) => last = error,
                }
            }
            return Err(last);
        };
        self.check(&[literal])?;
        self.connect_to(literal, address.port()).await
    }

    fn check(&self, addresses: &[IpAddr]) -> Result<(), OutboundError> {
        let refused = addresses.iter().find_map(|address| self.guard.check(*address).err());
        refused.map_or(Ok(()), |refused| Err(OutboundError::unsent(Kind::Refused(refused))))
    }

    async fn connect_to(&self, ip: IpAddr, port: u16) -> Result<TcpStream, OutboundError> {
        match timeout(self.options.connect_timeout, TcpStream::connect(SocketAddr::new(ip, port))).await {
            Ok(Ok(stream)) => Ok(stream),
            Ok(Err(error)) => Err(OutboundError::unsent(Kind::Connect).source(error)),
            Err(_elapsed) => Err(OutboundError::unsent(Kind::Timeout(Stage::Connect))),
        }
    }
}
