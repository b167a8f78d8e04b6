//! The node's side of a runner: start, ask, stop, and know how it ended.
//!
//! Invariants: a request is answered once, by the deadline, whatever the process does; a process never outlives its
//! [`Runner`], the group of its tasks, or the node. Starting again after a crash is left to `serving`.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use plinth_runtime::{CancellationToken, OnEnd, TaskGroup, World};
use plinth_types::{ByteSize, Tensor};
use tokio::io::BufReader;
use tokio::net::UnixStream;
use tokio::net::unix::OwnedReadHalf;
use tokio::sync::{mpsc, oneshot, watch};

use crate::channel::message::{FromRunner, Init, StartFailure, ToRunner};
use crate::channel::node::{self, NodeEnd};
use crate::channel::pending::Pending;
use crate::check;
use crate::spec::{ModelMetadata, RunnerError, RunnerExit, RunnerSpec, SandboxReport};

use lifecycle::{ChannelEnd, Watch, Wish};
use process::{Launched, Process, Program};

mod lifecycle;
mod output;
pub(crate) mod process;

/// An answer may be as large as the queue of inputs, and at least this.
const LEAST_ANSWER_LIMIT: ByteSize = ByteSize::mib(256);
/// The reader's buffer: small answers take one call to the kernel.
const READ_BUFFER: usize = 64 << 10;
/// Frames that may wait for the writer, at most; the queue's own limit is lower as a rule.
const MAX_FRAMES: usize = 1 << 16;

/// A runner process with a loaded model. Dropping it kills the process.
pub struct Runner {
    metadata: Arc<ModelMetadata>,
    sandbox: SandboxReport,
    pid: u32,
    end: Arc<NodeEnd>,
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
        let program = Program { path: spec.program.clone(), label: spec.label.clone() };
        let Launched { mut process, channel, output } = process::launch(program).await.map_err(|e| not_started(&e))?;
        let forward = output::forward(output, spec.label.clone(), world.clock.clone());
        tasks.spawn("runner-output", OnEnd::Ignore, forward);
        channel.set_nonblocking(true).map_err(|e| not_started(&e))?;
        let (reader, mut writer) = UnixStream::from_std(channel).map_err(|e| not_started(&e))?.into_split();
        let mut reader = BufReader::with_capacity(READ_BUFFER, reader);
        let loading = load(&spec, &mut reader, &mut writer, &mut process);
        let (metadata, sandbox) =
            tokio::time::timeout(spec.load_timeout, loading).await.map_err(|_| RunnerError::Deadline("loading"))??;
        let metadata = Arc::new(metadata);

        let pending = Arc::new(Pending::new(world.clock.clone(), spec.max_queue_requests, spec.max_queue_bytes.0));
        // Each request is at most two frames, itself and its cancellation.
        let frames = spec.max_queue_requests.saturating_mul(2).saturating_add(2).min(MAX_FRAMES);
        let (outgoing, queue) = mpsc::channel(frames);
        let end = Arc::new(NodeEnd::new(pending.clone(), outgoing));
        let (channel_end, channel) = oneshot::channel();
        let ((wish, wishes), (publish, exit)) = (watch::channel(Wish::Run), watch::channel(None));
        let pid = process.pid();
        let over = CancellationToken::new();
        let write = over.clone().run_until_cancelled_owned(node::write_loop(writer, queue));
        tasks.spawn("runner-writer", OnEnd::Ignore, async move {
            let _ended_or_over = write.await;
        });
        tasks.spawn("runner-reader", OnEnd::Ignore, read(reader, pending, metadata.clone(), max_answer(&spec).0, channel_end));
        let watch = Watch {
            label: spec.label,
            process,
            end: end.clone(),
            execution_timeout: spec.execution_timeout,
            channel,
            wish: wishes,
            cancelled: tasks.cancelled().clone(),
            exit: publish,
            over,
        };
        tasks.spawn("runner-watch", OnEnd::Ignore, watch.run());
        Ok(Self { metadata, sandbox, pid, end, wish, exit })
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

