//! Does overload lower the served fraction and not the served quality? A target with a known service time, open-loop arrivals that go
//! from 1 to 10 times and back, the queue, the learned limit and the ladder, all in simulated time.
//!
//! The target has 20 places of 10 ms each: 2,000 requests a second. What is let in beyond 20 waits inside of it and makes everybody
//! slower, which is what the limit learns from.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::time::Duration;

use super::*;
use crate::batching::simulation::Seeded;
use crate::resilience::gradient::{Gradient, Sample, Settings};

const PLACES: usize = 20;
const SERVICE: u64 = 10_000_000;
const CAPACITY: f64 = 2000.0;
const SECOND: u64 = 1_000_000_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Arrive,
    End(u64),
    Look,
    Observe,
}

#[derive(Debug, Clone, Copy)]
struct Flying {
    request: Request,
    arrived: u64,
    begun: u64,
}

/// What happened in one second.
#[derive(Debug, Clone, Default)]
struct Second {
    offered: u64,
    good: u64,
    late: u64,
    lost: u64,
    waits: Vec<u64>,
    highest: Level,
    lowest: Option<Level>,
    by_class: [u64; 4],
    by_tenant: BTreeMap<(u32, Criticality), u64>,
}

impl Second {
    fn p99(&self) -> Duration {
        let mut waits = self.waits.clone();
        waits.sort_unstable();
        Duration::from_nanos(waits.get(waits.len() * 99 / 100).copied().unwrap_or(0))
    }
}

struct World {
    random: Seeded,
    agenda: BinaryHeap<Reverse<(u64, u64, Event)>>,
    planned: u64,
    queue: Admission,
    limit: Gradient,
    ladder: Option<Ladder>,
    /// When each place of the target is free.
    places: BinaryHeap<Reverse<u64>>,
    flying: BTreeMap<u64, Flying>,
    answers: Answers,
    seconds: Vec<Second>,
    demand: [u64; 4],
    waited: f64,
    look_at: u64,
}

impl World {
    fn new(seed: u64, with_ladder: bool, patience: Duration, (least, most): (u32, u32)) -> Self {
        let limit = Gradient::new(Settings { initial: 20, least, most, queue: 1.0, ..Settings::default() });
        let settings = AdmissionSettings { standing: patience, patience, ..AdmissionSettings::default() };
        let mut queue = Admission::new(settings, 20);
        queue.set_service_time(Duration::from_nanos(SERVICE));
        Self {
            random: Seeded::new(seed),
            agenda: BinaryHeap::new(),
            planned: 0,
            queue,
            limit,
            ladder: with_ladder.then(|| Ladder::new(LadderSettings::default())),
            places: (0..PLACES).map(|_| Reverse(0)).collect(),
            flying: BTreeMap::new(),
            answers: Answers::default(),
            seconds: Vec::new(),
            demand: [0; 4],
            waited: 0.0,
            look_at: u64::MAX,
        }
    }

    fn plan(&mut self, at: u64, event: Event) {
        self.planned += 1;
        self.agenda.push(Reverse((at, self.planned, event)));
    }

    fn second(&mut self, now: u64) -> &mut Second {
        let at = (now / SECOND) as usize;
        if self.seconds.len() <= at {
            self.seconds.resize_with(at + 1, Second::default);
        }
        &mut self.seconds[at]
    }

    /// `load` says how many times the capacity arrives in each second.
    fn run(mut self, load: &[f64]) -> Vec<Second> {
        self.plan(0, Event::Arrive);
        self.plan(0, Event::Observe);
        while let Some(Reverse((now, _, event))) = self.agenda.pop() {
            let Some(times) = load.get((now / SECOND) as usize) else { break };
            match event {
                Event::Arrive => {
                    self.arrive(now);
                    let gap = self.random.exponential(1e9 / (CAPACITY * times));
                    self.plan(now + gap as u64 + 1, Event::Arrive);
                }
                Event::End(id) => self.end(now, id),
                Event::Look => {
                    self.look_at = u64::MAX;
                    self.queue.expired(Duration::from_nanos(now), &mut self.answers);
                }
                Event::Observe => self.observe(now),
            }
            self.answer(now);
            if let Some(next) = self.queue.next_look().map(nanos).filter(|next| *next < self.look_at) {
                self.look_at = next.max(now + 1);
                self.plan(self.look_at, Event::Look);
            }
        }
        self.seconds.truncate(load.len());
        self.seconds
    }

