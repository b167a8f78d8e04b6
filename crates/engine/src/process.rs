//! A foreign server as a model version: any command that serves HTTP or gRPC on a port.
//!
//! A version with a `process.toml` says which command; the operator says which programs may be commands. The server runs
//! under a supervisor with fewer walls than a runner has (a foreign program needs libraries, devices and network), listens on
//! loopback, and is asked over its own protocol.
//!
//! Invariants: no program runs that is not in the operator's list, and none before the version's files have their digests; a
//! request goes only to the port on which the server itself listens; every wait has a deadline and every answer a bound; when a
//! [`ProcessServer`] is gone, so is every process of its server. Starting again after a death is left to `serving`.

mod client;
mod command;
mod content;
mod flight;
mod guard;
mod health;
mod manifest;
mod protocol;
mod start;
mod stream;
mod supervisor;
mod tree;
mod watch;
mod wire;

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use plinth_runtime::{Clock, TaskGroup, World};
use plinth_types::{ByteSize, Parameters, Tensor, TraceContext};
use tokio::sync::{Notify, watch as channel};

use crate::check;
use crate::spec::{FileSpec, ModelMetadata, RunnerError, RunnerExit, SandboxReport};
use client::CallError;
use flight::{Flight, Flights};
use health::{Health, State};
use protocol::{Call, Failure, Speaker};
pub use stream::TextStream;
pub(crate) use supervisor::{is_wished as is_supervisor, main as supervise};
use watch::Wish;

/// An answer may be as large as the queue of inputs, and at least this.
const LEAST_ANSWER_LIMIT: ByteSize = ByteSize::mib(256);
/// How long after a broken connection it is awaited whether the server has died of it.
const LAST_BREATH: Duration = Duration::from_millis(500);

/// Everything that is needed to start a server.
#[derive(Debug, Clone)]
pub struct ProcessSpec {
    /// The binary that can be a supervisor: the one whose hidden command `runner` calls [`runner_main`](crate::runner_main).
    pub supervisor: PathBuf,
    /// The programs that may be executed, by absolute paths; empty: none.
    pub program_allow: Vec<PathBuf>,
    /// For logs and for `ps`: `tenant/model/version`.
    pub label: String,
    /// The model's name here; the placeholder `{name}`, and its name at the server unless `process.toml` has another.
    pub name: String,
    /// The directory with the version's files, and nothing else; the server's working directory.
    pub directory: PathBuf,
    /// The files in it.
    pub files: Vec<FileSpec>,
    /// An existing directory in which the server gets a directory of its own to write to, removed when it has ended.
    pub scratch: PathBuf,
    /// What the server must not read, such as the node's data directory.
    pub hidden: Vec<PathBuf>,
    /// The most memory of all its processes together; `process.toml` may ask for less.
    pub memory: Option<ByteSize>,
    /// The most requests that wait for or are in execution; above it the answer is [`RunnerError::QueueFull`].
    pub max_queue_requests: usize,
    /// The most bytes of inputs that wait or are in execution.
    pub max_queue_bytes: ByteSize,
    /// How long starting may take; `process.toml` may ask for less.
    pub load_timeout: Duration,
    /// How long one execution may take; past it the request fails, and after several the server counts as hung.
    pub execution_timeout: Duration,
}

/// What tests take from a server's machine.
#[derive(Debug, Clone)]
pub struct Machine {
    /// The ports that are tried first, instead of free ones.
    pub ports: Vec<u16>,
    /// Whether a process namespace is tried.
    pub namespaces: bool,
}

/// What an inference brings besides its tensors.
#[derive(Debug, Clone, Copy)]
pub struct Occasion<'a> {
    /// The parameters that no protocol knows.
    pub parameters: &'a Parameters,
    /// How long the caller waits, from now.
    pub deadline: Duration,
    /// Where the request stands in its trace, when it is recorded.
    pub trace: Option<TraceContext>,
}

/// A running server that answers for one model version. Dropping it kills every process of the server.
pub struct ProcessServer {
    shared: Arc<Shared>,
    metadata: ModelMetadata,
    sandbox: SandboxReport,
    pid: u32,
    concurrency: usize,
    wish: channel::Sender<Wish>,
    exit: channel::Receiver<Option<RunnerExit>>,
}

/// What calls and the watch have in common.
struct Shared {
    speaker: Speaker,
    flights: Arc<Flights>,
    health: Mutex<Health>,
    healthy: AtomicBool,
    /// Somebody found the server hung.
    hung: Notify,
    clock: Arc<dyn Clock>,
    execution_timeout: Duration,
    max_answer: u64,
    /// Paths of this node that may stand in a server's texts, and what to show instead.
    private: Vec<(String, &'static str)>,
}

impl ProcessServer {
    /// The file by which a version says that it is for this backend.
    pub const MODEL_FILE: &'static str = manifest::Manifest::FILE;

