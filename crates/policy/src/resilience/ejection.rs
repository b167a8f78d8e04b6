//! Outlier ejection: which endpoints of a pool to leave out for a while, after Envoy, with numbers for small pools.
//!
//! Three rules eject: failures in a row, at once; and at each interval a share of failures, and a success rate far below the pool's. An
//! ejection lasts [`Settings::base`] × how often in a row; each interval spent well takes one off.
//!
//! An outlier is one that does worse than others. So an ejection is never what leaves a pool with too few: none is made that would leave fewer
//! than [`Settings::panic_percent`] ready, and when breakers or checks leave fewer, all ejections end ([`Ejection::annul`]). From then on the
//! breakers alone say whom to ask: panic never goes past one that is open.
//!
//! Invariants: never more than [`Settings::most_percent`] of the pool are ejected, but one of several may be; the only endpoint of a pool never is.
//! Each endpoint has a [`Record`], which lives as long as it does; the pool is whatever slice of them the caller hands in, so endpoints come and
//! go without a word to this module. An answer costs two atomic writes; the lock is taken only to eject. Active checks, and acting on the
//! verdict, are left to the gateway.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use super::{Outcome, lock, nanos};

mod interval;
#[cfg(test)]
mod tests;

/// Whom to eject and for how long.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// So many failures in a row eject; 0: never.
    pub consecutive: u32,
    /// How often the caller calls [`Ejection::interval`].
    pub interval: Duration,
    /// From this share of failures within an interval on, in percent; 0: never.
    pub failure_percent: u32,
    /// … of an endpoint that was asked so often in the interval.
    pub failure_volume: u64,
    /// … in a pool with so many such endpoints.
    pub failure_hosts: usize,
    /// Below the mean success rate by so many standard deviations; 0: never.
    pub success_deviations: f64,
    /// … of endpoints that were asked so often in the interval.
    pub success_volume: u64,
    /// … in a pool with so many such endpoints.
    pub success_hosts: usize,
    /// How long the first ejection lasts. The second in a row lasts twice, the third three times as long.
    pub base: Duration,
    /// … but no longer than this (or `base`, if that is longer).
    pub longest: Duration,
    /// No more of the pool than this are ejected, in percent; but one may always be.
    pub most_percent: usize,
    /// With fewer ready than this, in percent, none is ejected.
    pub panic_percent: usize,
}

impl Default for Settings {
    /// Envoy's numbers, except: half of a pool instead of a tenth, and shares of failures count from one endpoint with ten calls
    /// on, because pools of models are small.
    fn default() -> Self {
        Self {
            consecutive: 5,
            interval: Duration::from_secs(10),
            failure_percent: 85,
            failure_volume: 10,
            failure_hosts: 1,
            success_deviations: 1.9,
            success_volume: 100,
            success_hosts: 5,
            base: Duration::from_secs(30),
            longest: Duration::from_secs(300),
            most_percent: 50,
            panic_percent: 50,
        }
    }
}

/// Why an endpoint was ejected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Cause {
    /// Failures in a row.
    Consecutive,
    /// The share of failures in an interval.
    FailurePercentage,
    /// A success rate far below the others'.
    SuccessRate,
}

/// An ejection that has just happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ejected {
    /// The endpoint's place in the slice.
    pub host: usize,
    /// Why.
    pub cause: Cause,
    /// How long it lasts.
    pub lasts: Duration,
}

/// A call that has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Call {
    /// The endpoint's place in the slice.
    pub host: usize,
    /// How it ended.
    pub outcome: Outcome,
    /// When it was begun.
    pub began: Duration,
}

/// What ejection knows of one endpoint.
#[derive(Debug, Default)]
pub struct Record {
    in_a_row: AtomicU32,
    calls: AtomicU64,
    failed: AtomicU64,
    /// 0, or when the last ejection ends or ended.
    until: AtomicU64,
    times: AtomicU32,
}

impl Record {
    /// Whether it is ejected now. One load.
    #[must_use]
    pub fn is_ejected(&self, now: Duration) -> bool {
        self.until.load(Relaxed) > nanos(now)
    }

    /// An active check has passed: the ejection ends. The next one lasts longer all the same.
    pub fn readmit(&self, now: Duration) {
        if self.is_ejected(now) {
            self.until.store(nanos(now), Relaxed);
        }
    }

    /// Ends an ejection that should not have been.
    fn annul(&self, now: Duration) {
        self.readmit(now);
        self.times.store(self.times.load(Relaxed).saturating_sub(1), Relaxed);
    }

    fn eject(&self, now: Duration, settings: &Settings) -> Duration {
        let times = self.times.load(Relaxed).saturating_add(1);
        let lasts = settings.base.saturating_mul(times).min(settings.longest.max(settings.base));
        self.times.store(times, Relaxed);
        self.until.store(nanos(now.saturating_add(lasts)), Relaxed);
        for count in [&self.calls, &self.failed] {
            count.store(0, Relaxed);
        }
        self.in_a_row.store(0, Relaxed);
        lasts
    }
}

/// The rules of one pool.
#[derive(Debug)]
pub struct Ejection {
    settings: Settings,
    /// Only one thread at a time counts who is ejected and adds to them.
    ejecting: Mutex<()>,
}

