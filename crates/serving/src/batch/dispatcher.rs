//! The dispatcher of one loaded version: requests in, answers out.
//!
//! A request puts itself into the book and, when a lane is free, sends the batch itself: no other task is woken for it.
//! When a lane has done a batch, the task that receives it first sends the next and only then hands out the answers.
//! [`Dispatcher::close`] lets everything that waits go to another instance.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use plinth_engine::lane::{Done, SendError, Timing};
use plinth_engine::{Lane, LaneReceiver, LaneSender, RunnerError};
use plinth_policy::batching::{Key, Refusal, Settings};
use plinth_runtime::{CancellationToken, OnEnd, TaskGroup, World};
use plinth_types::Tensor;
use tokio::sync::{Notify, oneshot};

use super::book::{Book, Ending, Flight, Outbox, Waiting};
use super::work::Work;
use crate::instance::Failure;
use crate::statistics::{BatchTimes, Statistics};

/// What a dispatcher is made from.
pub(crate) struct DispatcherParts {
    pub settings: Settings,
    /// Whether the first dimension is the batch dimension.
    pub batched: bool,
    /// Whether requests may share a batch.
    pub merge: bool,
    pub lanes: Vec<Lane>,
    pub statistics: Arc<Statistics>,
}

/// What waits for one version, and its lanes.
pub(crate) struct Dispatcher {
    book: Mutex<Book>,
    lanes: Vec<LaneSender>,
    /// Rings when the alarm is set earlier.
    clock_bell: Notify,
    /// Rings when nothing is left.
    empty: Notify,
    statistics: Arc<Statistics>,
    world: World,
    over: CancellationToken,
}

impl Dispatcher {
    /// Starts the tasks that receive from the lanes; they end with the lanes.
    pub fn start(parts: DispatcherParts, world: &World, tasks: &TaskGroup) -> Arc<Self> {
        let (senders, receivers): (Vec<_>, Vec<_>) = parts.lanes.into_iter().map(|lane| (lane.sender, lane.receiver)).unzip();
        let dispatcher = Arc::new(Self {
            book: Mutex::new(Book::new(parts.settings, senders.len(), parts.batched, parts.merge)),
            lanes: senders,
            clock_bell: Notify::new(),
            empty: Notify::new(),
            statistics: parts.statistics,
            world: world.clone(),
            over: CancellationToken::new(),
        });
        for (i, receiver) in receivers.into_iter().enumerate() {
            tasks.spawn("receive batches", OnEnd::Ignore, dispatcher.clone().receive(i, receiver));
        }
        tasks.spawn("batch clock", OnEnd::Ignore, dispatcher.clone().keep_time());
        dispatcher
    }

