//! The judge of a history of the ledger: what was promised and what was seen.
//!
//! It is fed with what callers were promised ([`Checker::offered`], [`Checker::acknowledged`]), with each transaction's changes in order
//! ([`Checker::committed`]) or with whole pictures now and then ([`Checker::picture`]: what lies between two is not judged), with the effects that
//! handlers had outside ([`Checker::effect`]), and at the end with the demand that all is over ([`Checker::quiet`]). Invariant: it knows no
//! adapter; a fault test over processes uses it as the simulation does.

mod fairness;
mod moves;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use plinth_policy::jobs::State;

use super::seen::{Change, Offer, Op, Seen};
use crate::jobs::{JobId, KindSettings};
use fairness::Fairness;

/// A rule that did not hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Broken(pub String);

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What was seen or not.
pub type Verdict = Result<(), Broken>;

pub(super) fn broken(text: impl Into<String>) -> Verdict {
    Err(Broken(text.into()))
}

/// What is judged against.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// How long after the end of a lease its job is given back, when the ledger can be reached and somebody lives, in milliseconds.
    pub sweep_millis: i64,
    /// By how many jobs two tenants who both wait all the time may differ.
    pub unfair: i64,
}

/// What is known of a job.
#[derive(Debug, Clone)]
struct Known {
    seen: Seen,
    /// Claims since it was submitted or replayed, less those that were given back without a failure.
    begun: u32,
    replayed: bool,
    /// How often it ended.
    ends: u32,
    /// How many webhooks told of it.
    tells: u32,
    results: u32,
}

/// The judge.
pub struct Checker {
    bounds: Bounds,
    jobs: BTreeMap<JobId, Known>,
    forgotten: BTreeSet<JobId>,
    offers: BTreeMap<JobId, Offer>,
    /// Which submission was stored for a key.
    stored: BTreeMap<(String, String), u64>,
    acknowledged: BTreeSet<JobId>,
    /// What each key was answered with.
    answers: BTreeMap<(String, String), Vec<JobId>>,
    ticks: BTreeMap<(String, i64), JobId>,
    /// Effects outside as their receiver counts them, and how often they were sent.
    effects: BTreeMap<(JobId, u8), u32>,
    flows: BTreeSet<(String, u8, String)>,
    fairness: Fairness,
    kinds: BTreeMap<String, KindSettings>,
    states: [u32; State::ALL.len()],
}

impl Checker {
    /// Of an empty ledger.
    #[must_use]
    pub fn new(bounds: Bounds) -> Self {
        Self {
            bounds,
            jobs: BTreeMap::new(),
            forgotten: BTreeSet::new(),
            offers: BTreeMap::new(),
            stored: BTreeMap::new(),
            acknowledged: BTreeSet::new(),
            answers: BTreeMap::new(),
            ticks: BTreeMap::new(),
            effects: BTreeMap::new(),
            flows: BTreeSet::new(),
            fairness: Fairness::default(),
            kinds: BTreeMap::new(),
            states: [0; State::ALL.len()],
        }
    }

    /// Somebody is about to ask for this job.
    pub fn offered(&mut self, id: JobId, offer: Offer) {
        self.offers.insert(id, offer);
    }

    /// A caller was told that these jobs are stored, by the first answer or a later one.
    ///
    /// # Errors
    /// When one of them is not there, or another answer to the same key named others.
    pub fn acknowledged(&mut self, key: Option<&(String, String)>, ids: &[JobId]) -> Verdict {
        for id in ids {
            if !self.jobs.contains_key(id) && !self.forgotten.contains(id) {
                return broken(format!("job {id} was acknowledged and is not there"));
            }
            self.acknowledged.insert(*id);
        }
        if let Some(key) = key {
            let before = self.answers.entry(key.clone()).or_insert_with(|| ids.to_vec());
            if before != ids {
                return broken(format!("key {} of {} was answered with {before:?} and with {ids:?}", key.1, key.0));
            }
        }
        Ok(())
    }

