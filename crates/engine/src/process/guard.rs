//! The node's end of a supervisor: start, signal, end, and how it ended.
//!
//! Invariant: a [`Guard`] that is dropped leaves no process of its server behind, also where there is no process namespace.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use plinth_runtime::{Clock, OnEnd, TaskGroup};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use super::supervisor::LABEL;
use super::tree;
use super::wire::{self, FromSupervisor, Launch, ToSupervisor};
use crate::runner::output;
use crate::runner::process::{self, Launched, Process, Program};
use crate::spec::{RunnerError, RunnerExit, SandboxReport};

/// How long a supervisor may take to end what it supervises.
const LAST_WORDS: Duration = Duration::from_secs(2);

pub(crate) struct Guard {
    /// Before the process: its end is what tells the supervisor to end everything.
    socket: Option<UnixStream>,
    buffer: BytesMut,
    process: Option<Process>,
    pid: u32,
    /// The kernel ends the server with the supervisor.
    in_namespace: bool,
}

/// Who asks for a server, and where its output goes.
pub(crate) struct Asker<'a> {
    pub program: PathBuf,
    pub label: &'a str,
    pub tasks: &'a TaskGroup,
    pub clock: &'a Arc<dyn Clock>,
}

impl Guard {
    /// Starts a supervisor and, through it, the server. Cancel safe: a dropped call leaves no process behind.
    pub(crate) async fn start(asker: &Asker<'_>, launch: Launch) -> Result<(Self, SandboxReport), RunnerError> {
        let failed = |error: io::Error| RunnerError::Start(error.to_string());
        let program = Program { path: asker.program.clone(), label: format!("{LABEL}{}", asker.label) };
        let Launched { process, channel, output } = process::launch(program).await.map_err(failed)?;
        asker.tasks.spawn("process-output", OnEnd::Ignore, output::forward(output, asker.label.to_owned(), asker.clock.clone()));
        channel.set_nonblocking(true).map_err(failed)?;
        let socket = UnixStream::from_std(channel).map_err(failed)?;
        let pid = process.pid();
        let mut guard = Self { socket: Some(socket), buffer: BytesMut::new(), process: Some(process), pid, in_namespace: false };
        guard.tell(&ToSupervisor::Launch(Box::new(launch))).await.map_err(failed)?;
        match guard.receive().await {
            Ok(Some(FromSupervisor::Started(report))) => {
                guard.in_namespace = report.applied.iter().any(|wall| wall == "process namespace");
                Ok((guard, report))
            }
            Ok(Some(FromSupervisor::NotStarted(text))) => Err(RunnerError::Start(text)),
            other => Err(RunnerError::Start(format!("the supervisor ended before the server began: {other:?}"))),
        }
    }

    async fn tell(&mut self, message: &ToSupervisor) -> io::Result<()> {
        let bytes = wire::encode(message)?;
        let socket = self.socket.as_mut().ok_or(io::ErrorKind::NotConnected)?;
        tokio::time::timeout(LAST_WORDS, socket.write_all(&bytes)).await?
    }

    /// Cancel safe.
    async fn receive(&mut self) -> io::Result<Option<FromSupervisor>> {
        loop {
            if let Some(message) = wire::take(&mut self.buffer)? {
                return Ok(Some(message));
            }
            let socket = self.socket.as_mut().ok_or(io::ErrorKind::NotConnected)?;
            if socket.read_buf(&mut self.buffer).await? == 0 {
                return Ok(None);
            }
        }
    }

    pub(crate) const fn supervisor_pid(&self) -> u32 {
        self.pid
    }

    /// The supervisor and everything under it.
    pub(crate) fn pids(&self) -> Vec<u32> {
        let mut pids = tree::descendants(self.pid);
        pids.push(self.pid);
        pids
    }

    /// The server's own number; the supervisor's when the kernel does not tell.
    pub(crate) fn server_pid(&self) -> u32 {
        let below = tree::descendants(self.pid);
        below.get(usize::from(self.in_namespace)).copied().unwrap_or(self.pid)
    }

    /// Sends the server a signal.
    pub(crate) async fn signal(&mut self, number: i32) {
        if let Err(error) = self.tell(&ToSupervisor::Signal(number)).await {
            tracing::debug!(pid = self.pid, %error, "supervisor not reached");
        }
    }

    /// Returns when the server has ended. Cancel safe.
    pub(crate) async fn ended(&mut self) -> RunnerExit {
        match self.receive().await {
            Ok(Some(FromSupervisor::Status(status))) => RunnerExit::Status(status),
            Ok(Some(FromSupervisor::Signal(signal))) => RunnerExit::Signal(signal),
            said => {
                tracing::warn!(pid = self.pid, ?said, "supervisor of a server ended");
                match &mut self.process {
                    Some(process) => tokio::time::timeout(LAST_WORDS, process.ended()).await.unwrap_or(RunnerExit::BrokeProtocol),
                    None => RunnerExit::Stopped,
                }
            }
        }
    }

    /// Ends everything, and returns when it has ended.
    pub(crate) async fn end(&mut self) {
        self.socket = None;
        if let Some(process) = &mut self.process
            && tokio::time::timeout(LAST_WORDS, process.ended()).await.is_err()
        {
            process.kill();
            process.ended().await;
        }
        self.process = None;
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        let Some(process) = self.process.take() else { return };
        self.socket = None;
        if self.in_namespace {
            return;
        }
        // Killed at once, the supervisor could not end what it supervises; the end of its socket tells it to.
        let waiting = std::thread::Builder::new().name("process-end".to_owned()).spawn(move || {
            std::thread::sleep(LAST_WORDS);
            drop(process);
        });
        if let Err(error) = waiting {
            tracing::warn!(pid = self.pid, %error, "supervisor killed at once");
        }
    }
}
