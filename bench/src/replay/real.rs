//! The hour by two processes and a real clock, faster: limits and traffic so many times as fast, so that as many windows pass.
//!
//! Each request leaves when it is due (open loop), on one of some connections to its node. Only what came back counts: 200 was admitted,
//! 429 was not, anything else is an error. When a node noticed that Redis was gone or back is taken from its log.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use plinth_identity::ApiKey;
use plinth_policy::limits::{Cell, DailyCap, LeaseSettings};
use plinth_runtime::SystemRandom;
use serde::Serialize;
use tokio::sync::{Mutex, mpsc};

use super::count::{Excess, Windows};
use super::redis::Redis;
use super::simulated::{NODES, bounds};
use super::traffic::{Arrival, HOUR, Kind, SUBJECTS, Subject, Traffic};
use crate::exchange::{Connection, Target};
use crate::ledger::Ledger;
use crate::member::Member;
use crate::setup::Setup;

const STEP: u64 = 100_000;
/// Connections to each node.
const CONNECTIONS: usize = 8;
/// Requests that are due and wait for a connection.
const BACKLOG: usize = 65_536;
/// Redis is killed after this part of the hour, and is back after this one.
const KILLED: f64 = 1.0 / 3.0;
const BACK: f64 = 0.5;

/// What became of one limit.
#[derive(Debug, Clone, Serialize)]
pub struct Outcome {
    pub tenant: &'static str,
    pub limit: String,
    pub asked: u64,
    pub admitted: u64,
    pub ideal: u64,
    /// The same for the time before Redis was killed.
    pub there: (u64, u64),
    pub excess: f64,
    pub bound: f64,
    pub fullest: (i64, u64),
}

/// What became of all.
#[derive(Debug, Serialize)]
pub struct Outcomes {
    pub limits: Vec<Outcome>,
    pub requests: u64,
    pub errors: u64,
    /// Seconds in which one node lived without Redis and the other did not.
    pub apart: f64,
    /// The longest time from when a request was due to its answer, in milliseconds.
    pub slowest_ms: f64,
}

/// A request and what came back, in microseconds since the beginning.
struct Answered {
    arrival: Arrival,
    sent: u64,
    received: u64,
    status: u16,
}

/// Two nodes with the tenants and their keys.
struct Nodes {
    members: Vec<Member>,
    /// Keys by tenant and user.
    keys: Vec<Vec<String>>,
}

