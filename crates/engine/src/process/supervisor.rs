//! The process between the node and a server: what `plinth runner process:…` does.
//!
//! It starts the server behind the walls that a foreign program can live with, passes signals on, and sees that nothing
//! of the server is left when it ends. Two ways, the first where the machine allows it:
//!
//! ```text
//! node ── outer ══ init (1) ── server (2) ── whatever it starts      a process namespace: init ends, all end
//! node ── supervisor ── server ── whatever it starts                 a subreaper: orphans come here, and are killed
//! ```
//!
//! Invariants: whoever ends first (node, supervisor, server), the others of this picture end too; one thread until the
//! server runs, so that everything between fork and exec may be ordinary code.
#![allow(unsafe_code, reason = "fork and waiting for any child have no safe interface")]

mod namespace;
mod walls;

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal, set_child_subreaper, set_parent_process_death_signal};

use super::tree;
use super::wire::{self, FromSupervisor, Launch, ToSupervisor};
use crate::spec::SandboxReport;
use walls::Walls;

/// Labels of supervisors begin with it; a tenant's name cannot.
pub(crate) const LABEL: &str = "process:";
/// The status of a supervisor that was told nothing (`EX_USAGE`), or could not do its work (`EX_OSERR`).
const NOT_TOLD: i32 = 64;
const FAILED: i32 = 71;
/// As shells say that a process was killed.
const KILLED: i32 = 137;
/// How often what is left is killed again, and the pause between.
const ROUNDS: u32 = 500;
const PAUSE: Duration = Duration::from_millis(2);

/// Whether this process was started to be a supervisor.
pub(crate) fn is_wished() -> bool {
    std::env::args_os().nth(2).is_some_and(|label| label.to_string_lossy().starts_with(LABEL))
}

/// Runs this process as a supervisor until its server has ended. One thread may be running.
pub(crate) fn main(socket: UnixStream) -> u8 {
    let status = match wire::read::<ToSupervisor>(&socket) {
        Ok(Some(ToSupervisor::Launch(launch))) => enter(&socket, &launch).unwrap_or_else(|error| {
            let _ = wire::write(&socket, &FromSupervisor::NotStarted(error.to_string()));
            FAILED
        }),
        _ => NOT_TOLD,
    };
    u8::try_from(status & 0xff).unwrap_or(u8::MAX)
}

/// Who this process is among those of the picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// The first process of a namespace; everything ends with it.
    Init,
    /// The parent of orphans.
    Subreaper,
}

fn enter(socket: &UnixStream, launch: &Launch) -> io::Result<i32> {
    let mut report = SandboxReport::default();
    let outer = std::process::id();
    let possible = if launch.namespaces { namespace::probe() } else { Err("not wished".to_owned()) };
    match possible {
        Ok(()) => {
            namespace::leave()?;
            // SAFETY: the process has one thread, so the child may do whatever it could have done.
            match unsafe { libc::fork() } {
                -1 => return Err(io::Error::last_os_error()),
                0 => {
                    set_parent_process_death_signal(Some(Signal::KILL))?;
                    namespace::settle()?;
                    report.applied.push("process namespace".to_owned());
                    match namespace::own_temporary(launch) {
                        Ok(true) => report.applied.push("temporary directory of its own".to_owned()),
                        Ok(false) => {
                            report.missing.push("temporary directory of its own: what the server needs lies in the machine's".to_owned())
                        }
                        Err(error) => report.missing.push(format!("temporary directory of its own: {error}")),
                    }
                }
                init => return wait_for(init),
            }
            run(socket, launch, Place::Init, outer, report)
        }
        Err(reason) => {
            report.missing.push(format!("process namespace: {reason}"));
            set_child_subreaper(Some(rustix::process::getpid()))?;
            // The node's end is seen on the socket, in time to end the others first.
            set_parent_process_death_signal(None)?;
            run(socket, launch, Place::Subreaper, outer, report)
        }
    }
}

