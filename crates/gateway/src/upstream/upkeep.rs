//! What is done for all upstreams beside requests: ejection by intervals, and gauges.
//!
//! One task for all of them; it ends with [`Upstreams`].

use std::sync::Arc;
use std::time::Duration;

use plinth_policy::resilience::breaker::State;
use plinth_runtime::OnEnd;
use tokio::time::sleep;

use super::Upstreams;
use super::pool::Pool;

/// How often gauges are set.
const TICK: Duration = Duration::from_secs(1);

pub(super) fn start(upstreams: &Arc<Upstreams>) {
    let (weak, stop) = (Arc::downgrade(upstreams), upstreams.parts.tasks.cancelled().clone());
    let interval = upstreams.parts.options.tuning.ejection.interval;
    let clock = upstreams.parts.world.clock.clone();
    upstreams.parts.tasks.spawn("upkeep of upstreams", OnEnd::Ignore, async move {
        let mut judged = clock.monotonic();
        while stop.run_until_cancelled(sleep(TICK.min(interval))).await.is_some() {
            let Some(upstreams) = weak.upgrade() else { return };
            let now = clock.monotonic();
            let is_due = now.saturating_sub(judged) >= interval;
            if is_due {
                judged = now;
            }
            for pool in upstreams.pools() {
                if is_due {
                    judge(&pool, now);
                }
                show(&pool, now);
            }
        }
    });
}

fn judge(pool: &Pool, now: Duration) {
    for ejected in pool.shared.ejection.interval(now, pool.places(), |place| place.may_be_asked(now)) {
        pool.ejected(now, ejected);
    }
}

fn show(pool: &Pool, now: Duration) {
    let places = pool.places();
    let count = |of: &dyn Fn(&super::place::Place) -> bool| places.iter().filter(|place| of(place)).count() as u64;
    pool.metrics.ready.set_whole(count(&|place| place.is_well(now)));
    pool.metrics.ejected.set_whole(count(&|place| place.core.record.is_ejected(now)));
    pool.metrics.in_flight.set_whole(places.iter().map(|place| u64::from(place.core.load.in_flight())).sum());
    pool.metrics.waiting.set_whole(pool.shared.gate.waiting() as u64);
    let limit = places.iter().map(|place| u64::from(place.core.limit.limit())).sum();
    pool.metrics.limit.set_whole(if pool.settings().adaptive { limit } else { 0 });
    for place in places {
        place.breaker_state.set_whole(match place.core.breaker.state(now) {
            State::Closed => 0,
            State::Degraded => 1,
            State::HalfOpen => 2,
            State::Open => 3,
        });
    }
}
