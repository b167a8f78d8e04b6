//! Answers in the order of requests, where a model asks for it (`preserve_ordering`).
//!
//! The batcher takes a tenant's items of one level in the order of their arrival, but lanes end when they end. Whoever sends the
//! answers keeps one of these: it says for each answer that is ready which answers may go out now. Invariant: a tenant's answers
//! go out in the order in which they were expected, each exactly once. What holds no order (other tenants) never waits. Bounded
//! by the requests that were let in, since only those are expected.

use std::collections::{BTreeMap, VecDeque};

use super::Key;

/// The answers that are awaited, tenant by tenant.
#[derive(Debug, Default)]
pub struct Answers {
    lines: BTreeMap<u64, VecDeque<(Key, bool)>>,
}

impl Answers {
    /// A request was let in.
    pub fn expect(&mut self, tenant: u64, key: Key) {
        self.lines.entry(tenant).or_default().push_back((key, false));
    }

    /// A request has its answer, or its error, or was cancelled. Appends to `out` what may go out now, in order; that may be
    /// nothing, or several, and includes cancelled ones. A key that is not awaited changes nothing.
    pub fn ready(&mut self, tenant: u64, key: Key, out: &mut Vec<Key>) {
        let Some(line) = self.lines.get_mut(&tenant) else { return };
        if let Some(entry) = line.iter_mut().find(|(awaited, _)| *awaited == key) {
            entry.1 = true;
        }
        while let Some((key, true)) = line.front().copied() {
            line.pop_front();
            out.push(key);
        }
        if line.is_empty() {
            self.lines.remove(&tenant);
        }
    }

    /// How many answers are awaited or held back.
    #[must_use]
    pub fn len(&self) -> usize {
        self.lines.values().map(VecDeque::len).sum()
    }

    /// Whether nothing is awaited.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn held_back_until_the_earlier_ones_are_there() {
        let (mut answers, mut out) = (Answers::default(), Vec::new());
        for key in 1..=3 {
            answers.expect(7, Key(key));
        }
        answers.expect(8, Key(4));
        answers.ready(7, Key(2), &mut out);
        assert_eq!(out, []);
        answers.ready(8, Key(4), &mut out);
        assert_eq!(out, [Key(4)]);
        answers.ready(7, Key(1), &mut out);
        assert_eq!(out, [Key(4), Key(1), Key(2)]);
        answers.ready(7, Key(9), &mut out);
        assert_eq!((out.len(), answers.len()), (3, 1));
        answers.ready(7, Key(3), &mut out);
        assert!(answers.is_empty());
    }
}
