//! Nodes, a store and a network in simulated time: every admission is written down, every span of time is counted.

use std::collections::VecDeque;
use std::time::Duration;

use proptest::prelude::*;

use super::central::{CapState, CentralCap, CentralRate, RateState};
use super::*;
use crate::batching::simulation::Seeded;
use crate::limits::{Rate, Taken, Verdict};

const MS: u64 = 1_000;
/// The store's clock has another zero than the nodes'.
const STORE_ZERO: u64 = 1_700_000_000_000_000;

#[derive(Debug, Clone, Copy)]
struct World {
    seed: u64,
    nodes: u32,
    units: u64,
    burst: u64,
    most_cost: u64,
    /// Requests of all nodes together, as a multiple of the rate.
    demand: f64,
    /// Without the store from, to (milliseconds).
    away: (u64, u64),
    /// How much later each node notices, at most.
    notices: u64,
    dies: f64,
    loses: f64,
    forgets: bool,
    /// What is given back comes so many milliseconds later, at most.
    settles: u64,
    millis: u64,
}

#[derive(Debug)]
struct Outcome {
    /// Microseconds, and units admitted (or, negative, given back).
    events: Vec<(u64, i64)>,
    asked: u64,
    largest: u64,
    /// Units that nodes earned on their own while others did not.
    apart: f64,
}

struct Flight {
    at: u64,
    node: usize,
    life: u64,
    request: LeaseRequest,
    answer: Option<LeaseAnswer>,
}

struct Node {
    leased: Leased,
    life: u64,
    zero: Duration,
    notices_loss: u64,
    notices_back: u64,
}

impl World {
    fn rate(&self) -> Rate {
        Rate::parse(&format!("{}/s", self.units), Some(self.burst)).unwrap()
    }

    fn settings(&self) -> LeaseSettings {
        LeaseSettings {
            life: Duration::from_millis(300),
            patience: Duration::from_millis(60),
            ..LeaseSettings::for_rate(&self.rate(), self.nodes)
        }
    }

