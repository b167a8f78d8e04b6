//! What was admitted, counted against what may be: over every span of time, and in windows.
//!
//! Times are microseconds. Where a request was admitted is known to lie between two moments, and both are taken so that no excess is
//! imagined: a span begins with the earlier and ends with the later.

/// The most, over all spans of time, of what was admitted beyond rate × span. Fed in the order of time.
#[derive(Debug, Clone)]
pub struct Excess {
    per_micro: f64,
    sum: f64,
    least: f64,
    worst: f64,
    /// Where the span with the least began, and the worst span.
    began: u64,
    span: (u64, u64),
}

impl Excess {
    pub fn new(per_second: f64) -> Self {
        Self { per_micro: per_second / 1e6, sum: 0.0, least: f64::MAX, worst: 0.0, began: 0, span: (0, 0) }
    }

    /// Units that were admitted, or, negative, given back.
    pub fn add(&mut self, at: u64, units: i64) {
        let earned = at as f64 * self.per_micro;
        if self.sum - earned < self.least {
            (self.least, self.began) = (self.sum - earned, at);
        }
        self.sum += units as f64;
        if self.sum - earned - self.least > self.worst {
            (self.worst, self.span) = (self.sum - earned - self.least, (self.began, at));
        }
    }

    pub fn worst(&self) -> f64 {
        self.worst
    }

    /// From when to when that was.
    pub const fn span(&self) -> (u64, u64) {
        self.span
    }

    /// The same of requests that were admitted at some moment between two: from, to.
    pub fn between(per_second: f64, mut requests: Vec<(u64, u64)>) -> f64 {
        let per_micro = per_second / 1e6;
        requests.sort_unstable_by_key(|(_, to)| *to);
        // Of those that end with a request or after it, the first beginning.
        let mut begins: Vec<u64> = requests.iter().map(|(from, _)| *from).collect();
        for at in (1..begins.len()).rev() {
            begins[at - 1] = begins[at - 1].min(begins[at]);
        }
        let (mut best, mut worst) = (f64::MIN, 0.0_f64);
        for (number, ((_, to), begin)) in requests.iter().zip(&begins).enumerate() {
            best = best.max(*begin as f64 * per_micro - number as f64);
            worst = worst.max((number + 1) as f64 - *to as f64 * per_micro + best);
        }
        worst
    }
}

/// Windows of one length, one after another.
#[derive(Debug, Clone)]
pub struct Windows {
    length: u64,
    current: u64,
    count: i64,
    fullest: i64,
}

impl Windows {
    pub fn new(length: u64) -> Self {
        Self { length: length.max(1), current: 0, count: 0, fullest: 0 }
    }

    pub fn add(&mut self, at: u64, units: i64) {
        let window = at / self.length;
        if window != self.current {
            (self.current, self.count) = (window, 0);
        }
        self.count += units;
        self.fullest = self.fullest.max(self.count);
    }

    pub fn fullest(&self) -> i64 {
        self.fullest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A burst of 5 and then 10 a second.
    fn good() -> Vec<u64> {
        (0..5).map(|_| 1_000_000).chain((1..=30).map(|n| 1_000_000 + n * 100_000)).collect()
    }

    #[test]
    fn every_span_counts() {
        let mut excess = Excess::new(10.0);
        good().into_iter().for_each(|at| excess.add(at, 1));
        assert!((excess.worst() - 5.0).abs() < 1e-9, "{}", excess.worst());
        // Another burst in the middle is found, also when it comes after much rest.
        excess.add(20_000_000, 7);
        assert!((excess.worst() - 7.0).abs() < 1e-9);
        excess.add(20_000_000, -7);
        excess.add(20_000_000, 7);
        assert!((excess.worst() - 7.0).abs() < 1e-9, "what was given back is not counted");
    }

    #[test]
    fn what_is_not_known_to_the_moment_is_taken_at_its_best() {
        let exact = good().into_iter().map(|at| (at, at)).collect();
        assert!((Excess::between(10.0, exact) - 5.0).abs() < 1e-9);
        let slow: Vec<_> = good().into_iter().map(|at| (at - 100_000, at + 100_000)).collect();
        assert!((Excess::between(10.0, slow) - 3.0).abs() < 1e-9, "two may have been earned meanwhile");
        let mut twice: Vec<_> = good().into_iter().map(|at| (at, at + 10)).collect();
        twice.extend((0..9).map(|n| (2_500_000 + n, 2_500_010 + n)));
        assert!(Excess::between(10.0, twice) > 13.0);
    }

    #[test]
    fn windows_are_counted_one_by_one() {
        let mut windows = Windows::new(1_000_000);
        good().into_iter().for_each(|at| windows.add(at, 1));
        assert_eq!(windows.fullest(), 14);
    }
}
