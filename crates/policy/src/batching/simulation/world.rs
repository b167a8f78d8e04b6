//! The simulated world: who comes when, how long a batch lasts, and what is counted.

use super::{Agenda, Event, Request, Scheduler, Seeded, Wish};

/// How long a batch of so many rows lasts, in nanoseconds.
#[derive(Debug, Clone, Copy)]
pub enum Law {
    /// `fixed + each * rows`.
    Linear {
        /// The part that every batch costs.
        fixed: f64,
        /// The part for each row.
        each: f64,
    },
    /// The same, with rows rounded up to a multiple of `step`.
    Stepped {
        /// The part that every batch costs.
        fixed: f64,
        /// The part for each row.
        each: f64,
        /// Rows that cost the same.
        step: u32,
    },
    /// The same as linear, times a log-normal-like factor between a half and about two; one in a hundred takes five times as long.
    Noisy {
        /// The part that every batch costs.
        fixed: f64,
        /// The part for each row.
        each: f64,
    },
}

impl Law {
    /// The time without noise.
    #[must_use]
    pub fn mean(&self, rows: u32) -> f64 {
        match *self {
            Self::Linear { fixed, each } | Self::Noisy { fixed, each } => fixed + each * f64::from(rows),
            Self::Stepped { fixed, each, step } => fixed + each * f64::from(rows.div_ceil(step) * step),
        }
    }

    fn draw(&self, rows: u32, random: &mut Seeded) -> u64 {
        let factor = match self {
            Self::Noisy { .. } if random.share() < 0.01 => 5.0,
            Self::Noisy { .. } => 0.75 + 0.5 * random.share(),
            Self::Linear { .. } | Self::Stepped { .. } => 1.0,
        };
        (self.mean(rows) * factor) as u64
    }

    /// Rows that a lane can do in a nanosecond at its best size.
    #[must_use]
    pub fn capacity(&self, max_rows: u32) -> f64 {
        (1..=max_rows).map(|rows| f64::from(rows) / self.mean(rows)).fold(0.0, f64::max)
    }
}

/// Who comes when.
#[derive(Debug, Clone, Copy)]
pub enum Traffic {
    /// Independent of each other.
    Poisson,
    /// Poisson at `peak` times the mean rate while on, silent while off; both last exponentially long, `on` on average.
    Bursty {
        /// How much more than on average comes while on.
        peak: f64,
        /// Mean length of an on period in nanoseconds.
        on: f64,
    },
    /// Clients that wait for their answer, then think, then ask again. Their number is the load times the number that saturates.
    Closed {
        /// Mean time to think in nanoseconds.
        think: f64,
    },
}

/// One simulation.
#[derive(Debug, Clone)]
pub struct Run {
    /// How long batches last.
    pub law: Law,
    /// Who comes when.
    pub traffic: Traffic,
    /// How many instances.
    pub lanes: usize,
    /// The largest batch.
    pub max_rows: u32,
    /// Offered rows by what all lanes can do at their best size.
    pub load: f64,
    /// Time from arrival to the deadline in nanoseconds.
    pub patience: f64,
    /// How many requests come after the warm-up.
    pub requests: usize,
    /// Relative weights of tenants 0, 1, … in the arrivals.
    pub tenants: Vec<f64>,
    /// Which random numbers.
    pub seed: u64,
}

/// What came of it. The first tenth of the requests warms up and is not counted.
#[derive(Debug, Clone, Default)]
pub struct Outcome {
    /// Share of the offered requests that were answered by their deadline.
    pub goodput: f64,
    /// Mean nanoseconds from arrival to answer; a request without an answer counts with its whole time to the deadline.
    pub mean: f64,
    /// The 99th percentile of the same.
    pub p99: f64,
    /// Mean rows of a batch.
    pub batch: f64,
    /// Latencies (as above) of each tenant, sorted.
    pub tenants: Vec<Vec<u64>>,
}

struct World<'a> {
    run: &'a Run,
    /// Who comes when; the same whatever the scheduler does, but for closed loops.
    random: Seeded,
    noise: Seeded,
    agenda: Agenda,
    requests: Vec<Request>,
    latency: Vec<Option<u64>>,
    client_of: Vec<usize>,
    on_until: f64,
    lanes: Vec<Option<(Vec<usize>, u64)>>,
    batches: (f64, f64),
    total: usize,
}

impl Run {
    /// Requests in a nanosecond at this load.
    #[must_use]
    pub fn rate(&self) -> f64 {
        self.load * self.law.capacity(self.max_rows) * self.lanes as f64
    }

    /// Simulates until all are answered or given up.
    pub fn simulate(&self, scheduler: &mut dyn Scheduler) -> Outcome {
        let total = self.requests + self.requests / 9;
        let mut world = World {
            run: self,
            random: Seeded::new(self.seed),
            noise: Seeded::new(!self.seed),
            agenda: Agenda::default(),
            requests: Vec::new(),
            latency: Vec::new(),
            client_of: Vec::new(),
            on_until: 0.0,
            lanes: (0..self.lanes).map(|_| None).collect(),
            batches: (0.0, 0.0),
            total,
        };
        world.open();
        while let Some((now, event)) = world.agenda.next() {
            match event {
                Event::Comes { client } => world.comes(client, now, scheduler),
                Event::Ends { lane } => world.ends(lane, now, scheduler),
                Event::Look => {}
            }
            world.serve(now, scheduler);
        }
        world.outcome()
    }
}