    /// How many requests it holds.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.end.pending().len()
    }

    /// Executes the model once. `outputs` empty means all. `deadline` counts from now. Cancel safe: a dropped call is
    /// dropped in the runner too if it has not begun.
    ///
    /// # Errors
    /// All but [`RunnerError::Load`], [`RunnerError::Altered`], [`RunnerError::Start`].
    pub async fn infer(&self, inputs: Vec<Tensor>, outputs: Vec<String>, deadline: Duration) -> Result<Vec<Tensor>, RunnerError> {
        check::request(&self.metadata, &inputs, &outputs).map_err(RunnerError::Input)?;
        let mut ticket = self.end.submit(&inputs, outputs, deadline)?;
        // The channel holds what it needs of them.
        drop(inputs);
        match tokio::time::timeout(deadline, ticket.outcome()).await {
            Ok(outcome) => outcome,
            Err(_) => Err(RunnerError::Deadline(ticket.place())),
        }
    }

    /// Takes no more, lets what is in flight finish for at most `grace`, then ends the process. Idempotent. A dropped
    /// call does not take the wish back.
    pub async fn stop(&self, grace: Duration) {
        self.end.pending().refuse(RunnerError::Stopping);
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
    spec.max_queue_bytes.max(LEAST_ANSWER_LIMIT)
}

/// Tells the process what to load and waits for what it says, or for its death.
async fn load(
    spec: &RunnerSpec,
    reader: &mut BufReader<OwnedReadHalf>,
    writer: &mut tokio::net::unix::OwnedWriteHalf,
    process: &mut Process,
) -> Result<(ModelMetadata, SandboxReport), RunnerError> {
    let said = async {
        let init = Init {
            backend: spec.backend,
            directory: spec.directory.clone(),
            files: spec.files.clone(),
            onnxruntime: spec.onnxruntime.clone(),
            threads: spec.threads.max(1),
            memory: spec.memory.map(|limit| limit.0),
            cpu_seconds: spec.cpu_seconds,
            max_queue_requests: spec.max_queue_requests as u64,
            max_queue_bytes: spec.max_queue_bytes.0,
            max_answer_bytes: max_answer(spec).0,
        };
        // A process that died at once is noticed by its status.
        let _ = node::send(writer, &ToRunner::Init(Box::new(init))).await;
        node::receive(reader, 0).await
    };
    match said.await {
        Ok(Some((FromRunner::Ready { metadata, sandbox }, _))) => {
            let shown: usize = metadata.inputs.len() + metadata.outputs.len();
            tracing::debug!(runner = spec.label, pid = process.pid(), tensors = shown, "runner ready");
            Ok((*metadata, sandbox))
        }
        Ok(Some((FromRunner::Failed(StartFailure::Altered(path)), _))) => Err(RunnerError::Altered(path)),
        Ok(Some((FromRunner::Failed(StartFailure::Load(text)), _))) => Err(RunnerError::Load(check::text(&text))),
        Ok(Some((FromRunner::Failed(StartFailure::Machine(text)), _))) => Err(RunnerError::Start(check::text(&text))),
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

async fn read(
    reader: BufReader<OwnedReadHalf>,
    pending: Arc<Pending>,
    metadata: Arc<ModelMetadata>,
    max_answer: u64,
    end: oneshot::Sender<ChannelEnd>,
) {
    let ended = node::read_loop(reader, &pending, &metadata, max_answer).await;
    let _ = end.send(match ended {
        Ok(()) => ChannelEnd::Closed,
        // A process that dies inside a frame, or is killed with unread bytes in its socket.
        Err(node_error) if node_error.is_end() => ChannelEnd::Closed,
        Err(error) => ChannelEnd::Broken(error.to_string()),
    });
}
