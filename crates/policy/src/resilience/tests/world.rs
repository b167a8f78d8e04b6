//! A gateway, its endpoints and its clients in simulated time, put together as the real one is meant to be.
//!
//! Each endpoint has four slots of 50 ms and a queue that forgets nobody (80 requests a second). The gateway gives an attempt a second.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use crate::balance::ewma::{InFlight, Load};
use crate::balance::{hash, p2c};
use crate::resilience::Outcome;
use crate::resilience::breaker::{self, Breaker, Permit};
use crate::resilience::ejection::{self, Call, Ejection, Record, Routing};
use crate::resilience::gradient::{self, Gradient, Sample};
use crate::resilience::retry::{Attempt, BudgetSettings, RetryBudget, RetryPolicy};

const SLOTS: usize = 4;
const SERVICE: Duration = Duration::from_millis(50);
const ATTEMPT: Duration = Duration::from_secs(1);
const DEADLINE: Duration = Duration::from_secs(3);
/// From a client to the gateway and back.
const AWAY: Duration = Duration::from_millis(10);
const PENALTY: Duration = Duration::from_millis(500);

#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Fault {
    None,
    /// 500 after 5 ms.
    Fails,
    /// Takes requests and never answers.
    Hangs,
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Client {
    /// Does not come again.
    Gone,
    /// Comes again at once until its patience is over.
    AtOnce { patience: Duration },
}

#[derive(Debug, Clone)]
pub(super) struct Setting {
    pub(super) endpoints: usize,
    pub(super) per_second: u64,
    pub(super) client: Client,
    /// Active checks each two seconds.
    pub(super) checks: bool,
    pub(super) seed: u64,
}

impl Default for Setting {
    fn default() -> Self {
        Self { endpoints: 4, per_second: 100, client: Client::Gone, checks: false, seed: 1 }
    }
}

#[derive(Debug, Default, Clone)]
pub(super) struct Report {
    pub(super) requests: u64,
    pub(super) attempts: u64,
    /// Requests for which there was room and yet no endpoint.
    pub(super) nobody: u64,
    pub(super) most_ejected: usize,
    /// By the second: new clients, those of them that were served, and answers in time.
    seconds: BTreeMap<u64, [u64; 3]>,
}

impl Report {
    /// The part of the clients that came in these seconds that was served in the end.
    pub(super) fn success(&self, from: u64, to: u64) -> f64 {
        let [came, served] = self.seconds.range(from..to).fold([0, 0], |sum, (_, second)| [sum[0] + second[0], sum[1] + second[1]]);
        served as f64 / came as f64
    }

    /// Answers in these seconds for each client that came in them.
    pub(super) fn goodput(&self, from: u64, to: u64) -> f64 {
        let [came, answered] = self.seconds.range(from..to).fold([0, 0], |sum, (_, second)| [sum[0] + second[0], sum[1] + second[2]]);
        answered as f64 / came as f64
    }
}

struct Endpoint {
    breaker: Breaker,
    record: Record,
    load: Arc<Load>,
    limit: Gradient,
    fault: Fault,
    busy: usize,
    queue: VecDeque<u64>,
    answered: u64,
}

impl AsRef<Record> for Endpoint {
    fn as_ref(&self) -> &Record {
        &self.record
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Arrive,
    /// A client (by when it came) asks, or a retry of its request (by when that began, and where it was).
    Ask {
        client: Duration,
    },
    Again {
        client: Duration,
        request: Duration,
        tried: usize,
    },
    Served {
        endpoint: usize,
        attempt: u64,
    },
    End {
        attempt: u64,
        outcome: u8,
    },
    Interval,
    Check,
}

struct Flying {
    client: Duration,
    request: Duration,
    attempts: u32,
    endpoint: usize,
    began: Duration,
    permit: Permit,
    in_flight: InFlight,
}

pub(super) struct World {
    setting: Setting,
    now: Duration,
    draws: u64,
    events: BinaryHeap<Reverse<(Duration, u64, Event)>>,
    count: u64,
    endpoints: Vec<Endpoint>,
    ejection: Ejection,
    budget: RetryBudget,
    policy: RetryPolicy,
    flying: BTreeMap<u64, Flying>,
    report: Report,
}

const FAILED: u8 = 0;
const TIMED_OUT: u8 = 1;

impl World {
    pub(super) fn new(setting: Setting) -> Self {
        let endpoint = |n: usize| Endpoint {
            breaker: Breaker::new(breaker::Settings::default(), hash::mix(setting.seed, n as u64)),
            record: Record::default(),
            load: Arc::new(Load::new(Duration::ZERO, Load::TAU, SERVICE)),
            limit: Gradient::new(gradient::Settings { initial: 8, least: 4, ..gradient::Settings::default() }),
            fault: Fault::None,
            busy: 0,
            queue: VecDeque::new(),
            answered: 0,
        };
        let mut world = Self {
            endpoints: (0..setting.endpoints).map(endpoint).collect(),
            setting,
            now: Duration::ZERO,
            draws: 0,
            events: BinaryHeap::new(),
            count: 0,
            ejection: Ejection::new(ejection::Settings::default()),
            budget: RetryBudget::new(&BudgetSettings::default()),
            policy: RetryPolicy::default(),
            flying: BTreeMap::new(),
            report: Report::default(),
        };
        world.at(Duration::ZERO, Event::Arrive);
        world.at(Duration::from_secs(10), Event::Interval);
        world.at(Duration::from_secs(2), Event::Check);
        world
    }

