//! Sets what was promised beside what is there, after all has come to rest.
//!
//! What is counted here is counted from the ledger, from what clients were answered, and from what workers and the sink saw; the rules of
//! the simulation's judge are asked as well.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

use anyhow::{Context, Result};
use plinth_policy::jobs::State;
use plinth_queue::jobs::{Job, JobId, Jobs, ListJobs, OnFailure};
use plinth_queue::simulation::{Bounds, Broken, Checker, Offer, Seen};
use plinth_types::TenantName;
use serde::Serialize;
use tokio::task::JoinSet;

use super::clients::Submitted;
use crate::jobs::sink::{Ended, NOTHING, Told, Word};
use crate::jobs::worker::{TENANT, word};

/// Jobs of a page, and results that are read at a time.
const PAGE: u32 = 1_000;
const AT_ONCE: usize = 16;

/// What was found.
#[derive(Serialize)]
pub struct Judged {
    pub acknowledged: u64,
    pub succeeded: u64,
    pub dead: u64,
    /// Attempts that began.
    pub begun: u64,
    /// Effects that were offered again and did not count.
    pub effects_again: u64,
    /// Ends that were refused.
    pub fenced: u64,
    /// Acknowledged and not there.
    pub lost: u64,
    /// There, under a key that was answered with other jobs.
    pub stored_twice: u64,
    /// Not ended, or ended twice.
    pub not_one_end: u64,
    pub effects_twice: u64,
    /// Two ends of one job were written, or what was refused is its result.
    pub results_twice: u64,
    /// The first rule of the simulation's judge that did not hold.
    pub broken: Option<String>,
}

/// Judges a ledger at rest.
pub async fn judge(ledger: &Arc<dyn Jobs>, tenant: &TenantName, submitted: &Submitted, told: &Told) -> Result<Judged> {
    let jobs = all(ledger, tenant).await?;
    let results = results(ledger, tenant, &jobs).await?;
    Ok(judged(&jobs, &results, submitted, told))
}

/// The same of what was read. `results` has the word of each result.
fn judged(jobs: &[Job], results: &BTreeMap<JobId, String>, submitted: &Submitted, told: &Told) -> Judged {
    let there: BTreeSet<JobId> = jobs.iter().map(|job| job.id).collect();
    let acknowledged: BTreeSet<JobId> = submitted.answers.values().flatten().flatten().copied().collect();
    let ends = |id: &JobId| told.ends.get(id).map_or(&[][..], Vec::as_slice);
    let written = |id: &JobId| {
        let done = ends(id).iter().filter(|end| end.word == Word::Done);
        done.map(|end| end.epoch).collect::<HashSet<u64>>().len()
    };
    // What was refused at its first offer is nowhere; what was offered before without an answer may well be.
    let refused = |id: &JobId| {
        let sure = |end: &&Ended| end.word == Word::Fenced && !end.again && end.result != NOTHING;
        ends(id).iter().filter(sure).any(|end| results.get(id) == Some(&end.result))
    };
    let count = |found: usize| found as u64;
    Judged {
        acknowledged: count(acknowledged.len()),
        succeeded: count(jobs.iter().filter(|job| job.state == State::Succeeded).count()),
        dead: count(jobs.iter().filter(|job| job.state == State::Dead).count()),
        begun: told.begun.values().map(|begun| begun.len() as u64).sum(),
        effects_again: told.offered.saturating_sub(told.effects.values().map(|times| u64::from(*times)).sum()),
        fenced: count(told.ends.values().flatten().filter(|end| end.word == Word::Fenced).count()),
        lost: count(acknowledged.difference(&there).count()),
        stored_twice: count(there.difference(&acknowledged).count()),
        not_one_end: count(jobs.iter().filter(|job| !job.state.ended() || written(&job.id) > 1).count()),
        effects_twice: count(told.effects.values().filter(|times| **times > 1).count()),
        results_twice: count(jobs.iter().filter(|job| written(&job.id) > 1 || refused(&job.id)).count()),
        broken: rules(jobs, submitted, told).err().map(|Broken(text)| text),
    }
}

