//! Whom to refuse while the node itself cannot keep up: decided from how late its own work begins.
//!
//! A queue in front of a target ([`Admission`](super::Admission)) helps where the target is the bottleneck. Where it is the processor, what
//! grows is the run queue, and every request stands in it before anything can be decided; then only refusing early and cheaply helps.
//! The sign is WeChat's (DAGOR, "Overload Control for Scaling WeChat Microservices", 2018): the time between "ready" and "running", from 20 ms
//! on. The least delay of an interval counts and not the mean, as in controlled delay (RFC 8289): a burst is not a standing queue.
//!
//! How much can be done follows from what was let in and how the delay moved: if `n` requests were let in during `t` and the delay grew by `d`,
//! then `n·t/(t + d)` were done. So many are let in from then on, less what is needed to bring the delay down, and a little more in each interval
//! in which it is under its target. The most critical classes have their part first; within the class for which that is not enough, tenants have
//! equal shares ([`allowance`]): who asks for less than its share loses nothing.
//!
//! Invariants: nobody is refused before the delay has been over its target; a tenth of the most critical class always comes in; when all
//! that is asked for fits, refusing ends. Measuring, and counting requests, is the caller's.

use std::time::Duration;

use super::{CRITICALITIES, Criticality};

/// How much is let in.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ShedderSettings {
    /// The time between two observations.
    pub interval: Duration,
    /// The least delay of an interval from which on there is too much to do.
    pub target: Duration,
    /// In what time a delay shall be worked off.
    pub relief: Duration,
    /// The weight of the latest estimate of what can be done.
    pub weight: f64,
    /// By what part more is let in after an interval without any delay.
    pub growth: f64,
}

impl Default for ShedderSettings {
    /// Intervals of 50 ms, a target of 20 ms (DAGOR's), relief in 250 ms, three tenths of the weight on the latest estimate, growth by a tenth.
    fn default() -> Self {
        let ms = Duration::from_millis;
        Self { interval: ms(50), target: ms(20), relief: ms(250), weight: 0.3, growth: 0.1 }
    }
}

/// What has happened in an interval.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Interval {
    /// The least delay.
    pub delay: Duration,
    /// Requests by class ([`Criticality::index`]), refused or not. Counted only while there is a [`Shed`].
    pub asked: [u32; 4],
    /// Those of them that were let in.
    pub let_in: u32,
}

/// Who is let in until the next interval.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Shed {
    /// Classes below are refused, classes above are let in.
    pub edge: Criticality,
    /// The part of the class at the edge that is let in.
    pub share: f64,
}

/// The state of a node.
#[derive(Debug, Clone)]
pub struct Shedder {
    settings: ShedderSettings,
    /// Requests that are let in during an interval; infinite when it is not known yet, `None` while nobody is to be refused.
    rate: Option<f64>,
    /// Requests that can be done in an interval, once that was estimated.
    capacity: Option<f64>,
    before: Duration,
}

impl Shedder {
    /// Refuses nobody yet.
    #[must_use]
    pub const fn new(settings: ShedderSettings) -> Self {
        Self { settings, rate: None, capacity: None, before: Duration::ZERO }
    }

    /// Takes an interval. `None`: everybody is let in.
    pub fn observe(&mut self, interval: &Interval) -> Option<Shed> {
        let asked = interval.asked.iter().map(|count| f64::from(*count)).sum::<f64>();
        let over = interval.delay > self.settings.target;
        self.rate = match self.rate {
            // From now on it is counted.
            None => over.then_some(f64::INFINITY),
            Some(_) if asked == 0.0 => None,
            Some(_) if over => Some(self.relieved(interval)),
            Some(rate) => {
                let free = 1.0 - 0.5 * interval.delay.as_secs_f64() / self.settings.target.as_secs_f64().max(1e-6);
                let rate = rate.min(asked) * (1.0 + self.settings.growth * free);
                (rate < asked).then_some(rate)
            }
        };
        if self.rate.is_none() {
            self.capacity = None;
        }
        self.before = interval.delay;
        self.rate.map(|rate| shared(rate, &interval.asked))
    }

