//! The endpoints of an upstream, and the choice among them.
//!
//! In this order, as in the simulation of `policy::resilience`: who is ready, or everybody whose breaker allows it when too few are; of these
//! first one that wants a probe, then by key, or the cheaper of two. Invariants: the choice takes no lock while all are well; whoever was
//! chosen has a permit, a place under its limit and is counted, all in one [`Flight`]; one that asked for peace is never asked, nor one behind
//! an open breaker but for its probes; a retry never goes where it was while there is another.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use plinth_net::BodyLimits;
use plinth_net::outbound::{Outbound, Scheme};
use plinth_policy::balance::bounded::{self, LOAD_PERCENT};
use plinth_policy::balance::{hash, p2c};
use plinth_policy::resilience::Outcome;
use plinth_policy::resilience::breaker::Permit;
use plinth_policy::resilience::ejection::{Call, Ejected, Ejection, Routing};
use plinth_policy::resilience::gradient::Sample;
use plinth_policy::resilience::hedge::Hedge;
use plinth_policy::resilience::retry::{RetryBudget, RetryPolicy};
use plinth_runtime::{Clock, TaskGroup};
use plinth_store::resources::gateway::UpstreamRecord;
use plinth_types::{Error, Reason};

use super::Parts;
use super::flight::Flight;
use super::metrics::Metrics;
use super::place::{Core, Place};
use super::settings::{Dialling, Settings, Spec};
use crate::overload::gate::Gate;

/// How often to choose again when others took the place that was just free.
const RACES: usize = 4;

/// What who is refused because checks fail is told to wait.
const CHECKED_AGAIN: Duration = Duration::from_secs(5);

/// A failure counts as at least this long, so that failing fast does not look fast; and as so many times what the fastest takes. Enough to
/// keep requests away until it is ejected, and not so much that it stays idle for minutes when it fails only now and then.
const LEAST_PENALTY: Duration = Duration::from_millis(50);
const PENALTY_TIMES: u32 = 4;

/// What stays while the upstream stays, whatever becomes of its record.
pub(super) struct Shared {
    pub budget: RetryBudget,
    pub hedge: Hedge,
    pub ejection: Ejection,
    /// Who waits when the endpoints have as much as they bear.
    pub gate: Arc<Gate>,
    draws: AtomicU64,
    seed: u64,
}

/// An upstream's endpoints, with the rules of one snapshot.
pub(super) struct Pool {
    settings: Settings,
    places: Vec<Place>,
    outbound: Outbound,
    bodies: BodyLimits,
    retry: RetryPolicy,
    clock: Arc<dyn Clock>,
    tasks: TaskGroup,
    pub shared: Arc<Shared>,
    pub metrics: Metrics,
}

/// Who is wanted.
pub(super) struct Wish<'a> {
    /// Requests with the same number belong together.
    pub sticky: Option<u64>,
    /// Who was asked already.
    pub tried: &'a [usize],
    pub kind: Kind,
}

/// For what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// The first attempt; `probe`: it may be tried again, so it may find out how one does.
    First { probe: bool },
    /// Another after a failure.
    Again,
    /// A second copy.
    Hedge,
}

/// Among whom one is chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Group {
    /// Everybody is well.
    All,
    /// Those who are.
    Ready,
    /// Everybody whose breaker allows it: too few are well.
    Panic,
}

