//! A node with its workers: asks for work, runs it, prolongs its leases, sweeps, fires schedules, and dies at any step.
//!
//! It is worse than a real one: it does not look at its own clock before it writes, it may go on with what it has lost, and it tries an end again
//! whose outcome it does not know. The ledger alone must keep the promises.

use plinth_policy::jobs::{Failure as Cause, Next, State};
use plinth_types::{Reason, Timestamp};

use super::checker::Verdict;
use super::engine::{Does, EPOCH, Event, From, Run, schedule, tenant};
use super::plan::{HEARTBEAT, INTERVAL, KINDS, LEASE, POLL, SWEEP, TICK};
use super::seen::Offer;
use crate::jobs::sqlite::simulated::{Answer, Call};
use crate::jobs::{
    Body, ClaimWish, Claimed, End, Failure, Finish, Held, HeldState, JobId, KindWish, OnFailure, Payload, Report, SweepWish, WEBHOOK_KIND,
    WorkerId,
};

/// A node.
pub(super) struct Node {
    pub(super) alive: bool,
    /// Since when.
    pub(super) since: u64,
    pub(super) paused_until: u64,
    /// Which process of the node this is.
    process: u32,
    claiming: bool,
    jobs: Vec<Running>,
    /// The next tick of each schedule, as far as the node knows.
    ticks: Vec<i64>,
}

/// A job on a node.
struct Running {
    claimed: Claimed,
    step: u8,
    /// How long a step takes.
    pace: u64,
    cancel: bool,
}

impl Node {
    pub(super) fn new(schedules: usize) -> Self {
        let ticks = vec![EPOCH + INTERVAL; schedules];
        Self { alive: false, since: 0, paused_until: 0, process: 0, claiming: false, jobs: Vec::new(), ticks }
    }
}

/// The steps of a job. A node may die at each.
const AT_START: u8 = 0;
const MID_RUN: u8 = 1;
const SECOND_EFFECT: u8 = 2;
const AFTER_BLOB: u8 = 3;