    pub(super) fn fault(&mut self, endpoint: usize, fault: Fault) {
        let endpoint = &mut self.endpoints[endpoint];
        endpoint.fault = fault;
        // It is restarted: whatever hung is gone.
        endpoint.queue.clear();
        endpoint.busy = 0;
    }

    pub(super) fn is_ready(&self, endpoint: usize) -> bool {
        let endpoint = &self.endpoints[endpoint];
        !endpoint.record.is_ejected(self.now) && endpoint.breaker.allows(self.now)
    }

    pub(super) fn answered(&self, endpoint: usize) -> u64 {
        self.endpoints[endpoint].answered
    }

    pub(super) fn report(&self) -> Report {
        self.report.clone()
    }

    pub(super) fn run_until(&mut self, end: Duration) {
        while let Some(Reverse((at, _, event))) = self.events.peek().copied()
            && at < end
        {
            self.events.pop();
            self.now = at;
            self.happens(event);
            let ejected = self.endpoints.iter().filter(|endpoint| endpoint.record.is_ejected(at)).count();
            self.report.most_ejected = self.report.most_ejected.max(ejected);
        }
        self.now = end;
    }

    fn happens(&mut self, event: Event) {
        match event {
            Event::Arrive => {
                self.second(self.now, 0);
                self.ask(self.now);
                // Open loop: evenly spread between nothing and twice the mean.
                let gap = Duration::from_secs(2).mul_f64(hash::unit(self.draw()) / self.setting.per_second as f64);
                self.at(self.now + gap, Event::Arrive);
            }
            Event::Ask { client } => self.ask(client),
            Event::Again { client, request, tried } => self.attempt(client, request, 2, Some(tried)),
            Event::Served { endpoint, attempt } => self.served(endpoint, attempt),
            Event::End { attempt, outcome: FAILED } => self.end(attempt, Outcome::ServerError),
            Event::End { attempt, .. } => self.end(attempt, Outcome::Timeout),
            Event::Interval => {
                self.ejection.interval(self.now, &self.endpoints, |endpoint| endpoint.breaker.allows(self.now));
                self.at(self.now + Duration::from_secs(10), Event::Interval);
            }
            Event::Check => {
                for endpoint in self.endpoints.iter().filter(|endpoint| self.setting.checks && endpoint.fault == Fault::None) {
                    endpoint.breaker.check_passed(self.now);
                    endpoint.record.readmit(self.now);
                }
                self.at(self.now + Duration::from_secs(2), Event::Check);
            }
        }
    }

    fn ask(&mut self, client: Duration) {
        self.report.requests += 1;
        self.budget.requested(self.now);
        self.attempt(client, self.now, 1, None);
    }

    fn attempt(&mut self, client: Duration, request: Duration, attempts: u32, tried: Option<usize>) {
        let Some((chosen, permit)) = self.choose(tried) else { return self.failed(client) };
        self.report.attempts += 1;
        self.count += 1;
        let (attempt, now) = (self.count, self.now);
        let endpoint = &mut self.endpoints[chosen];
        let in_flight = endpoint.load.begin(now);
        self.flying.insert(attempt, Flying { client, request, attempts, endpoint: chosen, began: now, permit, in_flight });
        match self.endpoints[chosen].fault {
            Fault::None => {
                self.endpoints[chosen].queue.push_back(attempt);
                self.serve(chosen);
            }
            Fault::Fails => self.at(now + Duration::from_millis(5), Event::End { attempt, outcome: FAILED }),
            Fault::Hangs => {}
        }
        self.at(now + ATTEMPT, Event::End { attempt, outcome: TIMED_OUT });
    }

