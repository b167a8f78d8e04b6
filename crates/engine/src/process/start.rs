//! From a version's files to a server that answers: checked, started, ready, described.
//!
//! Invariant: nothing is asked of a port before it is known that the server itself listens on it. Between choosing a free port
//! and the server's listening somebody else may take it; that is found out, and another port is tried.

use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use plinth_runtime::{OnEnd, TaskGroup, World};
use plinth_types::ByteSize;
use tokio::sync::{Notify, watch as channel};

use super::client::Http;
use super::command::{self, Command, Places};
use super::flight::Flights;
use super::guard::{Asker, Guard};
use super::health::Health;
use super::manifest::{Manifest, Port, Protocol};
use super::protocol::Speaker;
use super::tree::{self, Listening};
use super::watch::{Watch, Wish};
use super::wire::Launch;
use super::{LEAST_ANSWER_LIMIT, Machine, ProcessServer, ProcessSpec, Shared, content};
use crate::spec::{RunnerError, SandboxReport};

/// So many free ports are tried.
const ATTEMPTS: usize = 5;
/// The pause between two questions whether a server is ready: short at first, for servers that start fast.
const FIRST_PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_millis(500);

/// A port on which nobody listens now.
fn free_port() -> io::Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

fn is_taken(port: u16) -> bool {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_err_and(|error| error.kind() == io::ErrorKind::AddrInUse)
}

/// What an attempt came to.
enum Attempt {
    Ready(Box<(Guard, Speaker, SandboxReport)>),
    /// Somebody else has the port.
    PortTaken(u16),
}

/// What all attempts have in common.
struct Starter<'a> {
    spec: &'a ProcessSpec,
    manifest: &'a Manifest,
    program: PathBuf,
    temporary: &'a Path,
    memory: Option<ByteSize>,
    asker: Asker<'a>,
    token: String,
    machine: Machine,
}

pub(super) async fn start(spec: ProcessSpec, world: &World, tasks: &TaskGroup, machine: Machine) -> Result<ProcessServer, RunnerError> {
    let timeout = spec.load_timeout;
    let begun = world.clock.monotonic();
    let manifest = tokio::time::timeout(timeout, read(&spec)).await.map_err(|_| RunnerError::Deadline("loading"))??;
    let left = timeout.saturating_sub(world.clock.monotonic().saturating_sub(begun));
    let left = manifest.start_timeout.map_or(left, |wished| wished.min(left));
    let program = command::allowed(manifest.command.first().map_or("", String::as_str), &spec.program_allow).map_err(RunnerError::Load)?;
    let temporary = Temporary::make(&spec.scratch, world).map_err(|error| RunnerError::Start(error.to_string()))?;
    let memory = match (manifest.memory, spec.memory) {
        (Some(wished), Some(allowed)) => Some(wished.min(allowed)),
        (wished, allowed) => wished.or(allowed),
    };
    let starter = Starter {
        spec: &spec,
        manifest: &manifest,
        program,
        temporary: &temporary.0,
        memory,
        asker: Asker { program: spec.supervisor.clone(), label: &spec.label, tasks, clock: &world.clock },
        token: format!("{:016x}{:016x}", world.random.next_u64(), world.random.next_u64()),
        machine,
    };
    let ready = starter.on_some_port();
    let (guard, mut speaker, sandbox) = tokio::time::timeout(left, ready).await.map_err(|_| RunnerError::Deadline("loading"))??;
    let described = tokio::time::timeout(left, speaker.metadata(&manifest)).await;
    let metadata = described.map_err(|_| RunnerError::Deadline("loading"))??;

    let concurrency = manifest.concurrency as usize;
    let flights = Flights::new(concurrency, spec.max_queue_requests, spec.max_queue_bytes.0);
    let health = Health::new(manifest.health.failures, spec.execution_timeout, world.clock.monotonic());
    let private =
        [(&spec.directory, "{model_dir}"), (&temporary.0, "{tmp}")].map(|(path, shown)| (path.to_string_lossy().into_owned(), shown));
    let shared = Arc::new(Shared {
        speaker,
        flights,
        health: Mutex::new(health),
        healthy: AtomicBool::new(true),
        hung: Notify::new(),
        clock: world.clock.clone(),
        execution_timeout: spec.execution_timeout,
        max_answer: spec.max_queue_bytes.max(LEAST_ANSWER_LIMIT).0,
        private: private.into(),
    });
    let pid = guard.server_pid();
    tracing::debug!(server = spec.label, pid, "server ready");
    let ((wish, wishes), (publish, exit)) = (channel::channel(Wish::Run), channel::channel(None));
    let watch = Watch {
        label: spec.label,
        guard,
        shared: shared.clone(),
        checks: manifest.health,
        stop_signal: manifest.stop_signal,
        stop_grace: manifest.stop_grace,
        memory,
        wish: wishes,
        cancelled: tasks.cancelled().clone(),
        exit: publish,
        _temporary: temporary,
    };
    tasks.spawn("process-watch", OnEnd::Ignore, watch.run());
    Ok(ProcessServer { shared, metadata, sandbox, pid, concurrency, wish, exit })
}

