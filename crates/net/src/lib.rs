//! The accept loop, the HTTP server and the deny-by-default route table.
//!
//! Invariants: every wait on a peer has a deadline (head, idle, body, write, drain) and every input a
//! bound (connections, also of each client, head, body, memory of all bodies together), so no client can
//! hold or fill the node, nor keep others out; a head that two readers may read differently reaches no
//! handler; a panic in a handler costs one request; a route that is not in the [`Router`] does not exist,
//! and every route says who may call it. Who calls, what errors look like and what is measured are
//! left to the gateway, which stands between [`Service`] and [`Router`].
#![warn(missing_docs)]

pub mod body;
pub mod body_memory;
pub mod encoding;
pub mod host;
pub mod messages;
pub mod outbound;
pub mod peek;
pub mod read_body;
pub mod router;
pub mod server;
pub mod service;
pub mod tls;
pub mod upload;

mod accept;
mod activity;
mod answers;
mod clients;
mod connection;
mod framing;
mod half_open;
mod head;
mod pace;
mod rest;
mod socket;
mod wire;

pub use body::{Body, Chunk, RequestBody};
pub use body_memory::BodyMemory;
pub use encoding::Coding;
pub use host::HostRules;
pub use http_body::Frame;
pub use messages::{Messages, Packed};
pub use peek::peek_message;
pub use read_body::{BodyLimits, content_length, read_body};
pub use router::{Access, Handler, HandlerFuture, Match, NoRoute, Params, Route, Router, RouterError};
pub use server::{ConnectionLimits, DrainReport, Http2Limits, ListenerConfig, Server, StartError};
pub use service::{Peer, Service};
pub use tls::{CertificateFiles, ClientCertificate, TlsContext, TlsOptions};
pub use upload::{UploadLimits, UploadStream};

/// A request, its body not yet read.
pub type Request = http::Request<RequestBody>;

/// An answer.
pub type Response = http::Response<Body>;

#[cfg(test)]
mod tests;