impl Run<'_> {
    /// The node, when this process of it lives. One that stands still gets the event when it goes on.
    fn living(&mut self, at: usize, process: u32, event: impl FnOnce() -> Event) -> Option<&mut Node> {
        let now = self.now;
        let node = self.nodes.get(at)?;
        if !node.alive || node.process != process {
            return None;
        }
        let until = node.paused_until;
        if until > now {
            self.after(until - now, event());
            return None;
        }
        self.nodes.get_mut(at)
    }

    fn worker(at: usize, process: u32) -> WorkerId {
        WorkerId(format!("n{at}/{process}"))
    }

    /// When a loop comes round again: when nothing waits and nothing runs, not before the next job is due.
    fn round(&self, period: u64) -> u64 {
        let busy = !self.calm || [State::Ready, State::Running].iter().any(|state| self.checker.count(*state) > 0);
        match self.checker.next_due() {
            Some(due) if !busy => u64::try_from(due - self.moment().wall).unwrap_or(0).max(period),
            _ => period,
        }
    }

    pub(super) fn starts(&mut self, at: usize) {
        let now = self.now;
        let Some(node) = self.nodes.get_mut(at) else { return };
        (node.alive, node.since, node.claiming, node.paused_until) = (true, now, false, 0);
        node.process += 1;
        let process = node.process;
        self.note(|_| format!("node {at} starts as process {process}"));
        if self.chance.one_in(2) {
            self.send(From::Node(at, process), Call::Release { node: format!("n{at}"), living: Self::worker(at, process) });
        }
        let spread = |run: &mut Self, period| run.chance.between(1, period);
        let (poll, beat, sweep, tick) = (spread(self, POLL), spread(self, HEARTBEAT), spread(self, SWEEP), spread(self, TICK));
        self.after(poll, Event::Poll(at, process));
        self.after(beat, Event::Heartbeat(at, process));
        self.after(sweep, Event::Sweep(at, process));
        self.after(tick, Event::Tick(at, process));
    }

    /// The process dies and, some time later, another starts.
    pub(super) fn kill(&mut self, at: usize) {
        let Some(node) = self.nodes.get_mut(at).filter(|node| node.alive) else { return };
        node.alive = false;
        node.jobs.clear();
        self.leaves(at);
        self.note(|_| format!("node {at} dies"));
        let rest = self.chance.between(200, 8_000);
        self.after(rest, Event::Start(at));
    }

    fn dies(&mut self, at: usize) -> bool {
        let dies = !self.calm && self.chance.one_in(self.plan.dies);
        if dies {
            self.kill(at);
        }
        dies
    }

    pub(super) fn polls(&mut self, at: usize, process: u32) {
        if self.living(at, process, || Event::Poll(at, process)).is_none() {
            return;
        }
        self.claims(at);
        let round = self.round(POLL);
        let jitter = self.chance.between(0, 100);
        self.after(round - jitter, Event::Poll(at, process));
    }

    pub(super) fn hears(&mut self, at: usize) {
        if self.nodes.get(at).is_some_and(|node| node.alive && node.paused_until <= self.now) {
            self.claims(at);
        }
    }

    fn claims(&mut self, at: usize) {
        let slots = self.plan.slots;
        let Some(node) = self.nodes.get(at) else { return };
        let free = slots.saturating_sub(u32::try_from(node.jobs.len()).unwrap_or(slots));
        let process = node.process;
        let nothing = self.checker.count(State::Ready) == 0 && self.checker.next_due().is_none_or(|due| due > self.moment().wall);
        if node.claiming || free == 0 || (nothing && !self.chance.one_in(16)) || self.dies(at) {
            return;
        }
        let all = KINDS.iter().chain([&WEBHOOK_KIND]);
        let kinds = all.map(|kind| KindWish { kind: (*kind).into(), most: free }).collect();
        let lowest_class = if !self.calm && self.chance.one_in(8) { 2 } else { 3 };
        let wish = ClaimWish { worker: Self::worker(at, process), kinds, most: free, lowest_class, lease_millis: LEASE };
        if let Some(node) = self.nodes.get_mut(at) {
            node.claiming = true;
        }
        self.send(From::Node(at, process), Call::Claim(wish));
    }

    pub(super) fn beats(&mut self, at: usize, process: u32) {
        let Some(node) = self.living(at, process, || Event::Heartbeat(at, process)) else { return };
        let held: Vec<Held> = node.jobs.iter().map(|job| Held { id: job.claimed.id, epoch: job.claimed.epoch }).collect();
        if !held.is_empty() {
            self.send(From::Node(at, process), Call::Heartbeat { worker: Self::worker(at, process), held, lease_millis: LEASE });
        }
        let round = self.round(HEARTBEAT);
        self.after(round, Event::Heartbeat(at, process));
    }

    pub(super) fn sweeps(&mut self, at: usize, process: u32) -> Verdict {
        if self.living(at, process, || Event::Sweep(at, process)).is_some() {
            let moment = self.moment();
            if self.checker.to_sweep(moment.lease, moment.wall) || self.chance.one_in(16) {
                self.send(From::Node(at, process), Call::Sweep(SweepWish { most: 100 }));
            }
            let round = self.round(SWEEP);
            self.after(round, Event::Sweep(at, process));
        }
        Ok(())
    }

    pub(super) fn ticks(&mut self, at: usize, process: u32) {
        let wall = self.moment().wall;
        let calm = self.calm;
        let Some(node) = self.living(at, process, || Event::Tick(at, process)) else { return };
        if calm {
            return;
        }
        let due: Vec<(usize, i64)> = node.ticks.iter().copied().enumerate().filter(|(_, next)| *next <= wall).collect();
        for (number, seen) in due {
            let next = seen + ((wall - seen) / INTERVAL + 1) * INTERVAL;
            let does = Does::Works(self.chance.between(10, 500));
            let job = self.new_job(does);
            let tick = Some((schedule(number), seen));
            self.checker.offered(
                job.id,
                Offer { key: None, submission: 0, waits_for: Vec::new(), on_failure: OnFailure::Fail, webhook: false, tick },
            );
            let moment = |millis: i64| Timestamp::from_millis(millis.unsigned_abs()).ok();
            let Some(seen) = moment(seen) else { continue };
            let call = Call::Fire { tenant: tenant(0), name: schedule(number), seen, next: moment(next), jobs: vec![job] };
            self.send(From::Node(at, process), call);
        }
        self.after(TICK, Event::Tick(at, process));
    }

    /// A job goes a step further.
    pub(super) fn steps(&mut self, at: usize, process: u32, id: JobId, epoch: u64) {
        let Some(node) = self.living(at, process, || Event::Step(at, process, id, epoch)) else { return };
        let Some(job) = node.jobs.iter_mut().find(|job| (job.claimed.id, job.claimed.epoch) == (id, epoch)) else { return };
        let (step, pace, attempt) = (job.step, job.pace, job.claimed.attempt);
        let stops = job.cancel && step < AFTER_BLOB;
        job.step += 1;
        let does = self.does.get(&id).copied().unwrap_or(Does::Works(0));
        if self.dies(at) {
            return;
        }
        match step {
            AT_START => self.checker.effect(id, 0),
            MID_RUN if does == Does::Kills => return self.kill(at),
            MID_RUN if self.chance.one_in(2) => {
                let report =
                    Report { id, epoch, progress: Some(500), checkpoint: Some("half".into()), events: vec![("half".into(), "{}".into())] };
                self.send(From::Node(at, process), Call::Report(report));
            }
            SECOND_EFFECT => self.checker.effect(id, 1),
            _ => {}
        }
        let fails = matches!(does, Does::Fails(times) if attempt <= times);
        if stops && !self.chance.one_in(8) {
            self.ends(at, id, epoch, End::Cancelled);
        } else if step == SECOND_EFFECT && fails {
            let end = self.failed(at, id, epoch);
            self.ends(at, id, epoch, end);
        } else if step == AT_START && does == Does::GivenBack && self.chance.one_in(2) {
            let after_millis = if self.chance.one_in(2) { 0 } else { 700 };
            self.ends(at, id, epoch, End::Released { after_millis });
        } else if step > AFTER_BLOB {
            let meta = format!("{{\"epoch\":{epoch}}}");
            self.ends(at, id, epoch, End::Succeeded(Payload { meta, body: Body::Inline(b"result".to_vec()) }));
        } else {
            self.after(pace, Event::Step(at, process, id, epoch));
        }
    }

    /// What the policy says about a failed attempt.
    fn failed(&mut self, at: usize, id: JobId, epoch: u64) -> End {
        let failure = Failure { reason: Reason::ModelExecutionFailed, text: "it fails".into() };
        let jitter = self.chance.share();
        let found = self.nodes.get(at).and_then(|node| node.jobs.iter().find(|job| (job.claimed.id, job.claimed.epoch) == (id, epoch)));
        let next = found.map(|job| job.claimed.retry.after(job.claimed.attempt, Cause::Retriable { after: None }, jitter));
        match next {
            Some(Next::Retry(pause)) => End::Retry { failure, after_millis: u64::try_from(pause.as_millis()).unwrap_or(u64::MAX) },
            _ => End::Dead(failure),
        }
    }

    fn ends(&mut self, at: usize, id: JobId, epoch: u64, end: End) {
        let Some(process) = self.nodes.get(at).map(|node| node.process) else { return };
        self.send(From::Node(at, process), Call::Finish(Finish { id, epoch, end }));
        // It may die before it knows what became of it.
        self.dies(at);
    }

    /// An answer reaches a node, or it gives up waiting for one.
    pub(super) fn answered(&mut self, at: usize, process: u32, call: Call, answer: Option<Answer>) {
        let later = (call.clone(), answer.clone());
        if self.living(at, process, || Event::Answers(From::Node(at, process), later.0, later.1)).is_none() {
            return;
        }
        match (call, answer) {
            (Call::Claim(_), answer) => {
                if let Some(node) = self.nodes.get_mut(at) {
                    node.claiming = false;
                }
                let claimed = if let Some(Answer::Claimed(claimed)) = answer { claimed } else { Vec::new() };
                if self.dies(at) {
                    return;
                }
                for job in claimed {
                    self.takes(at, process, job);
                }
            }
            (Call::Heartbeat { held, .. }, Some(Answer::Heartbeat(states))) => {
                for (Held { id, epoch }, state) in held.into_iter().zip(states) {
                    let deaf = self.chance.one_in(8);
                    let Some(node) = self.nodes.get_mut(at) else { return };
                    let is_it = |job: &Running| (job.claimed.id, job.claimed.epoch) == (id, epoch);
                    match state {
                        HeldState::Lost if !deaf => node.jobs.retain(|job| !is_it(job)),
                        HeldState::CancelAsked => node.jobs.iter_mut().filter(|job| is_it(job)).for_each(|job| job.cancel = true),
                        _ => {}
                    }
                }
            }
            (Call::Finish(Finish { id, epoch, .. }), Some(_)) => {
                if let Some(node) = self.nodes.get_mut(at) {
                    node.jobs.retain(|job| (job.claimed.id, job.claimed.epoch) != (id, epoch));
                }
            }
            (Call::Finish(finish), None) => {
                // It does not know what became of it, and tries again for as long as it believes to hold the job.
                let held = self
                    .nodes
                    .get(at)
                    .is_some_and(|node| node.jobs.iter().any(|job| (job.claimed.id, job.claimed.epoch) == (finish.id, finish.epoch)));
                if held {
                    self.send(From::Node(at, process), Call::Finish(finish));
                }
            }
            (Call::Fire { .. }, Some(Answer::Fired(true)) | None) | (Call::Fire { .. }, Some(Answer::Fired(false))) => {
                self.send(From::Node(at, process), Call::Schedules);
            }
            (Call::Schedules, Some(Answer::Schedules(rows))) => {
                let Some(node) = self.nodes.get_mut(at) else { return };
                for (tick, row) in node.ticks.iter_mut().zip(rows) {
                    *tick = row.next_at.map_or(i64::MAX, |next| i64::try_from(next.millis()).unwrap_or(i64::MAX));
                }
            }
            _ => {}
        }
    }

    fn takes(&mut self, at: usize, process: u32, claimed: Claimed) {
        let (id, epoch) = (claimed.id, claimed.epoch);
        let pace = match self.does.get(&id) {
            Some(Does::Works(millis)) => millis / 4,
            _ => self.chance.between(5, 300),
        };
        if let Some(node) = self.nodes.get_mut(at) {
            node.jobs.push(Running { claimed, step: AT_START, pace: pace.max(1), cancel: false });
        }
        self.after(1, Event::Step(at, process, id, epoch));
    }
}