    fn arrive(&mut self, now: u64) {
        let share = self.random.share();
        let criticality = match share {
            _ if share < 0.1 => Criticality::Background,
            _ if share < 0.3 => Criticality::Sheddable,
            _ if share < 0.85 => Criticality::Default,
            _ => Criticality::Critical,
        };
        // Tenant 0 sends half of everything.
        let tenant = (self.random.any() % 20).saturating_sub(9) as u32;
        let request = Request { tenant, criticality, cost: 1, bytes: 0, deadline: Duration::from_nanos(now + SECOND), id: self.planned };
        self.second(now).offered += 1;
        self.demand[criticality.index()] += 1;
        if self.ladder.as_ref().is_some_and(|ladder| !ladder.level().admits(criticality)) {
            self.second(now).lost += 1;
            return;
        }
        self.flying.insert(request.id, Flying { request, arrived: now, begun: 0 });
        match self.queue.offer(Duration::from_nanos(now), request, &mut self.answers) {
            Offer::Enter => self.begin(now, request.id),
            Offer::Wait(_) => {}
            Offer::Refuse(..) => {
                self.flying.remove(&request.id);
                self.second(now).lost += 1;
            }
        }
    }

    fn begin(&mut self, now: u64, id: u64) {
        let flying = self.flying.get_mut(&id).unwrap();
        flying.begun = now;
        self.waited += ((now - flying.arrived) as f64 - self.waited) * 0.01;
        let Reverse(free) = self.places.pop().unwrap();
        let ends = free.max(now) + SERVICE;
        self.places.push(Reverse(ends));
        let _ = self.limit.enter();
        self.plan(ends, Event::End(id));
    }

    fn end(&mut self, now: u64, id: u64) {
        let Flying { request, arrived, begun } = self.flying.remove(&id).unwrap();
        self.limit.leave(Duration::from_nanos(now), Sample::Latency(Duration::from_nanos(now - begun)));
        let at = Duration::from_nanos(now);
        self.queue.set_limit(at, self.limit.limit() as usize, &mut self.answers);
        let done = Done { tenant: request.tenant, criticality: request.criticality, reserved: 1, actual: 1 };
        self.queue.done(at, done, &mut self.answers);
        let good = at <= request.deadline;
        let second = self.second(now);
        second.waits.push(now - arrived);
        second.good += u64::from(good);
        second.late += u64::from(!good);
        second.by_class[request.criticality.index()] += 1;
        *second.by_tenant.entry((request.tenant, request.criticality)).or_default() += 1;
    }

    fn observe(&mut self, now: u64) {
        const EVERY: u64 = SECOND / 10;
        if let Some(ladder) = &mut self.ladder {
            let demand = self.demand.map(|count| count as f64 * (SECOND / EVERY) as f64 / CAPACITY);
            let cpu = self.queue.in_use().min(PLACES) as f64 / PLACES as f64;
            let queue = self.waited / 50e6;
            let _ = ladder.observe(Duration::from_nanos(now), Load { queue, cpu, memory: 0.3, demand });
            let level = ladder.level();
            let second = self.second(now);
            second.highest = second.highest.max(level);
            second.lowest = Some(second.lowest.map_or(level, |lowest| lowest.min(level)));
        }
        self.demand = [0; 4];
        self.plan(now + EVERY, Event::Observe);
    }

    fn answer(&mut self, now: u64) {
        let mut answers = std::mem::take(&mut self.answers);
        for id in answers.entered.drain(..) {
            self.begin(now, id);
        }
        for dropped in answers.dropped.drain(..) {
            self.flying.remove(&dropped.id);
            self.second(now).lost += 1;
        }
        self.answers = answers;
    }
}