    /// A handler's effect arrived at its receiver, which counts each (job, step) once.
    pub fn effect(&mut self, id: JobId, step: u8) {
        *self.effects.entry((id, step)).or_default() += 1;
    }

    /// What one transaction changed, in its order. `lease` and `wall` are the ledger's clocks then.
    ///
    /// # Errors
    /// The first rule that did not hold.
    pub fn committed(&mut self, op: &Op, (lease, wall): (i64, i64), changes: &[Change]) -> Verdict {
        let before = matches!(op, Op::Claim).then(|| self.fairness.waiting());
        for change in changes {
            match change {
                Change::Job(seen) => self.moved(op, (lease, wall), seen)?,
                Change::Gone(id) => self.gone(*id, wall)?,
                Change::Flow { kind, class, tenant, there } => {
                    let flow = (kind.clone(), *class, tenant.clone());
                    if *there {
                        self.flows.insert(flow)
                    } else {
                        self.flows.remove(&flow)
                    };
                }
                Change::Result { id, .. } => self.result(op, *id)?,
            }
        }
        if let Some(before) = before {
            let begun = changes.iter().filter_map(|change| match change {
                Change::Job(seen) if seen.state == State::Running => Some((seen.kind.clone(), seen.class, seen.tenant.clone())),
                _ => None,
            });
            self.fairness.served(&before, begun, self.bounds.unfair)?;
            self.limits(changes)?;
        }
        if changes.is_empty() { Ok(()) } else { self.between(changes) }
    }

    /// What holds for a kind from here on.
    pub fn settings(&mut self, settings: KindSettings) {
        self.kinds.insert(settings.kind.clone(), settings);
    }

    /// After a claim: none of a paused kind began, and no more of a kind run than may.
    fn limits(&self, changes: &[Change]) -> Verdict {
        let begun = changes.iter().filter_map(|change| match change {
            Change::Job(seen) if seen.state == State::Running => Some(&seen.kind),
            _ => None,
        });
        for settings in begun.filter_map(|kind| self.kinds.get(kind)) {
            let of_kind = |known: &&Known| known.seen.state == State::Running && known.seen.kind == settings.kind;
            let running = self.jobs.values().filter(of_kind).count();
            if settings.paused || settings.limits.concurrency.is_some_and(|most| running > most as usize) {
                return broken(format!("a job of kind {} began, {running} run, and its settings are {settings:?}", settings.kind));
            }
        }
        Ok(())
    }

    /// What holds between two transactions.
    fn between(&self, changes: &[Change]) -> Verdict {
        for (kind, class, tenant) in self.fairness.ready() {
            if !self.flows.contains(&(kind.clone(), *class, tenant.clone())) {
                return broken(format!("jobs of {tenant}, kind {kind}, class {class} are ready without a place in line"));
            }
        }
        if self.count(State::Blocked) > 0 {
            for (id, known) in self.jobs.iter().filter(|(_, known)| known.seen.state == State::Blocked) {
                let waits = self.offers.get(id).map_or(&[][..], |offer| &offer.waits_for[..]);
                if waits.iter().all(|on| self.over(*on)) {
                    return broken(format!("job {id} is blocked and all that it waits for has ended ({})", known.seen.tenant));
                }
            }
        }
        for change in changes {
            let Change::Job(Seen { id, state, .. }) = change else { continue };
            let Some(known) = self.jobs.get(id) else { continue };
            let told = self.offers.get(id).is_some_and(|offer| offer.webhook);
            if told && known.ends != known.tells {
                return broken(format!("job {id} ended {} times and {} webhooks tell of it", known.ends, known.tells));
            }
            if *state == State::Succeeded && known.results != 1 {
                return broken(format!("job {id} ended well with {} results", known.results));
            }
        }
        Ok(())
    }