impl Ejection {
    /// Rules for a pool.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        Self { settings, ejecting: Mutex::new(()) }
    }

    /// A call ended. Says when that has ejected its endpoint. `is_well`: whether nothing but an ejection would speak against an endpoint.
    ///
    /// What began before an ejection ended does not count: calls that were stuck with a bad endpoint must not eject a repaired one.
    pub fn record<R: AsRef<Record>>(&self, now: Duration, pool: &[R], call: Call, is_well: impl Fn(&R) -> bool) -> Option<Ejected> {
        let record = pool.get(call.host)?.as_ref();
        if call.outcome == Outcome::Cancelled || nanos(call.began) < record.until.load(Relaxed) {
            return None;
        }
        record.calls.fetch_add(1, Relaxed);
        if !call.outcome.is_failure() {
            // Mostly zero already, and a load leaves the cache line to others.
            if record.in_a_row.load(Relaxed) > 0 {
                record.in_a_row.store(0, Relaxed);
            }
            return None;
        }
        record.failed.fetch_add(1, Relaxed);
        let in_a_row = record.in_a_row.fetch_add(1, Relaxed).saturating_add(1);
        (self.settings.consecutive > 0 && in_a_row >= self.settings.consecutive)
            .then(|| self.eject(now, pool, (call.host, Cause::Consecutive), is_well))
            .flatten()
    }

    /// To be called each [`Settings::interval`]: judges what was counted since, ejects the worst first, forgives one ejection to everybody
    /// who was in and was not ejected. Allocates. `is_well`: as for [`Self::record`].
    pub fn interval<R: AsRef<Record>>(&self, now: Duration, pool: &[R], is_well: impl Fn(&R) -> bool) -> Vec<Ejected> {
        let counts = interval::counts(now, pool);
        let ejected: Vec<_> = interval::outliers(&counts, &self.settings)
            .into_iter()
            .filter_map(|outlier| self.eject(now, pool, outlier, &is_well))
            .collect();
        for host in pool.iter().map(AsRef::as_ref).filter(|host| !host.is_ejected(now)) {
            // Back for less than an interval is not yet an interval spent well.
            if host.until.load(Relaxed).saturating_add(nanos(self.settings.interval)) <= nanos(now) {
                host.times.store(host.times.load(Relaxed).saturating_sub(1), Relaxed);
            }
        }
        ejected
    }

    /// [`route`] has said [`Routing::Panic`]: with so few that are well the others are no outliers. All ejections end, as if they had not been;
    /// how many there were. Takes no lock while there are none.
    pub fn annul<R: AsRef<Record>>(&self, now: Duration, pool: &[R]) -> usize {
        if !pool.iter().any(|host| host.as_ref().is_ejected(now)) {
            return 0;
        }
        let _one = lock(&self.ejecting);
        let mut ended = 0;
        for host in pool.iter().map(AsRef::as_ref).filter(|host| host.is_ejected(now)) {
            host.annul(now);
            ended += 1;
        }
        ended
    }

    /// How many of a pool of `n` may be ejected at the same time.
    #[must_use]
    pub fn most(&self, n: usize) -> usize {
        (n.saturating_mul(self.settings.most_percent.min(100)) / 100).max(1).min(n)
    }

    /// Whom to choose among; see [`route`].
    #[must_use]
    pub fn route(&self, ready: usize, n: usize) -> Routing {
        route(ready, n, self.settings.panic_percent)
    }

    fn eject<R: AsRef<Record>>(
        &self,
        now: Duration,
        pool: &[R],
        (host, cause): (usize, Cause),
        is_well: impl Fn(&R) -> bool,
    ) -> Option<Ejected> {
        let _one = lock(&self.ejecting);
        let record = pool.get(host)?.as_ref();
        let is_in = |other: &R| !other.as_ref().is_ejected(now);
        let ejected = pool.iter().filter(|other| !is_in(other)).count();
        if record.is_ejected(now) || ejected >= self.most(pool.len()) {
            return None;
        }
        let left = pool.iter().enumerate().filter(|(place, other)| *place != host && is_in(other) && is_well(other)).count();
        if self.route(left, pool.len()) == Routing::Panic {
            return None;
        }
        Some(Ejected { host, cause, lasts: record.eject(now, &self.settings) })
    }
}

/// Whom to choose among.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Routing {
    /// Those that are ready.
    Ready,
    /// All whose breaker lets them be asked ("panic routing"): too few are ready to believe that the others are outliers. Call
    /// [`Ejection::annul`], and [`Breaker::hasten`](super::breaker::Breaker::hasten) on each.
    Panic,
}

/// Of `n` endpoints `ready` are neither ejected, nor behind an open breaker, nor failing checks. With fewer than `panic_percent` ready, and
/// whenever none is, it is panic. A target with a usable fallback is better sent there than into panic.
#[must_use]
pub const fn route(ready: usize, n: usize, panic_percent: usize) -> Routing {
    if ready == 0 || ready.saturating_mul(100) < n.saturating_mul(panic_percent) { Routing::Panic } else { Routing::Ready }
}
