//! Requests that leave HTTP: WebSocket.
//!
//! Invariant: a tunnel counts as in flight at its endpoint until one side closes, and ends with the group of tasks. It is
//! asked for once: a client that opens one comes again by itself.

use std::sync::Arc;

use http::Method;
use http::header::UPGRADE;
use plinth_net::outbound::{Deadlines, Upgrade};
use plinth_net::{Request, Response};
use plinth_runtime::OnEnd;
use plinth_types::{Error, Reason};

use super::flight::Flight;
use super::pool::{Kind, Pool, Wish};
use super::verdict::{Verdict, public};
use super::{Forward, headers};

/// Asks the upstream, and carries bytes when it agrees.
///
/// # Errors
/// Those of [`super::Upstream::forward`].
pub(super) async fn upgrade(pool: &Arc<Pool>, mut request: Request, how: Forward) -> Result<Response, Error> {
    let wanted = request.headers().get(UPGRADE).cloned().filter(|_| request.method() == Method::GET);
    let wanted = wanted.ok_or_else(|| Error::new(Reason::MalformedRequest, "an upgrade is a GET that says to what"))?;
    let client = hyper::upgrade::on(&mut request);
    let (mut parts, _body) = request.into_parts();
    headers::prepare(&mut parts.headers, &how)?;
    parts.headers.insert(UPGRADE, wanted);
    let wish = Wish { sticky: how.sticky, tried: &[], kind: Kind::First { probe: false } };
    let began = pool.now();
    let mut flight = pool.begin(began, &wish).inspect_err(|_| pool.metrics.refused.inc())?;
    let core = flight.place().map(|place| place.core.clone()).ok_or_else(|| Error::internal("an upstream has lost an endpoint"))?;
    let deadlines = Deadlines { total: how.deadline, ..pool.settings().deadlines };
    let asked = core.client.upgrade(http::Request::from_parts(parts, ()), &deadlines).await;
    let now = pool.now();
    let latency = now.saturating_sub(began);
    let verdict = match &asked {
        Ok(Upgrade::Switched(answer, _) | Upgrade::Declined(answer)) => {
            Verdict::of_answer(answer, core.client.address().scheme(), latency, || pool.clock().now())
        }
        Err(error) => Verdict::of_error(error, latency),
    };
    if let Some(hold) = verdict.hold {
        core.throttle.hold(now, hold);
    }
    flight.judge(now, &verdict);
    let answer = match asked {
        Ok(Upgrade::Switched(answer, tunnel)) => {
            carry(pool, tunnel, client, flight);
            Ok(answer)
        }
        Ok(Upgrade::Declined(answer)) => Ok(answer.map(|body| flight.follow(body))),
        Err(error) => Err(public(error)),
    };
    let status = answer.as_ref().map_or_else(|error| error.class().status(), |answer| answer.status().as_u16());
    pool.metrics.answered(status, latency);
    answer
}

fn carry(pool: &Arc<Pool>, tunnel: plinth_net::outbound::Tunnel, client: hyper::upgrade::OnUpgrade, flight: Flight) {
    let (tasks, idle) = (pool.tasks(), pool.settings().deadlines.idle);
    let stop = tasks.cancelled().clone();
    tasks.spawn("tunnel", OnEnd::Ignore, async move {
        let _flight = flight.carry();
        if let Some(Err(error)) = stop.run_until_cancelled(tunnel.run(client, idle)).await {
            tracing::debug!(%error, "a tunnel to an upstream ended");
        }
    });
}