    fn run(&self) -> Outcome {
        let (rate, settings) = (self.rate(), self.settings());
        let central = CentralRate::new(&rate, settings.life);
        let mut random = Seeded::new(self.seed);
        let mut state = RateState::default();
        let mut nodes: Vec<Node> = (0..self.nodes).map(|index| self.node(u64::from(index), &mut random)).collect();
        let mut flights: VecDeque<Flight> = VecDeque::new();
        let mut settles: Vec<(u64, usize, u64, u64, u64, Duration)> = Vec::new();
        let mut outcome = Outcome { events: Vec::new(), asked: 0, largest: settings.size, apart: 0.0 };
        let mean_cost = (1 + self.most_cost) as f64 / 2.0;
        let each_ms = self.demand * self.units as f64 / 1000.0 / mean_cost / f64::from(self.nodes);
        let mut next_life = u64::from(self.nodes);
        for milli in 0..self.millis {
            let now = milli * MS;
            let up = milli < self.away.0 || milli >= self.away.1;
            if self.forgets && milli == self.away.1 {
                state = RateState::default();
            }
            // The network.
            let mut later = VecDeque::new();
            for flight in flights.drain(..) {
                if flight.at > now {
                    later.push_back(flight);
                    continue;
                }
                let node = &nodes[flight.node];
                match flight.answer {
                    _ if node.life != flight.life => {}
                    Some(answer) => node.leased.granted(&flight.request, &answer, node.zero + Duration::from_micros(now)),
                    None if up => {
                        let answer = central.lease(&mut state, &flight.request, STORE_ZERO + now);
                        if random.share() >= self.loses {
                            let at = now + (1 + random.any() % 15) * MS;
                            later.push_back(Flight { at, answer: Some(answer), ..flight });
                        }
                    }
                    None => node.leased.failed(&flight.request, node.zero + Duration::from_micros(now)),
                }
            }
            flights = later;
            for (index, node) in nodes.iter_mut().enumerate() {
                let local = node.zero + Duration::from_micros(now);
                // Not while it has yet to tell the store of its time without it: the third exception of the module's text.
                if random.share() < self.dies && !(up && milli < self.away.1 + self.notices + 50 && milli >= self.away.1) {
                    next_life += 1;
                    *node = self.node(next_life, &mut random);
                    if !up {
                        node.leased.lost(node.zero + Duration::from_micros(now));
                    }
                    continue;
                }
                if !up && milli == self.away.0 + node.notices_loss {
                    node.leased.lost(local);
                }
                if up && milli >= self.away.1 + node.notices_back {
                    node.leased.back(local);
                }
                settles.retain(|(at, of, life, reserved, actual, taken_at)| {
                    if *at > milli {
                        return true;
                    }
                    if *of == index && *life == node.life {
                        node.leased.settle(*reserved, *actual, *taken_at, local);
                        outcome.events.push((now, actual.cast_signed() - reserved.cast_signed()));
                    }
                    *of != index
                });
                let mut tries = each_ms.floor() as u64 + u64::from(random.share() < each_ms.fract());
                while tries > 0 {
                    tries -= 1;
                    let cost = 1 + random.any() % self.most_cost;
                    outcome.asked += cost;
                    outcome.largest = outcome.largest.max(cost);
                    let Taken { verdict, .. } = node.leased.take(cost, local);
                    if verdict == Verdict::Allowed {
                        outcome.events.push((now, cost.cast_signed()));
                        if random.share() < 0.2 {
                            settles.push((milli + random.any() % self.settles, index, node.life, cost, random.any() % (cost + 1), local));
                        }
                    }
                }
                if let Some(request) = node.leased.wants(local) {
                    flights.push_back(Flight {
                        at: now + (1 + random.any() % 5) * MS,
                        node: index,
                        life: node.life,
                        request,
                        answer: None,
                    });
                }
            }
            let lost = nodes.iter().filter(|node| node.leased.is_lost()).count();
            if up || lost < nodes.len() {
                outcome.apart += lost as f64 * self.units as f64 / f64::from(self.nodes) / 1000.0;
            }
        }
        outcome
    }

    fn node(&self, life: u64, random: &mut Seeded) -> Node {
        Node {
            leased: Leased::new(self.rate(), self.settings()),
            life,
            zero: Duration::from_millis(random.any() % 100_000),
            notices_loss: random.any() % (self.notices + 1),
            notices_back: random.any() % (self.notices + 1),
        }
    }
}

impl Outcome {
    fn admitted(&self) -> i64 {
        self.events.iter().map(|(_, units)| units).sum()
    }

    /// The most, over all spans of time, of what was admitted beyond rate × span.
    fn excess(&self, units: u64) -> f64 {
        let (mut sum, mut least, mut worst) = (0f64, f64::MAX, f64::MIN);
        for (at, net) in &self.events {
            let earned = *at as f64 * units as f64 / 1e6;
            least = least.min(sum - earned);
            sum += *net as f64;
            worst = worst.max(sum - earned - least);
        }
        worst
    }
}

