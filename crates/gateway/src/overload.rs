//! What the node does when there is more work than it can do.
//!
//! | where the queue grows | what is measured | what is done |
//! |---|---|---|
//! | at an upstream | its latency (`resilience::gradient`) | [`gate`]: classes and tenants in turn, a short queue |
//! | in the run queue of the node | how late its tasks begin ([`lag`]) | [`Overload::sheds`]: early refusal, low classes first |
//! | anywhere, for seconds | processor, memory, both delays | [`Overload::level`]: the ladder of degradation |
//!
//! Invariants: while nothing is wrong, a request reads two numbers here and writes none; whom to refuse and what a level switches off is
//! `plinth_policy::overload`'s to say; processor, memory and the queues of models come from a function that the node hands in.

pub mod gate;
mod lag;

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64};
use std::time::Duration;

use plinth_policy::overload::{Criticality, Interval, Ladder, LadderSettings, Level, Load, Shedder, ShedderSettings, allowance};
use plinth_runtime::{OnEnd, TaskGroup, World};
use plinth_telemetry::Gauge;

/// So late everything begins when a queue is full by the ladder's measure.
const FULL_DELAY: Duration = Duration::from_millis(50);
/// Intervals of [`lag`] between two measurements of the load.
const EACH: u32 = 2;
/// Tenants that are told apart while requests are refused, by their place in the key ring's table modulo this.
const TENANTS: usize = 256;

/// What every request reads.
#[derive(Debug)]
pub struct Overload {
    level: AtomicU8,
    /// 0: nobody is refused. Else the class at the edge, counted from 1, above 32 bits of its tenants' allowance.
    shed: AtomicU64,
    /// Requests of this interval by class and tenant; counted while somebody is refused.
    counts: [[AtomicU32; TENANTS]; 4],
    /// Those of them that were let in.
    taken: AtomicU32,
    /// Requests by class since the last measurement, and those let in; counted while the ladder is up.
    asked: [AtomicU32; 4],
    let_in: AtomicU32,
}

impl Default for Overload {
    fn default() -> Self {
        let counts = std::array::from_fn(|_| std::array::from_fn(|_| AtomicU32::new(0)));
        Self {
            level: AtomicU8::new(0),
            shed: AtomicU64::new(0),
            counts,
            taken: AtomicU32::new(0),
            asked: Default::default(),
            let_in: AtomicU32::new(0),
        }
    }
}

impl Overload {
    /// At this level for good, whatever the load is: for tests of what a level does. Above 5 is 5.
    #[must_use]
    pub fn pinned(level: u8) -> Arc<Self> {
        let overload = Self::default();
        overload.level.store(level.min(5), Relaxed);
        Arc::new(overload)
    }

    /// Measures in `tasks` until they end. `measure` says how busy processor and memory are and how long models' queues are.
    pub fn start(
        settings: LadderSettings,
        mut measure: impl FnMut() -> Load + Send + 'static,
        gauge: Gauge,
        world: &World,
        tasks: &TaskGroup,
    ) -> Arc<Self> {
        let overload = Arc::new(Self::default());
        let (shown, clock, stop) = (overload.clone(), world.clock.clone(), tasks.cancelled().clone());
        tasks.spawn("overload", OnEnd::CancelGroup, async move {
            let (mut ladder, mut shedder) = (Ladder::new(settings), Shedder::new(ShedderSettings::default()));
            loop {
                let mut delay = Duration::ZERO;
                for _ in 0..EACH {
                    let Some(least) = stop.run_until_cancelled(lag::least_delay()).await else { return };
                    delay = delay.max(least);
                    let before = shown.is_shedding();
                    shown.follow(&mut shedder, least);
                    let delay_ms = least.as_millis();
                    match (before, shown.is_shedding()) {
                        (false, true) => {
                            tracing::warn!(delay_ms, "overload: the processor cannot keep up, requests of low classes are refused")
                        }
                        (true, false) => tracing::info!(delay_ms, "overload: the processor keeps up again"),
                        _ => {}
                    }
                }
                let mut load = measure();
                load.queue = load.queue.max(delay.as_secs_f64() / FULL_DELAY.as_secs_f64());
                load.demand = shown.demand(load.cpu);
                let Some(change) = ladder.observe(clock.monotonic(), load) else { continue };
                shown.set(change.to);
                gauge.set(f64::from(change.to.number()));
                let (from, to) = (change.from.number(), change.to.number());
                if to > from {
                    tracing::warn!(from, to, cpu = load.cpu, memory = load.memory, queue = load.queue, "overload: the ladder goes up");
                } else {
                    tracing::info!(from, to, "overload: the ladder comes down");
                }
            }
        });
        overload
    }

