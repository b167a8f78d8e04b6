//! Forwarding to upstreams: services outside of Plinth.
//!
//! Puts together what `policy` decides and what `net` does: an endpoint is chosen, asked, judged by its answer, and where
//! that is allowed another one is asked. Invariants: ejections never leave a pool with too few; an open breaker lets probes through and nothing else;
//! whatever was begun at an endpoint is ended there exactly once, also when the caller goes away; a stream counts as in flight
//! until its last byte; nothing is sent twice that must not happen twice; the request path takes no lock that upstreams share. Which
//! upstream a request is for, its deadline and what stands in for a failure are left to the caller.
//!
//! | file | what |
//! |---|---|
//! | `admit` | whose turn it is when there is too much to do |
//! | `settings` | from a record to numbers |
//! | `place` | one endpoint: breaker, load, gates |
//! | `pool` | who may be asked, and who is |
//! | `flight` | one attempt from its begin to its last byte |
//! | `verdict` | what an answer or an error says of an endpoint |
//! | `call` | attempts of one request: the first, the hedge, the retries |
//! | `upkeep`, `checks` | what runs beside requests |

mod address;
mod admit;
mod body;
mod call;
mod checks;
mod flight;
mod headers;
mod metrics;
mod place;
mod pool;
mod settings;
mod tunnel;
mod upkeep;
mod verdict;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use http::Method;
use ipnet::IpNet;
use plinth_net::outbound::{OutboundOptions, Resolver, TlsSetupError};
use plinth_net::{BodyLimits, Request, Response};
use plinth_runtime::{TaskGroup, World};
use plinth_store::resources::gateway::{BalanceWord, StickyKey, UpstreamRecord};
use plinth_telemetry::Catalogue;
use plinth_types::{Error, Label, Reason, TenantName};
use tokio::time::Instant;

use call::Call;
use metrics::Metrics;
use pool::Pool;

use crate::overload::gate::Urgency;

pub use address::ForwardedFor;
pub use place::EndpointView;
pub use settings::Tuning;

/// What all upstreams of a node have in common.
#[derive(Clone)]
pub struct UpstreamsOptions {
    /// How the client dials; a record's own time and connections count before these.
    pub outbound: OutboundOptions,
    /// Networks that every upstream may lead to although they are private.
    pub allow_networks: Vec<IpNet>,
    /// Finds the addresses of names.
    pub resolver: Resolver,
    /// How the small bodies are read that are kept to be sent again. `max` counts only below 64 KiB.
    pub bodies: BodyLimits,
    /// The numbers of the algorithms.
    pub tuning: Tuning,
}

impl UpstreamsOptions {
    /// The defaults.
    #[must_use]
    pub fn new(bodies: BodyLimits) -> Self {
        let (outbound, resolver) = (OutboundOptions::default(), Resolver::default());
        Self { outbound, allow_networks: Vec::new(), resolver, bodies, tuning: Tuning::default() }
    }
}

type Table = HashMap<TenantName, HashMap<Label, Arc<Upstream>>>;

/// All upstreams of the node. They live across snapshots.
pub struct Upstreams {
    parts: Arc<Parts>,
    table: ArcSwap<Table>,
    /// One snapshot is taken at a time.
    applying: Mutex<()>,
}

/// What is handed to each upstream.
struct Parts {
    options: UpstreamsOptions,
    world: World,
    catalogue: Arc<Catalogue>,
    tasks: TaskGroup,
}

/// How a request is to be sent on.
#[derive(Debug, Clone)]
pub struct Forward {
    /// When everything has to be done, the last byte of the answer too; it spans all attempts.
    pub deadline: Option<Instant>,
    /// Requests with the same number go to the same endpoint while that has room.
    pub sticky: Option<u64>,
    /// Whether retries and hedges are allowed at all: not under load.
    pub extra: bool,
    /// Whose turn it is when the upstream has more to do than it can.
    pub urgency: Urgency,
    /// Whether the request may be carried out twice whatever its method; `None`: as the upstream's record says.
    pub idempotent: Option<bool>,
    /// Where the request comes from.
    pub forwarded: ForwardedFor,
    /// Whether the upstream gets to see the caller's credentials.
    pub pass_authorization: bool,
}

/// How a request got its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attempted {
    /// The endpoint that answered, by its place in the record.
    pub endpoint: usize,
    /// How often the request was sent, the copy of a hedge included.
    pub attempts: u32,
    /// Whether a second copy was sent because the first was late.
    pub hedged: bool,
}

/// One upstream, as a snapshot has it.
pub struct Upstream {
    record: UpstreamRecord,
    pool: Arc<Pool>,
}

