//! Judging one interval: who fails too often, and who does much worse than the rest.
//!
//! Invariant: whom an interval judges it judges by that interval alone. Limits on how many are ejected are the caller's.

use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use super::{Cause, Record, Settings};

pub(super) struct Counted {
    host: usize,
    calls: u64,
    failed: u64,
}

impl Counted {
    fn success_rate(&self) -> f64 {
        1.0 - self.failed as f64 / self.calls.max(1) as f64
    }
}

/// What each endpoint that is in has counted since the last time. Counting starts anew.
pub(super) fn counts<R: AsRef<Record>>(now: Duration, pool: &[R]) -> Vec<Counted> {
    let taken = pool.iter().map(AsRef::as_ref).enumerate().map(|(host, record)| {
        // Failures first: a call that ends in between is then a success too many, not a failure without a call.
        let failed = record.failed.swap(0, Relaxed);
        (Counted { host, calls: record.calls.swap(0, Relaxed).max(failed), failed }, record)
    });
    taken.filter(|(_, record)| !record.is_ejected(now)).map(|(counted, _)| counted).collect()
}

/// Whom to eject, the worst first.
pub(super) fn outliers(counts: &[Counted], settings: &Settings) -> Vec<(usize, Cause)> {
    let mut found: Vec<(&Counted, Cause)> = failing(counts, settings).map(|host| (host, Cause::FailurePercentage)).collect();
    for host in lagging(counts, settings) {
        if !found.iter().any(|(other, _)| other.host == host.host) {
            found.push((host, Cause::SuccessRate));
        }
    }
    found.sort_by(|(a, _), (b, _)| a.success_rate().total_cmp(&b.success_rate()));
    found.into_iter().map(|(counted, cause)| (counted.host, cause)).collect()
}

fn failing<'a>(counts: &'a [Counted], settings: &'a Settings) -> impl Iterator<Item = &'a Counted> {
    let judged = |host: &&Counted| host.calls >= settings.failure_volume.max(1);
    let enough = settings.failure_percent > 0 && counts.iter().filter(judged).count() >= settings.failure_hosts;
    let fails = |host: &&Counted| host.failed.saturating_mul(100) >= host.calls.saturating_mul(settings.failure_percent.into());
    counts.iter().filter(move |host| enough && judged(host) && fails(host))
}

/// Envoy's success rate rule: below mean − deviations × standard deviation, of the endpoints with enough calls.
fn lagging<'a>(counts: &'a [Counted], settings: &'a Settings) -> impl Iterator<Item = &'a Counted> {
    let judged = |host: &&Counted| host.calls >= settings.success_volume.max(1);
    let rates = || counts.iter().filter(judged).map(Counted::success_rate);
    let n = rates().count();
    let mean = rates().sum::<f64>() / n.max(1) as f64;
    let variance = rates().map(|rate| (rate - mean).powi(2)).sum::<f64>() / n.max(1) as f64;
    let least = mean - settings.success_deviations * variance.sqrt();
    let enough = settings.success_deviations > 0.0 && n >= settings.success_hosts;
    // When all do alike, rounding must not make outliers.
    counts.iter().filter(move |host| enough && judged(host) && host.success_rate() < least - 1e-9)
}