    /// Starts the server and returns when it says that its model can answer. Cancel safe: a dropped call leaves no process
    /// behind.
    ///
    /// # Errors
    /// [`RunnerError::Load`] when `process.toml`, the command or the server's description of its model is not acceptable,
    /// [`RunnerError::Altered`], [`RunnerError::Start`], [`RunnerError::Crashed`], [`RunnerError::Deadline`].
    pub async fn start(spec: ProcessSpec, world: &World, tasks: &TaskGroup) -> Result<Self, RunnerError> {
        Box::pin(start::start(spec, world, tasks, Machine { ports: Vec::new(), namespaces: true })).await
    }

    /// As [`ProcessServer::start`], on a machine that is less kind.
    ///
    /// # Errors
    /// As there.
    #[cfg(feature = "testing")]
    pub async fn start_on(spec: ProcessSpec, world: &World, tasks: &TaskGroup, machine: Machine) -> Result<Self, RunnerError> {
        Box::pin(start::start(spec, world, tasks, machine)).await
    }

    /// What the model takes and gives.
    #[must_use]
    pub const fn metadata(&self) -> &ModelMetadata {
        &self.metadata
    }

    /// Which walls stand around the server.
    #[must_use]
    pub const fn sandbox(&self) -> &SandboxReport {
        &self.sandbox
    }

    /// The process id of the server's first process.
    #[must_use]
    pub const fn pid(&self) -> u32 {
        self.pid
    }

    /// How many requests it gets at a time.
    #[must_use]
    pub const fn concurrency(&self) -> usize {
        self.concurrency
    }

    /// How many requests it holds.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.shared.flights.len()
    }

    /// Whether it has passed its last checks. While it has not, requests fail at once.
    #[must_use]
    pub fn healthy(&self) -> bool {
        self.shared.healthy.load(Ordering::Relaxed)
    }

    /// Asks the server once. `outputs` empty means all. `deadline` counts from now. Cancel safe: a dropped call closes its
    /// connection to the server, or resets its stream.
    ///
    /// # Errors
    /// All but [`RunnerError::Load`], [`RunnerError::Altered`], [`RunnerError::Start`].
    pub async fn infer(
        &self,
        inputs: Vec<Tensor>,
        outputs: Vec<String>,
        parameters: &Parameters,
        deadline: Duration,
    ) -> Result<Vec<Tensor>, RunnerError> {
        self.infer_for(inputs, outputs, Occasion { parameters, deadline, trace: None }).await
    }

    /// The same for a request that may be recorded: the server is told where it stands in its trace.
    ///
    /// # Errors
    /// As [`ProcessServer::infer`].
    pub async fn infer_for(&self, inputs: Vec<Tensor>, outputs: Vec<String>, occasion: Occasion<'_>) -> Result<Vec<Tensor>, RunnerError> {
        let Occasion { parameters, deadline, trace } = occasion;
        let mut flight = self.admit(&inputs, &outputs)?;
        let asked = async {
            flight.begin().await;
            // A queue's wait is the caller's deadline to keep; an execution's, also ours.
            let limit = self.shared.execution_timeout.min(deadline);
            let call = Call { trace, ..self.call(inputs, &outputs, parameters, limit) };
            match tokio::time::timeout(self.shared.execution_timeout, self.shared.speaker.infer(call)).await {
                Ok(Ok(answer)) => {
                    self.shared.answered();
                    Ok(answer)
                }
                Ok(Err(failure)) => Err(self.failed(failure).await),
                Err(_) => Err(self.shared.overdue()),
            }
        };
        let outcome = tokio::select! {
            biased;
            outcome = tokio::time::timeout(deadline, Box::pin(asked)) => outcome,
            () = self.gone() => Ok(Err(RunnerError::Crashed)),
        };
        outcome.unwrap_or_else(|_| Err(RunnerError::Deadline(if flight.began() { "running" } else { "queued" })))
    }