fn world() -> impl Strategy<Value = World> {
    let shape = (1u32..7, prop_oneof![1u64..50, 50u64..3000], 1u64..400, 1u64..8, 0.2f64..5.0);
    let faults = (
        0u64..2000,
        0u64..2000,
        0u64..200,
        prop_oneof![Just(0.0), Just(0.002)],
        prop_oneof![Just(0.0), Just(0.05)],
        any::<bool>(),
        prop_oneof![Just(50u64), Just(1500)],
    );
    (any::<u64>(), shape, faults).prop_map(
        |(seed, (nodes, units, burst, cost, demand), (from, long, notices, dies, loses, forgets, settles))| World {
            seed,
            nodes,
            units,
            burst,
            most_cost: cost.min(burst),
            demand,
            away: (from, from + long),
            notices,
            dies,
            loses,
            forgets: forgets && long > 0,
            settles,
            millis: 3000,
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// The bound of the module's text, over all spans of random histories.
    #[test]
    fn at_most_one_lease_for_each_node_beyond_the_limit(world in world()) {
        let outcome = world.run();
        if outcome.events.is_empty() {
            return Ok(());
        }
        let leases = f64::from(world.nodes) * outcome.largest as f64;
        let again = if world.forgets { world.burst as f64 + leases } else { 0.0 };
        let bound = world.burst as f64 + leases + outcome.apart + again;
        let excess = outcome.excess(world.units);
        prop_assert!(excess <= bound + 1e-6, "{} beyond rate x time, {} allowed, {} of it for nodes apart", excess, bound, outcome.apart);
    }
}

const CALM: World = World {
    seed: 7,
    nodes: 3,
    units: 2000,
    burst: 400,
    most_cost: 1,
    demand: 2.0,
    away: (100_000, 100_000),
    notices: 0,
    dies: 0.0,
    loses: 0.0,
    forgets: false,
    settles: 50,
    millis: 10_000,
};

#[test]
fn together_the_nodes_use_the_whole_limit() {
    let outcome = CALM.run();
    let share = outcome.admitted() as f64 / (2000.0 * 10.0);
    assert!((0.97..=1.03).contains(&share), "{share} of the limit");
}

#[test]
fn the_bound_is_not_idle_talk() {
    // Without leases the nodes would hold nothing: what is measured comes near to what is promised.
    let outcome = World { demand: 20.0, ..CALM }.run();
    assert!(outcome.excess(2000) > 400.0, "{} is no more than the burst alone", outcome.excess(2000));
    assert!(outcome.excess(2000) <= 400.0 + 3.0 * 33.0);
}

#[test]
fn below_the_limit_nobody_is_refused() {
    let outcome = World { demand: 0.8, millis: 20_000, ..CALM }.run();
    // What a cold node answers with `Ask` is not tried again here: a few requests of the first milliseconds.
    let missing = outcome.asked as i64 - outcome.events.iter().filter(|(_, units)| *units > 0).map(|(_, units)| units).sum::<i64>();
    assert!(missing * 1000 < outcome.asked as i64 * 2, "{missing} of {}", outcome.asked);
}

#[test]
fn without_the_store_the_share_goes_on() {
    let away = World { away: (2000, 8000), notices: 50, ..CALM };
    let outcome = away.run();
    let during =
        |from: u64, to: u64| outcome.events.iter().filter(|(at, _)| (from * MS..to * MS).contains(at)).map(|(_, units)| units).sum::<i64>();
    let share = during(3000, 8000) as f64 / (2000.0 * 5.0);
    assert!((0.97..=1.03).contains(&share), "{share} of the limit while the store is away");
    let after = during(8000, 10_000) as f64 / (2000.0 * 2.0);
    assert!((0.9..=1.1).contains(&after), "{after} of the limit after it is back");
}

#[test]
fn a_cold_node_asks_first() {
    let rate = Rate::parse("100/s", Some(200)).unwrap();
    let leased = Leased::new(rate, LeaseSettings::for_rate(&rate, 3));
    let (central, mut state) = (CentralRate::new(&rate, Duration::from_secs(5)), RateState::default());
    let at = Duration::from_millis;
    assert_eq!(leased.wants(at(0)), None, "nobody has asked: nothing is leased");
    assert_eq!(leased.take(1, at(0)).verdict, Verdict::Ask);
    let request = leased.wants(at(0)).unwrap();
    assert_eq!((request.want, leased.wants(at(1))), (16, None), "one question at a time");
    leased.granted(&request, &central.lease(&mut state, &request, STORE_ZERO), at(2));
    let taken = leased.take(1, at(2));
    assert_eq!((taken.verdict, taken.remaining), (Verdict::Allowed, 199));
    for _ in 0..8 {
        assert!(leased.take(1, at(3)).allowed());
    }
    let request = leased.wants(at(3)).unwrap();
    assert_eq!((request.want, request.unused), (9, 0), "fetched before it is used up, to one lease and not more");
    leased.granted(&request, &central.lease(&mut state, &request, STORE_ZERO + 1), at(4));
    assert_eq!(leased.take(201, at(4)).verdict, Verdict::Never);
    assert_eq!(leased.take(150, at(4)).verdict, Verdict::Ask, "more than a lease, less than the burst");
    let request = leased.wants(at(4)).unwrap();
    assert_eq!(request.want, 134);
    leased.granted(&request, &central.lease(&mut state, &request, STORE_ZERO + 2), at(5));
    assert!(leased.take(150, at(5)).allowed());
}

#[test]
fn a_lease_ends_and_its_rest_comes_back() {
    let rate = Rate::parse("100/s", Some(200)).unwrap();
    let leased = Leased::new(rate, LeaseSettings::for_rate(&rate, 3));
    let (central, mut state) = (CentralRate::new(&rate, Duration::from_secs(5)), RateState::default());
    let at = Duration::from_millis;
    leased.take(1, at(0));
    let request = leased.wants(at(0)).unwrap();
    leased.granted(&request, &central.lease(&mut state, &request, STORE_ZERO), at(1));
    assert!(leased.take(1, at(4999)).allowed());
    let request = leased.wants(at(5000)).unwrap();
    assert_eq!((request.want, request.unused), (16, 15));
    leased.granted(&request, &central.lease(&mut state, &request, STORE_ZERO), at(5001));
    let request = leased.wants(at(10_000)).unwrap();
    assert_eq!((request.want, request.unused), (0, 16), "a limit that nobody uses is not renewed");
    leased.granted(&request, &central.lease(&mut state, &request, STORE_ZERO), at(10_001));
    assert_eq!(leased.wants(at(20_000)), None);
    assert_eq!(leased.surrender(at(20_000)).unused, 0);
}

#[test]
fn a_refused_lease_is_not_asked_for_at_once() {
    let rate = Rate::parse("10/s", Some(20)).unwrap();
    let leased = Leased::new(rate, LeaseSettings::for_rate(&rate, 2));
    let at = Duration::from_millis;
    leased.take(1, at(0));
    let request = leased.wants(at(0)).unwrap();
    let empty = LeaseAnswer { granted: 0, left: 0, retry_after: at(100), lasts: Duration::from_secs(5), window: 0 };
    leased.granted(&request, &empty, at(1));
    let refused = leased.take(1, at(1));
    assert_eq!((refused.verdict, refused.retry_after), (Verdict::Later, at(100)));
    assert_eq!(leased.wants(at(100)), None);
    assert!(leased.wants(at(101)).is_some());
    leased.lost(at(101));
    assert_eq!(leased.take(1, at(101)).retry_after, at(200), "a share of 5/s that begins with nothing");
    assert!(leased.take(1, at(301)).allowed());
    assert!(!leased.take(2, at(700)).allowed() && leased.take(2, at(701)).allowed(), "a cost above a lease passes when the lease is full");
}

#[test]
fn a_shared_daily_cap_is_kept_and_the_day_ends() {
    let rate = Rate::parse("1000/day", None).unwrap();
    let settings = LeaseSettings { size: 50, low: 25, ..LeaseSettings::for_rate(&rate, 2) };
    let nodes = [Leased::new(rate, settings), Leased::new(rate, settings)];
    let (central, mut state) = (CentralCap { cap: 1000, life: settings.life }, CapState::default());
    let midnight = 20_001 * 86_400_000_000u64;
    let mut admitted = 0;
    let mut turn = |milli: u64, micros: u64, admitted: &mut u64| {
        for node in &nodes {
            *admitted += u64::from(node.take(1, Duration::from_millis(milli)).allowed());
            if let Some(request) = node.wants(Duration::from_millis(milli)) {
                node.granted(&request, &central.lease(&mut state, &request, micros), Duration::from_millis(milli));
            }
        }
    };
    for milli in 0..2000 {
        turn(milli, midnight - 10_000_000 + milli * 1000, &mut admitted);
    }
    assert_eq!(admitted, 1000);
    admitted = 0;
    for milli in 10_000..12_000 {
        turn(milli, midnight + (milli - 10_000) * 1000, &mut admitted);
    }
    assert_eq!(admitted, 1000, "a new day");
}
