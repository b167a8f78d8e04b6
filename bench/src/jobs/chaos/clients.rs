//! Clients that submit jobs with idempotency keys until each submission is acknowledged.
//!
//! Invariant: a key stands for the same jobs each time; it is asked for again until it was answered, and now and then once more after that.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::Result;
use plinth_queue::jobs::JobId;
use plinth_runtime::Random;
use tokio::task::JoinSet;

use crate::jobs::fleet;
use crate::jobs::worker::Task;

/// Clients, each with one submission at a time.
const CLIENTS: usize = 24;
/// How long an answer may take before it counts as unknown.
const PATIENCE: Duration = Duration::from_millis(1500);
/// Jobs of a large submission.
const MANY: usize = 5;

/// All answers, by key: more than one when it was asked for again after the first.
pub type Answers = BTreeMap<String, Vec<Vec<JobId>>>;

/// What clients did.
pub struct Submitted {
    pub answers: Answers,
    /// How many effects each acknowledged job is to have.
    pub effects: BTreeMap<JobId, u8>,
    pub repeated: u64,
}

struct Shared {
    sockets: Vec<PathBuf>,
    submissions: Vec<Vec<Task>>,
    next: AtomicUsize,
    done: AtomicUsize,
    repeated: AtomicU64,
    start: Instant,
    lasts: Duration,
}

/// The clients.
pub struct Clients {
    shared: Arc<Shared>,
    tasks: JoinSet<Answers>,
}

/// What a job shall do.
fn task(random: &dyn Random) -> Task {
    let draw = |below: u64| random.next_u64() % below;
    let long = draw(50) == 0;
    Task {
        steps: 1 + draw(3) as u8,
        millis: if long { 1_500 } else { 20 + draw(380) },
        reports: draw(4) == 0,
        bytes: if draw(10) == 0 { 3_000 } else { 10 },
    }
}

fn key(number: usize) -> String {
    format!("k{number}")
}

impl Clients {
    /// Starts them; they submit so many jobs, evenly over so long.
    pub fn start(sockets: Vec<PathBuf>, jobs: usize, lasts: Duration, seed: u64) -> Self {
        let random = super::random(seed);
        let (mut left, mut submissions) = (jobs, Vec::new());
        while left > 0 {
            let count = if random.next_u64().is_multiple_of(20) { MANY.min(left) } else { 1 };
            submissions.push((0..count).map(|_| task(&*random)).collect());
            left -= count;
        }
        let shared = Arc::new(Shared {
            sockets,
            submissions,
            next: AtomicUsize::new(0),
            done: AtomicUsize::new(0),
            repeated: AtomicU64::new(0),
            start: Instant::now(),
            lasts,
        });
        let mut tasks = JoinSet::new();
        for client in 0..CLIENTS {
            let (shared, random) = (shared.clone(), super::random(seed ^ (client as u64 + 1)));
            tasks.spawn(async move { shared.client(&*random).await });
        }
        Self { shared, tasks }
    }

    /// Whether every submission was acknowledged.
    pub fn are_done(&self) -> bool {
        self.shared.done.load(Ordering::Relaxed) == self.shared.submissions.len()
    }

    /// Waits for them; what they were told.
    pub async fn end(mut self) -> Result<Submitted> {
        let mut answers = Answers::new();
        while let Some(own) = self.tasks.join_next().await {
            answers.extend(own?);
        }
        let mut effects = BTreeMap::new();
        for (number, tasks) in self.shared.submissions.iter().enumerate() {
            // Ids come in the order of the jobs that were asked for.
            let told = answers.get(&key(number)).into_iter().flatten();
            effects.extend(told.flat_map(|ids| ids.iter().copied().zip(tasks.iter().map(|task| task.steps))));
        }
        Ok(Submitted { answers, effects, repeated: self.shared.repeated.load(Ordering::Relaxed) })
    }
}

impl Shared {
    async fn client(&self, random: &dyn Random) -> Answers {
        let mut answers = Answers::new();
        loop {
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            let Some(tasks) = self.submissions.get(number) else { return answers };
            let due = self.lasts.mul_f64(number as f64 / self.submissions.len() as f64);
            tokio::time::sleep_until((self.start + due).into()).await;
            let key = key(number);
            let mut own = vec![self.submit(&key, tasks, random).await];
            if random.next_u64().is_multiple_of(20) {
                own.push(self.submit(&key, tasks, random).await);
            }
            answers.insert(key, own);
            self.done.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Asks until there is an answer, each time at any of the workers.
    async fn submit(&self, key: &str, tasks: &[Task], random: &dyn Random) -> Vec<JobId> {
        loop {
            let at = (random.next_u64() % self.sockets.len() as u64) as usize;
            match fleet::submit(&self.sockets[at], key, tasks.to_vec(), PATIENCE).await {
                Ok(ids) => return ids,
                Err(_) => self.repeated.fetch_add(1, Ordering::Relaxed),
            };
            tokio::time::sleep(Duration::from_millis(10 + random.next_u64() % 50)).await;
        }
    }
}
