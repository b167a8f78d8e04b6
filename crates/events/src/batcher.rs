//! The queue in front of a writer: collects the events of many callers into one group, has it committed, and answers all.
//!
//! Invariants: what waits is bounded by count and bytes, and who finds no room is told at once; one group of a writer is being committed
//! at a time, so events of one writer are committed in the order in which they came; a caller is answered after the commit. Channel,
//! boxing and waking of the writer are paid for each group and not for each event.
//!
//! A group is closed by whichever comes first: it holds [`Gathering::most`] events; [`Gathering::wait`] has passed since its first; the
//! scheduler went around and nobody brought more. The last is natural batching: while one group is being committed the next gathers, and
//! a lone event does not wait for company. What a group does to a database is left to [`Commit`].

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use plinth_runtime::{CancellationToken, Clock, OnEnd, TaskGroup, World};
use tokio::sync::{mpsc, oneshot};

use crate::error::EventsError;
use crate::event::{Appended, Event, check};
use crate::stream::Resolved;

/// How long closing waits for what has gathered.
const CLOSING: Duration = Duration::from_secs(30);
/// So many turns of the scheduler without a new event close a group.
const QUIET_TURNS: u32 = 2;

/// When a group is closed, and how much may wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gathering {
    /// The most events of a group. One append is never split within a writer.
    pub most: usize,
    /// The longest that a group gathers while its writer is free.
    pub wait: Duration,
    /// The most events that wait or are being committed, of the whole store.
    pub queue_events: usize,
    /// The most bytes that they hold.
    pub queue_bytes: usize,
}

impl Default for Gathering {
    fn default() -> Self {
        Self { most: 1000, wait: Duration::from_millis(5), queue_events: 100_000, queue_bytes: 64 * 1024 * 1024 }
    }
}

/// An event with its partition.
pub(crate) struct Placed {
    pub(crate) partition: u16,
    pub(crate) event: Event,
}

/// The part of one append that goes to one writer.
pub(crate) struct Submission {
    pub(crate) stream: Arc<Resolved>,
    pub(crate) events: Vec<Placed>,
}

/// What became of one submission.
pub(crate) type Answer = Result<Vec<Appended>, EventsError>;

/// Commits groups, one at a time.
#[async_trait]
pub(crate) trait Commit: Send + Sync + 'static {
    /// Stores a group in one transaction and gives an answer for each submission, in order. An error is everybody's.
    async fn commit(&self, group: Vec<Submission>) -> Result<Vec<Answer>, EventsError>;
}

/// The room for what waits.
#[derive(Debug)]
struct Room {
    events: AtomicUsize,
    bytes: AtomicUsize,
    most_events: usize,
    most_bytes: usize,
}

/// A share of the room, given back when dropped.
struct Share {
    room: Arc<Room>,
    events: usize,
    bytes: usize,
}

impl Room {
    fn take(self: &Arc<Self>, events: usize, bytes: usize) -> Result<Arc<Share>, EventsError> {
        let share = Share { room: self.clone(), events, bytes };
        // Added first and looked at then, so that two at once cannot both believe in the last place; the share's end takes it back.
        let events = self.events.fetch_add(events, Ordering::AcqRel).saturating_add(events);
        let bytes = self.bytes.fetch_add(bytes, Ordering::AcqRel).saturating_add(bytes);
        if events > self.most_events || bytes > self.most_bytes { Err(EventsError::Busy) } else { Ok(Arc::new(share)) }
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.room.events.fetch_sub(self.events, Ordering::AcqRel);
        self.room.bytes.fetch_sub(self.bytes, Ordering::AcqRel);
    }
}

struct Pending {
    submission: Submission,
    tell: oneshot::Sender<Answer>,
    _share: Arc<Share>,
}

/// The queues of all writers of a store.
pub(crate) struct Batcher {
    queues: Vec<mpsc::Sender<Pending>>,
    room: Arc<Room>,
    groups: Arc<AtomicU64>,
    tasks: TaskGroup,
}

impl Batcher {
    /// Starts a task for each writer.
    pub(crate) fn start<C: Commit>(writers: impl IntoIterator<Item = Arc<C>>, rule: Gathering, world: &World) -> Self {
        let room = Arc::new(Room {
            events: AtomicUsize::new(0),
            bytes: AtomicUsize::new(0),
            most_events: rule.queue_events.max(1),
            most_bytes: rule.queue_bytes,
        });
        let (tasks, groups) = (TaskGroup::new("events"), Arc::new(AtomicU64::new(0)));
        let queues = writers.into_iter().map(|writer| {
            // Each holds one event at least, so this never is what is full first.
            let (send, receive) = mpsc::channel(rule.queue_events.max(1));
            let driver =
                Driver { receive, rule, clock: world.clock.clone(), groups: groups.clone(), cancel: tasks.cancelled().clone(), held: None };
            tasks.spawn("events-writer", OnEnd::Ignore, driver.run(writer));
            send
        });
        Self { queues: queues.collect(), room, groups, tasks }
    }

