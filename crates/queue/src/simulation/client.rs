//! Those who submit: with keys and without, again after an answer that was lost, twice, with another body; who cancel and replay, and pause kinds.

use std::time::Duration;

use plinth_policy::jobs::RetryPolicy;
use plinth_types::TenantName;

use super::checker::{Verdict, broken};
use super::engine::{Does, Event, From, Run};
use super::plan::KINDS;
use super::seen::Offer;
use crate::jobs::sqlite::simulated::{Answer, Call};
use crate::jobs::{
    Body, IdempotencyKey, JobId, KindLimits, KindSettings, NewJob, OnFailure, Payload, ReplayWish, Submission, Submitted, Webhook,
};

/// A client.
pub(super) struct Client {
    tenant: TenantName,
    /// What it will still do.
    left: u32,
    /// What it asked for and has no answer to.
    open: Option<Draft>,
    /// What was answered: to be sent again, or with another body.
    answered: Option<(Draft, Vec<JobId>)>,
    /// Jobs that it knows of.
    jobs: Vec<JobId>,
}

/// A submission as its caller means it: each try makes new jobs of it.
#[derive(Clone)]
struct Draft {
    key: Option<String>,
    /// The number of the body: another one is another request.
    body: u8,
    jobs: Vec<Part>,
    sent: Vec<JobId>,
    expect: Expect,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Expect {
    Anything,
    /// The key was used for this before.
    Replay,
    /// The key was used for something else before.
    Refusal,
}

#[derive(Clone)]
struct Part {
    does: Does,
    job: NewJob,
    /// Those of the same submission that must end before.
    after: Vec<usize>,
}

impl Client {
    pub(super) fn new(tenant: TenantName, left: u32) -> Self {
        Self { tenant, left, open: None, answered: None, jobs: Vec::new() }
    }

    pub(super) fn is_done(&self) -> bool {
        self.open.is_none()
    }
}

impl Run<'_> {
    /// The client does the next thing.
    pub(super) fn acts(&mut self, at: usize) {
        let Some(client) = self.clients.get_mut(at) else { return };
        if let Some(draft) = client.open.take() {
            return self.submits(at, draft);
        }
        if client.left == 0 || self.calm {
            return;
        }
        client.left -= 1;
        let (tenant, own) = (client.tenant.clone(), client.jobs.clone());
        let answered = client.answered.clone();
        let some = |run: &mut Self| own.get(run.chance.below(own.len().max(1))).copied();
        match self.chance.below(12) {
            0 => {
                if let Some(id) = some(self) {
                    self.send(From::Client(at), Call::Cancel { tenant, id });
                }
            }
            1 => {
                let ids = some(self).into_iter().filter(|_| self.chance.one_in(2)).collect();
                self.send(From::Client(at), Call::Replay(ReplayWish { tenant, ids, kind: None, limit: 5 }));
            }
            2 => self.sets_a_kind(at),
            3 | 4 if answered.is_some() => {
                if let Some((mut draft, _)) = answered {
                    let other = self.chance.one_in(3);
                    draft.body += u8::from(other);
                    draft.expect = if other { Expect::Refusal } else { Expect::Replay };
                    return self.submits(at, draft);
                }
            }
            _ => {
                let draft = self.draft(at);
                return self.submits(at, draft);
            }
        }
        let pause = self.chance.between(100, 4_000);
        self.after(pause, Event::Client(at));
    }

    fn sets_a_kind(&mut self, at: usize) {
        let kind = KINDS.get(self.chance.below(KINDS.len())).copied().unwrap_or("infer").to_owned();
        let concurrency = self.chance.one_in(2).then(|| self.chance.between(1, 3) as u32);
        let rate_per_second = self.chance.one_in(2).then(|| self.chance.between(1, 8) as f64 / 2.0);
        let settings = KindSettings { kind, paused: self.chance.one_in(3), limits: KindLimits { concurrency, rate_per_second } };
        self.send(From::Client(at), Call::SetKind(settings));
    }

    /// A job that does this.
    pub(super) fn new_job(&mut self, does: Does) -> NewJob {
        let id = self.next_id();
        self.does.insert(id, does);
        let kind = KINDS.get(self.chance.below(KINDS.len())).copied().unwrap_or("infer");
        NewJob {
            id,
            kind: kind.into(),
            class: if self.chance.one_in(4) { self.chance.below(4) as u8 } else { 1 },
            priority: self.chance.below(3) as i16,
            run_at: None,
            expires_at: None,
            timeout_millis: 60_000,
            retry: RetryPolicy { max_attempts: self.chance.between(1, 4) as u32, base: Duration::from_secs(1), ..RetryPolicy::default() },
            keep_millis: if self.chance.one_in(6) { 8_000 } else { 86_400_000 },
            actor: "client".into(),
            parent: None,
            waits_for: Vec::new(),
            on_failure: OnFailure::Fail,
            webhook: None,
            labels: String::new(),
            payload: Payload { meta: "{}".into(), body: Body::Inline(b"work".to_vec()) },
        }
    }

    fn does(&mut self) -> Does {
        match self.chance.below(16) {
            0 => Does::Kills,
            1 => Does::Fails(u32::MAX),
            2 | 3 => Does::Fails(self.chance.between(1, 2) as u32),
            4 => Does::Works(self.chance.between(10_000, 45_000)),
            5 => Does::GivenBack,
            _ => Does::Works(self.chance.between(4, 1_500)),
        }
    }

