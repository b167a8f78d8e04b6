//! An hour of traffic: what it would look like in an access log of a small platform, drawn from a seed.
//!
//! Tenants within their limits, over them, in waves and in bursts, a batch job, somebody who never stops; most of them come to both
//! nodes unevenly. Each arrival is drawn on its own (a Poisson process whose mean changes), so the same seed gives the same hour.

use plinth_policy::limits::Rate;
use plinth_runtime::{Random, SeededRandom};
use plinth_store::resources::gateway::{Counted, LimitScope, LimitSpec, PlanRecord};

/// The hour in microseconds.
pub const HOUR: u64 = 3_600_000_000;

/// What a limit counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Requests,
    /// Units that a request reserves; some are given back.
    Cost,
    /// A hard cap for each day.
    Daily,
    /// Requests of each of so many users.
    Users(u64),
}

/// How the demand changes.
#[derive(Debug, Clone, Copy)]
pub enum Shape {
    Steady,
    /// From a tenth to the double and back, in ten minutes.
    Waves,
    /// Ten seconds in each minute, six times as much.
    Bursts,
}

/// A tenant with its limit and its demand.
#[derive(Debug, Clone, Copy)]
pub struct Subject {
    pub tenant: &'static str,
    pub kind: Kind,
    /// Units, and their period.
    pub rate: (u64, &'static str),
    pub burst: Option<u64>,
    /// Mean demand in requests per second, of all users together.
    pub demand: f64,
    pub shape: Shape,
    /// The part that comes to the first node.
    pub first: f64,
    /// Whether processes replay it too, and not the simulation alone.
    pub real: bool,
}

const fn requests(tenant: &'static str, rate: u64, demand: f64, shape: Shape, first: f64, real: bool) -> Subject {
    Subject { tenant, kind: Kind::Requests, rate: (rate, "s"), burst: Some(rate * 2), demand, shape, first, real }
}

/// The tenants. Rates and bursts are those of the plans `free` and `paid`, where nothing else is said.
pub const SUBJECTS: [Subject; 12] = [
    requests("free-quiet", 10, 5.0, Shape::Waves, 0.5, false),
    requests("free-busy", 10, 12.0, Shape::Waves, 0.7, true),
    requests("free-bursts", 10, 15.0, Shape::Bursts, 0.5, true),
    requests("free-abuser", 10, 100.0, Shape::Steady, 0.5, false),
    requests("paid-quiet", 100, 50.0, Shape::Waves, 0.5, false),
    requests("paid-busy", 100, 120.0, Shape::Waves, 0.6, true),
    requests("paid-bursts", 100, 90.0, Shape::Bursts, 0.5, false),
    requests("paid-one-node", 100, 110.0, Shape::Steady, 1.0, false),
    Subject { kind: Kind::Cost, rate: (50, "s"), burst: Some(100), ..requests("cost", 50, 30.0, Shape::Waves, 0.5, false) },
    Subject { kind: Kind::Cost, rate: (200, "s"), burst: Some(400), ..requests("cost-large", 200, 100.0, Shape::Bursts, 0.4, false) },
    Subject { kind: Kind::Daily, rate: (20_000, "day"), burst: None, ..requests("daily", 1, 11.0, Shape::Waves, 0.5, true) },
    Subject { kind: Kind::Users(20), rate: (10, "minute"), burst: Some(10), ..requests("users", 1, 8.0, Shape::Waves, 0.5, true) },
];

impl Subject {
    /// The limit, `times` as fast.
    pub fn text(&self, times: u64) -> String {
        // A day is a day, however fast the hour goes.
        let units = if self.kind == Kind::Daily { self.rate.0 } else { self.rate.0 * times };
        format!("{units}/{}", self.rate.1)
    }

    pub fn limit(&self, times: u64) -> anyhow::Result<Rate> {
        let burst = self.burst.or(Some(self.rate.0));
        Ok(Rate::parse(&self.text(times), burst)?)
    }

