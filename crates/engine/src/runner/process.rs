//! A runner as an operating system process: started, watched, killed, buried.
//!
//! Invariants: a [`Process`] that is dropped is killed and reaped; no signal is sent to a number that may already
//! belong to another process (a pidfd is used); the process dies with the node. Nothing here knows the channel's
//! protocol.
#![allow(unsafe_code, reason = "preparing a child between fork and exec has no safe interface")]

use std::io::{self, PipeReader};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::mpsc::{SyncSender, sync_channel};

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::oneshot;

use crate::spec::RunnerExit;

/// The first argument of a program that is to be a runner.
pub const RUNNER_COMMAND: &str = "runner";

/// How many starts, or burials, may wait for their thread.
const WAITING: usize = 256;

/// What to execute.
pub(crate) struct Program {
    pub path: PathBuf,
    pub label: String,
}

/// A started process with its end of the channel and what it prints.
pub(crate) struct Launched {
    pub process: Process,
    pub channel: UnixStream,
    pub output: PipeReader,
}

struct Forked {
    child: Child,
    channel: UnixStream,
    output: PipeReader,
}

type Launch = (Program, oneshot::Sender<io::Result<Forked>>);

/// Starts a process.
///
/// The kernel ends a child whose parent *thread* ends, and a runtime's threads come and go. So one thread that never
/// ends is the parent of all runners.
pub(crate) async fn launch(program: Program) -> io::Result<Launched> {
    static LAUNCHER: OnceLock<SyncSender<Launch>> = OnceLock::new();
    let launcher = LAUNCHER.get_or_init(|| {
        worker("runner-launcher", |(program, reply): Launch| {
            if let Err(Ok(mut forked)) = reply.send(fork(&program)) {
                // Who asked has gone.
                let _ = forked.child.kill().and_then(|()| forked.child.wait());
            }
        })
    });
    let (reply, forked) = oneshot::channel();
    launcher.try_send((program, reply)).map_err(|_| io::Error::other("too many runners are being started"))?;
    let Forked { child, channel, output } = forked.await.map_err(|_| io::Error::other("the thread that starts runners has ended"))??;
    Ok(Launched { process: Process::new(child)?, channel, output })
}

/// A thread that lives as long as the node and does one job after another.
fn worker<J: Send + 'static>(name: &str, mut work: impl FnMut(J) + Send + 'static) -> SyncSender<J> {
    let (jobs, queue) = sync_channel(WAITING);
    let started = std::thread::Builder::new().name(name.to_owned()).spawn(move || {
        while let Ok(job) = queue.recv() {
            work(job);
        }
    });
    if let Err(error) = started {
        // The queue is closed then, and every start says so.
        tracing::error!(thread = name, %error, "thread not started");
    }
    jobs
}

fn fork(program: &Program) -> io::Result<Forked> {
    let (channel, theirs) = UnixStream::pair()?;
    let (output, printed) = io::pipe()?;
    let node = std::process::id();
    let mut command = Command::new(&program.path);
    command
        .arg(RUNNER_COMMAND)
        .arg(&program.label)
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::from(OwnedFd::from(theirs)))
        .stdout(printed.try_clone()?)
        .stderr(printed)
        .process_group(0);
    // SAFETY: `prepare` makes system calls only; it allocates nothing and takes no lock, which another thread of the
    // node might have held during the fork.
    unsafe {
        command.pre_exec(move || prepare(node));
    }
    Ok(Forked { child: command.spawn()?, channel, output })
}

/// Runs in the child between fork and exec.
fn prepare(node: u32) -> io::Result<()> {
    // SAFETY: plain system calls with valid arguments; `none` outlives the call that reads it.
    unsafe {
        if libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) != 0 {
            return Err(io::Error::last_os_error());
        }
        // The node may have died before the signal was armed.
        if libc::getppid().cast_unsigned() != node {
            return Err(io::Error::from_raw_os_error(libc::ESRCH));
        }
        let none = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        libc::setrlimit(libc::RLIMIT_CORE, &raw const none);
        // Everything past the standard streams, whoever forgot to say so. Kernels without the call rely on O_CLOEXEC.
        libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC);
    }
    Ok(())
}

/// A running, or not yet reaped, process.
pub(crate) struct Process {
    child: Option<Child>,
    pidfd: AsyncFd<OwnedFd>,
    pid: u32,
}

impl Process {
    fn new(mut child: Child) -> io::Result<Self> {
        let pid = child.id();
        let watched = pid_of(pid).and_then(|pid| Ok(pidfd_open(pid, PidfdFlags::empty())?)).and_then(|pidfd| {
            // SAFETY: the descriptor is owned, and nobody replaces or closes it while it is registered.
            Ok(unsafe { AsyncFd::register_with_interest(pidfd, Interest::READABLE) }?)
        });
        match watched {
            Ok(pidfd) => Ok(Self { child: Some(child), pidfd, pid }),
            Err(error) => {
                let _ = child.kill().and_then(|()| child.wait());
                Err(error)
            }
        }
    }

    pub(crate) const fn pid(&self) -> u32 {
        self.pid
    }

    /// Ends it at once. Does nothing when it has ended.
    pub(crate) fn kill(&self) {
        let _ = pidfd_send_signal(self.pidfd.get_ref(), Signal::KILL);
    }

    /// Returns when it has ended. Cancel safe; answers the same again.
    pub(crate) async fn ended(&mut self) -> RunnerExit {
        loop {
            // A pidfd becomes readable when its process ends, and stays so.
            let readable = self.pidfd.readable().await.map(|mut guard| guard.retain_ready());
            let status = match (&mut self.child, readable) {
                (Some(child), Ok(())) => child.try_wait(),
                (_, Err(error)) => Err(error),
                (None, _) => Err(io::Error::other("already reaped")),
            };
            match status {
                Ok(Some(status)) => {
                    let exit = status.signal().map(RunnerExit::Signal);
                    return exit.unwrap_or_else(|| RunnerExit::Status(status.code().unwrap_or(-1)));
                }
                Ok(None) => tokio::task::yield_now().await,
                Err(error) => {
                    tracing::error!(pid = self.pid, %error, "status of a runner not known");
                    self.kill();
                    return RunnerExit::Status(-1);
                }
            }
        }
    }
}

fn pid_of(pid: u32) -> io::Result<Pid> {
    i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or_else(|| io::Error::other("not a process id"))
}

impl Drop for Process {
    fn drop(&mut self) {
        static REAPER: OnceLock<SyncSender<Child>> = OnceLock::new();
        let Some(mut child) = self.child.take() else { return };
        if matches!(child.try_wait(), Ok(Some(_))) {
            return;
        }
        self.kill();
        let reaper = REAPER.get_or_init(|| worker("runner-reaper", |mut child: Child| drop(child.wait())));
        if let Err(error) = reaper.try_send(child) {
            tracing::error!(pid = self.pid, fd = self.pidfd.as_raw_fd(), %error, "a dead runner is not reaped");
        }
    }
}
