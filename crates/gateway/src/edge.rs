//! What all listeners share: the users' routes, the limits, the level of load, the way to upstreams.
//!
//! Invariant: a snapshot's routes, upstreams and limits come into force one table at a time, each whole; a request sees one
//! table of routes from its beginning to its end.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::{ArcSwap, Guard};
use http::HeaderMap;
use plinth_net::{Peer, Request};
use plinth_policy::overload::Criticality;
use plinth_store::resources::gateway::CriticalityWord;
use plinth_types::{Error, Reason, Result};

use crate::dispatch::Dispatch;
use crate::limits::{Entry, Limits};
use crate::overload::Overload;
use crate::overload::gate::Urgency;
use crate::routes::RouteTable;

/// The header by which callers say how urgent a request is.
pub const CRITICALITY: &str = "x-plinth-criticality";
/// How long who is refused because of load should stay away.
const COME_BACK: Duration = Duration::from_secs(2);

/// What all listeners share.
pub struct Edge {
    routes: ArcSwap<RouteTable>,
    /// Limits and bans.
    pub limits: Arc<Limits>,
    /// The level of load.
    pub overload: Arc<Overload>,
    /// The way to targets.
    pub dispatch: Dispatch,
}

impl Edge {
    /// With no routes yet.
    #[must_use]
    pub fn new(limits: Arc<Limits>, overload: Arc<Overload>, dispatch: Dispatch) -> Self {
        Self { routes: ArcSwap::default(), limits, overload, dispatch }
    }

    /// Puts a table of routes into force.
    pub fn follow(&self, routes: RouteTable) {
        self.routes.store(Arc::new(routes));
    }

    /// The routes in force.
    pub(crate) fn routes(&self) -> Guard<Arc<RouteTable>> {
        self.routes.load()
    }

    /// The address of a caller: the peer's, or what a trusted proxy says of it.
    pub(crate) fn address(&self, peer: &Peer, headers: &HeaderMap) -> IpAddr {
        self.limits.client(peer.remote.ip(), headers)
    }

    /// Whether the node's load lets a request in, and how urgent it is. Decided from its head alone: what is refused here has cost no body and no
    /// work.
    ///
    /// # Errors
    /// `malformed_request` for a word that is none; `over_capacity` when the level does not admit its class, or when the processor cannot keep up
    /// and it is among those to refuse.
    pub(crate) fn admit(&self, request: &Request, entry: &Entry, tenant: u32, route: Option<CriticalityWord>) -> Result<Urgency> {
        let (usual, most) = entry.criticality_bounds();
        let said = request.headers().get(CRITICALITY).map(|value| value.to_str().ok().and_then(|text| text.parse::<Criticality>().ok()));
        let said = match said {
            Some(None) => {
                let text = "X-Plinth-Criticality is one of critical, default, sheddable, background";
                return Err(Error::new(Reason::MalformedRequest, text).field("X-Plinth-Criticality"));
            }
            Some(Some(said)) => said,
            None => route.map_or(usual, criticality),
        };
        let class = said.clamp_to(most);
        let text = if !self.overload.admits(class) {
            format!("the node is under load (L{}) and does not take {class} requests now", self.overload.level().number())
        } else if self.overload.sheds(class, tenant) {
            format!("the node has more to do than its processor can, and cannot take this {class} request now")
        } else {
            return Ok(Urgency { class, tenant, weight: entry.weight() });
        };
        Err(Error::new(Reason::OverCapacity, text).retry_after(COME_BACK))
    }
}

/// How urgent a change of the node is: whoever may make it is never refused because of load, for it may be what ends the load.
pub fn control(entry: &Entry, tenant: u32) -> Urgency {
    Urgency { class: Criticality::Critical, tenant, weight: entry.weight() }
}

/// The class of a record's word.
#[must_use]
pub const fn criticality(word: CriticalityWord) -> Criticality {
    match word {
        CriticalityWord::Background => Criticality::Background,
        CriticalityWord::Sheddable => Criticality::Sheddable,
        CriticalityWord::Default => Criticality::Default,
        CriticalityWord::Critical => Criticality::Critical,
    }
}
