//! The villain's deeds: one command, one misdeed.
#![allow(unsafe_code, reason = "crashing and writing past the channel's owner are the purpose")]

use std::io::Write;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use plinth_runtime::{Clock, SystemClock};
use plinth_types::ByteSize;

use super::description::{hold, parse_duration};
use super::{BackendError, probe};
use crate::channel::CHANNEL_FD;

/// Smaller tensors come with the packet, which is nobody's but the runner's.
const SHARED_FROM: usize = 32 << 10;

/// What an element of `command` says.
#[derive(Debug, PartialEq)]
pub(super) enum Deed {
    Delay(Duration),
    Spin(Duration),
    Fail(String),
    Refuse(String),
    Twist(Twist),
    Panic,
    Crash,
    Abort,
    Exit(u8),
    Hang,
    Leak(usize),
    FloodStderr(usize),
    Garbage,
    CloseChannel,
    Scribble,
    Probe(probe::Probe),
}

/// A wrong answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Twist {
    Nan,
    WrongShape,
    WrongType,
    WrongName,
    MissingOutput,
    ExtraOutput,
    WrongRows,
}

/// What came of a deed.
pub(super) enum Effect {
    Report(String),
    Twist(Twist),
}

impl Deed {
    pub(super) fn parse(command: &str) -> Result<Self, BackendError> {
        let (verb, rest) = command.trim().split_once(' ').unwrap_or((command.trim(), ""));
        let bad = || BackendError::Input(format!("the villain does not understand the command '{verb}'"));
        let text = |default: &str| if rest.is_empty() { default.to_owned() } else { rest.to_owned() };
        let duration = || parse_duration(rest).ok_or_else(bad);
        let size = || rest.parse::<ByteSize>().map(ByteSize::as_usize).map_err(|_| bad());
        Ok(match verb {
            "delay" => Self::Delay(duration()?),
            "spin" => Self::Spin(duration()?),
            "fail" => Self::Fail(text("the villain failed")),
            "refuse" => Self::Refuse(text("the villain does not like the input")),
            "nan" => Self::Twist(Twist::Nan),
            "wrong_shape" => Self::Twist(Twist::WrongShape),
            "wrong_type" => Self::Twist(Twist::WrongType),
            "wrong_name" => Self::Twist(Twist::WrongName),
            "missing_output" => Self::Twist(Twist::MissingOutput),
            "extra_output" => Self::Twist(Twist::ExtraOutput),
            "wrong_rows" => Self::Twist(Twist::WrongRows),
            "scribble" => Self::Scribble,
            "panic" => Self::Panic,
            "crash" => Self::Crash,
            "abort" => Self::Abort,
            "exit" => Self::Exit(rest.parse().map_err(|_| bad())?),
            "hang" => Self::Hang,
            "leak" => Self::Leak(size()?),
            "flood_stderr" => Self::FloodStderr(size()?),
            "garbage" => Self::Garbage,
            "close_channel" => Self::CloseChannel,
            _ => Self::Probe(probe::Probe::parse(verb, rest).ok_or_else(bad)?),
        })
    }

    /// Does it. `hoard` is what the villain holds, `areas` the memory that it can see of the batch.
    pub(super) fn commit(self, hoard: &Mutex<Vec<Vec<u8>>>, areas: &[(usize, usize)]) -> Result<Effect, BackendError> {
        match self {
            Self::Delay(duration) => std::thread::sleep(duration),
            Self::Spin(duration) => {
                let end = SystemClock.monotonic() + duration;
                while SystemClock.monotonic() < end {
                    std::hint::spin_loop();
                }
            }
            Self::Fail(why) => return Err(BackendError::Execution(why)),
            Self::Refuse(why) => return Err(BackendError::Input(why)),
            Self::Twist(twist) => return Ok(Effect::Twist(twist)),
            #[allow(clippy::panic, reason = "that is the deed")]
            Self::Panic => panic!("the villain panics"),
            Self::Crash => crash(),
            Self::Abort => std::process::abort(),
            // SAFETY: always sound; it only ends the process.
            Self::Exit(status) => unsafe { libc::_exit(i32::from(status)) },
            Self::Hang => loop {
                std::thread::park();
            },
            Self::Leak(size) => match hold(size) {
                Some(memory) => hoard.lock().unwrap_or_else(PoisonError::into_inner).push(memory),
                None => return Ok(Effect::Report("refused: no memory".to_owned())),
            },
            Self::FloodStderr(size) => flood(size),
            Self::Garbage => each_socket(|socket| send(socket, &[0xFF; 64])),
            Self::Scribble => scribble(areas),
            // SAFETY: the descriptors' owners find them closed, which is the deed; nothing else is opened in this process.
            Self::CloseChannel => each_socket(|socket| unsafe {
                libc::shutdown(socket, libc::SHUT_RDWR);
            }),
            Self::Probe(probe) => return Ok(Effect::Report(probe.try_it())),
        }
        Ok(Effect::Report("done".to_owned()))
    }
}

fn crash() {
    // SAFETY: none; the kernel ends the process at this write, which is the deed.
    unsafe { std::ptr::write_volatile(std::ptr::without_provenance_mut::<u8>(8), 1) };
}

fn flood(size: usize) {
    let line = [&[b'#'; 99][..], b"\n"].concat();
    for _ in 0..size.div_ceil(line.len()) {
        let _ = std::io::stderr().write_all(&line);
    }
}

/// The channel and the lanes after it.
fn each_socket(deed: impl Fn(i32)) {
    (CHANNEL_FD..CHANNEL_FD + 8).for_each(deed);
}

fn send(socket: i32, bytes: &[u8]) {
    // SAFETY: sends from a valid buffer to a descriptor that this process has, or has not; whoever reads it must bear it.
    unsafe {
        libc::send(socket, bytes.as_ptr().cast(), bytes.len(), libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT);
    }
}

/// Writes into what is shared with the node from now on. Private memory among the areas is left alone.
fn scribble(areas: &[(usize, usize)]) {
    let areas: Vec<(usize, usize)> = areas.iter().copied().filter(|(_, length)| *length >= SHARED_FROM).collect();
    let write = move || {
        for round in 0u8..=u8::MAX {
            for (start, length) in &areas {
                for at in (0..*length).step_by(61) {
                    // SAFETY: none; the areas are mapped writable and belong to the node, which must bear it.
                    unsafe { std::ptr::with_exposed_provenance_mut::<u8>(start + at).write_volatile(round.wrapping_mul(37)) };
                }
            }
        }
    };
    let forever = move || loop {
        write();
    };
    // A villain that gets no thread scribbles no more than once.
    let _ = std::thread::Builder::new().name("scribble".to_owned()).spawn(forever);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands() {
        assert_eq!(Deed::parse("delay 100ms"), Ok(Deed::Delay(Duration::from_millis(100))));
        assert_eq!(Deed::parse("leak 1KiB"), Ok(Deed::Leak(1024)));
        assert_eq!(Deed::parse(" nan "), Ok(Deed::Twist(Twist::Nan)));
        assert_eq!(Deed::parse("fail out of mood"), Ok(Deed::Fail("out of mood".into())));
        for bad in ["", "delay", "delay x", "exit 999", "steal", "leak much"] {
            assert!(matches!(Deed::parse(bad), Err(BackendError::Input(_))), "{bad}");
        }
    }
}
