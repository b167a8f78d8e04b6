//! How many jobs of a tenant wait, as far as it matters.
//!
//! Counting a million jobs is work, and most tenants have few: a tenant is counted when it has submitted a tenth of what it may since the last
//! count. Invariant: on one node a tenant never has more than its limit and a tenth waiting.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use plinth_types::TenantName;

/// Tenants that are remembered; with more, all are counted anew.
const TENANTS: usize = 10_000;

/// What is known of each tenant.
#[derive(Default)]
pub(crate) struct Waiting(Mutex<HashMap<TenantName, Known>>);

#[derive(Clone, Copy, Default)]
struct Known {
    /// How many waited at the last count.
    counted: u64,
    /// How many were submitted since.
    since: u64,
}

/// What is to be done about a submission.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Judged {
    /// It may be stored.
    Enter,
    /// Count first, and ask again.
    Count,
}

impl Waiting {
    /// Judges a submission of so many jobs by a tenant that may have `most`.
    pub(crate) fn judge(&self, tenant: &TenantName, jobs: u64, most: u64) -> Judged {
        let mut table = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if table.len() >= TENANTS && !table.contains_key(tenant) {
            table.clear();
        }
        let known = table.entry(tenant.clone()).or_default();
        known.since += jobs;
        let due = known.since > (most / 10).max(1) || known.counted + known.since > most;
        if due { Judged::Count } else { Judged::Enter }
    }

    /// Takes a count in; whether so many more may wait beside them.
    pub(crate) fn counted(&self, tenant: &TenantName, waiting: u64, jobs: u64, most: u64) -> bool {
        let mut table = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let fits = waiting + jobs <= most;
        table.insert(tenant.clone(), Known { counted: waiting, since: if fits { jobs } else { 0 } });
        fits
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_are_not_counted_and_many_are_held() {
        let (waiting, tenant): (_, TenantName) = (Waiting::default(), "acme".parse().unwrap());
        let mut counts = 0;
        let (mut stored, most) = (0, 1000);
        for _ in 0..5000 {
            let enters = match waiting.judge(&tenant, 1, most) {
                Judged::Enter => true,
                Judged::Count => {
                    counts += 1;
                    waiting.counted(&tenant, stored, 1, most)
                }
            };
            stored += u64::from(enters);
        }
        assert!(stored >= most && stored <= most + most / 10, "{stored}");
        assert!(counts > 9, "{counts}");
        let small = Waiting::default();
        assert!((0..100).all(|_| small.judge(&tenant, 1, most) == Judged::Enter));
    }
}
