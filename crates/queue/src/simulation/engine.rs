//! The run of one seed: simulated time, messages to the ledger and back, and what happens when.
//!
//! Invariant: everything that happens follows from the seed. A message may be lost on its way (nothing has happened) or on its way back (it
//! has, and nobody knows); who is dead gets nothing, who stands still gets it later. Each transaction is judged before the next.

use std::collections::{BTreeMap, VecDeque};

use plinth_policy::jobs::State;
use plinth_types::{TenantName, Timestamp};

use super::chance::Chance;
use super::checker::{Bounds, Broken, Checker, Verdict, broken};
use super::client::Client;
use super::node::Node;
use super::plan::{Chaos, INTERVAL, KINDS, Plan, SWEEP};
use super::seen::{Change, Op};
use crate::jobs::sqlite::simulated::{Answer, Call, Moment, Simulated, leftovers};
use crate::jobs::{End, Finish, JobId, KindLimits, KindSettings, ScheduleRow, Submission};

/// Where both clocks begin.
pub(super) const EPOCH: i64 = 1_800_000_000_000;
/// The longest way of a message that is not slow.
const WAY: u64 = 20;
/// After how long somebody who waits for an answer gives up.
const TIMEOUT: u64 = 1_000;
/// How many lines of the history are kept.
const TAIL: usize = 60;
/// For how long a job may be ready, after all faults, without anything happening.
const STUCK: u64 = 600_000;

/// What a job does when it runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Does {
    /// It works for so many milliseconds and succeeds.
    Works(u64),
    /// It fails in so many attempts, and then succeeds.
    Fails(u32),
    /// Its worker dies of it.
    Kills,
    /// Its worker may give it back.
    GivenBack,
}

/// Who sent a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum From {
    /// This process of a node.
    Node(usize, u32),
    Client(usize),
}

/// Something that happens at a moment.
pub(super) enum Event {
    Poll(usize, u32),
    Heartbeat(usize, u32),
    Sweep(usize, u32),
    Tick(usize, u32),
    /// The bell of the bus rings at a node.
    Bell(usize),
    /// The next step of a job on a node.
    Step(usize, u32, JobId, u64),
    Start(usize),
    Client(usize),
    /// A call arrives at the ledger; whether its answer is lost.
    Arrives(From, Call, bool),
    /// An answer, or that none came.
    Answers(From, Call, Option<Answer>),
    Chaos(Chaos),
    Calm,
    AllKindsRun,
}

/// A run.
pub(super) struct Run<'a> {
    pub(super) ledger: &'a mut Simulated,
    pub(super) checker: Checker,
    pub(super) chance: Chance,
    pub(super) plan: Plan,
    pub(super) now: u64,
    pub(super) calm: bool,
    pub(super) nodes: Vec<Node>,
    pub(super) clients: Vec<Client>,
    pub(super) does: BTreeMap<JobId, Does>,
    events: BTreeMap<(u64, u64), Event>,
    numbers: u64,
    pub(super) submissions: u64,
    wall: i64,
    down_until: u64,
    /// When something last kept leases from being swept in time.
    disturbed: u64,
    /// When a transaction last changed something.
    moved: u64,
    pub(super) calls: u64,
    history: Option<VecDeque<String>>,
}

impl<'a> Run<'a> {
    pub(super) fn new(ledger: &'a mut Simulated, seed: u64, record: bool) -> Self {
        let mut chance = Chance::new(seed);
        let plan = Plan::of(&mut chance);
        let bounds = Bounds { sweep_millis: (SWEEP + 3 * WAY + 50) as i64, unfair: 2 * i64::from(plan.slots) + 2 };
        Self {
            ledger,
            checker: Checker::new(bounds),
            nodes: (0..plan.nodes).map(|_| Node::new(plan.schedules)).collect(),
            clients: (0..plan.clients).map(|at| Client::new(tenant(at % plan.tenants), plan.actions)).collect(),
            does: BTreeMap::new(),
            chance,
            plan,
            now: 0,
            calm: false,
            events: BTreeMap::new(),
            numbers: 0,
            submissions: 0,
            wall: 0,
            down_until: 0,
            disturbed: 0,
            moved: 0,
            calls: 0,
            history: record.then(VecDeque::new),
        }
    }