    /// All jobs as they stand, when not every transaction was seen.
    ///
    /// # Errors
    /// The first rule that did not hold.
    pub fn picture(&mut self, wall: i64, all: &[Seen]) -> Verdict {
        let there: BTreeSet<JobId> = all.iter().map(|seen| seen.id).collect();
        let missing: Vec<JobId> = self.jobs.keys().filter(|id| !there.contains(id)).copied().collect();
        missing.into_iter().try_for_each(|id| self.gone(id, wall))?;
        for id in &self.acknowledged {
            if !there.contains(id) && !self.forgotten.contains(id) {
                return broken(format!("job {id} was acknowledged and is not there"));
            }
        }
        all.iter().try_for_each(|seen| self.glimpse(seen))
    }

    /// Judges the leases at this moment of the lease clock: none has run out for longer than a sweep takes, counted from `undisturbed` when that is
    /// later.
    ///
    /// # Errors
    /// Names the job.
    pub fn leases(&self, now: i64, undisturbed: i64) -> Verdict {
        if self.count(State::Running) == 0 {
            return Ok(());
        }
        for (id, known) in self.jobs.iter().filter(|(_, known)| known.seen.state == State::Running) {
            let until = known.seen.lease_until.unwrap_or(now);
            let late = now - until.max(undisturbed);
            if late > self.bounds.sweep_millis {
                return broken(format!("the lease of job {id} ran out at {until} and nobody has taken it back at {now}"));
            }
        }
        Ok(())
    }

    /// Everything must be over: each acknowledged job has its end, each that ended well its one result and its `effects`.
    ///
    /// # Errors
    /// The first rule that did not hold.
    pub fn quiet(&self, effects: impl Fn(JobId) -> u8) -> Verdict {
        for id in &self.acknowledged {
            match self.jobs.get(id) {
                Some(known) if known.seen.state.ended() => {}
                Some(known) => return broken(format!("job {id} was acknowledged and is {} at the end", known.seen.state)),
                None if self.forgotten.contains(id) => {}
                None => return broken(format!("job {id} was acknowledged and is not there at the end")),
            }
        }
        for (id, known) in &self.jobs {
            if !known.seen.state.ended() {
                return broken(format!("job {id} is {} at the end", known.seen.state));
            }
            if known.seen.state == State::Succeeded {
                for step in 0..effects(*id) {
                    if !self.effects.contains_key(&(*id, step)) {
                        return broken(format!("job {id} ended well and its effect {step} did not happen"));
                    }
                }
            }
        }
        Ok(())
    }

    /// In which state a job is; `None` when it is not there.
    #[must_use]
    pub fn state(&self, id: JobId) -> Option<State> {
        self.jobs.get(&id).map(|known| known.seen.state)
    }

    /// How many jobs are in a state.
    #[must_use]
    pub fn count(&self, state: State) -> u32 {
        self.states.get(state.code().unsigned_abs() as usize).copied().unwrap_or(0)
    }

    /// How many jobs there are.
    #[must_use]
    pub fn jobs(&self) -> usize {
        self.jobs.len()
    }

    /// When the next job that waits for its time is due, by the wall clock.
    #[must_use]
    pub fn next_due(&self) -> Option<i64> {
        self.jobs.values().filter(|known| known.seen.state == State::Scheduled).map(|known| known.seen.run_at).min()
    }

    /// Whether a sweep would find something to do.
    #[must_use]
    pub fn to_sweep(&self, lease: i64, wall: i64) -> bool {
        self.jobs.values().any(|Known { seen, .. }| match seen.state {
            State::Running => seen.lease_until.is_none_or(|until| until < lease),
            State::Succeeded | State::Dead | State::Cancelled => seen.keep_until.is_some_and(|until| until <= wall),
            _ => seen.expires_at.is_some_and(|at| at <= wall) || (seen.state == State::Scheduled && seen.run_at <= wall),
        })
    }

    /// Whether a job that is waited for is out of the way.
    fn over(&self, on: JobId) -> bool {
        self.jobs.get(&on).map_or_else(|| self.forgotten.contains(&on), |known| known.seen.state.ended())
    }
}
