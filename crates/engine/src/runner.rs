//! The node's side of a runner: start, hand out the lanes, stop, and know how it ended.
//!
//! Invariants: a process never outlives its [`Runner`], the group of its tasks, or the node; one that hangs, breaks the
//! protocol or is no longer wanted is killed; what its lanes held is then lost, and they say so. Starting again after a
//! crash is left to `serving`, and so is everything that waits.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use plinth_runtime::{CancellationToken, OnEnd, TaskGroup, World};
use plinth_types::ByteSize;
use tokio::net::UnixStream;
use tokio::sync::{Notify, mpsc, watch};

use crate::channel::message::{FromRunner, Init, StartFailure, ToRunner};
use crate::channel::{handover, node, packet};
use crate::check;
use crate::lane::{Lane, LaneEnd, Shared, Wiring};
use crate::region::Region;
use crate::spec::{ModelMetadata, RunnerError, RunnerExit, RunnerSpec, SandboxReport};

use lifecycle::{Watch, Wish};
use process::{Launched, Process, Program};

mod infer;
mod lifecycle;
pub(crate) mod output;
pub(crate) mod process;

/// An answer that does not go through the region may be as large as the region, and at least this.
const LEAST_ANSWER_LIMIT: ByteSize = ByteSize::mib(256);
/// The most instances of one runner: so many lanes fit into one message.
const MAX_INSTANCES: u16 = 64;

/// A runner process with a loaded model. Dropping it kills the process.
pub struct Runner {
    metadata: Arc<ModelMetadata>,
    sandbox: SandboxReport,
    pid: u32,
    region: Arc<Region>,
    shared: Vec<Arc<Shared>>,
    lanes: Mutex<Vec<Lane>>,
    /// One at a time; see [`Runner::infer`].
    alone: tokio::sync::Mutex<()>,
    wish: watch::Sender<Wish>,
    exit: watch::Receiver<Option<RunnerExit>>,
}

impl Runner {
    /// Starts the process and loads the model; returns when it is ready to execute. Cancel safe: a dropped call leaves
    /// no process behind.
    ///
    /// # Errors
    /// [`RunnerError::Load`], [`RunnerError::Altered`], [`RunnerError::Start`], [`RunnerError::Crashed`],
    /// [`RunnerError::Deadline`].
    pub async fn start(spec: RunnerSpec, world: &World, tasks: &TaskGroup) -> Result<Self, RunnerError> {
        let region = Region::new(spec.shared_memory.0).map_err(|e| not_started(&e))?;
        let instances = spec.instances.clamp(1, MAX_INSTANCES);
        let pairs = (0..instances).map(|_| packet::pair()).collect::<io::Result<Vec<_>>>().map_err(|e| not_started(&e))?;
        let (near, far): (Vec<OwnedFd>, Vec<OwnedFd>) = pairs.into_iter().unzip();
        let program = Program { path: spec.program.clone(), label: spec.label.clone() };
        let Launched { mut process, channel, output } = process::launch(program).await.map_err(|e| not_started(&e))?;
        let forward = output::forward(output, spec.label.clone(), world.clock.clone());
        tasks.spawn("runner-output", OnEnd::Ignore, forward);
        let descriptors: Vec<BorrowedFd<'_>> = std::iter::once(region.fd()).chain(far.iter().map(AsFd::as_fd)).collect();
        // A process that died at once is noticed by its status.
        let _ = handover::give(&channel, &descriptors);
        // From here on a lane ends with the process at its other end.
        drop(far);
        channel.set_nonblocking(true).map_err(|e| not_started(&e))?;
        let mut channel = UnixStream::from_std(channel).map_err(|e| not_started(&e))?;
        let loading = load(&spec, &mut channel, &mut process);
        let (metadata, sandbox) =
            tokio::time::timeout(spec.load_timeout, loading).await.map_err(|_| RunnerError::Deadline("loading"))??;
        let metadata = Arc::new(metadata);

        // The first end says all.
        let (end, ends) = mpsc::channel(1);
        let shared = near.into_iter().map(|socket| {
            let (region, metadata, clock, end) = (region.clone(), metadata.clone(), world.clock.clone(), end.clone());
            Shared::new(Wiring { socket, region, metadata, clock, max_answer: max_answer(&spec).0, end })
        });
        let shared = shared.collect::<io::Result<Vec<_>>>().map_err(|e| not_started(&e))?;
        let ((wish, wishes), (publish, exit)) = (watch::channel(Wish::Run), watch::channel(None));
        let (pid, over, say_stop) = (process.pid(), CancellationToken::new(), Arc::new(Notify::new()));
        let until_over = |name: &'static str, task: std::pin::Pin<Box<dyn Future<Output = ()> + Send>>| {
            let task = over.clone().run_until_cancelled_owned(task);
            tasks.spawn(name, OnEnd::Ignore, async move {
                let _ended_or_over = task.await;
            });
        };
        until_over("runner-channel", Box::pin(listen(channel, say_stop.clone(), end)));
        until_over("runner-region", Box::pin(region.clone().keep_small()));
        let watch = Watch {
            label: spec.label,
            process,
            lanes: shared.clone(),
            execution_timeout: spec.execution_timeout,
            ends,
            say_stop,
            wish: wishes,
            cancelled: tasks.cancelled().clone(),
            exit: publish,
            over,
        };
        tasks.spawn("runner-watch", OnEnd::Ignore, watch.run());
        let lanes = Mutex::new(shared.iter().cloned().map(Lane::new).collect());
        Ok(Self { metadata, sandbox, pid, region, shared, lanes, alone: tokio::sync::Mutex::default(), wish, exit })
    }

    /// What the model takes and gives.
    #[must_use]
    pub fn metadata(&self) -> &ModelMetadata {
        &self.metadata
    }

    /// Which walls stand around the process.
    #[must_use]
    pub const fn sandbox(&self) -> &SandboxReport {
        &self.sandbox
    }

    /// The process id.
    #[must_use]
    pub const fn pid(&self) -> u32 {
        self.pid
    }

    /// The lanes, one for each instance, to whoever asks first; empty for everybody after. Not while
    /// [`Runner::infer`] is in progress, which borrows the first.
    pub fn take_lanes(&self) -> Vec<Lane> {
        std::mem::take(&mut *self.lanes())
    }

    fn lanes(&self) -> MutexGuard<'_, Vec<Lane>> {
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many batches it holds.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.shared.iter().map(|lane| lane.outstanding()).sum()
    }

    /// How much memory the region takes that is shared with the process, in bytes. It counts as the process's as well,
    /// where that has touched it.
    #[must_use]
    pub fn shared_memory(&self) -> ByteSize {
        ByteSize(self.region.resident())
    }

    /// Takes no more, lets what is in flight finish for at most `grace`, then ends the process. Idempotent. A dropped
    /// call does not take the wish back. Whoever has the lanes goes on receiving meanwhile.
    pub async fn stop(&self, grace: Duration) {
        self.shared.iter().for_each(|lane| lane.close());
        self.wish.send_if_modified(|wish| {
            let first = *wish == Wish::Run;
            if first {
                *wish = Wish::Stop { grace };
            }
            first
        });
        self.ended().await;
    }

    /// Returns when the process has ended, however it ended. Any number of callers. Cancel safe.
    pub async fn ended(&self) -> RunnerExit {
        let mut exit = self.exit.clone();
        // The sender is gone without a word only when its task was aborted, which kills the process.
        let exit = exit.wait_for(Option::is_some).await.ok().and_then(|exit| *exit);
        exit.unwrap_or(RunnerExit::Stopped)
    }
}