    /// What can be done, less a part for the delay that is there.
    fn relieved(&mut self, interval: &Interval) -> f64 {
        let ShedderSettings { interval: time, target, relief, weight, .. } = self.settings;
        let (time, now, before) = (time.as_secs_f64(), interval.delay.as_secs_f64(), self.before.as_secs_f64());
        let done = f64::from(interval.let_in) * (time / (time + now - before).max(1e-3)).clamp(0.05, 2.0);
        let capacity = self.capacity.map_or(done, |capacity| capacity + (done - capacity) * weight);
        self.capacity = Some(capacity);
        let part = 1.0 - (now - target.as_secs_f64() / 2.0) / relief.as_secs_f64().max(1e-3);
        capacity * part.clamp(0.5, 1.0)
    }
}

/// Who is let in when it is so many, and the next interval is as the last one.
fn shared(rate: f64, asked: &[u32; 4]) -> Shed {
    const LEAST: f64 = 0.1;
    let mut left = rate;
    for class in CRITICALITIES {
        let count = f64::from(asked[class.index()]);
        if count > left {
            let least = if class == Criticality::Critical { LEAST } else { 0.0 };
            return Shed { edge: class, share: (left / count).max(least) };
        }
        left -= count;
    }
    Shed { edge: Criticality::Background, share: 1.0 }
}