/// Five seconds at 0.7 of the capacity, then five each at 5 and at 10 times that, then six at 0.7 again.
fn surge() -> Vec<f64> {
    [(5, 0.7), (5, 3.5), (5, 7.0), (6, 0.7)].into_iter().flat_map(|(count, load)| std::iter::repeat_n(load, count)).collect()
}

fn judge(seconds: &[Second], p99_at_most: impl Fn(Duration) -> Duration) {
    let p99 = |range: std::ops::Range<usize>| seconds[range].iter().map(Second::p99).max().unwrap();
    let before = p99(1..5);
    let lost = seconds[1..5].iter().map(|second| second.lost).max().unwrap();
    for (name, range) in [("5x", 5..10), ("10x", 10..15)] {
        for second in &seconds[range.clone()] {
            assert!(second.good as f64 >= 0.9 * CAPACITY, "{name}: {} good of {} offered", second.good, second.offered);
            assert_eq!(second.late, 0, "{name}: nothing is served too late");
        }
        // In the first second the limit is still being learned.
        let learned = p99(range.start + 1..range.end);
        assert!(learned <= p99_at_most(before), "{name}: p99 {learned:?}, before {before:?}");
    }
    // Three seconds after the surge, and from then on: as before.
    for second in &seconds[18..] {
        assert!(second.lost <= 2 * lost, "{} refused in a second, {lost} before", second.lost);
        assert!(second.good as f64 >= 0.95 * second.offered as f64);
        assert!(second.p99() <= before.mul_f64(1.25), "p99 {:?}, before {before:?}", second.p99());
    }
}

#[test]
fn ten_times_the_load_costs_at_most_a_tenth_of_the_goodput() {
    for seed in 1..=3 {
        let seconds = World::new(seed, false, Duration::from_millis(50), (10, 60)).run(&surge());
        judge(&seconds, |before| before + Duration::from_millis(50));
        let critical: u64 = seconds[10..15].iter().map(|second| second.by_class[Criticality::Critical.index()]).sum();
        assert!(critical as f64 >= 0.95 * 5.0 * CAPACITY, "at ten times the load the critical alone fill the target: {critical}");
        let of = |range: std::ops::Range<usize>, tenant: u32, class: Criticality| {
            seconds[range].iter().map(|second| second.by_tenant.get(&(tenant, class)).copied().unwrap_or(0)).sum::<u64>()
        };
        let least = |range: std::ops::Range<usize>, class| (1..=10).map(|tenant| of(range.clone(), tenant, class)).min().unwrap();
        let (greedy, others) = (of(6..10, 0, Criticality::Default), least(6..10, Criticality::Default));
        assert!(greedy as f64 <= 1.25 * others as f64, "{greedy} for who sends half of everything, {others} for others");
        let asked = 4.0 * CAPACITY * 7.0 * 0.15 * 0.05;
        assert!(least(11..15, Criticality::Critical) as f64 >= 0.85 * asked, "who asks for less than its share gets it");
    }
}

/// The limit is what the target takes, and the patience less than a quarter of its time. The price: a burst of a few milliseconds is
/// refused too.
#[test]
fn with_little_patience_the_latency_stays_as_it_was() {
    for seed in 1..=3 {
        let seconds = World::new(seed, false, Duration::from_millis(3), (20, 20)).run(&surge());
        judge(&seconds, |before| before.mul_f64(1.25));
    }
}

#[test]
fn the_ladder_neither_costs_goodput_nor_stays_up() {
    for seed in 1..=3 {
        let seconds = World::new(seed, true, Duration::from_millis(50), (10, 60)).run(&surge());
        judge(&seconds, |before| before + Duration::from_millis(50));
        let highest = seconds[5..15].iter().map(|second| second.highest).max().unwrap();
        assert!((Level::L2..=Level::L3).contains(&highest), "{highest}: the queue holds it, nothing critical is switched off");
        assert!(seconds[9..15].iter().all(|second| second.lowest >= Some(Level::L2)), "no swinging in the surge");
        assert!(seconds[18..].iter().all(|second| second.highest == Level::Normal), "normal again within 3 s");
    }
}
