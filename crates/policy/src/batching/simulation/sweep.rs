//! The comparison: one learning batcher against the best fixed delay, over a sweep of loads.
//!
//! A scenario is a cost, a kind of traffic, lanes and a deadline. The rival is run with every delay, every set of preferred sizes and
//! every queue time-out of the grid at every load, and its best is chosen afterwards: once for goodput and once for latency, each for
//! the whole sweep. The time-outs are the deadline, and the deadline less so many of the largest batches: who knows what a batch costs
//! can set that by hand, and a first-in, first-out queue needs it under overload.

use super::{FixedDelay, Law, Learned, Outcome, Run, Traffic};

const MS: f64 = 1e6;

/// One row of the comparison.
#[derive(Debug, Clone)]
pub struct Scenario {
    /// For people.
    pub name: &'static str,
    /// How long batches last.
    pub law: Law,
    /// Who comes when.
    pub traffic: Traffic,
    /// How many instances.
    pub lanes: usize,
    /// The largest batch.
    pub max_rows: u32,
    /// Time to the deadline in nanoseconds.
    pub patience: f64,
}

/// All scenarios of the published table.
#[must_use]
pub fn scenarios() -> Vec<Scenario> {
    let linear = Law::Linear { fixed: 1.0 * MS, each: 0.25 * MS };
    let rows_dear = Law::Linear { fixed: 0.2 * MS, each: 0.5 * MS };
    let heavy = Law::Linear { fixed: 5.0 * MS, each: 0.05 * MS };
    let stepped = Law::Stepped { fixed: 0.5 * MS, each: 0.4 * MS, step: 8 };
    let noisy = Law::Noisy { fixed: 1.0 * MS, each: 0.25 * MS };
    let bursty = Traffic::Bursty { peak: 3.0, on: 10.0 * MS };
    let closed = Traffic::Closed { think: 0.3 * MS };
    let of = |name, law, traffic, lanes, patience: f64| Scenario { name, law, traffic, lanes, max_rows: 32, patience: patience * MS };
    vec![
        of("linear, Poisson, 1 lane", linear, Traffic::Poisson, 1, 40.0),
        of("linear, bursty, 1 lane", linear, bursty, 1, 40.0),
        of("linear, closed loop, 1 lane", linear, closed, 1, 40.0),
        of("linear, Poisson, 4 lanes", linear, Traffic::Poisson, 4, 40.0),
        of("dear rows, bursty, 1 lane", rows_dear, bursty, 1, 60.0),
        of("fixed-heavy, Poisson, 1 lane", heavy, Traffic::Poisson, 1, 30.0),
        of("fixed-heavy, bursty, 2 lanes", heavy, bursty, 2, 30.0),
        of("fixed-heavy, closed loop, 1 lane", heavy, closed, 1, 30.0),
        of("fixed-heavy, closed loop, 2 lanes", heavy, closed, 2, 30.0),
        of("stepped, Poisson, 1 lane", stepped, Traffic::Poisson, 1, 50.0),
        of("stepped, bursty, 3 lanes", stepped, bursty, 3, 50.0),
        of("noisy, Poisson, 1 lane", noisy, Traffic::Poisson, 1, 40.0),
        of("noisy, bursty, 4 lanes", noisy, bursty, 4, 40.0),
    ]
}

/// How wide the sweep is.
#[derive(Debug, Clone)]
pub struct Sweep {
    /// Offered by capacity.
    pub loads: Vec<f64>,
    /// The rival's delays in milliseconds.
    pub delays: Vec<f64>,
    /// The rival's sets of preferred sizes.
    pub preferred: Vec<Vec<u32>>,
    /// The rival's queue time-outs: the deadline less so many of the largest batches.
    pub margins: Vec<f64>,
    /// Requests at each point.
    pub requests: usize,
    /// Which random numbers; both sides get the same.
    pub seed: u64,
}