impl Pool {
    /// `old`: the same upstream before.
    pub(super) fn new(parts: &Parts, record: &UpstreamRecord, metrics: Metrics, old: Option<&Self>) -> Result<Self, &'static str> {
        let Parts { options, world, catalogue: _, tasks } = parts;
        let (settings, specs) = Settings::compile(record, options)?;
        let kept = old.filter(|old| old.settings.dialling == settings.dialling).map(|old| old.outbound.clone());
        let outbound = match kept {
            Some(outbound) => outbound,
            None => outbound(parts, &settings.dialling, &metrics, tasks)?,
        };
        let shared = old.map_or_else(|| Arc::new(Shared::new(parts)), |old| old.shared.clone());
        let now = world.clock.monotonic();
        let mut pool = Self {
            settings,
            places: Vec::with_capacity(specs.len()),
            outbound,
            bodies: options.bodies.clone(),
            retry: RetryPolicy { most_attempts: record.attempts.unwrap_or(2).max(1), backoff: options.tuning.backoff.clone() },
            clock: world.clock.clone(),
            tasks: tasks.clone(),
            shared,
            metrics,
        };
        for spec in specs {
            let place = pool.place(parts, spec, old, now);
            pool.places.push(place);
        }
        Ok(pool)
    }

    fn place(&self, parts: &Parts, spec: Spec, old: Option<&Self>, now: Duration) -> Place {
        let tuning = &parts.options.tuning;
        let was = old.and_then(|old| Some((old, old.places.iter().find(|place| *place.core.client.address() == spec.address)?)));
        let breaker = || (self.settings.breaker.clone(), parts.world.random.next_u64());
        let core = match was {
            Some((old, was)) => {
                let same_client = old.settings.dialling == self.settings.dialling;
                let client = if same_client { was.core.client.clone() } else { self.outbound.endpoint(spec.address) };
                if same_client && old.settings.breaker == self.settings.breaker {
                    was.core.clone()
                } else {
                    Arc::new(was.core.again(client, breaker(), tuning, now))
                }
            }
            None => {
                let first = old.and_then(|old| old.latency(now)).unwrap_or(tuning.first_latency);
                Arc::new(Core::new(self.outbound.endpoint(spec.address), breaker(), tuning, now, first))
            }
        };
        let breaker_state = self.metrics.breaker_state(spec.index);
        Place { core, index: spec.index, weight: spec.weight, id: spec.id, breaker_state }
    }

    pub(super) fn now(&self) -> Duration {
        self.clock.monotonic()
    }

    pub(super) const fn clock(&self) -> &Arc<dyn Clock> {
        &self.clock
    }

    pub(super) const fn tasks(&self) -> &TaskGroup {
        &self.tasks
    }

    pub(super) const fn settings(&self) -> &Settings {
        &self.settings
    }

    pub(super) const fn bodies(&self) -> &BodyLimits {
        &self.bodies
    }

    pub(super) const fn retry(&self) -> &RetryPolicy {
        &self.retry
    }

    pub(super) fn places(&self) -> &[Place] {
        &self.places
    }

    /// How many requests the endpoints that are well bear at a time; all of them when none is, and the choice says why nobody is asked.
    pub(super) fn bears(&self, now: Duration) -> u32 {
        let limits = |of: &dyn Fn(&Place) -> bool| -> u32 {
            self.places.iter().filter(|place| of(place)).fold(0, |sum: u32, place| sum.saturating_add(self.bears_at(place)))
        };
        match limits(&|place| place.is_well(now)) {
            0 => limits(&|_| true),
            sum => sum,
        }
    }

    /// The same of one endpoint: what it has been measured to bear, and no more than its connections carry.
    fn bears_at(&self, place: &Place) -> u32 {
        let measured = place.core.limit.limit();
        match place.core.client.address().scheme() {
            Scheme::Http => measured.min(u32::try_from(self.settings.dialling.max_connections).unwrap_or(u32::MAX)),
            Scheme::Https | Scheme::H2c | Scheme::Grpc | Scheme::Grpcs => measured,
        }
    }

    /// What an attempt takes where it is fast.
    pub(super) fn latency(&self, now: Duration) -> Option<Duration> {
        self.places.iter().filter(|place| place.is_well(now)).map(|place| place.core.load.latency(now)).min()
    }

    /// As what a failure counts.
    pub(super) fn penalty(&self, now: Duration) -> Duration {
        let fastest = self.latency(now).unwrap_or_default();
        fastest.saturating_mul(PENALTY_TIMES).clamp(LEAST_PENALTY, LEAST_PENALTY.max(self.settings.deadlines.first_byte))
    }

    pub(super) fn draw(&self) -> u64 {
        hash::mix(self.shared.seed, self.shared.draws.fetch_add(1, Relaxed))
    }

    /// Notes what the end of an attempt means for the pool.
    pub(super) fn learn(&self, now: Duration, place: usize, outcome: Outcome, began: Duration) {
        let call = Call { host: place, outcome, began };
        if let Some(ejected) = self.shared.ejection.record(now, &self.places, call, |other| other.may_be_asked(now)) {
            self.ejected(now, ejected);
        }
    }

    pub(super) fn ejected(&self, now: Duration, ejected: Ejected) {
        self.metrics.ejections.inc();
        let place = self.places.get(ejected.host);
        // When it comes back it is one like the others.
        if let Some((place, latency)) = place.zip(self.latency(now)) {
            place.core.load.believe(now, latency);
        }
        let endpoint = place.map_or(0, |place| place.index);
        tracing::warn!(endpoint, cause = ?ejected.cause, seconds = ejected.lasts.as_secs(), "an endpoint of an upstream is ejected");
    }

    /// Who is asked next, ready to be asked.
    ///
    /// # Errors
    /// `upstream_unavailable`, with when to come again.
    pub(super) fn begin(self: &Arc<Self>, now: Duration, wish: &Wish<'_>) -> Result<Flight, Error> {
        for _ in 0..RACES {
            let group = self.group(now, wish.kind);
            if group == Group::Panic {
                self.relieve(now);
            }
            let Some(place) = self.choose(now, wish, group) else { break };
            let Some(core) = self.places.get(place).map(|place| &place.core) else { break };
            if self.settings.adaptive && !core.limit.enter() {
                continue;
            }
            let permit = core.breaker.permit(now);
            if !matches!(permit, Permit::Refused { .. }) {
                return Ok(Flight::new(self.clone(), place, permit, core.load.begin(now), now));
            }
            if self.settings.adaptive {
                core.limit.leave(now, Sample::Nothing);
            }
        }
        Err(self.nobody(now))
    }

    /// Whether somebody could be asked now.
    pub(super) fn has(&self, now: Duration, wish: &Wish<'_>) -> bool {
        self.choose(now, wish, self.group(now, wish.kind)).is_some()
    }

    /// Among whom to choose.
    fn group(&self, now: Duration, kind: Kind) -> Group {
        let n = self.places.len();
        let ready = self.places.iter().filter(|place| place.is_well(now)).count();
        if ready == n {
            return Group::All;
        }
        // One that has checks and nothing beside it leaves the judgement to them and its breaker; a hedge is never worth a risk.
        let alone = n == 1 && self.settings.health.is_some();
        let panic = self.shared.ejection.route(ready, n) == Routing::Panic && !alone && kind != Kind::Hedge;
        if panic { Group::Panic } else { Group::Ready }
    }

    /// Too few are well for the others to be outliers: ejections end, and open breakers are probed more often.
    fn relieve(&self, now: Duration) {
        let ended = self.shared.ejection.annul(now, &self.places);
        if ended > 0 {
            tracing::warn!(ended, "too few endpoints of an upstream are well: its ejections end");
        }
        self.places.iter().for_each(|place| place.core.breaker.hasten(now));
    }

    fn choose(&self, now: Duration, wish: &Wish<'_>, group: Group) -> Option<usize> {
        let n = self.places.len();
        // Everybody was tried: only the last one is left out.
        let tried = if wish.tried.len() >= n { wish.tried.last().map_or(&[][..], std::slice::from_ref) } else { wish.tried };
        let may = |at: usize| {
            let place = self.places.get(at).filter(|place| match group {
                Group::All => true,
                Group::Ready => place.is_well(now),
                Group::Panic => place.core.breaker.allows(now),
            })?;
            let is_again = wish.kind == Kind::Again || wish.kind == Kind::Hedge;
            if is_again && ((n > 1 && tried.contains(&at)) || !(group == Group::Panic || place.core.breaker.state(now).takes_extra())) {
                return None;
            }
            let room = !self.settings.adaptive || place.core.limit.has_room();
            (room && place.core.throttle.remaining(now).is_none()).then_some(place)
        };
        let draw = self.draw();
        if let Kind::First { probe } = wish.kind {
            // Where nothing may be tried again, some have to take the risk.
            let takes = probe || draw.is_multiple_of(16);
            let wants = |at: &usize| self.places.get(*at).is_some_and(|place| place.core.breaker.wants_probe(now)) && may(*at).is_some();
            if let Some(at) = (0..n).find(|at| takes && wants(at)) {
                return Some(at);
            }
        }
        match wish.sticky {
            Some(key) => bounded::pick(key, n, LOAD_PERCENT, |at| may(at).map(|place| place.node(now))),
            None => p2c::pick(n, (draw, hash::mix(draw, 1)), |at| may(at).and_then(|place| place.cost(now))),
        }
    }

    /// Why nobody may be asked.
    fn nobody(&self, now: Duration) -> Error {
        let peace = self.places.iter().filter(|place| place.is_well(now)).map(|place| place.core.throttle.remaining(now));
        // The first that may be asked again; `None` when one may be already.
        let throttled = peace.reduce(|a, b| a.min(b)).flatten();
        let (text, after) = match throttled {
            Some(left) => ("the upstream has asked not to be asked for a while", left),
            None if self.places.iter().any(|place| place.is_well(now)) => {
                ("the upstream has as many requests in flight as it can bear", Duration::from_secs(1))
            }
            None => {
                // When the first of their breakers lets a probe through. Checks say nothing of when they will pass.
                let soonest = self.places.iter().filter_map(|place| place.core.breaker.refused_for(now)).min();
                let after = soonest.map_or(CHECKED_AGAIN, |left| left.max(Duration::from_secs(1)));
                ("no endpoint of the upstream is well: their breakers are open or their checks fail", after)
            }
        };
        Error::new(Reason::UpstreamUnavailable, text).retry_after(after)
    }
}

impl Shared {
    fn new(parts: &Parts) -> Self {
        let tuning = &parts.options.tuning;
        Self {
            budget: RetryBudget::new(&tuning.budget),
            hedge: Hedge::new(tuning.hedge.clone()),
            ejection: Ejection::new(tuning.ejection.clone()),
            gate: Gate::new(parts.world.clock.clone()),
            draws: AtomicU64::new(0),
            seed: parts.world.random.next_u64(),
        }
    }
}

fn outbound(parts: &Parts, dialling: &Dialling, metrics: &Metrics, tasks: &TaskGroup) -> Result<Outbound, &'static str> {
    let options = &parts.options;
    let made =
        Outbound::new(dialling.options(&options.outbound), dialling.guard(), options.resolver.clone(), metrics.outbound.clone(), tasks);
    made.map_err(|_| "TLS cannot be set up")
}