impl Drop for Runner {
    fn drop(&mut self) {
        self.wish.send_replace(Wish::Kill);
    }
}

impl std::fmt::Debug for Runner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Runner").field("pid", &self.pid).finish_non_exhaustive()
    }
}

fn not_started(error: &io::Error) -> RunnerError {
    RunnerError::Start(error.to_string())
}

fn max_answer(spec: &RunnerSpec) -> ByteSize {
    spec.shared_memory.max(LEAST_ANSWER_LIMIT)
}

/// Tells the process what to load and waits for what it says, or for its death.
async fn load(spec: &RunnerSpec, channel: &mut UnixStream, process: &mut Process) -> Result<(ModelMetadata, SandboxReport), RunnerError> {
    let said = async {
        let init = Init {
            backend: spec.backend,
            directory: spec.directory.clone(),
            files: spec.files.clone(),
            onnxruntime: spec.onnxruntime.clone(),
            threads: spec.threads.max(1),
            provider: spec.provider,
            memory: spec.memory.map(|limit| limit.0),
            cpu_seconds: spec.cpu_seconds,
            max_answer_bytes: max_answer(spec).0,
        };
        // A process that died at once is noticed by its status.
        let _ = node::send(channel, &ToRunner::Init(Box::new(init))).await;
        node::receive(channel).await
    };
    match said.await {
        Ok(Some(FromRunner::Ready { metadata, sandbox })) => {
            let shown: usize = metadata.inputs.len() + metadata.outputs.len();
            tracing::debug!(runner = spec.label, pid = process.pid(), tensors = shown, "runner ready");
            Ok((*metadata, sandbox))
        }
        Ok(Some(FromRunner::Failed(StartFailure::Altered(path)))) => Err(RunnerError::Altered(path)),
        Ok(Some(FromRunner::Failed(StartFailure::Load(text)))) => Err(RunnerError::Load(check::text(&text))),
        Ok(Some(FromRunner::Failed(StartFailure::Machine(text)))) => Err(RunnerError::Start(check::text(&text))),
        said => {
            // The end of the channel: it is dead or dying, and the deadline is around us. Anything else: it shall die.
            if !matches!(&said, Ok(None)) && !matches!(&said, Err(error) if error.is_end()) {
                tracing::warn!(runner = spec.label, ?said, "runner broke the protocol while it loaded");
                process.kill();
            }
            let exit = process.ended().await;
            tracing::warn!(runner = spec.label, ?exit, "runner died while it loaded");
            Err(RunnerError::Crashed)
        }
    }
}

/// Watches the stream, on which a loaded runner has nothing more to say, and says the last word on it.
async fn listen(mut channel: UnixStream, say_stop: Arc<Notify>, end: mpsc::Sender<LaneEnd>) {
    let (mut reader, mut writer) = channel.split();
    let stop = async {
        say_stop.notified().await;
        // When it cannot be written the process is killed a moment later anyway.
        let _ = node::send(&mut writer, &ToRunner::Stop).await;
        std::future::pending::<()>().await;
    };
    let said = tokio::select! {
        said = node::receive(&mut reader) => said,
        () = stop => return,
    };
    let _ = end.try_send(match said {
        Ok(None) => LaneEnd::Closed,
        Err(error) if error.is_end() => LaneEnd::Closed,
        Ok(Some(_)) => LaneEnd::Broken("a message that nobody waits for".to_owned()),
        Err(error) => LaneEnd::Broken(error.to_string()),
    });
}