/// One setting of the rival.
#[derive(Debug, Clone)]
pub struct Setting {
    /// Milliseconds.
    pub delay: f64,
    /// Preferred sizes.
    pub preferred: Vec<u32>,
    /// How many of the largest batches the queue time-out is shorter than the deadline.
    pub margin: f64,
}

/// One load.
#[derive(Debug, Clone)]
pub struct Point {
    /// Offered by capacity.
    pub load: f64,
    /// The learning batcher.
    pub learned: Outcome,
    /// The rivals, in the order of the grid.
    pub rivals: Vec<Outcome>,
}

/// The rival's best setting for a whole sweep.
#[derive(Debug, Clone)]
pub struct Best {
    /// Its place in the grid.
    pub at: usize,
    /// Its figure for the sweep.
    pub value: f64,
}

impl Sweep {
    /// The grid.
    #[must_use]
    pub fn grid(&self) -> Vec<Setting> {
        let mut grid = Vec::new();
        for delay in &self.delays {
            for preferred in &self.preferred {
                let of = |margin: &f64| Setting { delay: *delay, preferred: preferred.clone(), margin: *margin };
                grid.extend(self.margins.iter().map(of));
            }
        }
        grid
    }

    /// Runs one scenario over all loads.
    #[must_use]
    pub fn run(&self, scenario: &Scenario) -> Vec<Point> {
        let point = |load: f64| {
            let run = Run {
                law: scenario.law,
                traffic: scenario.traffic,
                lanes: scenario.lanes,
                max_rows: scenario.max_rows,
                load,
                patience: scenario.patience,
                requests: self.requests,
                tenants: vec![1.0],
                seed: self.seed ^ (load * 1_000.0) as u64,
            };
            let full = scenario.law.mean(scenario.max_rows);
            let rival = |setting: Setting| {
                let (delay, timeout) = ((setting.delay * MS) as u64, (scenario.patience - setting.margin * full) as u64);
                run.simulate(&mut FixedDelay::new(delay, timeout, &setting.preferred, scenario.max_rows))
            };
            let rivals = self.grid().into_iter().map(rival).collect();
            Point { load, learned: run.simulate(&mut Learned::plain(scenario.max_rows)), rivals }
        };
        self.loads.iter().copied().map(point).collect()
    }

    /// The rival with the highest mean goodput over the sweep; with `timeouts` also those whose queue time-out was tuned.
    #[must_use]
    pub fn best_goodput(&self, points: &[Point], timeouts: bool) -> Best {
        self.best(points, timeouts, |outcome| -outcome.goodput, |value| -value)
    }

    /// The rival with the lowest mean latency over the sweep: the geometric mean over the loads, so that each load counts alike.
    #[must_use]
    pub fn best_mean(&self, points: &[Point], timeouts: bool) -> Best {
        self.best(points, timeouts, |outcome| outcome.mean.ln(), f64::exp)
    }

    fn best(&self, points: &[Point], timeouts: bool, figure: fn(&Outcome) -> f64, show: fn(f64) -> f64) -> Best {
        let of = |at: usize| points.iter().map(|point| figure(&point.rivals[at])).sum::<f64>() / points.len().max(1) as f64;
        let grid = self.grid();
        let allowed = grid.iter().enumerate().filter(|(_, setting)| timeouts || setting.margin == 0.0);
        let least = |low: (usize, f64), this: (usize, f64)| if this.1 < low.1 { this } else { low };
        let (at, value) = allowed.map(|(at, _)| (at, of(at))).fold((0, f64::INFINITY), least);
        Best { at, value: show(value) }
    }

    /// The learning batcher's goodput over the sweep.
    #[must_use]
    pub fn goodput(points: &[Point]) -> f64 {
        points.iter().map(|point| point.learned.goodput).sum::<f64>() / points.len().max(1) as f64
    }

    /// The learning batcher's latency over the sweep, as in [`best_mean`](Self::best_mean).
    #[must_use]
    pub fn mean(points: &[Point]) -> f64 {
        (points.iter().map(|point| point.learned.mean.ln()).sum::<f64>() / points.len().max(1) as f64).exp()
    }
}
