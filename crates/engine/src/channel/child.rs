//! A runner's end of the stream: blocking, on plain threads.
//!
//! What the node says is checked like anything from outside, although it is trusted: a check costs little and finds our own
//! mistakes.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

use super::frame::{FrameError, PREFIX, decode, encode, length};
use super::message::{FromRunner, StartFailure, ToRunner};

/// Waits for the next message; `None` when the node has closed the channel.
pub(crate) fn receive(mut socket: &UnixStream) -> Result<Option<ToRunner>, FrameError> {
    let mut prefix = [0; PREFIX];
    match socket.read(&mut prefix)? {
        0 => return Ok(None),
        n => socket.read_exact(prefix.get_mut(n..).unwrap_or_default())?,
    }
    let mut bytes = vec![0; length(prefix)?];
    socket.read_exact(&mut bytes)?;
    Ok(Some(decode(&bytes)?))
}

/// Sends a message.
pub(crate) fn send(mut socket: &UnixStream, message: &FromRunner) -> Result<(), FrameError> {
    Ok(socket.write_all(&encode(message)?)?)
}

/// Says why there is no model.
pub(crate) fn failed(socket: &UnixStream, failure: StartFailure) -> Result<(), FrameError> {
    send(socket, &FromRunner::Failed(failure))
}
