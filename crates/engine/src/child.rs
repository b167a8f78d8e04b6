//! The process behind `plinth runner`: what a runner does from its first instruction to its last.
//!
//! The order is the point: be told what to load; map the engine's library, which needs the machine's files; take the
//! model's files into memory and compare their digests; close the sandbox; only then let the backend parse them.
//! Invariant: no byte of a model is parsed before it was verified and before the walls stand.
//!
//! Plain threads, no runtime: one reads the channel and watches for the node's end, one executes.

mod execute;
mod files;
mod leave;
mod queue;

use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use plinth_runtime::{Clock, SystemClock};

use crate::backend;
use crate::channel::CHANNEL_FD;
use crate::channel::child::{Answers, Incoming};
use crate::channel::frame::{self, FrameError};
use crate::channel::message::{Init, Refusal, StartFailure, ToRunner};
use crate::sandbox::Sandbox;
use crate::sandbox::limits::{Baseline, Limits};
use queue::{Job, Queue};

/// The status of a process that was not started by a node (`EX_USAGE`).
const NOT_A_RUNNER: u8 = 64;
/// The status of a process whose node spoke nonsense (`EX_PROTOCOL`).
const PROTOCOL: u8 = 76;

const NO_MEMORY: &str = "the inputs do not fit into the memory that the model may use";

/// Runs this process as a runner until the node ends it. The hidden command [`RUNNER_COMMAND`](crate::RUNNER_COMMAND)
/// calls it before anything else: no thread may be running yet, and nothing may have been read from standard input.
#[must_use]
pub fn runner_main() -> ExitCode {
    let socket = match take_channel() {
        Ok(socket) => socket,
        Err(error) => {
            complain(&format!("this command is for the node, which starts it with a channel: {error}"));
            return ExitCode::from(NOT_A_RUNNER);
        }
    };
    match serve(socket) {
        Ok(status) => leave::leave(status),
        Err(error) => {
            complain(&format!("the channel to the node failed: {error}"));
            leave::leave(PROTOCOL)
        }
    }
}

/// Lines on standard error reach the node's log.
fn complain(text: &str) {
    let _ = writeln!(io::stderr(), "{text}");
}

/// The channel is standard input; it moves to where nothing takes it for that.
fn take_channel() -> io::Result<UnixStream> {
    let stdin = io::stdin();
    rustix::net::sockopt::socket_type(&stdin)?;
    let socket = rustix::io::fcntl_dupfd_cloexec(stdin.as_fd(), CHANNEL_FD)?;
    if socket.as_raw_fd() != CHANNEL_FD {
        return Err(io::Error::other("other files are open"));
    }
    let null = OwnedFd::from(std::fs::File::open("/dev/null")?);
    rustix::stdio::dup2_stdin(null)?;
    Ok(UnixStream::from(socket))
}

fn serve(socket: UnixStream) -> Result<u8, FrameError> {
    let mut incoming = Incoming::new(socket.try_clone()?);
    let init = match incoming.receive(0)? {
        Some((ToRunner::Init(init), _)) => *init,
        Some(_) => return Err(FrameError::Unexpected),
        None => return Ok(0),
    };
    let answers = Arc::new(Answers::new(socket, init.max_answer_bytes));
    let (loader, sandbox) = match prepare(&init) {
        Ok(prepared) => prepared,
        Err(failure) => {
            answers.failed(failure)?;
            return Ok(1);
        }
    };
    let queue = Arc::new(Queue::new(init.max_queue_requests, init.max_queue_bytes));
    execute::spawn(execute::Executor { loader, sandbox, queue: queue.clone(), answers: answers.clone() })?;
    // When this returns the process ends, whatever the other threads do: they hold nothing that must be saved.
    read(&mut incoming, &init, &queue, &answers)
}

/// Everything that needs the machine, and then the walls against it.
fn prepare(init: &Init) -> Result<(backend::Loader, crate::SandboxReport), StartFailure> {
    let sandbox = Sandbox::begin();
    let engine = backend::Engine::open(init.backend, init.onnxruntime.as_deref()).map_err(StartFailure::Machine)?;
    let baseline = Baseline::now().map_err(|error| StartFailure::Machine(error.to_string()))?;
    let files = files::read(init)?;
    let limits = Limits { memory: init.memory, cpu_seconds: init.cpu_seconds, threads: init.threads, baseline };
    let report = sandbox.close(&limits);
    Ok((backend::Loader { engine, request: crate::LoadRequest { files, threads: init.threads } }, report))
}

/// Reads the channel until the node closes it or says stop.
fn read(incoming: &mut Incoming, init: &Init, queue: &Queue, answers: &Answers) -> Result<u8, FrameError> {
    while let Some((message, payload)) = incoming.receive(init.max_queue_bytes)? {
        match message {
            ToRunner::Infer(infer) => match payload {
                Some(payload) => {
                    let expires = SystemClock.monotonic().saturating_add(Duration::from_micros(infer.deadline_micros));
                    let inputs = frame::tensors(infer.inputs, &payload)?;
                    let job = Job { id: infer.id, inputs, outputs: infer.outputs, expires, bytes: payload.len() as u64 };
                    if !queue.push(job) {
                        return Err(FrameError::Unexpected);
                    }
                }
                // The limit is the model's; a caller with a large input must not be able to end the process with it.
                None => answers.refuse(infer.id, Refusal::Execution(NO_MEMORY.to_owned()))?,
            },
            ToRunner::Cancel { id } => {
                if queue.remove(id) {
                    answers.refuse(id, Refusal::Cancelled)?;
                }
            }
            ToRunner::Stop => break,
            ToRunner::Init(_) => return Err(FrameError::Unexpected),
        }
    }
    Ok(0)
}