/// Every job there is, the oldest first.
async fn all(ledger: &Arc<dyn Jobs>, tenant: &TenantName) -> Result<Vec<Job>> {
    let mut jobs: Vec<Job> = Vec::new();
    loop {
        let before = jobs.last().map(|job| job.id);
        let query = ListJobs { tenant: tenant.clone(), kind: None, state: None, parent: None, label: None, before, limit: PAGE };
        let page = ledger.list(&query).await?;
        if page.is_empty() {
            jobs.reverse();
            return Ok(jobs);
        }
        jobs.extend(page);
    }
}

/// The word of each result.
async fn results(ledger: &Arc<dyn Jobs>, tenant: &TenantName, jobs: &[Job]) -> Result<BTreeMap<JobId, String>> {
    let ids: Vec<JobId> = jobs.iter().filter(|job| job.state == State::Succeeded).map(|job| job.id).collect();
    let mut readers = JoinSet::new();
    for some in ids.chunks(ids.len().div_ceil(AT_ONCE).max(1)) {
        let (some, ledger, tenant) = (some.to_vec(), ledger.clone(), tenant.clone());
        readers.spawn(async move {
            let mut words = Vec::with_capacity(some.len());
            for id in some {
                let result = ledger.result(&tenant, id).await?.with_context(|| format!("job {id} ended well and has no result"))?;
                words.push((id, word(&result)));
            }
            anyhow::Ok(words)
        });
    }
    let mut words = BTreeMap::new();
    while let Some(some) = readers.join_next().await {
        words.extend(some??);
    }
    Ok(words)
}

/// The rules of the simulation, as far as they can be judged at the end.
fn rules(jobs: &[Job], submitted: &Submitted, told: &Told) -> Result<(), Broken> {
    let answers = &submitted.answers;
    let mut checker = Checker::new(Bounds { sweep_millis: i64::MAX, unfair: i64::MAX });
    let of_tenant = |key: &str| (TENANT.to_owned(), key.to_owned());
    // Those that were stored at once are of one submission; whichever else bears the key is of another.
    let submissions: BTreeMap<JobId, u64> =
        answers.values().zip(0..).flat_map(|(told, number)| told.iter().flatten().map(move |id| (*id, number))).collect();
    let mut strays = u64::MAX;
    for job in jobs {
        let submission = submissions.get(&job.id).copied().unwrap_or_else(|| {
            strays -= 1;
            strays
        });
        let key = job.labels.strip_prefix("key=").map(of_tenant);
        let offer = Offer { key, submission, waits_for: Vec::new(), on_failure: OnFailure::Fail, webhook: false, tick: None };
        checker.offered(job.id, offer);
    }
    let seen: Vec<Seen> = jobs.iter().map(seen).collect();
    checker.picture(0, &seen)?;
    for (key, told) in answers {
        told.iter().try_for_each(|ids| checker.acknowledged(Some(&of_tenant(key)), ids))?;
    }
    for ((id, step), times) in &told.effects {
        (0..*times).for_each(|_| checker.effect(*id, *step));
    }
    checker.quiet(|id| submitted.effects.get(&id).copied().unwrap_or(0))
}

