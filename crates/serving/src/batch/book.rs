//! The book of one version: what waits, what each lane does, and what the batcher has decided.
//!
//! Guarded by the dispatcher's lock; nothing here waits, copies tensors or touches a socket. What is to be done outside
//! the lock is put into an [`Outbox`].

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasherDefault, Hasher};
use std::time::Duration;

use plinth_engine::lane::Timing;
use plinth_engine::{Batch, Part, RunnerError};
use plinth_policy::batching::{self, Batcher, Item, Key, Refusal, Settings, Situation, Turn, prefetch};
use plinth_types::Tensor;
use tokio::sync::oneshot;

use super::work::Work;

/// How a request ends here.
#[derive(Debug)]
pub(super) enum Ending {
    /// The model answered, or refused it.
    Answered(Result<Vec<Tensor>, RunnerError>),
    /// Its time in the queue is over.
    Expired,
    /// This instance does not take it any more; another may.
    Replaced,
    /// The runner died while it executed it, possibly because of it.
    Suspect,
}

/// A request that waits or is executed.
pub(super) struct Waiting {
    pub work: Work,
    pub arrived: Duration,
    pub rows: u32,
    pub reply: oneshot::Sender<Ending>,
}

/// A batch that was given to a lane.
pub(super) struct Flight {
    pub id: u64,
    pub parts: Vec<Waiting>,
    pub rows: u32,
    /// As the batcher named it.
    pub group: u64,
    /// When it began as far as the node knows: when it was sent, or when the one before it ended.
    pub began: Duration,
}

/// What is to be done once the lock is open.
#[derive(Default)]
pub(super) struct Outbox {
    /// Batches for lanes.
    pub sends: Vec<(usize, Batch)>,
    /// Endings to tell.
    pub endings: Vec<(Waiting, Ending)>,
    /// The alarm clock is to be set earlier.
    pub set_clock: bool,
}

/// Keys are small numbers that nobody outside chooses.
#[derive(Default)]
pub(super) struct KeyHasher(u64);

impl Hasher for KeyHasher {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.wrapping_mul(31).wrapping_add(u64::from(*byte));
        }
    }
    fn write_u64(&mut self, n: u64) {
        self.0 = n.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
    fn write_u32(&mut self, n: u32) {
        self.write_u64(u64::from(n));
    }
}

/// Everything that the lock guards.
pub(super) struct Book {
    batcher: Batcher,
    waiting: HashMap<Key, Waiting, BuildHasherDefault<KeyHasher>>,
    lanes: Vec<VecDeque<Flight>>,
    /// Requests that run with nothing beside them.
    suspects: VecDeque<Waiting>,
    /// Requests whose batch failed as a whole, and which run by themselves so that one does not fail the others.
    singles: VecDeque<Waiting>,
    max_items: usize,
    max_rows: u32,
    batched: bool,
    merge: bool,
    next_flight: u64,
    next_group: u64,
    /// When the batcher wants to be asked again, if it waits for a batch to grow.
    pub alarm: Option<Duration>,
    /// Nothing is taken in any more.
    pub closed: bool,
    keys: Vec<Key>,
    busy: Vec<Duration>,
}

/// The group of what runs by itself.
const ALONE: u64 = 0;
/// The gap between two batches of a lane: two processes are woken.
const WAKE_UP: Duration = Duration::from_micros(40);

impl Book {
    pub fn new(settings: Settings, lanes: usize, batched: bool, merge: bool) -> Self {
        Self {
            max_items: settings.max_items,
            max_rows: settings.max_rows,
            batcher: Batcher::new(settings),
            waiting: HashMap::default(),
            lanes: (0..lanes).map(|_| VecDeque::with_capacity(2)).collect(),
            suspects: VecDeque::new(),
            singles: VecDeque::new(),
            batched,
            merge,
            next_flight: 0,
            next_group: 0,
            alarm: None,
            closed: false,
            keys: Vec::new(),
            busy: Vec::new(),
        }
    }

