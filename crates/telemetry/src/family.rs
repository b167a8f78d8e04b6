//! Metrics with labels, looked up when a model is loaded or a route is made, never for a request.
//!
//! Invariant: a family has at most `limit` label sets and one more, in which every label is
//! `other`, for what came after; so a flood of names costs no memory here and none in the system that
//! scrapes. A handle goes on counting after its label set was removed; nobody sees it then.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use crate::metric::{Counter, Metric};
use crate::text::{Labels, TextWriter};

/// The value of every label of what is over the limit.
pub const OVERFLOW: &str = "other";

/// Metrics of one name that differ in `N` labels.
pub struct Family<M, const N: usize> {
    labels: [&'static str; N],
    limit: usize,
    refused: Counter,
    off: bool,
    sets: Mutex<BTreeMap<[Box<str>; N], M>>,
}

impl<M: Metric, const N: usize> Family<M, N> {
    /// An empty family. `refused` counts look-ups that went to the overflow.
    #[must_use]
    pub fn new(labels: [&'static str; N], limit: usize, refused: Counter) -> Self {
        Self { labels, limit, refused, off: false, sets: Mutex::default() }
    }

    /// From now on it hands out metrics that are [off](Metric::off) and shows none.
    pub(crate) fn silence(&mut self) {
        self.off = true;
    }

    /// The metric with these label values, made when it is not there. Takes a lock: not for the request path.
    pub fn get(&self, values: [&str; N]) -> M {
        if self.off {
            return M::off();
        }
        let mut sets = self.sets.lock().unwrap_or_else(PoisonError::into_inner);
        let key = values.map(Box::from);
        if let Some(metric) = sets.get(&key) {
            return metric.clone();
        }
        if sets.len() < self.limit {
            return sets.entry(key).or_default().clone();
        }
        self.refused.inc();
        sets.entry([OVERFLOW; N].map(Box::from)).or_default().clone()
    }

    /// Takes the metric with these label values out of the exposition.
    pub fn remove(&self, values: [&str; N]) {
        self.sets.lock().unwrap_or_else(PoisonError::into_inner).remove(&values.map(Box::from));
    }

    /// How many label sets there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.sets.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Whether there is no label set.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(crate) fn write(&self, out: &mut TextWriter, name: &str) {
        // Clones of handles are cheap; the lock must not be held while files are read and text is built.
        let sets: Vec<_> = {
            let sets = self.sets.lock().unwrap_or_else(PoisonError::into_inner);
            sets.iter().map(|(key, metric)| (key.clone(), metric.clone())).collect()
        };
        for (key, metric) in sets {
            let values: [&str; N] = std::array::from_fn(|index| &*key[index]);
            metric.write(out, name, Labels::new(&self.labels, &values));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn label_sets_are_bounded_and_removable() {
        let refused = Counter::default();
        let family: Family<Counter, 1> = Family::new(["model"], 2, refused.clone());
        family.get(["a"]).inc();
        family.get(["a"]).inc();
        let b = family.get(["b"]);
        for name in ["c", "d", "e"] {
            family.get([name]).inc();
        }
        assert_eq!((family.get(["a"]).value(), family.get([OVERFLOW]).value(), refused.value(), family.len()), (2, 3, 3, 3));
        family.remove(["b"]);
        b.inc();
        let mut out = TextWriter::default();
        family.write(&mut out, "x_total");
        assert_eq!(out.finish(), "x_total{model=\"a\"} 2\nx_total{model=\"other\"} 3\n");
    }
}
