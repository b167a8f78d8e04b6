//! The client's own throttle: who is refused often asks less often.
//!
//! After the SRE book, chapter 21: over two minutes, the chance to refuse here is `max(0, (requests − K × accepts) / (requests + 1))`,
//! where requests count also those refused here. With K = 2 one that accepts half of what it is asked is not throttled.
//!
//! Two additions, because that formula alone asks a dead target once in a window and needs minutes to notice that it is well again: at
//! most [`MOST_REFUSED`] of the requests are refused, and the chance is the lower of that over the window and that over its last
//! twelfth (10 s). So a repaired target has its full load back within half a minute.
//!
//! Invariants: with nothing refused by the target nothing is refused here; what is older than the window has no say. It holds two
//! numbers for each of 24 slices of the window; the caller brings time and chance.

use std::time::Duration;

use super::nanos;

const SLICES: u64 = 24;
/// The latest slices that are judged by themselves.
const LATEST: u64 = 2;
/// Never refuse more than this part.
pub const MOST_REFUSED: f64 = 0.9;

#[derive(Debug, Clone, Copy, Default)]
struct Slice {
    /// The slice of time, and one more; 0: none.
    number: u64,
    requests: u64,
    accepts: u64,
}

/// What is remembered of one target. A short lock around it is the caller's.
#[derive(Debug, Clone)]
pub struct Throttle {
    k: f64,
    slice: u64,
    slices: [Slice; SLICES as usize],
}

impl Default for Throttle {
    /// K = 2 over two minutes.
    fn default() -> Self {
        Self::new(2.0, Duration::from_secs(120))
    }
}

impl Throttle {
    /// A throttle with this `k` (at least 1) over this window.
    #[must_use]
    pub fn new(k: f64, window: Duration) -> Self {
        let k = if k.is_finite() { k.max(1.0) } else { 2.0 };
        Self { k, slice: (nanos(window) / SLICES).max(1), slices: [Slice::default(); SLICES as usize] }
    }

    /// Counts a request and says whether to send it. `chance` is uniform in [0, 1).
    #[must_use]
    pub fn admit(&mut self, now: Duration, chance: f64) -> bool {
        let refuse = self.refusal(now);
        if let Some(slice) = self.current(now) {
            slice.requests += 1;
        }
        chance >= refuse
    }

    /// The target took a request in: any answer but "overloaded" or none at all.
    pub fn accepted(&mut self, now: Duration) {
        if let Some(slice) = self.current(now) {
            slice.accepts += 1;
        }
    }

    /// The chance that a request is refused here, as it stands.
    #[must_use]
    pub fn refusal(&self, now: Duration) -> f64 {
        self.over(SLICES, now).min(self.over(LATEST, now)).min(MOST_REFUSED)
    }

    fn over(&self, slices: u64, now: Duration) -> f64 {
        let newest = nanos(now) / self.slice + 1;
        let live = self.slices.iter().filter(|slice| slice.number + slices > newest);
        let (requests, accepts) = live.fold((0, 0), |(requests, accepts), slice| (requests + slice.requests, accepts + slice.accepts));
        ((requests as f64 - self.k * accepts as f64) / (requests as f64 + 1.0)).max(0.0)
    }

    fn current(&mut self, now: Duration) -> Option<&mut Slice> {
        let number = nanos(now) / self.slice + 1;
        let slice = self.slices.get_mut((number % SLICES) as usize)?;
        if slice.number < number {
            *slice = Slice { number, ..Slice::default() };
        }
        Some(slice)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::batching::simulation::Seeded;

    /// 100 requests a second for `seconds`; how many were sent in the last ten.
    fn run(throttle: &mut Throttle, random: &mut Seeded, from: u64, seconds: u64, accepts: impl Fn(f64) -> bool) -> u64 {
        let mut sent = 0;
        for tick in 0..seconds * 100 {
            let now = Duration::from_millis(from * 1000 + tick * 10);
            if throttle.admit(now, random.share()) {
                sent += u64::from(tick >= (seconds - 10) * 100);
                if accepts(random.share()) {
                    throttle.accepted(now);
                }
            }
        }
        sent
    }

    #[test]
    fn a_dead_target_is_hardly_asked_and_comes_back() {
        let (mut throttle, mut random) = (Throttle::default(), Seeded::new(5));
        assert_eq!(run(&mut throttle, &mut random, 0, 120, |_| true), 1000, "nothing is refused while all is well");
        let dead = run(&mut throttle, &mut random, 120, 240, |_| false);
        assert!(dead < 140, "{dead} of 1000 in ten seconds");
        let back = run(&mut throttle, &mut random, 360, 40, |_| true);
        assert_eq!(back, 1000, "as if nothing had been");
    }

    #[test]
    fn half_is_enough_and_a_tenth_is_doubled() {
        let (mut throttle, mut random) = (Throttle::default(), Seeded::new(6));
        let sent = run(&mut throttle, &mut random, 0, 400, |chance| chance < 0.55);
        assert!(sent > 950, "{sent}");
        let (mut throttle, mut capacity) = (Throttle::default(), 0u64);
        let mut sent = 0;
        for tick in 0..40_000u64 {
            let now = Duration::from_millis(tick * 10);
            capacity = if tick % 10 == 0 { 1 } else { capacity }; // a tenth of what is asked
            if throttle.admit(now, random.share()) {
                sent += u64::from(tick >= 30_000);
                if capacity > 0 {
                    capacity -= 1;
                    throttle.accepted(now);
                }
            }
        }
        assert!((1500..2500).contains(&sent), "{sent} of 10000: twice what the target takes");
    }

    proptest! {
        #[test]
        fn agrees_with_a_list(acts in proptest::collection::vec((0u64..8, any::<bool>()), 1..300)) {
            let (mut throttle, mut times, mut now) = (Throttle::default(), Vec::<(u64, bool)>::new(), 0);
            for (wait, accept) in acts {
                now += wait;
                let at = Duration::from_secs(now);
                let over = |slices: u64| {
                    let live: Vec<bool> = times.iter().filter(|(time, _)| time / 5 + slices > now / 5).map(|(_, ok)| *ok).collect();
                    let (requests, accepts) = (live.len() as f64, live.iter().filter(|ok| **ok).count() as f64);
                    ((requests - 2.0 * accepts) / (requests + 1.0)).max(0.0)
                };
                let expected = over(24).min(over(2)).min(0.9);
                prop_assert!((throttle.refusal(at) - expected).abs() < 1e-9);
                let _ = throttle.admit(at, 0.5);
                if accept {
                    throttle.accepted(at);
                }
                times.push((now, accept));
            }
        }
    }
}
