//! The client for upstreams: HTTP/1.1 of our own, HTTP/2 and gRPC with hyper.
//!
//! Invariants: only an address that the [`Guard`] let pass is dialled, and exactly that one; redirects are never followed; every
//! wait has a deadline and everything that an upstream sends a bound; an error says whether the upstream may have seen the
//! request ([`Reached`]); whoever drops a request or the body of an answer ends it at the upstream too. Whether to try again,
//! where, and what a failure means to a breaker is left to the gateway.
//!
//! The task that makes a request also drives its HTTP/1.1 connection: there is no task for each connection and nothing is
//! handed from one task to another, which is most of what a client costs.

mod address;
mod body;
mod chunked;
mod deadlines;
mod dial;
mod endpoint;
mod error;
mod guard;
mod headers;
mod http1;
mod http2;
mod link;
mod metrics;
mod pool;
mod resolver;
mod tls;
mod tunnel;

use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use plinth_runtime::{OnEnd, TaskGroup};
use plinth_types::ByteSize;

pub use address::{Address, AddressError, Scheme};
pub use body::OutBody;
pub use deadlines::Deadlines;
pub use endpoint::{Endpoint, Upgrade};
pub use error::{Kind, OutboundError, Reached, Stage};
pub use guard::{Guard, Refused};
pub use headers::strip_hop_by_hop;
pub use metrics::OutboundMetrics;
pub use resolver::{Lookup, Resolver, ResolverOptions, SystemLookup};
pub use tls::{TlsRoots, TlsSetupError};
pub use tunnel::{Copied, Tunnel};

use endpoint::Shared;

/// How often idle connections are looked at.
const SWEEP: Duration = Duration::from_secs(5);

/// What the client may cost, and how it dials.
#[derive(Debug, Clone)]
pub struct OutboundOptions {
    /// How long one address may take to accept a connection.
    pub connect_timeout: Duration,
    /// How long TLS may take to agree.
    pub handshake_timeout: Duration,
    /// How long a request may wait while all connections of its endpoint are in use.
    pub queue_timeout: Duration,
    /// The requests of one endpoint at a time on HTTP/1, each on a connection of its own; the connections on HTTP/2.
    pub max_connections: usize,
    /// The connections of one endpoint that are kept for later.
    pub max_idle: usize,
    /// How long a connection is kept. Below the 60 to 75 s of common servers, whose word (`Keep-Alive: timeout`) counts too.
    pub idle_timeout: Duration,
    /// The largest head of an answer.
    pub max_head: ByteSize,
    /// The requests at a time on one HTTP/2 connection before another is made.
    pub max_streams: usize,
    /// Whether `https` may agree on HTTP/2.
    pub http2: bool,
    /// Whose certificates are trusted. `None`: there is no `https`.
    pub tls: Option<TlsRoots>,
}

impl Default for OutboundOptions {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_millis(250),
            handshake_timeout: Duration::from_secs(3),
            queue_timeout: Duration::from_secs(1),
            max_connections: 1024,
            max_idle: 128,
            idle_timeout: Duration::from_secs(55),
            max_head: ByteSize::kib(32),
            max_streams: 100,
            http2: true,
            tls: None,
        }
    }
}

/// Makes [`Endpoint`]s. Cheap to clone; clones share everything.
#[derive(Clone)]
pub struct Outbound(Arc<Client>);

/// What all endpoints share.
struct Client {
    options: OutboundOptions,
    guard: Guard,
    resolver: Resolver,
    tls: Option<tls::Configs>,
    metrics: OutboundMetrics,
    tasks: TaskGroup,
    endpoints: Mutex<Vec<Weak<Shared>>>,
}

impl Outbound {
    /// A client. Idle connections are swept, and HTTP/2 connections run, in `tasks`.
    ///
    /// # Errors
    /// When the certificates cannot be used.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn new(
        options: OutboundOptions,
        guard: Guard,
        resolver: Resolver,
        metrics: OutboundMetrics,
        tasks: &TaskGroup,
    ) -> Result<Self, TlsSetupError> {
        let tls = options.tls.as_ref().map(|roots| tls::Configs::new(roots, options.http2)).transpose()?;
        let tasks = TaskGroup::child_of(tasks, "outbound");
        let client = Arc::new(Client { options, guard, resolver, tls, metrics, tasks: tasks.clone(), endpoints: Mutex::default() });
        let (weak, stop) = (Arc::downgrade(&client), tasks.cancelled().clone());
        tasks.spawn("idle connections", OnEnd::Ignore, async move {
            while stop.run_until_cancelled(tokio::time::sleep(SWEEP)).await.is_some() {
                let Some(client) = weak.upgrade() else { return };
                client.sweep();
            }
            if let Some(client) = weak.upgrade() {
                client.each(Shared::close_idle);
            }
        });
        Ok(Self(client))
    }

    /// The endpoint of an address. Each has connections of its own: keep it.
    #[must_use]
    pub fn endpoint(&self, address: Address) -> Endpoint {
        let endpoint = Endpoint::new(self.0.clone(), address);
        self.0.endpoints.lock().unwrap_or_else(PoisonError::into_inner).push(endpoint.weak());
        endpoint
    }

    /// What is counted.
    #[must_use]
    pub fn metrics(&self) -> &OutboundMetrics {
        &self.0.metrics
    }
}

impl Client {
    /// Closes what was idle for too long, and forgets endpoints that are gone.
    fn sweep(&self) {
        self.endpoints.lock().unwrap_or_else(PoisonError::into_inner).retain(|endpoint| endpoint.strong_count() > 0);
        self.each(Shared::sweep);
    }

    fn each(&self, act: impl Fn(&Shared)) {
        let endpoints: Vec<_> = self.endpoints.lock().unwrap_or_else(PoisonError::into_inner).iter().filter_map(Weak::upgrade).collect();
        endpoints.iter().for_each(|endpoint| act(endpoint));
    }
}

#[cfg(test)]
mod tests;