    /// Asks the server for an answer in pieces of text, which come as it makes them. Only servers with the `openai` protocol
    /// do that. `deadline` is for all of it. Dropping the stream closes its connection to the server.
    ///
    /// # Errors
    /// As [`ProcessServer::infer`], for what goes wrong before the first piece.
    pub async fn infer_stream(&self, inputs: Vec<Tensor>, parameters: &Parameters, deadline: Duration) -> Result<TextStream, RunnerError> {
        let mut flight = self.admit(&inputs, &[])?;
        let until = tokio::time::Instant::now() + deadline;
        let opened = async {
            flight.begin().await;
            let call = self.call(inputs, &[], parameters, deadline);
            match tokio::time::timeout(self.shared.execution_timeout, self.shared.speaker.stream(call)).await {
                Ok(Ok(opened)) => Ok(opened),
                Ok(Err(failure)) => Err(self.failed(failure).await),
                Err(_) => Err(self.shared.overdue()),
            }
        };
        let outcome = tokio::select! {
            biased;
            outcome = tokio::time::timeout(deadline, Box::pin(opened)) => outcome,
            () = self.gone() => Ok(Err(RunnerError::Crashed)),
        };
        let opened = outcome.unwrap_or_else(|_| Err(RunnerError::Deadline(if flight.began() { "running" } else { "queued" })))?;
        Ok(TextStream::new(opened, flight, self.shared.clone(), self.exit.clone(), until))
    }

    fn admit(&self, inputs: &[Tensor], outputs: &[String]) -> Result<Flight, RunnerError> {
        check::request(&self.metadata, inputs, outputs).map_err(RunnerError::Input)?;
        if !self.healthy() {
            return Err(RunnerError::Unhealthy);
        }
        let bytes = inputs.iter().fold(0u64, |sum, tensor| sum.saturating_add(tensor.data().len() as u64));
        self.shared.flights.admit(bytes)
    }

    fn call<'a>(&'a self, inputs: Vec<Tensor>, outputs: &'a [String], parameters: &'a Parameters, left: Duration) -> Call<'a> {
        Call { inputs, outputs, parameters, metadata: &self.metadata, max_answer: self.shared.max_answer, left, trace: None }
    }

    async fn failed(&self, failure: Failure) -> RunnerError {
        let died = tokio::time::timeout(LAST_BREATH, self.ended());
        self.shared.error(failure, died).await
    }

    async fn gone(&self) {
        self.ended().await;
    }

    /// Takes no more, lets what is in flight finish for at most `grace`, then ends the server, first by its stop signal.
    /// Idempotent. A dropped call does not take the wish back.
    pub async fn stop(&self, grace: Duration) {
        self.shared.flights.close(RunnerError::Stopping);
        self.wish.send_if_modified(|wish| {
            let first = *wish == Wish::Run;
            if first {
                *wish = Wish::Stop { grace };
            }
            first
        });
        self.ended().await;
    }

    /// Returns when the server and all its processes have ended, however they ended. Any number of callers. Cancel safe.
    pub async fn ended(&self) -> RunnerExit {
        let mut exit = self.exit.clone();
        // The sender is gone without a word only when its task was aborted, which kills the server.
        let exit = exit.wait_for(Option::is_some).await.ok().and_then(|exit| *exit);
        exit.unwrap_or(RunnerExit::Stopped)
    }
}

impl Drop for ProcessServer {
    fn drop(&mut self) {
        self.wish.send_replace(Wish::Kill);
    }
}

impl std::fmt::Debug for ProcessServer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ProcessServer").field("pid", &self.pid).finish_non_exhaustive()
    }
}

impl Shared {
    fn judge(&self, event: impl FnOnce(&mut Health) -> State) -> State {
        let state = event(&mut self.health.lock().unwrap_or_else(PoisonError::into_inner));
        self.healthy.store(state == State::Healthy, Ordering::Relaxed);
        if state == State::Hung {
            self.hung.notify_one();
        }
        state
    }

    fn answered(&self) {
        let now = self.clock.monotonic();
        self.judge(|health| health.answered(now));
    }

    fn overdue(&self) -> RunnerError {
        self.judge(Health::overdue);
        RunnerError::Deadline("running")
    }

    /// What a failure is to the caller. `died` returns when the server has ended, or is not going to.
    async fn error<T, E>(&self, failure: Failure, died: impl Future<Output = Result<T, E>>) -> RunnerError {
        match failure {
            Failure::Said(error) => {
                // Also a refusal is an answer; nonsense is none.
                if !matches!(error, RunnerError::BrokeProtocol(_)) {
                    self.answered();
                }
                self.clean(error)
            }
            Failure::Call(error @ (CallError::TooLong(_) | CallError::Protocol(_))) => {
                RunnerError::BrokeProtocol(check::text(&error.to_string()))
            }
            Failure::Call(error) => match died.await {
                Ok(_) => RunnerError::Crashed,
                Err(_) => RunnerError::Execution(format!("its server broke off: {error}")),
            },
        }
    }

    /// Takes this node's paths out of a server's text.
    fn clean(&self, error: RunnerError) -> RunnerError {
        let clean = |text: String| self.private.iter().fold(text, |text, (path, shown)| text.replace(path, shown));
        match error {
            RunnerError::Input(text) => RunnerError::Input(clean(text)),
            RunnerError::Execution(text) => RunnerError::Execution(clean(text)),
            other => other,
        }
    }
}