    /// Runs until everything is over.
    pub(super) fn run(&mut self) -> Verdict {
        self.prepare()?;
        let mut quiet_since = None;
        while let Some(((at, _), event)) = self.events.pop_first() {
            self.now = at;
            self.happens(event)?;
            if !self.is_quiet() {
                quiet_since = None;
            } else if *quiet_since.get_or_insert(at) + 20_000 < at {
                break;
            }
            if self.calm && self.checker.count(State::Ready) > 0 && at > self.moved.max(self.plan.calm_at) + STUCK {
                return broken("all faults ended long ago, jobs are ready, and nothing happens");
            }
            if at > self.plan.calm_at + 6 * 3_600_000 {
                return broken("all faults ended six hours ago, and it is not over");
            }
        }
        let does = &self.does;
        self.checker.quiet(|id| if does.contains_key(&id) { 2 } else { 0 })?;
        match leftovers(self.ledger.connection()).map_err(sqlite)? {
            found if found.is_empty() => Ok(()),
            found => broken(found.join("; ")),
        }
    }

    fn prepare(&mut self) -> Verdict {
        for at in 0..self.plan.schedules {
            let next_at = Timestamp::from_millis((EPOCH + INTERVAL).unsigned_abs()).ok();
            let row = ScheduleRow { tenant: tenant(0), name: schedule(at), spec: "{}".into(), next_at, last_at: None };
            self.ledger.call(self.moment(), &Call::PutSchedule(row)).map_err(sqlite)?;
        }
        for node in 0..self.plan.nodes {
            let after = self.chance.between(0, 300);
            self.after(after, Event::Start(node));
        }
        for client in 0..self.plan.clients {
            let after = self.chance.between(0, 2_000);
            self.after(after, Event::Client(client));
        }
        for (at, chaos) in self.plan.chaos.clone() {
            self.after(at, Event::Chaos(chaos));
        }
        self.after(self.plan.calm_at, Event::Calm);
        // After the last message that was slow.
        self.after(self.plan.calm_at + 5_000, Event::AllKindsRun);
        Ok(())
    }

    fn is_quiet(&self) -> bool {
        let waiting = [State::Blocked, State::Scheduled, State::Ready, State::Running].iter().any(|state| self.checker.count(*state) > 0);
        self.calm && self.now > self.plan.calm_at + 6_000 && !waiting && self.clients.iter().all(Client::is_done)
    }

    /// The ledger's clocks.
    pub(super) fn moment(&self) -> Moment {
        let lease = EPOCH.saturating_add_unsigned(self.now);
        Moment { lease, wall: lease + self.wall }
    }

    pub(super) fn after(&mut self, millis: u64, event: Event) {
        self.numbers += 1;
        self.events.insert((self.now + millis, self.numbers), event);
    }

    /// A job's id: as large as its number.
    pub(super) fn next_id(&mut self) -> JobId {
        self.numbers += 1;
        let mut bytes = [0; 16];
        bytes[8..].copy_from_slice(&self.numbers.to_be_bytes());
        JobId::from_bytes(bytes)
    }

    /// A line of the history, when one is kept.
    pub(super) fn note(&mut self, line: impl FnOnce(&Self) -> String) {
        if self.history.is_some() {
            let line = format!("{:>9.3} {}", self.now as f64 / 1000.0, line(self));
            if let Some(history) = &mut self.history {
                if history.len() == TAIL {
                    history.pop_front();
                }
                history.push_back(line);
            }
        }
    }

    pub(super) fn tail(self) -> Vec<String> {
        self.history.map(Vec::from).unwrap_or_default()
    }

