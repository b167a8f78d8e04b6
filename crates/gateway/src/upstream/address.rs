//! What an upstream is told about where a request comes from.

use std::net::IpAddr;

use http::HeaderValue;

/// Where a request comes from.
#[derive(Debug, Clone)]
pub struct ForwardedFor {
    /// Who asks, as far as that is known: whom a trusted proxy named, or who is connected.
    pub address: IpAddr,
    /// Who is connected: the client, or the last proxy before this node.
    pub peer: IpAddr,
    /// `http` or `https`, as the client speaks it.
    pub proto: &'static str,
    /// The host that it asked for.
    pub host: Option<HeaderValue>,
    /// Whether `peer` is a proxy whose word about others is believed. What others say of themselves is replaced.
    pub trusted: bool,
}

impl ForwardedFor {
    /// Straight from a client.
    #[must_use]
    pub const fn direct(address: IpAddr, proto: &'static str, host: Option<HeaderValue>) -> Self {
        Self { address, peer: address, proto, host, trusted: false }
    }
}
