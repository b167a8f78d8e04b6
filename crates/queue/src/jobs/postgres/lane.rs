//! Gathers what many callers ask at once into groups, each of which is one transaction.
//!
//! Natural batching: nobody waits for a group to fill; while the transactions of a few groups are under way the next one gathers.
//! Invariants: a caller is told after the commit that holds its work, and not before; what waits is bounded by count and bytes, and who
//! comes then waits to be let in; an error of a group is told to all of it, except that a group whose data the server refused, which had
//! no effect, is run again one by one, so that the fault is told only to whom it belongs to.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use plinth_runtime::{OnEnd, TaskGroup};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

use super::database::Failed;
use crate::QueueError;

/// Callers that wait for a group, and callers in one.
const QUEUE: usize = 4096;
const GROUP: usize = 512;
/// Bytes of all that wait or are under way, and of one group.
const QUEUE_BYTES: u32 = 64 << 20;
const GROUP_BYTES: u32 = 8 << 20;

/// What a lane does with a group.
#[async_trait]
pub(super) trait Work: Send + Sync + 'static {
    /// What one caller asks.
    type Ask: Send + Sync + 'static;
    /// What it is told.
    type Answer: Send + 'static;
    /// For errors.
    const OPERATION: &'static str;
    /// Groups under way at a time.
    const FLIGHTS: usize;

    /// About how many bytes this takes.
    fn bytes(ask: &Self::Ask) -> usize;

    /// Runs a group in a transaction; an answer for each, in order.
    async fn run(&self, group: &[Self::Ask]) -> Result<Vec<Self::Answer>, Failed>;
}

struct Waiting<W: Work> {
    ask: W::Ask,
    bytes: u32,
    tell: oneshot::Sender<Result<W::Answer, QueueError>>,
    _room: OwnedSemaphorePermit,
}

/// A line of callers with the task that groups them. Dropping it ends the task after what has gathered.
pub(super) struct Lane<W: Work> {
    send: Mutex<Option<mpsc::Sender<Waiting<W>>>>,
    room: Arc<Semaphore>,
    timeout: Duration,
}

impl<W: Work> Lane<W> {
    /// Starts the task.
    pub(super) fn new(work: W, timeout: Duration, tasks: &TaskGroup) -> Self {
        let (send, receive) = mpsc::channel(QUEUE);
        tasks.spawn(W::OPERATION, OnEnd::Ignore, dispatch(Arc::new(work), receive, tasks.clone()));
        Self { send: Mutex::new(Some(send)), room: Arc::new(Semaphore::new(QUEUE_BYTES as usize)), timeout }
    }

    /// Waits for the answer, no longer than an operation may take. Dropped, or too late, the work may happen all the same.
    pub(super) async fn ask(&self, ask: W::Ask) -> Result<W::Answer, QueueError> {
        let gone = || QueueError::unavailable(W::OPERATION, "the queue is closed");
        let asked = async {
            let send = self.send.lock().unwrap_or_else(PoisonError::into_inner).clone().ok_or_else(gone)?;
            let bytes = u32::try_from(W::bytes(&ask)).unwrap_or(u32::MAX).clamp(1, QUEUE_BYTES);
            let room = self.room.clone().acquire_many_owned(bytes).await.map_err(|_| gone())?;
            let (tell, told) = oneshot::channel();
            send.send(Waiting { ask, bytes, tell, _room: room }).await.map_err(|_| gone())?;
            told.await.map_err(|_| QueueError::unavailable(W::OPERATION, "the group ended without an answer"))?
        };
        tokio::time::timeout(self.timeout, asked).await.unwrap_or_else(|_| Err(Failed::late(W::OPERATION).error))
    }

    /// Lets nobody in any more; what has gathered is still done.
    pub(super) fn close(&self) {
        self.send.lock().unwrap_or_else(PoisonError::into_inner).take();
    }
}

async fn dispatch<W: Work>(work: Arc<W>, mut receive: mpsc::Receiver<Waiting<W>>, tasks: TaskGroup) {
    let flights = Arc::new(Semaphore::new(W::FLIGHTS));
    while let Ok(flight) = flights.clone().acquire_owned().await {
        let Some(first) = receive.recv().await else { break };
        // Whoever was woken by the same commit comes now.
        tokio::task::yield_now().await;
        let mut bytes = first.bytes;
        let mut group = vec![first];
        while group.len() < GROUP && bytes < GROUP_BYTES {
            let Ok(next) = receive.try_recv() else { break };
            bytes = bytes.saturating_add(next.bytes);
            group.push(next);
        }
        let work = work.clone();
        tasks.spawn(W::OPERATION, OnEnd::Ignore, async move {
            together(&*work, group).await;
            drop(flight);
        });
    }
}

