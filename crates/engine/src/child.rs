//! The process behind `plinth runner`: what a runner does from its first instruction to its last.
//!
//! The order is the point: be told what to load; map the engine's library, which needs the machine's files; take the
//! model's files into memory and compare their digests; close the sandbox; only then let the backend parse them.
//! Invariants: no byte of a model is parsed before it was verified and before the walls stand; whatever happens before
//! the model is loaded happens at low priority, and what executes does not.
//!
//! Plain threads, no runtime: this one reads the channel and watches for the node's end, one loads and ends, and one for
//! each lane executes.

mod execute;
mod files;
mod lane;
mod leave;
mod threads;

use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::sync::Arc;

use rustix::thread::CpuSet;

use crate::backend::{self, Backend, BackendError, Spawner};
use crate::channel::frame::FrameError;
use crate::channel::message::{FromRunner, Init, StartFailure, ToRunner};
use crate::channel::{CHANNEL_FD, child as channel, handover};
use crate::placement::{self, Placement};
use crate::process;
use crate::region::{Mapping, Whole};
use crate::sandbox::Sandbox;
use crate::sandbox::limits::{Baseline, Limits};
use crate::spec::SandboxReport;

/// The status of a process that was not started by a node (`EX_USAGE`).
const NOT_A_RUNNER: u8 = 64;
/// The status when the node cannot be answered (`EX_IOERR`).
const NO_CHANNEL: u8 = 74;
/// The status of a process whose node spoke nonsense (`EX_PROTOCOL`).
const PROTOCOL: u8 = 76;

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
    if process::is_supervisor() {
        leave::leave(process::supervise(socket));
    }
    match serve(&socket) {
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

fn serve(socket: &UnixStream) -> Result<u8, FrameError> {
    let mut handed = handover::take(socket)?.into_iter();
    // The mapping stays; the descriptor, by which memory could be taken away, goes.
    let Some(region) = handed.next() else { return Ok(0) };
    let region = Mapping::whole(&region)?.forever();
    let lanes: Vec<OwnedFd> = handed.collect();
    let init = match channel::receive(socket)? {
        Some(ToRunner::Init(init)) => *init,
        Some(_) => return Err(FrameError::Unexpected),
        None => return Ok(0),
    };
    let prepared = match prepare(&init, lanes.len()) {
        Ok(prepared) => prepared,
        Err(failure) => {
            channel::failed(socket, failure)?;
            return Ok(1);
        }
    };
    let loading = Loading { prepared, lanes, region, socket: socket.try_clone()?, max_answer: init.max_answer_bytes };
    std::thread::Builder::new().name("load".to_owned()).stack_size(execute::STACK).spawn(move || {
        threads::step_back();
        loading.run();
    })?;
    // When this returns the process ends, whatever the other threads do: they hold nothing that must be saved.
    match channel::receive(socket)? {
        Some(ToRunner::Stop) | None => Ok(0),
        Some(ToRunner::Init(_)) => Err(FrameError::Unexpected),
    }
}

struct Prepared {
    loader: backend::Loader,
    sandbox: SandboxReport,
    placement: Placement,
    spawner: Spawner,
}

/// Everything that needs the machine, and then the walls against it.
fn prepare(init: &Init, instances: usize) -> Result<Prepared, StartFailure> {
    let machine = |error: io::Error| StartFailure::Machine(error.to_string());
    let sandbox = Sandbox::begin();
    let (engine, baseline, files) = threads::in_the_background(|| {
        let engine = backend::Engine::open(init.backend, init.onnxruntime.as_deref(), init.provider).map_err(StartFailure::Machine)?;
        let baseline = Baseline::now().map_err(machine)?;
        Ok((engine, baseline, files::read(init)?))
    })
    .map_err(machine)??;
    let instances = u16::try_from(instances.max(1)).unwrap_or(u16::MAX);
    let placement = placement::here(instances, init.threads).map_err(machine)?;
    let limits = Limits {
        memory: init.memory,
        cpu_seconds: init.cpu_seconds,
        threads: u64::from(init.threads) + u64::from(instances),
        processors: placement.all(),
        baseline,
    };
    let report = sandbox.close(&limits, init.provider);
    let spawner = threads::spawner().map_err(machine)?;
    let request = crate::LoadRequest { files, threads: init.threads, provider: init.provider, spawner: Some(spawner.clone()) };
    Ok(Prepared { loader: backend::Loader { engine, request }, sandbox: report, placement, spawner })
}

/// Makes a model of the files, and lets it execute.
struct Loading {
    prepared: Prepared,
    lanes: Vec<OwnedFd>,
    region: Whole,
    socket: UnixStream,
    max_answer: u64,
}

impl Loading {
    fn run(self) {
        let Self { prepared: Prepared { loader, sandbox, placement, spawner }, lanes, region, socket, max_answer } = self;
        let backend: Arc<dyn Backend> = match catch_unwind(AssertUnwindSafe(|| loader.load())) {
            Ok(Ok(backend)) => backend.into(),
            Ok(Err(BackendError::Load(text) | BackendError::Input(text) | BackendError::Execution(text))) => fail(&socket, text),
            // The panic's text is on standard error, in the log; it is not for users.
            Err(_) => fail(&socket, "the backend gave up on the model; the node's log says where".to_owned()),
        };
        for (instance, lane) in lanes.into_iter().enumerate() {
            let executor = execute::Executor {
                lane: lane::Lane::new(lane, region),
                backend: backend.clone(),
                max_answer,
                processors: placement.of(instance).map(set),
            };
            if let Err(error) = spawner(Box::new(move || executor.run())) {
                fail(&socket, format!("no thread for an instance could be started: {error}"));
            }
        }
        let metadata = Box::new(backend.metadata().clone());
        if let Err(error) = channel::send(&socket, &FromRunner::Ready { metadata, sandbox }) {
            fail(&socket, format!("the model's inputs and outputs cannot be described: {error}"));
        }
    }
}

fn set(processors: &[usize]) -> CpuSet {
    let mut set = CpuSet::new();
    processors.iter().filter(|n| **n < CpuSet::MAX_CPU).for_each(|n| set.set(*n));
    set
}

fn fail(socket: &UnixStream, text: String) -> ! {
    let sent = channel::failed(socket, StartFailure::Load(text));
    leave::leave(if sent.is_ok() { 1 } else { NO_CHANNEL })
}