    /// Sends a call on its way to the ledger.
    pub(super) fn send(&mut self, from: From, call: Call) {
        let faulty = !self.calm;
        let sweep = matches!(call, Call::Sweep(_));
        if faulty && self.chance.one_in(self.plan.lost) {
            if sweep {
                self.disturbed = self.disturbed.max(self.now);
            }
            self.note(|_| format!("{from:?} sends in vain: {}", short(&call)));
            return self.after(TIMEOUT, Event::Answers(from, call, None));
        }
        let way = if faulty && self.chance.one_in(self.plan.slow) { self.chance.between(100, 3_000) } else { self.chance.between(1, WAY) };
        if sweep && way > WAY {
            self.disturbed = self.disturbed.max(self.now + way);
        }
        let lost = faulty && self.chance.one_in(self.plan.lost);
        self.after(way, Event::Arrives(from, call, lost));
    }

    fn happens(&mut self, event: Event) -> Verdict {
        match event {
            Event::Poll(node, process) => self.polls(node, process),
            Event::Heartbeat(node, process) => self.beats(node, process),
            Event::Sweep(node, process) => return self.sweeps(node, process),
            Event::Tick(node, process) => self.ticks(node, process),
            Event::Bell(node) => self.hears(node),
            Event::Step(node, process, id, epoch) => self.steps(node, process, id, epoch),
            Event::Start(node) => self.starts(node),
            Event::Client(client) => self.acts(client),
            Event::Arrives(from, call, lost) => return self.arrives(from, call, lost),
            Event::Answers(From::Node(node, process), call, answer) => self.answered(node, process, call, answer),
            Event::Answers(From::Client(client), call, answer) => return self.told(client, &call, answer),
            Event::Chaos(chaos) => self.breaks(chaos),
            Event::Calm => self.calms(),
            Event::AllKindsRun => {
                for (kind, limits) in KINDS.iter().zip([KindLimits::default(), limited()]) {
                    let settings = KindSettings { kind: (*kind).into(), paused: false, limits };
                    self.arrives(From::Client(0), Call::SetKind(settings), false)?;
                }
            }
        }
        Ok(())
    }

    fn breaks(&mut self, chaos: Chaos) {
        self.note(|_| format!("fault: {chaos:?}"));
        match chaos {
            Chaos::Kill(node) => self.kill(node),
            Chaos::Pause(node, millis) => {
                self.leaves(node);
                if let Some(node) = self.nodes.get_mut(node) {
                    node.paused_until = node.paused_until.max(self.now + millis);
                }
            }
            Chaos::Down(millis) => self.down_until = self.down_until.max(self.now + millis),
            Chaos::Wall(millis) => self.wall = millis,
        }
    }

    fn calms(&mut self) {
        self.note(|_| "all faults end".into());
        self.disturbed = self.disturbed.max(self.down_until.min(self.now));
        (self.calm, self.wall, self.down_until) = (true, 0, 0);
    }

    /// Since when somebody could sweep whenever it was time, by the lease clock.
    fn undisturbed(&self) -> i64 {
        let there = self.nodes.iter().filter(|node| node.alive).map(|node| node.since.max(node.paused_until));
        let since = there.min().unwrap_or(self.now).max(self.disturbed).max(self.down_until);
        EPOCH.saturating_add_unsigned(since.min(self.now))
    }

    /// A node goes away: when no other was there for as long as a sweep takes, leases are not swept in time.
    pub(super) fn leaves(&mut self, at: usize) {
        let now = self.now;
        let sweeps = |node: &Node| node.alive && node.since.max(node.paused_until) + SWEEP <= now;
        if !self.nodes.iter().enumerate().any(|(other, node)| other != at && sweeps(node)) {
            self.disturbed = self.disturbed.max(now);
        }
    }

    /// A call is at the ledger.
    fn arrives(&mut self, from: From, call: Call, lost: bool) -> Verdict {
        if self.now < self.down_until {
            self.note(|_| format!("unavailable for {from:?}: {}", short(&call)));
            self.after(TIMEOUT, Event::Answers(from, call, None));
            return Ok(());
        }
        self.calls += 1;
        let moment = self.moment();
        let (answer, changes) = self.ledger.call(moment, &call).map_err(sqlite)?;
        self.note(|_| format!("{from:?} {}{} -> {}", short(&call), if lost { " (answer lost)" } else { "" }, outcome(&answer, &changes)));
        if let Call::SetKind(settings) = &call {
            self.checker.settings(settings.clone());
        }
        self.checker.committed(&op(&call), (moment.lease, moment.wall), &changes)?;
        self.checker.leases(moment.lease, self.undisturbed())?;
        if !changes.is_empty() {
            self.moved = self.now;
        }
        if changes.iter().any(|change| matches!(change, Change::Job(seen) if seen.state == State::Ready)) {
            self.rings();
        }
        let (way, answer) = if lost { (TIMEOUT, None) } else { (self.chance.between(1, WAY), Some(answer)) };
        self.after(way, Event::Answers(from, call, answer));
        Ok(())
    }