impl World<'_> {
    fn open(&mut self) {
        if let Traffic::Closed { think } = self.run.traffic {
            // So many clients keep all lanes busy with the largest batches.
            let cycle = self.run.law.mean(self.run.max_rows) + think;
            let clients = (self.run.rate() * cycle).round().max(1.0) as usize;
            for client in 0..clients {
                let at = self.random.exponential(think.max(1_000.0));
                self.agenda.plan(at as u64, Event::Comes { client });
            }
        } else {
            self.agenda.plan(1, Event::Comes { client: 0 });
        }
    }

    fn comes(&mut self, client: usize, now: u64, scheduler: &mut dyn Scheduler) {
        if self.requests.len() >= self.total {
            return;
        }
        let id = self.requests.len();
        let sum: f64 = self.run.tenants.iter().sum();
        let mut share = self.random.share() * sum;
        let mut tenant = 0;
        for (at, weight) in self.run.tenants.iter().enumerate() {
            tenant = at as u64;
            share -= weight;
            if share <= 0.0 {
                break;
            }
        }
        let request = Request { id, arrived: now, deadline: now + self.run.patience as u64, tenant };
        self.requests.push(request);
        self.latency.push(None);
        self.client_of.push(client);
        if !scheduler.push(request, now) {
            self.gone(id, now);
        }
        let gap = match self.run.traffic {
            Traffic::Closed { .. } => return,
            Traffic::Poisson => self.random.exponential(1.0 / self.run.rate()),
            Traffic::Bursty { peak, on } => {
                let mut gap = self.random.exponential(1.0 / (self.run.rate() * peak));
                if now as f64 + gap > self.on_until {
                    let off = self.random.exponential(on * (peak - 1.0));
                    gap += off;
                    self.on_until = now as f64 + gap + self.random.exponential(on);
                }
                gap
            }
        };
        self.agenda.plan(now + (gap as u64).max(1), Event::Comes { client: 0 });
    }

    fn ends(&mut self, lane: usize, now: u64, scheduler: &mut dyn Scheduler) {
        let Some((ids, began)) = self.lanes[lane].take() else { return };
        scheduler.finished(ids.len() as u32, now - began, now);
        for id in ids {
            self.latency[id] = Some(now - self.requests[id].arrived);
            self.again(id, now);
        }
    }

    /// The client of a request asks again after a while.
    fn again(&mut self, id: usize, now: u64) {
        if let Traffic::Closed { think } = self.run.traffic {
            let at = now + self.random.exponential(think) as u64 + 1;
            self.agenda.plan(at, Event::Comes { client: self.client_of[id] });
        }
    }

    fn gone(&mut self, id: usize, now: u64) {
        // A closed loop's client hears of it at once and comes back after its deadline, lest it ask in a tight loop.
        let deadline = self.requests[id].deadline;
        self.again(id, now.max(deadline));
    }

    fn serve(&mut self, now: u64, scheduler: &mut dyn Scheduler) {
        loop {
            for id in scheduler.dropped(now) {
                self.gone(id, now);
            }
            let busy: Vec<(u32, u64)> = self.lanes.iter().flatten().map(|(ids, began)| (ids.len() as u32, *began)).collect();
            let Some(lane) = self.lanes.iter().position(Option::is_none) else { break };
            match scheduler.next(now, self.lanes.len() - busy.len(), self.lanes.len(), &busy) {
                Wish::Run(ids) => {
                    self.batches.0 += 1.0;
                    self.batches.1 += ids.len() as f64;
                    let takes = self.run.law.draw(ids.len() as u32, &mut self.noise).max(1);
                    self.lanes[lane] = Some((ids, now));
                    self.agenda.plan(now + takes, Event::Ends { lane });
                }
                Wish::Wait(until) => {
                    assert!(until > now, "a wait lies in the future");
                    self.agenda.plan(until, Event::Look);
                    break;
                }
                Wish::Idle => break,
            }
        }
        for id in scheduler.dropped(now) {
            self.gone(id, now);
        }
    }

    fn outcome(self) -> Outcome {
        let first = self.requests.len() / 10;
        let patience = self.run.patience as u64;
        let mut outcome = Outcome { tenants: vec![Vec::new(); self.run.tenants.len()], ..Outcome::default() };
        let mut all = Vec::new();
        let mut in_time = 0usize;
        for request in self.requests.iter().skip(first) {
            let latency = self.latency[request.id];
            in_time += usize::from(latency.is_some_and(|latency| latency <= patience));
            let counted = latency.unwrap_or(patience);
            all.push(counted);
            outcome.tenants[request.tenant as usize].push(counted);
        }
        all.sort_unstable();
        outcome.tenants.iter_mut().for_each(|latencies| latencies.sort_unstable());
        outcome.goodput = in_time as f64 / all.len().max(1) as f64;
        outcome.mean = all.iter().map(|latency| *latency as f64).sum::<f64>() / all.len().max(1) as f64;
        outcome.p99 = all.get(all.len() * 99 / 100).copied().unwrap_or(0) as f64;
        outcome.batch = self.batches.1 / self.batches.0.max(1.0);
        outcome
    }
}