    pub fn plan(&self, times: u64) -> anyhow::Result<PlanRecord> {
        let spec = LimitSpec {
            name: "limit".parse()?,
            scope: if matches!(self.kind, Kind::Users(_)) { LimitScope::User } else { LimitScope::Tenant },
            counts: if self.kind == Kind::Cost { Counted::Cost } else { Counted::Requests },
            operation: None,
            rate: self.text(times),
            burst: self.burst,
        };
        Ok(PlanRecord { limits: vec![spec], ..PlanRecord::default() })
    }

    /// The largest cost of one request.
    pub fn largest(&self) -> u64 {
        if self.kind == Kind::Cost { 4 } else { 1 }
    }

    /// Requests per second at a moment of the hour.
    fn demand_at(&self, micros: u64) -> f64 {
        let seconds = micros as f64 / 1e6;
        self.demand
            * match self.shape {
                Shape::Steady => 1.0,
                Shape::Waves => 1.05 + 0.95 * (seconds / 600.0 * std::f64::consts::TAU).sin(),
                Shape::Bursts if seconds % 60.0 < 10.0 => 6.0,
                Shape::Bursts => 0.0,
            }
    }
}

/// A request.
#[derive(Debug, Clone, Copy)]
pub struct Arrival {
    /// Microseconds since the hour began.
    pub at: u64,
    pub subject: usize,
    pub node: usize,
    /// From 1 on; 1 where users do not matter.
    pub user: u64,
    pub cost: u64,
}

/// The hour, in steps.
pub struct Traffic {
    random: SeededRandom,
    step: u64,
    now: u64,
    with: fn(&Subject) -> bool,
}

impl Traffic {
    /// The tenants for which `with` holds, in steps of so many microseconds.
    pub fn new(seed: u64, step: u64, with: fn(&Subject) -> bool) -> Self {
        Self { random: SeededRandom::new(seed), step, now: 0, with }
    }

    fn share(&self) -> f64 {
        (self.random.next_u64() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// How many of a Poisson distribution, after Knuth.
    fn poisson(&self, mean: f64) -> u64 {
        let (limit, mut product, mut count) = ((-mean).exp(), self.share(), 0);
        while product > limit {
            product *= self.share();
            count += 1;
        }
        count
    }

    /// The arrivals of the next step in the order of time, and when it ends; `None` when the hour is over.
    pub fn next(&mut self) -> Option<(u64, Vec<Arrival>)> {
        let begin = self.now;
        if begin >= HOUR {
            return None;
        }
        let mut arrivals = Vec::new();
        for (number, subject) in SUBJECTS.iter().enumerate().filter(|(_, subject)| (self.with)(subject)) {
            for _ in 0..self.poisson(subject.demand_at(begin) * self.step as f64 / 1e6) {
                let node = usize::from(self.share() >= subject.first);
                let user = if let Kind::Users(users) = subject.kind { 1 + self.random.next_u64() % users } else { 1 };
                let cost = 1 + self.random.next_u64() % subject.largest();
                arrivals.push(Arrival { at: begin + self.random.next_u64() % self.step, subject: number, node, user, cost });
            }
        }
        arrivals.sort_unstable_by_key(|arrival| arrival.at);
        self.now = begin + self.step;
        Some((self.now, arrivals))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_hour_has_the_demand_that_it_says() {
        let mut traffic = Traffic::new(1, 100_000, |_| true);
        let (mut counts, mut last) = ([0_u64; SUBJECTS.len()], 0);
        while let Some((_, arrivals)) = traffic.next() {
            for arrival in arrivals {
                assert!(arrival.at >= last && arrival.at < HOUR);
                last = arrival.at;
                counts[arrival.subject] += 1;
            }
        }
        for (subject, count) in SUBJECTS.iter().zip(counts) {
            let mean = count as f64 / 3600.0 / subject.demand;
            assert!((0.95..1.1).contains(&mean), "{}: {mean}", subject.tenant);
            subject.plan(30).unwrap();
            subject.limit(30).unwrap();
        }
    }
}
