//! What an upstream is told about where a request comes from.

use std::net::IpAddr;

use http::HeaderValue;
use plinth_types::{RequestId, TraceContext};

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
    /// Where the request stands in its trace; each attempt is a piece of work within it. `None`: the upstream is told what the caller said.
    pub trace: Option<TraceContext>,
    /// The name of the request; `None`: as the caller said it.
    pub request: Option<RequestId>,
}

impl ForwardedFor {
    /// Straight from a client.
    #[must_use]
    pub const fn direct(address: IpAddr, proto: &'static str, host: Option<HeaderValue>) -> Self {
        Self { address, peer: address, proto, host, trusted: false, trace: None, request: None }
    }
}