    fn draft(&mut self, at: usize) -> Draft {
        let wall = self.moment().wall;
        let own = self.clients.get(at).map(|client| client.jobs.clone()).unwrap_or_default();
        // A crowd of small ones, to see that tenants take turns; else a few, often in a chain or a fan.
        let crowd = self.chance.one_in(6);
        let count = if crowd { self.chance.between(6, 14) } else { self.chance.between(1, 4) } as usize;
        let mut jobs: Vec<Part> = Vec::with_capacity(count);
        for number in 0..count {
            let does = if crowd { Does::Works(100) } else { self.does() };
            let mut job = self.new_job(does);
            let mut after = Vec::new();
            if crowd {
                (job.kind, job.class) = ("infer".into(), 1);
            } else {
                job.run_at = self.moment_in(wall, 5, 8_000);
                job.expires_at = self.moment_in(wall, 10, 15_000);
                job.webhook = self.chance.one_in(8).then(|| Webhook { url: "https://receiver.example/".into(), secret: None });
                job.on_failure =
                    *[OnFailure::Fail, OnFailure::Run, OnFailure::Cancel].get(self.chance.below(3)).unwrap_or(&OnFailure::Fail);
                after = (0..number).filter(|_| self.chance.one_in(2)).collect();
                if self.chance.one_in(4) && !own.is_empty() {
                    job.waits_for.push(own.get(self.chance.below(own.len())).copied().unwrap_or(job.id));
                }
            }
            jobs.push(Part { does, job, after });
        }
        self.submissions += 1;
        let key = (!self.chance.one_in(4)).then(|| format!("k{}", self.submissions));
        Draft { key, body: 0, jobs, sent: Vec::new(), expect: Expect::Anything }
    }

    fn moment_in(&mut self, wall: i64, one_in: u64, most: u64) -> Option<plinth_types::Timestamp> {
        if !self.chance.one_in(one_in) {
            return None;
        }
        let at = wall.saturating_add_unsigned(self.chance.between(0, most));
        plinth_types::Timestamp::from_millis(at.unsigned_abs()).ok()
    }

    /// Sends a draft, as new jobs.
    fn submits(&mut self, at: usize, mut draft: Draft) {
        let Some(tenant) = self.clients.get(at).map(|client| client.tenant.clone()) else { return };
        self.submissions += 1;
        let submission = self.submissions;
        let ids: Vec<JobId> = draft.jobs.iter().map(|_| self.next_id()).collect();
        let mut jobs = Vec::with_capacity(ids.len());
        let key = draft.key.clone().map(|key| (tenant.to_string(), key));
        for (part, id) in draft.jobs.iter().zip(&ids) {
            let mut job = NewJob { id: *id, ..part.job.clone() };
            job.waits_for.extend(part.after.iter().filter_map(|of| ids.get(*of)));
            self.does.insert(*id, part.does);
            let (waits_for, webhook) = (job.waits_for.clone(), job.webhook.is_some());
            let offer = Offer { key: key.clone(), submission, waits_for, on_failure: job.on_failure, webhook, tick: None };
            self.checker.offered(*id, offer);
            jobs.push(job);
        }
        let key = draft.key.clone().map(|key| {
            let mut fingerprint = [draft.body; 32];
            fingerprint[1] = 7;
            IdempotencyKey { key, fingerprint, keep_millis: 86_400_000 }
        });
        draft.sent = ids;
        if let Some(client) = self.clients.get_mut(at) {
            client.open = Some(draft);
        }
        self.send(From::Client(at), Call::Submit(Submission { tenant, key, jobs }));
    }

    /// An answer reaches a client, or it gives up waiting for one.
    pub(super) fn told(&mut self, at: usize, call: &Call, answer: Option<Answer>) -> Verdict {
        let Call::Submit(Submission { tenant, .. }) = call else { return Ok(()) };
        let pause = self.chance.between(50, 4_000);
        let Some(client) = self.clients.get_mut(at) else { return Ok(()) };
        let Some(draft) = client.open.take() else { return Ok(()) };
        let key = draft.key.clone().map(|key| (tenant.to_string(), key));
        self.after(pause, Event::Client(at));
        let ids = match (answer, draft.expect) {
            (None, _) => {
                // Without a key nothing may be sent again: it may have happened.
                if draft.key.is_some()
                    && let Some(client) = self.clients.get_mut(at)
                {
                    client.open = Some(draft);
                }
                return Ok(());
            }
            (Some(Answer::Submitted(Submitted::Created)), Expect::Anything) => draft.sent.clone(),
            (Some(Answer::Submitted(Submitted::Replayed(ids))), Expect::Anything | Expect::Replay) if draft.key.is_some() => ids,
            (Some(Answer::Submitted(Submitted::KeyReused)), Expect::Refusal) => return Ok(()),
            // What it wanted to wait for is forgotten.
            (Some(Answer::Submitted(Submitted::NoSuchJob(id))), Expect::Anything) if self.checker.state(id).is_none() => return Ok(()),
            (other, _) => return broken(format!("client {at} was answered {other:?} to key {key:?}, body {}", draft.body)),
        };
        self.checker.acknowledged(key.as_ref(), &ids)?;
        let Some(client) = self.clients.get_mut(at) else { return Ok(()) };
        client.jobs.extend(ids.iter().filter(|id| !client.jobs.contains(id)).copied().collect::<Vec<_>>());
        if key.is_some() {
            client.answered = Some((draft, ids));
        }
        Ok(())
    }
}
