//! Work on large files that no request may feel: reading, hashing and writing for loads.
//!
//! It runs on threads of its own at the lowest priority, so that it gets the processor when nobody else wants it, and in
//! steps with pauses between them, so that it does not keep memory and disk to itself. Invariants: at most [`THREADS`]
//! pieces of such work at a time, the others wait in line; work that nobody waits for any more ends at its next step.

use std::time::Duration;

use plinth_runtime::World;
use plinth_types::{Error, Result};
use tokio::sync::{mpsc, oneshot};

/// One for the load whose turn it is, one for a restart that passes the line.
const THREADS: usize = 2;
/// How many may wait in line; further ones wait to get into it.
const LINE: usize = 32;
/// The nice value of the threads: the lowest priority.
const NICE: i32 = 19;
/// The bytes after which there is a pause.
const STEP: u64 = 1 << 20;
/// The longest pause. A step that waited for a slow disk needs none after it.
const MAX_PAUSE: Duration = Duration::from_millis(5);

type Job = Box<dyn FnOnce() + Send>;

/// The threads. Dropping it lets them finish what they do and end.
pub struct Background {
    line: mpsc::Sender<Job>,
    world: World,
}

impl Background {
    /// Starts the threads.
    ///
    /// # Errors
    /// When the machine has no thread to give.
    pub fn start(world: World) -> std::io::Result<Self> {
        Self::start_at(NICE, world)
    }

    /// As [`Self::start`], at another priority: for short work that requests may be waiting for.
    ///
    /// # Errors
    /// When the machine has no thread to give.
    pub fn start_at(nice: i32, world: World) -> std::io::Result<Self> {
        let (line, jobs) = mpsc::channel::<Job>(LINE);
        let jobs = std::sync::Arc::new(std::sync::Mutex::new(jobs));
        for _ in 0..THREADS {
            let jobs = jobs.clone();
            std::thread::Builder::new().name("background".to_owned()).spawn(move || {
                // On Linux this is the priority of the calling thread alone.
                if let Err(error) = rustix::process::setpriority_process(None, nice) {
                    tracing::warn!(%error, "background work runs at the usual priority");
                }
                loop {
                    // The lock is held while waiting: the other thread waits for it instead of for a job.
                    let job = jobs.lock().unwrap_or_else(std::sync::PoisonError::into_inner).blocking_recv();
                    let Some(job) = job else { return };
                    // A panic costs the one who asked, who hears of it by the end of its channel.
                    let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(job));
                }
            })?;
        }
        Ok(Self { line, world })
    }

    /// Does the work when its turn comes. Cancel safe: dropped, it ends at its next step, or never begins.
    ///
    /// # Errors
    /// The work's own, and `Internal` when it panicked.
    pub async fn run<T: Send + 'static>(&self, work: impl FnOnce(&mut Pace) -> Result<T> + Send + 'static) -> Result<T> {
        let (wanted, gone) = oneshot::channel::<()>();
        let (answer, result) = oneshot::channel();
        let world = self.world.clone();
        let job = move || {
            let mut pace = Pace { last: world.clock.monotonic(), world, gone, bytes: 0 };
            if pace.is_wanted() {
                let _ = answer.send(work(&mut pace));
            }
        };
        self.line.send(Box::new(job)).await.map_err(|_| Error::internal("the background threads are gone"))?;
        let result = result.await.map_err(|_| Error::internal("a piece of background work ended early"))?;
        drop(wanted);
        result
    }
}

/// Keeps work slow enough.
pub struct Pace {
    world: World,
    gone: oneshot::Receiver<()>,
    bytes: u64,
    last: Duration,
}

impl Pace {
    /// Notes so many bytes done, and pauses now and then for a quarter of the time that they took.
    ///
    /// # Errors
    /// When nobody waits for the work any more.
    pub fn step(&mut self, bytes: usize) -> Result<()> {
        self.bytes = self.bytes.saturating_add(bytes as u64);
        if self.bytes < STEP {
            return Ok(());
        }
        self.bytes = 0;
        if !self.is_wanted() {
            return Err(Error::internal("nobody waits for this work any more"));
        }
        let took = self.world.clock.monotonic().saturating_sub(self.last);
        std::thread::sleep((took / 4).min(MAX_PAUSE));
        self.last = self.world.clock.monotonic();
        Ok(())
    }

    fn is_wanted(&mut self) -> bool {
        matches!(self.gone.try_recv(), Err(oneshot::error::TryRecvError::Empty))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    fn nice() -> i64 {
        let stat = std::fs::read_to_string("/proc/thread-self/stat").unwrap();
        let (_, rest) = stat.rsplit_once(')').unwrap();
        rest.split_ascii_whitespace().nth(16).unwrap().parse().unwrap()
    }

    #[tokio::test]
    async fn it_runs_at_the_lowest_priority_and_nobody_else_does() {
        let background = Background::start(World::real()).unwrap();
        assert_eq!(background.run(|_| Ok(nice())).await.unwrap(), 19);
        assert_eq!(nice(), 0);
        let failed = background.run(|_| -> Result<()> { panic!("on purpose") }).await;
        assert_eq!(failed.unwrap_err().reason(), plinth_types::Reason::Internal);
        assert_eq!(background.run(|_| Ok(7)).await.unwrap(), 7, "the thread lives on");
    }

    #[tokio::test]
    async fn work_that_nobody_waits_for_ends() {
        let background = Background::start(World::real()).unwrap();
        let (begun, has_begun) = oneshot::channel();
        let ended = Arc::new(AtomicBool::new(false));
        let flag = ended.clone();
        let endless = background.run(move |pace| -> Result<()> {
            let _ = begun.send(());
            let error = loop {
                if let Err(error) = pace.step(STEP as usize) {
                    break error;
                }
            };
            flag.store(true, Ordering::Release);
            Err(error)
        });
        tokio::select! {
            _ = endless => unreachable!(),
            begun = has_begun => begun.unwrap(),
        }
        // Both threads take their turns only when the endless one has ended.
        while !ended.load(Ordering::Acquire) {
            background.run(|_| Ok(())).await.unwrap();
        }
    }
}