impl Nodes {
    async fn start(setup: &Setup, redis: &Redis, times: u64) -> Result<Self> {
        let url = format!("{:?}", redis.url());
        let nodes = NODES.to_string();
        let settings = [("limits.url", &*url), ("limits.nodes", &*nodes)];
        let mut members = (0..NODES).map(|n| Member::new(setup, &format!("node-{n}"), &settings)).collect::<Result<Vec<_>>>()?;
        let users = |subject: &Subject| if let Kind::Users(users) = subject.kind { users } else { 1 };
        let keys: Vec<Vec<ApiKey>> =
            SUBJECTS.iter().map(|s| (0..users(s)).map(|_| Ok(ApiKey::generate(&SystemRandom)?)).collect()).collect::<Result<_>>()?;
        for member in &mut members {
            // Each has a ledger of its own, with the same in it.
            member.start()?;
            member.listening().await?;
            member.stop().await?;
            let mut ledger = Ledger::open(&member.path().join("data")).await?;
            for (subject, keys) in SUBJECTS.iter().zip(&keys) {
                let name = subject.tenant.parse()?;
                ledger.plan(subject.tenant, &serde_json::to_value(subject.plan(times)?)?).await?;
                ledger.tenant(&name, subject.tenant).await?;
                for key in keys {
                    ledger.key(&name, key).await?;
                }
            }
            ledger.finish().await?;
            member.start()?;
            member.listening().await?;
        }
        let keys = keys.iter().map(|keys| keys.iter().map(ApiKey::reveal).collect()).collect();
        let nodes = Self { members, keys };
        for node in 0..nodes.members.len() {
            let target = nodes.target(node, 0, 1)?;
            let end = Instant::now() + Duration::from_secs(30);
            while Connection::open(&target.address).await?.exchange(&target).await?.status != 200 {
                ensure!(Instant::now() < end, "the node does not answer; it said:\n{}", nodes.members[node].log());
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            ensure!(!nodes.members[node].said("limits are shared").is_empty(), "the node has not reached Redis");
        }
        Ok(nodes)
    }

    fn target(&self, node: usize, subject: usize, user: u64) -> Result<Target> {
        let keys = &self.keys[subject];
        let key = &keys[(user - 1) as usize % keys.len()];
        Target::get_with(&format!("http://{}/v2", self.members[node].address), Some(key))
    }

    /// The times in milliseconds since 1970 in which a node lived without Redis, after `from`.
    fn without(&self, node: usize, from: u64) -> Vec<(u64, u64)> {
        let member = &self.members[node];
        let lost = member.said("redis is lost").into_iter().map(|(at, _)| (at, false));
        let found = member.said("limits are shared").into_iter().map(|(at, _)| (at, true));
        let mut all: Vec<(u64, bool)> = lost.chain(found).filter(|(at, _)| *at >= from).collect();
        all.sort_unstable();
        let mut without: Vec<(u64, u64)> = Vec::new();
        for (at, up) in all {
            match without.last_mut() {
                Some(open) if up && open.1 == u64::MAX => open.1 = at,
                _ if !up => without.push((at, u64::MAX)),
                _ => {}
            }
        }
        without
    }
}

/// Replays the hour within so many seconds.
pub async fn hour(setup: &Setup, seed: u64, seconds: f64) -> Result<Outcomes> {
    let times = ((HOUR as f64 / 1e6 / seconds).round() as u64).max(1);
    let mut redis = Redis::start().await?;
    let nodes = Nodes::start(setup, &redis, times).await?;
    let begun = Instant::now() + Duration::from_millis(500);
    let begun_at = u64::try_from((SystemTime::now() + Duration::from_millis(500)).duration_since(UNIX_EPOCH)?.as_millis())?;
    let mut queues = Vec::new();
    let mut workers = tokio::task::JoinSet::new();
    for node in 0..nodes.members.len() {
        let (queue, due) = mpsc::channel::<Arrival>(BACKLOG);
        let due = Arc::new(Mutex::new(due));
        queues.push(queue);
        let targets = (0..SUBJECTS.len()).map(|s| (1..=nodes.keys[s].len() as u64).map(|user| nodes.target(node, s, user)).collect());
        let targets: Arc<Vec<Vec<Target>>> = Arc::new(targets.collect::<Result<_>>()?);
        for _ in 0..CONNECTIONS {
            workers.spawn(worker(due.clone(), targets.clone(), begun));
        }
    }
    let (sending, mut missed) = (send(queues, seed, times, begun), 0);
    let killing = async {
        let hour = HOUR as f64 / 1e6 / times as f64;
        tokio::time::sleep_until((begun + Duration::from_secs_f64(hour * KILLED)).into()).await;
        redis.kill()?;
        tokio::time::sleep_until((begun + Duration::from_secs_f64(hour * BACK)).into()).await;
        redis.back(true).await
    };
    let (sent, killed) = tokio::join!(sending, killing);
    missed += sent;
    killed?;
    let mut answered = Vec::new();
    while let Some(own) = workers.join_next().await {
        answered.extend(own??);
    }
    Ok(judge(&nodes, times, begun_at, missed, answered))
}

/// Gives each request to its node when it is due; how many found no room.
async fn send(queues: Vec<mpsc::Sender<Arrival>>, seed: u64, times: u64, begun: Instant) -> u64 {
    let (mut traffic, mut missed) = (Traffic::new(seed, STEP, |subject| subject.real), 0);
    while let Some((_, arrivals)) = traffic.next() {
        for arrival in arrivals {
            let arrival = Arrival { at: arrival.at / times, ..arrival };
            let due = begun + Duration::from_micros(arrival.at);
            // The timer is a millisecond coarse: what is due within it leaves together.
            if due > Instant::now() {
                tokio::time::sleep_until(due.into()).await;
            }
            missed += u64::from(queues[arrival.node].try_send(arrival).is_err());
        }
    }
    missed
}

async fn worker(due: Arc<Mutex<mpsc::Receiver<Arrival>>>, targets: Arc<Vec<Vec<Target>>>, begun: Instant) -> Result<Vec<Answered>> {
    let address = targets.first().and_then(|of| of.first()).context("there is nobody to ask for")?.address.clone();
    let mut connection = Connection::open(&address).await?;
    let mut answered = Vec::new();
    let micros = |at: Instant| at.saturating_duration_since(begun).as_micros() as u64;
    loop {
        let next = due.lock().await.recv().await;
        let Some(arrival) = next else { return Ok(answered) };
        let users = &targets[arrival.subject];
        let target = &users[(arrival.user - 1) as usize % users.len()];
        let sent = Instant::now();
        let status = match connection.exchange(target).await {
            Ok(answer) => answer.status,
            Err(_) => {
                connection = Connection::open(&address).await?;
                0
            }
        };
        answered.push(Answered { arrival, sent: micros(sent), received: micros(Instant::now()), status });
    }
}

/// Seconds in which the nodes did not see Redis alike.
fn apart(nodes: &Nodes, begun_at: u64) -> f64 {
    let without: Vec<_> = (0..nodes.members.len()).map(|node| nodes.without(node, begun_at)).collect();
    let mut edges: Vec<u64> = without.iter().flatten().flat_map(|(from, to)| [*from, *to]).filter(|at| *at != u64::MAX).collect();
    edges.sort_unstable();
    edges.dedup();
    let lost = |node: &[(u64, u64)], at: u64| node.iter().any(|(from, to)| (*from..*to).contains(&at));
    let spans = edges.windows(2).filter(|edge| {
        let count = without.iter().filter(|node| lost(node, edge[0])).count();
        count > 0 && count < without.len()
    });
    // What a log says to the millisecond may be one off at each end.
    spans.map(|edge| (edge[1] - edge[0] + 2) as f64 / 1e3).sum()
}

fn judge(nodes: &Nodes, times: u64, begun_at: u64, missed: u64, mut answered: Vec<Answered>) -> Outcomes {
    answered.sort_unstable_by_key(|one| one.sent);
    let apart = apart(nodes, begun_at);
    let errors = missed + answered.iter().filter(|one| !matches!(one.status, 200 | 429)).count() as u64;
    let slowest = answered.iter().map(|one| one.received.saturating_sub(one.arrival.at)).max().unwrap_or(0);
    let limits = SUBJECTS.iter().enumerate().filter(|(_, subject)| subject.real);
    let limits = limits.filter_map(|(number, subject)| limit(number, subject, times, begun_at, apart, &answered).ok()).collect();
    Outcomes { limits, requests: answered.len() as u64, errors, apart, slowest_ms: slowest as f64 / 1e3 }
}

fn limit(number: usize, subject: &Subject, times: u64, begun_at: u64, apart: f64, answered: &[Answered]) -> Result<Outcome> {
    let rate = subject.limit(times)?;
    let daily = subject.kind == Kind::Daily;
    let per_second = if daily { 0.0 } else { 1e9 / rate.interval() as f64 };
    let own: Vec<&Answered> = answered.iter().filter(|one| one.arrival.subject == number).collect();
    let killed = (HOUR as f64 / times as f64 * KILLED) as u64;
    let window = if daily { HOUR } else { u64::try_from(rate.period().as_micros())? };
    let (mut ideal, mut there, mut excess) = (0, (0, 0), 0.0_f64);
    let cap = DailyCap::new(rate.units());
    let users = own.iter().map(|one| one.arrival.user).max().unwrap_or(1);
    let mut fullest = 0;
    for user in 1..=users {
        let cell = Cell::new();
        let mut admitted = Vec::new();
        for one in own.iter().filter(|one| one.arrival.user == user) {
            let before = u64::from(one.sent < killed);
            if one.status == 200 {
                admitted.push((one.sent, one.received));
                there.0 += before;
            }
            let allowed = match daily {
                true => cap.take(1, begun_at + one.sent / 1000).allowed(),
                false => cell.take(&rate, 1, Duration::from_micros(one.sent)).allowed(),
            };
            ideal += u64::from(allowed);
            there.1 += u64::from(allowed) * before;
        }
        let mut times: Vec<u64> = admitted.iter().map(|(_, received)| *received).collect();
        times.sort_unstable();
        let mut windows = Windows::new(window);
        times.into_iter().for_each(|at| windows.add(at, 1));
        fullest = fullest.max(windows.fullest());
        excess = excess.max(Excess::between(per_second, admitted));
    }
    let settings = LeaseSettings::for_rate(&rate, NODES);
    let lease = if daily { (rate.burst() / 1000).max(1) } else { settings.size };
    let bound = bounds(subject.kind, rate.burst(), lease.max(subject.largest())).0 as f64;
    // A node that lives on its share while the other still asks, or asks again, earns that share on top.
    let bound = bound + apart * (rate.units() as f64 / rate.period().as_secs_f64()) / f64::from(NODES);
    let admitted = own.iter().filter(|one| one.status == 200).count() as u64;
    Ok(Outcome {
        tenant: subject.tenant,
        limit: subject.text(times),
        asked: own.len() as u64,
        admitted,
        ideal,
        there,
        excess,
        bound,
        fullest: (fullest, (per_second * window as f64 / 1e6).ceil() as u64 + bound.ceil() as u64),
    })
}
