//! Copies of requests to a target whose answers nobody gets.
//!
//! Invariants: a copy never delays the request that it is of, and never makes it fail; at most so many are on their way,
//! further ones are counted and not sent; of two answers only digests are kept.

use std::sync::Arc;

use plinth_net::Response;
use plinth_policy::overload::Criticality;
use plinth_runtime::{OnEnd, TaskGroup};
use plinth_telemetry::Counter;
use plinth_types::Digest;
use tokio::sync::{Semaphore, oneshot};

use super::replay::Replay;
use super::{Errand, Origin, SHADOW_TIMEOUT};
use crate::overload::gate::Urgency;
use crate::routes::To;
use crate::upstream::Upstreams;

/// What is counted of copies.
#[derive(Clone)]
pub struct ShadowMetrics {
    /// Copies that were sent.
    pub sent: Counter,
    /// Copies that were not, because too many were on their way.
    pub dropped: Counter,
    /// Copies that were answered as the request was.
    pub same: Counter,
    /// Copies that were answered otherwise.
    pub different: Counter,
    /// Copies that failed.
    pub failed: Counter,
}

impl ShadowMetrics {
    /// From the catalogue.
    #[must_use]
    pub fn new(catalogue: &plinth_telemetry::Catalogue) -> Self {
        let of = |outcome: &str| catalogue.shadow_requests.get([outcome]);
        Self { sent: of("sent"), dropped: of("dropped"), same: of("same"), different: of("different"), failed: of("failed") }
    }
}

pub struct Shadows {
    places: Arc<Semaphore>,
    metrics: ShadowMetrics,
    tasks: TaskGroup,
}

/// What the answer of a request is like, as far as it is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Likeness {
    status: u16,
    /// `None` for streams, which are compared by status alone.
    body: Option<Digest>,
}

impl Likeness {
    fn of(answer: &Response) -> Self {
        let body = answer.body().pieces().map(|pieces| Digest::of(&pieces.concat()));
        Self { status: answer.status().as_u16(), body }
    }

    fn same(&self, other: &Self) -> bool {
        self.status == other.status && self.body.zip(other.body).is_none_or(|(a, b)| a == b)
    }
}

/// A copy whose answer is to be compared.
pub struct Copy(oneshot::Sender<Likeness>);

impl Copy {
    /// With this answer.
    pub fn compare(self, answer: &Response) {
        let _ = self.0.send(Likeness::of(answer));
    }
}

impl Shadows {
    pub fn new(most: usize, metrics: ShadowMetrics, tasks: TaskGroup) -> Self {
        Self { places: Arc::new(Semaphore::new(most)), metrics, tasks }
    }

    /// Sends a copy; what its answer is to be compared with comes later.
    pub(super) fn begin(&self, replay: &Replay, errand: &Errand<'_>, upstreams: &Arc<Upstreams>) -> Option<Copy> {
        let shadow = errand.route.shadow.as_ref()?;
        let Ok(place) = self.places.clone().try_acquire_owned() else {
            self.metrics.dropped.inc();
            return None;
        };
        let request = Box::new(replay.request());
        let (tell, told) = oneshot::channel();
        let (metrics, upstreams, route, router) = (self.metrics.clone(), upstreams.clone(), errand.route.clone(), errand.router.clone());
        // Nobody waits for a copy.
        let urgency = Urgency { class: Criticality::Background, ..errand.origin.urgency };
        let (context, forwarded) = (errand.origin.context.clone(), errand.origin.forwarded.clone());
        let origin = Origin { context, forwarded, urgency, level: errand.origin.level };
        metrics.sent.inc();
        self.tasks.spawn("shadow", OnEnd::Ignore, async move {
            let _place = place;
            let deadline = Some(tokio::time::Instant::now() + SHADOW_TIMEOUT);
            let errand = Errand { router: &router, origin: &origin, route: &route, deadline, sticky: None };
            let Some(shadow) = route.shadow.as_ref() else { return };
            let work = async {
                match &shadow.target.to {
                    To::Model(model) => super::to_model(&errand, model, request).await,
                    To::Upstream(name) => super::upstream(&upstreams, &errand, name, request).await,
                }
            };
            let Ok(answer) = super::within(deadline, work).await else { return metrics.failed.inc() };
            let own = Likeness::of(&answer);
            drop(answer);
            if let Ok(other) = told.await {
                if own.same(&other) { metrics.same.inc() } else { metrics.different.inc() }
            }
        });
        shadow.compare.then_some(Copy(tell))
    }
}