/// How many requests each tenant may have so that all together are this share of what they asked for: equal shares, and what one does not
/// use is for the others (max-min fairness). `counts` are what each asked for in the interval before; their order changes. With no counts
/// there is no bound.
#[must_use]
pub fn allowance(counts: &mut [u32], share: f64) -> u32 {
    let asked: f64 = counts.iter().map(|count| f64::from(*count)).sum();
    if asked <= 0.0 {
        return u32::MAX;
    }
    counts.sort_unstable();
    let mut left = asked * share.clamp(0.0, 1.0);
    for (at, count) in counts.iter().enumerate() {
        let equal = left / (counts.len() - at) as f64;
        if f64::from(*count) >= equal {
            return equal.round() as u32;
        }
        left -= f64::from(*count);
    }
    u32::MAX
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::batching::simulation::Seeded;

    const fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    /// A processor that does 1,000 units of work in an interval of 50 ms: 1 for a request that is served, a hundredth for one that is not.
    struct Node {
        shedder: Shedder,
        backlog: f64,
        shed: Option<Shed>,
        random: Seeded,
    }

    /// Parts of the load by class.
    const MIX: [f64; 4] = [0.1, 0.2, 0.55, 0.15];
    const REFUSAL: f64 = 0.01;

    impl Node {
        fn new(seed: u64) -> Self {
            Self { shedder: Shedder::new(ShedderSettings::default()), backlog: 0.0, shed: None, random: Seeded::new(seed) }
        }

        /// One interval with about so many requests; how many were served, by class.
        fn interval(&mut self, requests: f64) -> [f64; 4] {
            let part = |class: usize, shed: Option<Shed>| match shed {
                None => 1.0,
                Some(Shed { edge, share }) if edge.index() == class => share,
                Some(Shed { edge, .. }) => f64::from(u8::from(class > edge.index())),
            };
            let mut noise = || 0.85 + 0.3 * self.random.share();
            let asked: [f64; 4] = std::array::from_fn(|class| requests * MIX[class] * noise());
            let work = 1000.0 * noise();
            let let_in: [f64; 4] = std::array::from_fn(|class| asked[class] * part(class, self.shed));
            let (all, total) = (let_in.iter().sum::<f64>(), asked.iter().sum::<f64>());
            self.backlog += all + (total - all) * REFUSAL;
            let done = self.backlog.min(work);
            self.backlog -= done;
            let delay = Duration::from_secs_f64(0.05 * self.backlog / 1000.0);
            self.shed = self.shedder.observe(&Interval { delay, asked: asked.map(|count| count as u32), let_in: all as u32 });
            let useful = done - (total - all) * REFUSAL;
            std::array::from_fn(|class| useful * let_in[class] / all.max(1.0))
        }
    }

    #[test]
    fn a_surge_costs_the_low_classes_and_hardly_any_goodput() {
        for (seed, times) in [(1, 1.5), (2, 3.0), (3, 5.0), (4, 10.0)] {
            let mut node = Node::new(seed);
            (0..40).for_each(|_| _ = node.interval(700.0));
            assert!(node.shed.is_none());
            let mut good = [0.0; 4];
            for tick in 0..100 {
                let served = node.interval(1000.0 * times);
                // The first second is for finding out.
                if tick >= 20 {
                    good.iter_mut().zip(served).for_each(|(sum, served)| *sum += served);
                }
            }
            // Refusals take what they take.
            let (all, most) = (good.iter().sum::<f64>(), 80_000.0 * (1.0 - REFUSAL * (times - 1.0)));
            assert!(all >= 0.95 * most, "{times}: {all} of {most}");
            assert!(times < 3.0 || good[0] + good[1] <= 0.02 * all, "{times}: {good:?}");
            assert!(good[3] >= (80_000.0 * times * MIX[3]).min(0.9 * most) * 0.95, "{times}: {good:?}");
            // In the tenth part of a second the backlog is worked off and everybody is let in.
            let back = (0..200).position(|_| {
                node.interval(700.0);
                node.shed.is_none() && node.backlog < 100.0
            });
            assert!(back.is_some_and(|ticks| ticks <= 20), "{times}: normal within a second, after {back:?} intervals");
        }
    }

    #[test]
    fn nobody_is_refused_before_it_is_counted_and_without_need() {
        let mut shedder = Shedder::new(ShedderSettings::default());
        let mut observe = |delay, asked, let_in| shedder.observe(&Interval { delay: ms(delay), asked, let_in });
        assert_eq!(observe(20, [0; 4], 0), None);
        let everybody = Some(Shed { edge: Criticality::Background, share: 1.0 });
        assert_eq!(observe(50, [0; 4], 0), everybody);
        // 100 came and the delay grew by as much as an interval: 50 can be done, and the delay wants its part.
        let Some(shed) = observe(100, [20, 20, 40, 20], 100) else { panic!("over") };
        assert_eq!(shed.edge, Criticality::Default);
        assert!((0.25..0.32).contains(&shed.share), "{shed:?}");
        assert_eq!(observe(10, [0; 4], 0), None, "nobody asks");
    }

    #[test]
    fn equal_shares_and_no_less_for_the_modest() {
        assert_eq!(allowance(&mut [1000, 10, 10], 0.5), 490);
        assert_eq!(allowance(&mut [100, 100], 0.5), 50);
        assert_eq!(allowance(&mut [5, 100, 200], 0.0), 0);
        assert_eq!(allowance(&mut [0, 0], 0.5), u32::MAX);
        assert!(allowance(&mut [7, 3], 1.0) >= 7);
    }

    proptest! {
        #[test]
        fn the_allowance_lets_in_what_it_shall(mut counts in proptest::collection::vec(0u32..1000, 1..64), share in 0.0f64..1.0) {
            let asked: f64 = counts.iter().map(|count| f64::from(*count)).sum();
            let most = allowance(&mut counts, share);
            let let_in: f64 = counts.iter().map(|count| f64::from(*count.min(&most))).sum();
            prop_assert!((let_in - asked * share).abs() <= 0.51 * counts.len() as f64 || asked == 0.0, "{let_in} of {asked} by {share}");
        }

        #[test]
        fn shares_stay_in_bounds(intervals in proptest::collection::vec((0u64..500, proptest::array::uniform4(0u32..1000), 0u32..4000), 1..200)) {
            let mut shedder = Shedder::new(ShedderSettings::default());
            for (delay, asked, let_in) in intervals {
                let shed = shedder.observe(&Interval { delay: ms(delay), asked, let_in });
                prop_assert!(shed.is_none_or(|shed| (0.0..=1.0).contains(&shed.share)));
                prop_assert!(shed.is_none_or(|shed| shed.edge < Criticality::Critical || shed.share >= 0.1));
            }
        }
    }
}