    fn lock(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> Duration {
        self.world.clock.monotonic()
    }

    /// Executes a request. Cancel safe: a dropped call takes it out of the queue if it has not begun.
    pub async fn execute(&self, work: Work) -> Result<Vec<Tensor>, Failure> {
        let (deadline, now) = (work.deadline, self.now());
        let (reply, answer) = oneshot::channel();
        let place = Place { dispatcher: self, key: self.submit(work, now, reply)? };
        let ending = tokio::time::timeout(deadline.saturating_sub(now), answer).await;
        let result = match ending {
            Ok(Ok(Ending::Answered(result))) => result.map_err(Failure::Runner),
            Ok(Ok(Ending::Expired)) => Err(Failure::Runner(RunnerError::Deadline("queued"))),
            Ok(Ok(Ending::Suspect)) => Err(Failure::Suspect),
            Ok(Ok(Ending::Replaced) | Err(_)) => Err(Failure::Replaced),
            Err(_) => {
                let waits = place.is_waiting();
                drop(place);
                return Err(Failure::Runner(RunnerError::Deadline(if waits { "queued" } else { "running" })));
            }
        };
        place.left();
        result
    }

    fn submit(&self, work: Work, now: Duration, reply: oneshot::Sender<Ending>) -> Result<Option<Key>, Failure> {
        let mut out = Outbox::default();
        let taken = {
            let mut book = self.lock();
            if book.closed {
                return Err(Failure::Replaced);
            }
            let taken = book.push(work, now, reply);
            if taken.is_ok() {
                book.pump(now, &mut out);
            }
            taken.map_err(|refusal| match refusal {
                Refusal::Full => Failure::Full { retry_after: Some(book.wait_estimate()) },
                Refusal::Expired => Failure::Runner(RunnerError::Deadline("queued")),
                Refusal::TooLarge => Failure::Runner(RunnerError::Input("the batch is larger than the model's max_batch_size".to_owned())),
            })
        };
        self.carry_out(out);
        taken
    }

    /// Does what was decided under the lock. A batch that a lane does not take may lead to another.
    fn carry_out(&self, mut out: Outbox) {
        while !out.sends.is_empty() || !out.endings.is_empty() {
            if std::mem::take(&mut out.set_clock) {
                self.clock_bell.notify_one();
            }
            for (waiting, ending) in std::mem::take(&mut out.endings) {
                tell(waiting, ending);
            }
            for (lane, batch) in std::mem::take(&mut out.sends) {
                let id = batch.id;
                let sent = self.lanes.get(lane).map(|sender| sender.send(batch));
                if !matches!(sent, Some(Ok(()))) {
                    self.not_sent(lane, id, sent.and_then(Result::err), &mut out);
                }
            }
        }
        if out.set_clock {
            self.clock_bell.notify_one();
        }
    }

    fn not_sent(&self, lane: usize, id: u64, error: Option<SendError>, out: &mut Outbox) {
        let now = self.now();
        let mut book = self.lock();
        let Some(flight) = book.take_back(lane, id) else { return };
        match error {
            // One part does not fit: the others go again.
            Some(SendError::Invalid { part: Some(at), text, .. }) => {
                let mut parts = flight.parts;
                if at < parts.len() {
                    out.endings.push((parts.remove(at), Ending::Answered(Err(RunnerError::Input(text)))));
                }
                if !parts.is_empty() {
                    book.again(lane, parts, now, out);
                }
            }
            Some(SendError::Invalid { part: None, text, .. }) => {
                let refusal = RunnerError::Input(text);
                out.endings.extend(flight.parts.into_iter().map(|part| (part, Ending::Answered(Err(refusal.clone())))));
            }
            Some(SendError::Busy(_) | SendError::Ended(_)) | None => {
                out.endings.extend(flight.parts.into_iter().map(|part| (part, Ending::Replaced)));
            }
        }
        if !book.closed {
            book.pump(now, out);
        }
    }

    async fn receive(self: Arc<Self>, lane: usize, mut receiver: LaneReceiver) {
        while let Some(done) = receiver.receive().await {
            let now = self.now();
            let mut out = Outbox::default();
            let (flight, empty) = {
                let mut book = self.lock();
                let mut flight = book.finished(lane, done.id, done.outcome.is_ok().then_some(done.timing), now);
                let failed = matches!(done.outcome, Err(RunnerError::Execution(_) | RunnerError::Input(_)));
                if failed && flight.as_ref().is_some_and(|f| f.parts.len() > 1) {
                    // Which of them it was is not known; each by itself tells.
                    book.split(flight.take().map(|f| f.parts).unwrap_or_default());
                }
                if !book.closed {
                    book.pump(now, &mut out);
                }
                (flight, book.is_empty())
            };
            self.carry_out(out);
            if let Some(flight) = flight {
                self.count(&flight, done.timing, done.outcome.is_ok());
                hand_out(flight, done);
            }
            if empty {
                self.empty.notify_waiters();
            }
        }
        let mut out = Outbox::default();
        self.lock().lane_ended(lane, &mut out);
        self.carry_out(out);
        self.over.cancel();
        self.empty.notify_waiters();
    }

    fn count(&self, flight: &Flight, timing: Timing, executed: bool) {
        for part in &flight.parts {
            self.statistics.waited(flight.began.saturating_sub(part.arrived));
        }
        if executed {
            let times = BatchTimes { input: timing.input, infer: timing.infer, output: timing.output };
            self.statistics.executed(flight.parts.len() as u64, flight.rows, times);
        }
    }

    /// Wakes the batcher when a batch that it lets grow is due.
    async fn keep_time(self: Arc<Self>) {
        loop {
            let alarm = self.lock().alarm;
            let sleep = async {
                match alarm {
                    Some(at) => tokio::time::sleep(at.saturating_sub(self.now())).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = self.over.cancelled() => return,
                () = self.clock_bell.notified() => {}
                () = sleep => {
                    let mut out = Outbox::default();
                    let now = self.now();
                    self.lock().pump(now, &mut out);
                    self.carry_out(out);
                }
            }
        }
    }

    /// Takes nothing more in; what waits goes to another instance, what is executed ends. Idempotent.
    pub fn close(&self) {
        let mut out = Outbox::default();
        {
            let mut book = self.lock();
            book.closed = true;
            book.send_away(&mut out);
        }
        self.carry_out(out);
        self.empty.notify_waiters();
    }

    /// Returns when nothing waits and nothing is executed.
    pub async fn emptied(&self) {
        loop {
            let rung = self.empty.notified();
            tokio::pin!(rung);
            rung.as_mut().enable();
            if self.lock().is_empty() {
                return;
            }
            rung.await;
        }
    }

    /// How many requests wait or are executed.
    pub fn len(&self) -> usize {
        self.lock().len()
    }
}

/// A request's place in the queue; given up when its caller goes away.
struct Place<'a> {
    dispatcher: &'a Dispatcher,
    key: Option<Key>,
}

impl Place<'_> {
    fn left(mut self) {
        self.key = None;
    }

    fn is_waiting(&self) -> bool {
        self.key.is_some_and(|key| self.dispatcher.lock().waits(key))
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        if let Some(key) = self.key {
            self.dispatcher.lock().cancel(key);
        }
    }
}

fn tell(waiting: Waiting, ending: Ending) {
    // The caller may have gone this very moment.
    let _ = waiting.reply.send(ending);
}

fn hand_out(flight: Flight, done: Done) {
    match done.outcome {
        Ok(answers) => {
            let mut answers = answers.into_iter();
            for part in flight.parts {
                let answer = answers.next().ok_or_else(|| RunnerError::BrokeProtocol("an answer is missing".to_owned()));
                tell(part, Ending::Answered(answer));
            }
        }
        Err(error) => flight.parts.into_iter().for_each(|part| tell(part, Ending::Answered(Err(error.clone())))),
    }
}