    /// Places events, waits until they are committed, and answers in their order. Cancel safe: they are stored or not as if it were not.
    pub(crate) async fn append(&self, stream: Arc<Resolved>, events: Vec<Event>) -> Answer {
        check(&events, stream.mode)?;
        let share = self.room.take(events.len(), events.iter().map(Event::weight).sum())?;
        let writers = self.queues.len();
        let mut parts: Vec<Vec<Placed>> = (0..writers).map(|_| Vec::new()).collect();
        let mut route = Vec::with_capacity(events.len());
        for event in events {
            let partition = stream.partitioner.partition(event.key.as_str());
            let writer = usize::from(partition) % writers;
            route.push(writer);
            parts[writer].push(Placed { partition, event });
        }
        let mut waits = Vec::with_capacity(writers);
        for (queue, events) in self.queues.iter().zip(parts) {
            if events.is_empty() {
                waits.push(None);
                continue;
            }
            let (tell, told) = oneshot::channel();
            let pending = Pending { submission: Submission { stream: stream.clone(), events }, tell, _share: share.clone() };
            queue.try_send(pending).map_err(|error| match error {
                mpsc::error::TrySendError::Full(_) => EventsError::Busy,
                mpsc::error::TrySendError::Closed(_) => EventsError::Closed,
            })?;
            waits.push(Some(told));
        }
        drop(share);
        let mut answers = Vec::with_capacity(writers);
        for told in waits {
            let answer = match told {
                Some(told) => told.await.unwrap_or(Err(EventsError::Closed))?,
                None => Vec::new(),
            };
            answers.push(answer.into_iter());
        }
        let lost = || EventsError::Damaged("a writer answered for fewer events than it was given".into());
        route.into_iter().map(|writer| answers[writer].next().ok_or_else(lost)).collect()
    }

    /// Events that wait or are being committed.
    pub(crate) fn waiting(&self) -> usize {
        self.room.events.load(Ordering::Acquire)
    }

    /// Groups that were committed.
    pub(crate) fn groups(&self) -> u64 {
        self.groups.load(Ordering::Relaxed)
    }

    /// How many writers there are.
    pub(crate) const fn writers(&self) -> usize {
        self.queues.len()
    }

    /// Commits what waits, and ends.
    pub(crate) async fn close(&self) {
        self.tasks.close(CLOSING).await;
    }
}

/// One writer's queue, at the end that takes out.
struct Driver {
    receive: mpsc::Receiver<Pending>,
    rule: Gathering,
    clock: Arc<dyn Clock>,
    groups: Arc<AtomicU64>,
    cancel: CancellationToken,
    /// Came when the group was full already.
    held: Option<Pending>,
}

impl Driver {
    async fn run<C: Commit>(mut self, writer: Arc<C>) {
        while let Some(group) = self.gather().await {
            let (submissions, tells): (Vec<_>, Vec<_>) = group.into_iter().map(|p| (p.submission, (p.tell, p._share))).unzip();
            let outcome = writer.commit(submissions).await;
            self.groups.fetch_add(1, Ordering::Relaxed);
            let mut answers = outcome.map(Vec::into_iter);
            for (tell, _share) in tells {
                let answer = match &mut answers {
                    Ok(answers) => answers.next().unwrap_or(Err(EventsError::Closed)),
                    Err(error) => Err(error.clone()),
                };
                // Whoever went away meanwhile does not want to know.
                let _ = tell.send(answer);
            }
        }
    }

    /// The next group; `None` when the store was closed and nothing is left.
    async fn gather(&mut self) -> Option<Vec<Pending>> {
        let first = match self.held.take() {
            Some(held) => held,
            None => self.next().await?,
        };
        let begun = self.clock.monotonic();
        let (mut events, mut group, mut quiet) = (first.submission.events.len(), vec![first], 0);
        while events < self.rule.most {
            match self.receive.try_recv() {
                Ok(more) => {
                    let size = events + more.submission.events.len();
                    if size > self.rule.most {
                        self.held = Some(more);
                        break;
                    }
                    (events, quiet) = (size, 0);
                    group.push(more);
                }
                Err(_) if quiet == QUIET_TURNS || self.clock.monotonic().saturating_sub(begun) >= self.rule.wait => break,
                Err(_) => {
                    quiet += 1;
                    tokio::task::yield_now().await;
                }
            }
        }
        Some(group)
    }

    async fn next(&mut self) -> Option<Pending> {
        if !self.receive.is_closed() {
            tokio::select! {
                biased;
                first = self.receive.recv() => return first,
                () = self.cancel.cancelled() => self.receive.close(),
            }
        }
        self.receive.recv().await
    }
}

#[cfg(test)]
mod tests;