    /// The bus says that there is work, as badly as it does at its worst, always.
    fn rings(&mut self) {
        for node in 0..self.nodes.len() {
            let times = match self.chance.below(8) {
                0 | 1 => 0,
                2 => 2,
                _ => 1,
            };
            for _ in 0..times {
                let delay = if self.chance.one_in(8) { self.chance.between(100, 5_000) } else { self.chance.between(1, 50) };
                self.after(delay, Event::Bell(node));
            }
        }
    }
}

pub(super) fn sqlite(error: rusqlite::Error) -> Broken {
    Broken(format!("SQLite: {error}"))
}

#[allow(clippy::expect_used, reason = "a small number after a letter is the name of a tenant")]
pub(super) fn tenant(at: usize) -> TenantName {
    format!("t{at}").parse().expect("the name is well formed")
}

pub(super) fn schedule(at: usize) -> String {
    format!("s{at}")
}

/// Also with a limit everything must end.
fn limited() -> KindLimits {
    KindLimits { concurrency: Some(2), rate_per_second: Some(4.0) }
}

/// What a call is to the checker.
fn op(call: &Call) -> Op {
    match call {
        Call::Submit(_) | Call::Fire { .. } => Op::Submit,
        Call::Claim(_) => Op::Claim,
        Call::Finish(Finish { id, epoch, end }) => Op::Finish { id: *id, epoch: *epoch, released: matches!(end, End::Released { .. }) },
        Call::Cancel { id, .. } => Op::Cancel(*id),
        Call::Replay(_) => Op::Replay,
        Call::Sweep(_) => Op::Sweep,
        Call::Release { node, .. } => Op::Release { node: format!("{node}/") },
        _ => Op::Other,
    }
}

fn short(call: &Call) -> String {
    match call {
        Call::Submit(Submission { tenant, key, jobs }) => {
            let jobs: Vec<_> =
                jobs.iter().map(|job| (number(job.id), job.waits_for.iter().map(|id| number(*id)).collect::<Vec<_>>())).collect();
            format!("submit for {tenant}, key {:?}: {jobs:?}", key.as_ref().map(|key| &key.key))
        }
        Call::Claim(wish) => format!("claim {}", wish.most),
        Call::Heartbeat { held, .. } => {
            format!("heartbeat {:?}", held.iter().map(|held| (number(held.id), held.epoch)).collect::<Vec<_>>())
        }
        Call::Finish(finish) => format!("finish {} epoch {}: {:?}", number(finish.id), finish.epoch, finish.end),
        Call::Fire { name, seen, .. } => format!("fire {name} {}", i64::try_from(seen.millis()).unwrap_or(0) - EPOCH),
        other => format!("{other:?}"),
    }
}

fn number(id: JobId) -> u64 {
    id.as_bytes().last_chunk::<8>().map_or(0, |bytes| u64::from_be_bytes(*bytes))
}

fn outcome(answer: &Answer, changes: &[Change]) -> String {
    let jobs: Vec<String> = changes
        .iter()
        .filter_map(|change| match change {
            Change::Job(seen) => Some(format!("{} {} e{} a{}", number(seen.id), seen.state, seen.epoch, seen.attempt)),
            Change::Gone(id) => Some(format!("{} forgotten", number(*id))),
            _ => None,
        })
        .collect();
    let answer = match answer {
        Answer::Claimed(claimed) => format!("{} jobs", claimed.len()),
        other => format!("{other:?}"),
    };
    format!("{answer} [{}]", jobs.join(", "))
}
