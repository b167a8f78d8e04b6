//! Active checks: a request now and then that says whether an endpoint is well.
//!
//! Invariants: each endpoint has at most one check under way, and it ends within the interval; checks of many endpoints and gateways
//! do not come together. Two failures in a row take an endpoint out, one success brings it back and lets a breaker that is open
//! try at once.

use std::sync::{Arc, Weak};
use std::time::Duration;

use futures_util::{StreamExt, stream};
use http::request::Parts;
use http::{HeaderValue, Request, header};
use plinth_net::outbound::{Deadlines, OutBody};
use plinth_policy::balance::hash;
use plinth_runtime::OnEnd;
use tokio::time::{Instant, sleep};

use super::place::Core;
use super::pool::Pool;
use super::settings::Health;

/// How many are under way for one upstream.
const AT_ONCE: usize = 8;
/// However long the interval is.
const LONGEST: Duration = Duration::from_secs(5);

/// Starts the checks of a pool, when it has some. They end with it.
pub(super) fn start(pool: &Arc<Pool>, parts: &super::Parts) {
    let Some(health) = pool.settings().health.clone() else { return };
    let (weak, stop) = (Arc::downgrade(pool), parts.tasks.cancelled().clone());
    parts.tasks.spawn("upstream checks", OnEnd::Ignore, async move {
        stop.run_until_cancelled(run(weak, health)).await;
    });
}

async fn run(pool: Weak<Pool>, health: Health) {
    let Some(mut wait) = pool.upgrade().map(|pool| health.every.mul_f64(hash::unit(pool.draw()))) else { return };
    let (mut head, ()) = Request::new(()).into_parts();
    head.uri = health.path.into();
    head.headers.insert(header::USER_AGENT, HeaderValue::from_static("plinth-check"));
    loop {
        sleep(wait).await;
        let Some(pool) = pool.upgrade() else { return };
        let cores: Vec<_> = pool.places().iter().map(|place| place.core.clone()).collect();
        let patience = health.every.min(LONGEST).min(pool.settings().deadlines.first_byte);
        stream::iter(cores).for_each_concurrent(AT_ONCE, |core| check(&pool, core, &head, patience)).await;
        // A fifth more or less.
        wait = health.every.mul_f64(0.8 + 0.4 * hash::unit(pool.draw()));
    }
}

pub(super) async fn check(pool: &Pool, core: Arc<Core>, head: &Parts, patience: Duration) {
    let deadlines = Deadlines { first_byte: patience, idle: patience, total: Some(Instant::now() + patience) };
    let answer = core.client.send_head(head, OutBody::empty(), &deadlines).await;
    let passed = answer.is_ok_and(|answer| answer.status().is_success() || answer.status().is_redirection());
    let (now, was_out) = (pool.now(), core.fails_checks());
    core.checked(now, passed);
    // It comes back as one like the others, whatever its failures were counted as.
    if let (true, true, Some(latency)) = (passed, was_out, pool.latency(now)) {
        core.load.believe(now, latency);
    }
}