    fn set(&self, level: Level) {
        self.level.store(level.number(), Relaxed);
    }

    /// Where the ladder stands.
    #[must_use]
    pub fn level(&self) -> Level {
        match self.level.load(Relaxed) {
            0 => Level::Normal,
            1 => Level::L1,
            2 => Level::L2,
            3 => Level::L3,
            4 => Level::L4,
            _ => Level::L5,
        }
    }

    /// Whether the ladder lets a request of this class in. While it is up, this counts what is asked for: so it knows whether what is refused
    /// would fit again.
    #[must_use]
    pub fn admits(&self, class: Criticality) -> bool {
        let level = self.level();
        if level == Level::Normal {
            return true;
        }
        let admits = level.admits(class);
        self.asked[class.index()].fetch_add(1, Relaxed);
        self.let_in.fetch_add(u32::from(admits), Relaxed);
        admits
    }

    /// Whether a request is refused because the node's own processor cannot keep up.
    #[must_use]
    pub fn sheds(&self, class: Criticality, tenant: u32) -> bool {
        let shed = self.shed.load(Relaxed);
        if shed == 0 {
            return false;
        }
        let before = self.counts[class.index()][tenant as usize % TENANTS].fetch_add(1, Relaxed);
        let (edge, allowance) = ((shed >> 32) as usize - 1, shed as u32);
        let sheds = class.index() < edge || (class.index() == edge && before >= allowance);
        self.taken.fetch_add(u32::from(!sheds), Relaxed);
        sheds
    }

    fn is_shedding(&self) -> bool {
        self.shed.load(Relaxed) != 0
    }

    /// Takes an interval in which everything was late by this, at least, and puts what follows from it into force.
    fn follow(&self, shedder: &mut Shedder, delay: Duration) {
        let mut tenants = [[0u32; TENANTS]; 4];
        if self.is_shedding() {
            for (counts, tenants) in self.counts.iter().zip(&mut tenants) {
                counts.iter().zip(tenants).for_each(|(count, tenant)| *tenant = count.swap(0, Relaxed));
            }
        }
        let asked = tenants.map(|class| class.iter().fold(0, |sum: u32, count| sum.saturating_add(*count)));
        let interval = Interval { delay, asked, let_in: self.taken.swap(0, Relaxed) };
        let Some(shed) = shedder.observe(&interval) else { return self.shed.store(0, Relaxed) };
        let edge = shed.edge.index();
        let allowance = if shed.share < 1.0 {
            // Those who did not ask have no part in it.
            let mut active: Vec<u32> = tenants[edge].into_iter().filter(|count| *count > 0).collect();
            allowance(&mut active, shed.share)
        } else {
            u32::MAX
        };
        self.shed.store(((edge as u64 + 1) << 32) | u64::from(allowance), Relaxed);
    }

    /// What is asked for by class over what can be served: what was let in made the processor so busy. Zeros when that says nothing.
    fn demand(&self, cpu: f64) -> [f64; 4] {
        /// Fewer requests than this say nothing.
        const ENOUGH: u32 = 10;
        let asked = self.asked.each_ref().map(|count| count.swap(0, Relaxed));
        let let_in = self.let_in.swap(0, Relaxed);
        if let_in < ENOUGH || cpu < 0.01 {
            return [0.0; 4];
        }
        asked.map(|count| f64::from(count) / f64::from(let_in) * cpu)
    }
}

#[cfg(test)]
mod tests;