    /// Who is ready, or everybody; of these the cheaper of two; but first one that wants a probe.
    fn choose(&mut self, tried: Option<usize>) -> Option<(usize, Permit)> {
        let (n, now, draws) = (self.endpoints.len(), self.now, (self.draw(), self.draw()));
        let ready = (0..n).filter(|place| self.is_ready(*place)).count();
        let panic = self.ejection.route(ready, n) == Routing::Panic;
        if panic {
            self.ejection.annul(now, &self.endpoints);
            self.endpoints.iter().for_each(|endpoint| endpoint.breaker.hasten(now));
        }
        let may = |place: usize| {
            let endpoint = &self.endpoints[place];
            // A retry goes elsewhere, and to somebody who is well.
            let again = tried.is_some() && (tried == Some(place) && n > 1 || !endpoint.breaker.state(now).takes_extra() && !panic);
            // In panic nobody is ejected any more: open breakers hold all the same.
            !again && self.is_ready(place) && endpoint.limit.has_room()
        };
        let probe = (0..n).find(|place| tried.is_none() && may(*place) && self.endpoints[*place].breaker.wants_probe(now));
        let cost = |place: usize| {
            let endpoint = &self.endpoints[place];
            if may(place) { endpoint.load.cost(now, endpoint.breaker.weight(now)) } else { None }
        };
        let has_room = |place: usize| self.is_ready(place) && self.endpoints[place].limit.has_room();
        let Some(place) = probe.or_else(|| p2c::pick(n, draws, cost)) else {
            self.report.nobody += u64::from(tried.is_none() && ready > 0 && (0..n).any(has_room));
            return None;
        };
        let endpoint = &self.endpoints[place];
        let permit = endpoint.breaker.permit(now);
        assert!(endpoint.limit.enter() && !matches!(permit, Permit::Refused { .. }));
        Some((place, permit))
    }

    fn serve(&mut self, place: usize) {
        while self.endpoints[place].busy < SLOTS
            && let Some(attempt) = self.endpoints[place].queue.pop_front()
        {
            if self.flying.contains_key(&attempt) {
                self.endpoints[place].busy += 1;
                self.at(self.now + SERVICE, Event::Served { endpoint: place, attempt });
            }
        }
    }

    fn served(&mut self, place: usize, attempt: u64) {
        if self.endpoints[place].fault != Fault::None {
            return;
        }
        self.endpoints[place].busy = self.endpoints[place].busy.saturating_sub(1);
        self.serve(place);
        self.end(attempt, Outcome::Success);
    }

    fn end(&mut self, attempt: u64, outcome: Outcome) {
        let Some(mut flying) = self.flying.remove(&attempt) else { return };
        let (now, latency) = (self.now, self.now - flying.began);
        let endpoint = &mut self.endpoints[flying.endpoint];
        endpoint.breaker.record(now, flying.permit, outcome, latency);
        match outcome {
            Outcome::Success => {
                endpoint.answered += 1;
                flying.in_flight.answered(now);
                endpoint.limit.leave(now, Sample::Latency(latency));
            }
            _ => {
                flying.in_flight.failed(now, PENALTY);
                endpoint.limit.leave(now, if outcome == Outcome::Timeout { Sample::Overload } else { Sample::Nothing });
            }
        }
        let call = Call { host: flying.endpoint, outcome, began: flying.began };
        self.ejection.record(now, &self.endpoints, call, |endpoint| endpoint.breaker.allows(now));
        if outcome == Outcome::Success {
            self.second(flying.client, 1);
            return self.second(now, 2);
        }
        let failed = Attempt {
            outcome,
            idempotent: true,
            first_byte_sent: false,
            attempts: flying.attempts,
            deadline_left: (flying.request + DEADLINE).saturating_sub(now),
            expected: SERVICE,
            push_back: None,
        };
        match self.policy.may_retry(&failed, hash::mix(attempt, 3)) {
            Ok(wait) if self.budget.withdraw(now) => {
                self.at(now + wait, Event::Again { client: flying.client, request: flying.request, tried: flying.endpoint });
            }
            Ok(_) | Err(_) => self.failed(flying.client),
        }
    }

    /// The client gets an error.
    fn failed(&mut self, client: Duration) {
        match self.setting.client {
            Client::AtOnce { patience } if self.now + AWAY < client + patience => self.at(self.now + AWAY, Event::Ask { client }),
            Client::AtOnce { .. } | Client::Gone => {}
        }
    }

    fn at(&mut self, time: Duration, event: Event) {
        self.count += 1;
        self.events.push(Reverse((time, self.count, event)));
    }

    fn draw(&mut self) -> u64 {
        self.draws += 1;
        hash::mix(self.setting.seed, self.draws)
    }

    fn second(&mut self, at: Duration, which: usize) {
        self.report.seconds.entry(at.as_secs()).or_default()[which] += 1;
    }
}