async fn read(spec: &ProcessSpec) -> Result<Manifest, RunnerError> {
    let (directory, files) = (spec.directory.clone(), spec.files.clone());
    let verified = tokio::task::spawn_blocking(move || content::verify(&directory, &files)).await;
    let bytes = verified.map_err(|error| RunnerError::Start(error.to_string()))??;
    Manifest::parse(&bytes).map_err(RunnerError::Load)
}

impl Starter<'_> {
    async fn on_some_port(&self) -> Result<(Guard, Speaker, SandboxReport), RunnerError> {
        let mut ports = self.machine.ports.iter();
        for _ in 0..ATTEMPTS {
            let port = match self.manifest.port {
                Port::Fixed(port) => port,
                Port::Auto => {
                    ports.next().map_or_else(free_port, |port| Ok(*port)).map_err(|error| RunnerError::Start(error.to_string()))?
                }
            };
            match self.on_port(port).await? {
                Attempt::Ready(ready) => {
                    tracing::debug!(server = self.spec.label, port, "server listens");
                    return Ok(*ready);
                }
                Attempt::PortTaken(port) if self.manifest.port == Port::Auto => {
                    tracing::info!(server = self.spec.label, port, "somebody else took the port, another is tried");
                }
                Attempt::PortTaken(port) => {
                    return Err(RunnerError::Load(format!("the port {port} of process.toml is in use; \"auto\" finds a free one")));
                }
            }
        }
        Err(RunnerError::Start(format!("each of {ATTEMPTS} free ports was taken by somebody else")))
    }

    async fn on_port(&self, port: u16) -> Result<Attempt, RunnerError> {
        let (spec, manifest) = (self.spec, self.manifest);
        let places = Places { port, model_dir: &spec.directory, temporary: self.temporary, name: &spec.name, token: &self.token };
        let command = Command::new(self.program.clone(), manifest, &places).map_err(RunnerError::Load)?;
        let launch = Launch {
            program: command.program,
            arguments: command.arguments,
            environment: command.environment,
            directory: spec.directory.clone(),
            temporary: self.temporary.to_owned(),
            hidden: spec.hidden.clone(),
            memory: self.memory.map(|memory| memory.0),
            namespaces: self.machine.namespaces,
        };
        let token = command::wants_token(manifest).then_some(self.token.as_str());
        let http2 = manifest.protocol == Protocol::OipGrpc;
        let http = Http::new(port, token, http2, manifest.concurrency as usize, self.asker.tasks);
        let speaker = Speaker::new(manifest, &spec.name, http);
        let (mut guard, mut report) = Guard::start(&self.asker, launch).await?;
        let died = tokio::select! {
            biased;
            exit = guard.ended() => Some(exit),
            () = self.until_ready(&speaker) => None,
        };
        if let Some(exit) = died {
            guard.end().await;
            if is_taken(port) {
                return Ok(Attempt::PortTaken(port));
            }
            tracing::warn!(server = spec.label, ?exit, "server ended before it was ready");
            return Err(RunnerError::Crashed);
        }
        let pids = guard.pids();
        let listening = tokio::task::spawn_blocking(move || tree::listening(port, &pids)).await.unwrap_or(Listening::Unknown);
        match listening {
            Listening::Well => report.applied.push("listens on loopback only".to_owned()),
            Listening::Unknown => report.missing.push("listens on loopback only: the kernel does not say where it listens".to_owned()),
            Listening::Stranger => {
                guard.end().await;
                return Ok(Attempt::PortTaken(port));
            }
            Listening::Exposed(open) => {
                guard.end().await;
                let text = format!("the server listens on port {open} of every address; give it {{host}} as the address to listen on");
                return Err(RunnerError::Load(text));
            }
        }
        Ok(Attempt::Ready(Box::new((guard, speaker, report))))
    }

    /// Asks until the server says that its model can answer.
    async fn until_ready(&self, speaker: &Speaker) {
        let mut pause = FIRST_PAUSE;
        while !matches!(tokio::time::timeout(self.manifest.health.timeout, speaker.is_well()).await, Ok(Ok(true))) {
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }
}

/// The one place that a server may write to; gone with it.
pub(super) struct Temporary(PathBuf);

impl Temporary {
    fn make(scratch: &Path, world: &World) -> io::Result<Self> {
        use std::os::unix::fs::DirBuilderExt;
        let path = scratch.join(format!("process-{:016x}", world.random.next_u64()));
        std::fs::DirBuilder::new().mode(0o700).create(&path)?;
        std::fs::canonicalize(&path).map(Self)
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        let path = std::mem::take(&mut self.0);
        let remove = move || {
            if let Err(error) = std::fs::remove_dir_all(&path)
                && error.kind() != io::ErrorKind::NotFound
            {
                tracing::warn!(%error, "the directory of an ended server is not removed");
            }
        };
        // It may be large.
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn_blocking(remove)),
            Err(_) => remove(),
        }
    }
}