fn seen(job: &Job) -> Seen {
    Seen {
        id: job.id,
        tenant: job.tenant.to_string(),
        kind: job.kind.clone(),
        class: job.class,
        state: job.state,
        epoch: job.epoch,
        attempt: job.attempt,
        max_attempts: job.max_attempts,
        worker: job.running.as_ref().map(|running| running.worker.clone()),
        lease_until: None,
        run_at: i64::try_from(job.run_at.millis()).unwrap_or(i64::MAX),
        expires_at: None,
        keep_until: None,
        parent: job.parent,
        reason: job.failure.as_ref().map(|failure| failure.reason.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use plinth_queue::jobs::JobIds;
    use plinth_runtime::{Clock, SystemClock, World};

    use super::*;

    /// Three jobs that were submitted one by one, ran once and ended well.
    fn well() -> (Vec<Job>, BTreeMap<JobId, String>, Submitted, Told) {
        let ids = JobIds::new(World::real());
        let (mut jobs, mut results, mut told) = (Vec::new(), BTreeMap::new(), Told::default());
        let mut submitted = Submitted { answers: BTreeMap::new(), effects: BTreeMap::new(), repeated: 0 };
        for number in 0..3 {
            let (id, key, now) = (ids.next(), format!("k{number}"), SystemClock.now());
            jobs.push(Job {
                id,
                tenant: TENANT.parse().unwrap(),
                kind: "work".into(),
                state: State::Succeeded,
                class: 1,
                priority: 0,
                attempt: 1,
                max_attempts: 5,
                epoch: 1,
                cancel_asked: false,
                created_at: now,
                run_at: now,
                started_at: Some(now),
                ended_at: Some(now),
                running: None,
                progress: 1000,
                waits: 0,
                parent: None,
                actor: "bench".into(),
                labels: format!("key={key}"),
                failure: None,
                webhook: None,
                result_size: Some(1),
            });
            results.insert(id, format!("result {number}"));
            submitted.answers.insert(key, vec![vec![id]]);
            submitted.effects.insert(id, 1);
            told.effects.insert((id, 0), 1);
            told.offered += 1;
            let end = Ended { epoch: 1, word: Word::Done, again: false, result: format!("result {number}") };
            told.ends.insert(id, vec![end]);
        }
        (jobs, results, submitted, told)
    }

    fn found(change: impl Fn(&mut Vec<Job>, &mut Submitted, &mut Told)) -> ([u64; 5], bool) {
        let (mut jobs, results, mut submitted, mut told) = well();
        change(&mut jobs, &mut submitted, &mut told);
        let judged = judged(&jobs, &results, &submitted, &told);
        let numbers = [judged.lost, judged.stored_twice, judged.not_one_end, judged.effects_twice, judged.results_twice];
        (numbers, judged.broken.is_some())
    }

    #[test]
    fn what_is_well_is_let_pass_and_each_wrong_is_found() {
        let end = |epoch: u64, word: Word, again: bool| Ended { epoch, word, again, result: "result 0".into() };
        let add = |told: &mut Told, jobs: &[Job], end: Ended| told.ends.get_mut(&jobs[0].id).unwrap().push(end);
        assert_eq!(found(|_, _, _| {}), ([0; 5], false));
        // Acknowledged, and gone.
        assert_eq!(found(|jobs, _, _| drop(jobs.remove(0))), ([1, 0, 0, 0, 0], true));
        // Under one key twice.
        assert_eq!(found(|jobs, _, _| jobs[1].labels = "key=k0".into()), ([0; 5], true));
        assert_eq!(found(|_, submitted, _| drop(submitted.answers.remove("k0"))), ([0, 1, 0, 0, 0], false));
        // Not over.
        assert_eq!(found(|jobs, _, _| jobs[0].state = State::Ready), ([0, 0, 1, 0, 0], true));
        // Two ends that were both written; one that was refused and is there all the same.
        assert_eq!(found(|jobs, _, told| add(told, jobs, end(2, Word::Done, false))), ([0, 0, 1, 0, 1], false));
        assert_eq!(found(|jobs, _, told| add(told, jobs, end(2, Word::Fenced, false))), ([0, 0, 0, 0, 1], false));
        // The same end offered again after an answer that was lost: it is refused and there.
        assert_eq!(found(|jobs, _, told| add(told, jobs, end(1, Word::Fenced, true))), ([0; 5], false));
        // An effect twice, and one that never came.
        let effects = |told: &mut Told, jobs: &[Job], times: Option<u32>| {
            told.effects.remove(&(jobs[0].id, 0));
            told.effects.extend(times.map(|times| ((jobs[0].id, 0), times)));
        };
        assert_eq!(found(|jobs, _, told| effects(told, jobs, Some(2))), ([0, 0, 0, 1, 0], false));
        assert_eq!(found(|jobs, _, told| effects(told, jobs, None)), ([0; 5], true));
    }
}