/// Waits for one child; its status as this process's own.
fn wait_for(child: libc::pid_t) -> io::Result<i32> {
    let mut status = 0;
    loop {
        // SAFETY: `status` is valid for the write.
        match unsafe { libc::waitpid(child, &raw mut status, 0) } {
            -1 if io::Error::last_os_error().kind() == io::ErrorKind::Interrupted => {}
            -1 => return Err(io::Error::last_os_error()),
            _ if libc::WIFEXITED(status) => return Ok(libc::WEXITSTATUS(status)),
            _ => return Ok(KILLED),
        }
    }
}

fn run(socket: &UnixStream, launch: &Launch, place: Place, outer: u32, report: SandboxReport) -> io::Result<i32> {
    let (server, report) = spawn(launch, outer, report)?;
    let pidfd = pidfd_open(server, PidfdFlags::empty())?;
    wire::write(socket, &FromSupervisor::Started(report))?;
    let commands = socket.try_clone()?;
    std::thread::Builder::new().name("commands".to_owned()).spawn(move || obey(&commands, &pidfd, place))?;
    let ended = reap(server)?;
    if place == Place::Subreaper {
        end_all();
    }
    // The end of a namespace's first process ends the others; the node waits for that.
    let _ = wire::write(socket, &ended);
    Ok(0)
}

fn spawn(launch: &Launch, outer: u32, mut report: SandboxReport) -> io::Result<(Pid, SandboxReport)> {
    let (told, tell) = io::pipe()?;
    let mut command = Command::new(&launch.program);
    command.args(&launch.arguments).env_clear().envs(launch.environment.iter().map(|(name, value)| (name, value)));
    command.current_dir(&launch.directory).stdin(Stdio::null());
    let wished = launch.clone();
    // SAFETY: this process has one thread, so the child's memory is whole and its locks are free.
    unsafe {
        command.pre_exec(move || {
            let built = Walls::new(&wished, outer)?.put_up();
            wire::write(&tell, &built)
        });
    }
    // Failures between fork and exec, and of exec, are told by the standard library.
    let child = command.spawn()?;
    // Its end of the pipe closes with the exec.
    drop(command);
    if let Some(built) = wire::read::<SandboxReport>(told)? {
        report.applied.extend(built.applied);
        report.missing.extend(built.missing);
    }
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw).ok_or_else(|| io::Error::other("not a process id"))?;
    Ok((pid, report))
}

/// Does what the node says; when the node is gone, or speaks nonsense, ends everything.
fn obey(socket: &UnixStream, server: &OwnedFd, place: Place) {
    while let Ok(Some(ToSupervisor::Signal(number))) = wire::read(socket) {
        if let Some(signal) = Signal::from_named_raw(number) {
            let _ = pidfd_send_signal(server, signal);
        }
    }
    if place == Place::Subreaper {
        end_all();
    }
    // SAFETY: always sound; it only ends the process.
    unsafe { libc::_exit(KILLED) }
}

/// Buries every child until the server is among them.
fn reap(server: Pid) -> io::Result<FromSupervisor> {
    let mut status = 0;
    loop {
        // SAFETY: `status` is valid for the write.
        match unsafe { libc::waitpid(-1, &raw mut status, 0) } {
            -1 if io::Error::last_os_error().kind() == io::ErrorKind::Interrupted => {}
            -1 => return Err(io::Error::last_os_error()),
            pid if pid != server.as_raw_nonzero().get() => {}
            _ if libc::WIFSIGNALED(status) => return Ok(FromSupervisor::Signal(libc::WTERMSIG(status))),
            _ => return Ok(FromSupervisor::Status(libc::WEXITSTATUS(status))),
        }
    }
}

/// Kills whatever descends from this process, until nothing does: a killed parent's children become our own.
fn end_all() {
    for _ in 0..ROUNDS {
        let left = tree::descendants(std::process::id());
        for pid in &left {
            if let Some(pid) = i32::try_from(*pid).ok().and_then(Pid::from_raw) {
                let _ = rustix::process::kill_process(pid, Signal::KILL);
            }
        }
        let mut status = 0;
        // SAFETY: `status` is valid for the write. Another thread may bury the same child; one of both then finds none.
        let buried = unsafe { libc::waitpid(-1, &raw mut status, libc::WNOHANG) };
        if left.is_empty() && buried <= 0 {
            return;
        }
        if buried <= 0 {
            std::thread::sleep(PAUSE);
        }
    }
}
