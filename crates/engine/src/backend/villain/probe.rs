//! Attempts to get out of the sandbox, each answered with a line: `allowed` or `refused: why`.
#![allow(unsafe_code, reason = "the attempts are plain system calls, without anything in between that could soften them")]

use std::fs::{File, OpenOptions};
use std::io;
use std::net::UdpSocket;

/// An attempt.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Probe {
    OpenSocket,
    OpenFile(String),
    WriteFile(String),
    List(String),
    Fork,
    Exec,
    SignalNode,
    NewCode,
    User,
}

impl Probe {
    pub(super) fn parse(verb: &str, rest: &str) -> Option<Self> {
        Some(match verb {
            "open_socket" => Self::OpenSocket,
            "open_file" => Self::OpenFile(rest.to_owned()),
            "write_file" => Self::WriteFile(rest.to_owned()),
            "list" => Self::List(rest.to_owned()),
            "fork" => Self::Fork,
            "exec" => Self::Exec,
            "signal_node" => Self::SignalNode,
            "new_code" => Self::NewCode,
            "user" => Self::User,
            _ => return None,
        })
    }

    pub(super) fn try_it(self) -> String {
        let outcome = match self {
            Self::OpenSocket => UdpSocket::bind("127.0.0.1:0").map(drop),
            Self::OpenFile(path) => File::open(path).map(drop),
            Self::WriteFile(path) => OpenOptions::new().create(true).append(true).open(path).map(drop),
            Self::List(path) => std::fs::read_dir(path).map(drop),
            Self::Fork => fork(),
            Self::Exec => std::process::Command::new("/proc/self/exe").status().map(drop),
            Self::SignalNode => signal_parent(),
            Self::NewCode => map_executable(),
            Self::User => return rustix::process::getuid().as_raw().to_string(),
        };
        match outcome {
            Ok(()) => "allowed".to_owned(),
            Err(error) => format!("refused: {error}"),
        }
    }
}

fn fork() -> io::Result<()> {
    // SAFETY: a child, if there is one, ends at once and touches nothing.
    match unsafe { libc::fork() } {
        0 => unsafe { libc::_exit(0) },
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

fn signal_parent() -> io::Result<()> {
    // SAFETY: signal 0 only asks whether a signal could be sent.
    if unsafe { libc::kill(libc::getppid(), 0) } == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn map_executable() -> io::Result<()> {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    // SAFETY: a fresh mapping that nobody uses.
    let mapped = unsafe { libc::mmap(std::ptr::null_mut(), 4096, libc::PROT_READ | libc::PROT_EXEC, flags, -1, 0) };
    if mapped == libc::MAP_FAILED { Err(io::Error::last_os_error()) } else { Ok(()) }
}