impl Upstreams {
    /// None yet. Checks and upkeep run in `tasks`.
    ///
    /// # Errors
    /// When the certificates for TLS cannot be used.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn new(
        mut options: UpstreamsOptions,
        world: &World,
        catalogue: Arc<Catalogue>,
        tasks: &TaskGroup,
    ) -> Result<Arc<Self>, TlsSetupError> {
        // Read once, not for each upstream.
        options.outbound.tls = options.outbound.tls.map(|roots| roots.load()).transpose()?;
        options.bodies.max = options.bodies.max.min(body::REPLAYED);
        let tasks = TaskGroup::child_of(tasks, "upstreams");
        let parts = Arc::new(Parts { options, world: world.clone(), catalogue, tasks });
        let upstreams = Arc::new(Self { parts, table: ArcSwap::default(), applying: Mutex::default() });
        upkeep::start(&upstreams);
        Ok(upstreams)
    }

    /// Takes the records of a snapshot. Unchanged upstreams stay as they are; changed ones keep the endpoints whose URL stayed, with
    /// their connections and counts; removed ones finish what is in flight. A record that cannot be used is left out with a warning.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn apply<'a>(&self, records: impl Iterator<Item = (&'a TenantName, &'a Label, &'a UpstreamRecord)>) {
        let _one = self.applying.lock().unwrap_or_else(PoisonError::into_inner);
        let before = self.table.load_full();
        let mut table = Table::new();
        for (tenant, name, record) in records {
            let old = before.get(tenant).and_then(|upstreams| upstreams.get(name));
            let upstream = match old {
                Some(old) if old.record == *record => Some(old.clone()),
                _ => self.make((tenant, name), record, old),
            };
            if let Some(upstream) = upstream {
                table.entry(tenant.clone()).or_default().insert(name.clone(), upstream);
            }
        }
        for (tenant, name) in before.iter().flat_map(|(tenant, upstreams)| upstreams.keys().map(move |name| (tenant, name))) {
            if table.get(tenant).is_none_or(|upstreams| !upstreams.contains_key(name)) {
                metrics::forget(&self.parts.catalogue, [tenant.as_str(), name.as_str()]);
            }
        }
        self.table.store(Arc::new(table));
    }

    fn make(&self, (tenant, name): (&TenantName, &Label), record: &UpstreamRecord, old: Option<&Arc<Upstream>>) -> Option<Arc<Upstream>> {
        let metrics = Metrics::new(&self.parts.catalogue, [tenant.as_str(), name.as_str()]);
        match Pool::new(&self.parts, record, metrics, old.map(|old| &*old.pool)) {
            Ok(pool) => {
                let gone = old.map_or(0, |old| old.record.endpoints.len());
                pool.metrics.forget_breakers(record.endpoints.len()..gone);
                let pool = Arc::new(pool);
                checks::start(&pool, &self.parts);
                Some(Arc::new(Upstream { record: record.clone(), pool }))
            }
            Err(why) => {
                tracing::warn!(%tenant, upstream = %name, why, "an upstream is left out");
                None
            }
        }
    }

    /// The upstream of that name of this very tenant. Takes no lock.
    #[must_use]
    pub fn get(&self, tenant: &TenantName, name: &Label) -> Option<Arc<Upstream>> {
        self.table.load().get(tenant)?.get(name).cloned()
    }

    fn pools(&self) -> Vec<Arc<Pool>> {
        self.table.load().values().flat_map(HashMap::values).map(|upstream| upstream.pool.clone()).collect()
    }
}

impl Upstream {
    /// By what its requests are kept together, when its record says so: [`Forward::sticky`] is a hash of that.
    #[must_use]
    pub const fn sticky(&self) -> Option<&StickyKey> {
        match &self.record.balance {
            BalanceWord::Sticky(key) => Some(key),
            BalanceWord::LeastLoaded => None,
        }
    }

    /// How its endpoints do now, in the order of the record.
    #[must_use]
    pub fn view(&self) -> Vec<EndpointView> {
        let now = self.pool.now();
        self.pool.places().iter().map(|place| place.view(now)).collect()
    }

    /// Sends the request on and brings the answer, its body as it comes.
    ///
    /// Cancel safe: dropping it, or the body of the answer, ends the request at the upstream at once.
    ///
    /// # Errors
    /// `upstream_unavailable` when no endpoint may be asked, `upstream_timeout`, `upstream_failed`, `upstream_refused` when an endpoint's
    /// address is not allowed, `route_loop`; `upload_incomplete` when the request's own body breaks off.
    pub async fn forward(&self, request: Request, how: Forward) -> Result<(Response, Attempted), Error> {
        let (mut parts, body) = request.into_parts();
        if parts.method == Method::CONNECT {
            return Err(Error::new(Reason::NotImplemented, "CONNECT is not forwarded"));
        }
        headers::prepare(&mut parts.headers, &how)?;
        let replays = how.extra && self.pool.settings().attempts > 1;
        let body = body::take(&mut parts, body, &self.pool, replays).await?;
        // After the body: who sends slowly keeps no place that others could use.
        let pass = admit::enter(&self.pool, &parts, &how).await?;
        let (answer, attempted) = Call::new(&self.pool, parts, &how).answer(body).await?;
        Ok((admit::hold(answer, pass), attempted))
    }

    /// Asks the upstream to leave HTTP, as WebSocket does, and carries bytes both ways from then on. Never tried twice.
    ///
    /// # Errors
    /// As [`Self::forward`]; an upstream that declines gives its answer.
    pub async fn upgrade(&self, request: Request, how: Forward) -> Result<Response, Error> {
        Box::pin(tunnel::upgrade(&self.pool, request, how)).await
    }
}

#[cfg(test)]
mod tests;