async fn together<W: Work>(work: &W, group: Vec<Waiting<W>>) {
    // Who has gone away meanwhile need not be served.
    let group = group.into_iter().filter(|waiting| !waiting.tell.is_closed());
    let (mut asks, mut tells) = (Vec::new(), Vec::new());
    for Waiting { ask, tell, _room, .. } in group {
        asks.push(ask);
        tells.push((tell, _room));
    }
    if asks.is_empty() {
        return;
    }
    match work.run(&asks).await {
        Ok(answers) => tells.into_iter().zip(answers).for_each(|((tell, _), answer)| {
            let _ = tell.send(Ok(answer));
        }),
        Err(Failed { refused: true, .. }) if asks.len() > 1 => {
            for (ask, (tell, _)) in asks.chunks(1).zip(tells) {
                let outcome = work.run(ask).await.map_err(QueueError::from);
                let one = |mut answers: Vec<W::Answer>| answers.pop().ok_or_else(|| Failed::late(W::OPERATION).error);
                let _ = tell.send(outcome.and_then(one));
            }
        }
        Err(Failed { error, .. }) => tells.into_iter().for_each(|(tell, _)| {
            let _ = tell.send(Err(again(&error, W::OPERATION)));
        }),
    }
}

/// The same error for another caller.
fn again(error: &QueueError, operation: &'static str) -> QueueError {
    match error {
        QueueError::Full => QueueError::Full,
        QueueError::Damaged(text) => QueueError::Damaged(text.clone()),
        QueueError::Unavailable { operation, source } => QueueError::unavailable(operation, source.to_string()),
        other => QueueError::unavailable(operation, other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures_util::future::join_all;

    use super::*;

    /// Doubles; refuses a group with a zero in it, fails one with a one.
    struct Doubles {
        groups: AtomicUsize,
        open: Semaphore,
    }

    #[async_trait]
    impl Work for Doubles {
        type Ask = u32;
        type Answer = u32;
        const OPERATION: &'static str = "double";
        const FLIGHTS: usize = 1;

        fn bytes(_: &u32) -> usize {
            1
        }

        async fn run(&self, group: &[u32]) -> Result<Vec<u32>, Failed> {
            self.groups.fetch_add(1, Ordering::Relaxed);
            let _open = self.open.acquire().await;
            let error = || QueueError::unavailable("double", "no");
            if group.contains(&1) {
                return Err(Failed { error: error(), refused: false });
            }
            if group.contains(&0) {
                return Err(Failed { error: error(), refused: true });
            }
            Ok(group.iter().map(|number| number * 2).collect())
        }
    }

    async fn ask(numbers: &[u32], open: bool) -> (Vec<Option<u32>>, usize) {
        let tasks = TaskGroup::new("test");
        let work = Arc::new(Doubles { groups: AtomicUsize::new(0), open: Semaphore::new(usize::from(open)) });
        struct Shared(Arc<Doubles>);
        #[async_trait]
        impl Work for Shared {
            type Ask = u32;
            type Answer = u32;
            const OPERATION: &'static str = "double";
            const FLIGHTS: usize = 1;
            fn bytes(ask: &u32) -> usize {
                Doubles::bytes(ask)
            }
            async fn run(&self, group: &[u32]) -> Result<Vec<u32>, Failed> {
                self.0.run(group).await
            }
        }
        let lane = Lane::new(Shared(work.clone()), Duration::from_secs(5), &tasks);
        let answers = join_all(numbers.iter().map(|number| lane.ask(*number))).await;
        lane.close();
        assert!(lane.ask(2).await.is_err(), "closed");
        assert_eq!(tasks.wait(Duration::from_secs(10)).await.is_empty(), open);
        (answers.into_iter().map(Result::ok).collect(), work.groups.load(Ordering::Relaxed))
    }

    #[tokio::test(start_paused = true)]
    async fn a_group_is_one_piece_of_work_and_each_gets_its_answer() {
        let numbers: Vec<u32> = (2..1000).collect();
        let (answers, groups) = ask(&numbers, true).await;
        assert_eq!(answers, numbers.iter().map(|number| Some(number * 2)).collect::<Vec<_>>());
        assert!(groups <= 40, "{groups}");
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_refused_costs_nobody_else_and_what_fails_is_not_tried_again() {
        assert_eq!(ask(&[5, 0, 6], true).await.0, [Some(10), None, Some(12)]);
        assert_eq!(ask(&[5, 1, 6], true).await, (vec![None, None, None], 1));
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_waits_for_ever() {
        assert_eq!(ask(&[5, 6], false).await.0, [None, None]);
    }
}
