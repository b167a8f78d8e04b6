//! Several limits at once: all of them or none.
//!
//! Limits are taken in the order given, cheapest to refuse first; when one refuses, those before it get theirs back. Invariant: after
//! a refusal every limit stands as if nobody had asked. Between the taking and the giving back another request may see less
//! than there is; it can be refused by mistake, never let in by mistake. The caller settles what it was granted, once the real cost is
//! known, with [`Claim::settle`].

use std::time::Duration;

use super::{Cell, DailyCap, Leased, Rate, Taken};

/// Both clocks, read once for a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment {
    /// Since any fixed start.
    pub monotonic: Duration,
    /// Milliseconds since 1970 in UTC.
    pub unix_ms: u64,
}

/// One of the limits that a request has to pass.
#[derive(Debug, Clone, Copy)]
pub enum Limit<'a> {
    /// A rate of this node.
    Rate(&'a Cell, &'a Rate),
    /// The node's part of a limit that all nodes share.
    Leased(&'a Leased),
    /// A day's cap of this node.
    Daily(&'a DailyCap),
}

/// A limit and what is asked of it.
#[derive(Debug, Clone, Copy)]
pub struct Claim<'a> {
    /// The limit.
    pub limit: Limit<'a>,
    /// In the limit's own units.
    pub cost: u64,
}

/// How one of the claims stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// Which claim.
    pub index: usize,
    /// Its answer.
    pub taken: Taken,
}

impl Claim<'_> {
    fn take(&self, now: Moment) -> Taken {
        match self.limit {
            Limit::Rate(cell, rate) => cell.take(rate, self.cost, now.monotonic),
            Limit::Leased(leased) => leased.take(self.cost, now.monotonic),
            Limit::Daily(cap) => cap.take(self.cost, now.unix_ms),
        }
    }

    /// Corrects a claim that was granted at `granted_at`: `actual` was used.
    pub fn settle(&self, actual: u64, granted_at: Moment, now: Moment) {
        match self.limit {
            Limit::Rate(cell, rate) => cell.settle(rate, self.cost, actual, now.monotonic),
            Limit::Leased(leased) => leased.settle(self.cost, actual, granted_at.monotonic, now.monotonic),
            Limit::Daily(cap) => cap.settle(self.cost, actual, granted_at.unix_ms, now.unix_ms),
        }
    }
}

/// Takes all claims. The answer is the tightest of them, for the `RateLimit` field: the one of which the fewest such requests are left,
/// and of equals the one that is full again last. `None` when nothing was claimed.
///
/// # Errors
///
/// The claim that refused, with everything before it given back.
pub fn reserve(claims: &[Claim<'_>], now: Moment) -> Result<Option<Standing>, Standing> {
    let mut tightest: Option<Standing> = None;
    let left = |standing: &Standing| {
        let cost = claims.get(standing.index).map_or(1, |claim| claim.cost.max(1));
        (standing.taken.remaining / cost, std::cmp::Reverse(standing.taken.reset))
    };
    for (index, claim) in claims.iter().enumerate() {
        let standing = Standing { index, taken: claim.take(now) };
        if !standing.taken.allowed() {
            for before in claims.iter().take(index).rev() {
                before.settle(0, now, now);
            }
            return Err(standing);
        }
        if tightest.as_ref().is_none_or(|other| left(&standing) < left(other)) {
            tightest = Some(standing);
        }
    }
    Ok(tightest)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::Verdict;
    use super::*;

    fn at(millis: u64) -> Moment {
        Moment { monotonic: Duration::from_millis(millis), unix_ms: 1_700_000_000_000 + millis }
    }

    #[test]
    fn names_who_refused_and_gives_the_rest_back() {
        let (tenant, user, cost) = (Cell::new(), Cell::new(), DailyCap::new(1000));
        let (wide, narrow) = (Rate::parse("100/s", Some(200)).unwrap(), Rate::parse("10/s", Some(2)).unwrap());
        let claims = [
            Claim { limit: Limit::Rate(&tenant, &wide), cost: 1 },
            Claim { limit: Limit::Daily(&cost), cost: 300 },
            Claim { limit: Limit::Rate(&user, &narrow), cost: 1 },
        ];
        let tightest = reserve(&claims, at(0)).unwrap().unwrap();
        assert_eq!((tightest.index, tightest.taken.remaining), (2, 1));
        let tightest = reserve(&claims, at(0)).unwrap().unwrap();
        assert_eq!((tightest.index, tightest.taken.remaining), (2, 0));
        let refused = reserve(&claims, at(0)).unwrap_err();
        assert_eq!((refused.index, refused.taken.verdict, refused.taken.retry_after), (2, Verdict::Later, Duration::from_millis(100)));
        assert_eq!((tenant.look(&wide, at(0).monotonic).remaining, cost.used(at(0).unix_ms)), (198, 600));
        let tightest = reserve(&claims, at(1000)).unwrap().unwrap();
        assert_eq!((tightest.index, tightest.taken.remaining), (1, 100), "not one more request of 300 units");
        claims[1].settle(50, at(1000), at(1000));
        assert_eq!(cost.used(at(1000).unix_ms), 650);
        assert_eq!(reserve(&[], at(0)), Ok(None));
    }

    proptest! {
        /// Any mixture of limits: after a refusal nothing has changed, after a grant each has paid.
        #[test]
        fn all_or_nothing(bursts in proptest::collection::vec(1u64..20, 1..5), asks in proptest::collection::vec((0u64..500, 0u64..12), 1..60)) {
            let cells: Vec<_> = bursts.iter().map(|burst| (Cell::new(), Rate::parse("5/s", Some(*burst)).unwrap())).collect();
            let mut now = 0;
            for (wait, cost) in asks {
                now += wait;
                let claims: Vec<_> = cells.iter().map(|(cell, rate)| Claim { limit: Limit::Rate(cell, rate), cost }).collect();
                let look = || cells.iter().map(|(cell, rate)| cell.look(rate, at(now).monotonic).remaining).collect::<Vec<_>>();
                let before = look();
                match reserve(&claims, at(now)) {
                    Ok(tightest) => {
                        let after = look();
                        prop_assert!(before.iter().zip(&after).all(|(before, after)| before - after == cost));
                        prop_assert_eq!(tightest.map(|standing| standing.taken.remaining / cost.max(1)), after.iter().map(|left| left / cost.max(1)).min());
                    }
                    Err(refused) => {
                        prop_assert_eq!(&look(), &before);
                        prop_assert!(before[refused.index] < cost);
                        prop_assert!(before.iter().take(refused.index).all(|left| *left >= cost), "the first that refuses is named");
                    }
                }
            }
        }
    }
}
