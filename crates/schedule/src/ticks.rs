//! The ticks of a cron expression in a zone, forwards and backwards.
//!
//! Invariant: every tick belongs to exactly one [`Span`] of the zone, and spans are walked in their order, so ticks strictly increase
//! whatever the zone does. In a span they are the matches of the wall clock between its two ends, with two exceptions for a schedule
//! that names hours ([`Rule::Once`]): what a repeated stretch shows again is left out, and what a gap has swallowed is one tick at
//! the gap's end.

use crate::pattern::Pattern;
use crate::zone::{Change, Span, Zone};

/// The last second of the year 9999: the last that a `Timestamp` can say.
pub(crate) const END: i64 = 253_402_300_799;

/// What happens where the clock is set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rule {
    /// Each time of the wall clock once.
    Once,
    /// By what the wall clock shows.
    Shown,
}

impl Rule {
    const fn of(pattern: &Pattern) -> Self {
        if pattern.is_every_hour() { Self::Shown } else { Self::Once }
    }

    /// The first local second of a span that counts.
    fn first(self, start: Change) -> i64 {
        match self {
            Self::Once => start.set.max(start.unset),
            Self::Shown => start.set,
        }
    }

    /// The local seconds before a span whose matches are made up for at its beginning.
    fn gap(self, start: Change) -> Option<(i64, i64)> {
        (self == Self::Once && start.unset < start.set).then_some((start.unset, start.set))
    }
}

/// The ticks from some moment on, in seconds since 1970.
pub(crate) struct Ticks<'s> {
    pattern: &'s Pattern,
    zone: &'s Zone,
    rule: Rule,
    span: Span,
    /// The first moment that was not looked at.
    at: i64,
    /// Where the wall clock is known to have no match, from the first local second up to the second, which is one. A rare schedule would
    /// else be searched for in each span on the way to it.
    clear: Option<(i64, i64)>,
}

impl<'s> Ticks<'s> {
    /// The ticks after a second.
    pub fn after(pattern: &'s Pattern, zone: &'s Zone, second: i64) -> Self {
        let at = second.saturating_add(1);
        Self { pattern, zone, rule: Rule::of(pattern), span: zone.span(at), at, clear: None }
    }

    fn matched(&mut self, local: i64) -> Option<i64> {
        if let Some((from, to)) = self.clear
            && (from..=to).contains(&local)
        {
            return Some(to);
        }
        let found = self.pattern.next(local)?;
        self.clear = Some((local, found));
        Some(found)
    }
}

impl Iterator for Ticks<'_> {
    type Item = i64;

    fn next(&mut self) -> Option<i64> {
        while self.at <= END {
            let start = self.span.start;
            if let Some((from, to)) = start.filter(|start| start.at == self.at).and_then(|start| self.rule.gap(start))
                && self.matched(from)? < to
            {
                self.at += 1;
                return Some(self.at - 1);
            }
            let local = self.at + self.span.offset;
            let local = start.map_or(local, |start| local.max(self.rule.first(start)));
            let tick = self.matched(local)? - self.span.offset;
            match self.span.end {
                Some(end) if tick >= end => {
                    self.span = self.zone.span(end);
                    self.at = end;
                }
                _ if tick > END => return None,
                _ => {
                    self.at = tick + 1;
                    return Some(tick);
                }
            }
        }
        None
    }
}

/// The last tick in `(after, until]`.
pub(crate) fn last(pattern: &Pattern, zone: &Zone, after: i64, until: i64) -> Option<i64> {
    let rule = Rule::of(pattern);
    let mut at = until.min(END);
    while at > after {
        let span = zone.span(at);
        let local = pattern.previous(at + span.offset)?;
        let Some(start) = span.start.filter(|start| local < rule.first(*start)) else {
            return Some(local - span.offset).filter(|tick| *tick > after);
        };
        if let Some((from, to)) = rule.gap(start)
            && pattern.next(from)? < to
        {
            return Some(start.at).filter(|tick| *tick > after);
        }
        at = start.at - 1;
    }
    None
}