    /// How many requests wait or are executed.
    pub fn len(&self) -> usize {
        self.waiting.len() + self.suspects.len() + self.singles.len() + self.lanes.iter().flatten().map(|f| f.parts.len()).sum::<usize>()
    }

    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.suspects.is_empty() && self.singles.is_empty() && self.lanes.iter().all(VecDeque::is_empty)
    }

    /// Takes a request in. `Ok(None)` for a suspect, which cannot be taken out by a key.
    pub fn push(&mut self, work: Work, now: Duration, reply: oneshot::Sender<Ending>) -> Result<Option<Key>, Refusal> {
        let rows = work.rows(self.batched);
        if work.suspect {
            if self.suspects.len() >= self.max_items {
                return Err(Refusal::Full);
            }
            self.suspects.push_back(Waiting { work, arrived: now, rows, reply });
            return Ok(None);
        }
        let group = if self.merge {
            work.group()
        } else if self.max_rows == 1 {
            // Two of them cannot share a batch anyway.
            ALONE
        } else {
            self.next_group = self.next_group.wrapping_add(1);
            self.next_group
        };
        let item = Item {
            rows,
            bytes: work.bytes(),
            deadline: work.deadline,
            timeout: work.queue_timeout,
            level: work.level,
            tenant: work.tenant,
            group,
        };
        let key = self.batcher.push(item, now)?;
        self.waiting.insert(key, Waiting { work, arrived: now, rows, reply });
        Ok(Some(key))
    }

    /// Takes a request out whose caller has gone; nothing happens when it has begun.
    pub fn cancel(&mut self, key: Key) {
        if self.waiting.remove(&key).is_some() {
            self.batcher.remove(key);
        }
    }

    /// Whether a request has not begun.
    pub fn waits(&self, key: Key) -> bool {
        self.waiting.contains_key(&key)
    }

    /// A lane has done a batch. Only executions that ended well say what one costs.
    pub fn finished(&mut self, lane: usize, id: u64, timing: Option<Timing>, now: Duration) -> Option<Flight> {
        let flights = self.lanes.get_mut(lane)?;
        let at = flights.iter().position(|f| f.id == id)?;
        let flight = flights.remove(at)?;
        if let Some(next) = flights.front_mut() {
            next.began = now;
        }
        if let Some(timing) = timing {
            let took = timing.input + timing.infer + timing.output;
            self.batcher.finished(batching::Done { group: flight.group, items: flight.parts.len(), rows: flight.rows, took }, now);
        }
        Some(flight)
    }

    /// The parts of a batch that failed as a whole go again, each by itself.
    pub fn split(&mut self, parts: Vec<Waiting>) {
        self.singles.extend(parts);
    }

    /// Takes a batch back that a lane could not take.
    pub fn take_back(&mut self, lane: usize, id: u64) -> Option<Flight> {
        let flights = self.lanes.get_mut(lane)?;
        let at = flights.iter().position(|f| f.id == id)?;
        flights.remove(at)
    }

    /// The lane is gone: what it executed is suspect, what waited in it and everything else goes elsewhere.
    pub fn lane_ended(&mut self, lane: usize, out: &mut Outbox) {
        self.closed = true;
        let flights = self.lanes.get_mut(lane).map(std::mem::take).unwrap_or_default();
        for (i, flight) in flights.into_iter().enumerate() {
            let ending = if i == 0 { || Ending::Suspect } else { || Ending::Replaced };
            out.endings.extend(flight.parts.into_iter().map(|part| (part, ending())));
        }
        self.send_away(out);
    }

    /// Everything that has not begun goes elsewhere.
    pub fn send_away(&mut self, out: &mut Outbox) {
        let waiting = std::mem::take(&mut self.waiting);
        for key in waiting.keys() {
            self.batcher.remove(*key);
        }
        let (suspects, singles) = (std::mem::take(&mut self.suspects), std::mem::take(&mut self.singles));
        out.endings.extend(waiting.into_values().chain(suspects).chain(singles).map(|w| (w, Ending::Replaced)));
    }

    /// Gives lanes what they can take.
    pub fn pump(&mut self, now: Duration, out: &mut Outbox) {
        let mut keys = std::mem::take(&mut self.keys);
        self.expire(now, &mut keys, out);
        self.keys = keys;
        if self.alarm.is_some_and(|alarm| alarm <= now) {
            self.alarm = None;
        }
        loop {
            self.suspects.retain(|s| !s.reply.is_closed());
            if !self.suspects.is_empty() {
                // Alone in the process: if it dies again, the guilty one is known.
                if self.lanes.iter().all(VecDeque::is_empty)
                    && let Some(suspect) = self.suspects.pop_front()
                {
                    self.depart(0, vec![suspect], ALONE, now, out);
                }
                return;
            }
            let Some(lane) = self.free_lane(now) else { return };
            self.singles.retain(|s| !s.reply.is_closed());
            if let Some(single) = self.singles.pop_front() {
                self.depart(lane, vec![single], ALONE, now, out);
                continue;
            }
            if !self.next_batch(lane, now, out) {
                return;
            }
        }
    }

    /// Asks the batcher what the lane shall do; whether to ask again.
    fn next_batch(&mut self, lane: usize, now: Duration, out: &mut Outbox) -> bool {
        let mut keys = std::mem::take(&mut self.keys);
        let mut busy = std::mem::take(&mut self.busy);
        busy.clear();
        busy.extend(self.lanes.iter().filter_map(|flights| self.left(flights.front()?, now)));
        let idle = self.lanes.iter().filter(|flights| flights.is_empty()).count().max(1);
        let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        let situation = Situation { idle_lanes: count(idle), lanes: count(self.lanes.len()), busy: &busy };
        let turn = self.batcher.next_into(now, situation, &mut keys);
        let go_on = match turn {
            Turn::Run { group, .. } => {
                let parts = keys.iter().filter_map(|key| self.waiting.remove(key)).filter(|w| !w.reply.is_closed());
                let parts: Vec<_> = parts.collect();
                if !parts.is_empty() {
                    let group = if self.merge { group } else { ALONE };
                    self.depart(lane, parts, group, now, out);
                }
                true
            }
            Turn::Wait { until } => {
                // The clock looks again when it rings; it need not be told of a later time.
                out.set_clock |= self.alarm.is_none_or(|alarm| until < alarm);
                self.alarm = Some(self.alarm.map_or(until, |alarm| alarm.min(until)));
                false
            }
            Turn::Idle => false,
        };
        self.expire(now, &mut keys, out);
        (self.keys, self.busy) = (keys, busy);
        go_on
    }

    fn expire(&mut self, now: Duration, keys: &mut Vec<Key>, out: &mut Outbox) {
        keys.clear();
        self.batcher.expired_into(now, keys);
        out.endings.extend(keys.drain(..).filter_map(|key| self.waiting.remove(&key)).map(|w| (w, Ending::Expired)));
    }

    /// How long a batch will still take, by estimate.
    fn left(&self, flight: &Flight, now: Duration) -> Option<Duration> {
        self.batcher.estimate(flight.rows).map(|estimate| (flight.began + estimate).saturating_sub(now).min(estimate))
    }

    /// Sends the rest of a batch of which a part did not fit.
    pub fn again(&mut self, lane: usize, parts: Vec<Waiting>, now: Duration, out: &mut Outbox) {
        self.depart(lane, parts, ALONE, now, out);
    }

    fn depart(&mut self, lane: usize, parts: Vec<Waiting>, group: u64, now: Duration, out: &mut Outbox) {
        let rows = parts.iter().map(|p| p.rows).sum();
        self.next_flight += 1;
        let id = self.next_flight;
        let latest = parts.iter().map(|p| p.work.deadline).max().unwrap_or(now);
        // Cloning a tensor shares its bytes.
        let tensors =
            parts.iter().map(|p| Part { inputs: p.work.inputs.clone(), outputs: p.work.outputs.clone(), trace: p.work.trace }).collect();
        out.sends.push((lane, Batch { id, parts: tensors, batched: self.batched, deadline: latest.saturating_sub(now) }));
        if let Some(flights) = self.lanes.get_mut(lane) {
            flights.push_back(Flight { id, parts, rows, group, began: now });
        }
    }

    /// An idle lane, else one whose work is so short that the next batch should wait in the runner.
    fn free_lane(&self, now: Duration) -> Option<usize> {
        if let Some(idle) = self.lanes.iter().position(VecDeque::is_empty) {
            return Some(idle);
        }
        if self.merge && self.batcher.len() < self.max_rows as usize {
            // What was sent can grow no more; and where executions are short, it is the number of batches that costs.
            return None;
        }
        let with_room = self.lanes.iter().enumerate().filter(|(_, flights)| flights.len() == 1);
        let (lane, flight) = with_room.filter_map(|(i, flights)| Some((i, flights.front()?))).min_by_key(|(_, f)| f.began)?;
        prefetch(self.left(flight, now)?, WAKE_UP).then_some(lane)
    }

    /// How long a request that came now would wait, as far as can be said.
    pub fn wait_estimate(&self) -> Duration {
        self.batcher.wait_estimate()
    }
}
