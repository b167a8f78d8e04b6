//! A runner's end of the channel: blocking, on plain threads.
//!
//! [`Incoming`] belongs to the thread that reads; [`Answers`] is shared by the threads that answer and writes whole
//! frames. What the node says is checked like anything from outside, although it is trusted: a check costs little and
//! finds our own mistakes.

use std::io::{self, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use plinth_types::Tensor;

use super::frame::{FrameError, Lengths, Outgoing, PREFIX, decode, encode, payload_length};
use super::message::{FromRunner, Refusal, StartFailure, TensorHead, ToRunner};

/// The half that reads.
pub(crate) struct Incoming {
    socket: BufReader<UnixStream>,
}

impl Incoming {
    pub(crate) fn new(socket: UnixStream) -> Self {
        Self { socket: BufReader::with_capacity(64 << 10, socket) }
    }

    /// Waits for the next message and its payload; `None` when the node has closed the channel. A payload for which
    /// there is no memory is skipped and given as `None`.
    pub(crate) fn receive(&mut self, max_payload: u64) -> Result<Option<(ToRunner, Option<Bytes>)>, FrameError> {
        let mut prefix = [0; PREFIX];
        match self.socket.read(&mut prefix)? {
            0 => return Ok(None),
            n => self.socket.read_exact(prefix.get_mut(n..).unwrap_or_default())?,
        }
        let lengths = Lengths::parse(prefix, max_payload)?;
        let header = self.read(lengths.header)?.ok_or(FrameError::HeaderLength(lengths.header as u64))?;
        let payload = self.read(lengths.payload)?;
        Ok(Some((decode(&header)?, payload)))
    }

    fn read(&mut self, length: usize) -> Result<Option<Bytes>, FrameError> {
        let mut rest = (&mut self.socket).take(length as u64);
        let mut buffer = Vec::new();
        let read = if buffer.try_reserve_exact(length).is_ok() {
            rest.read_to_end(&mut buffer)? as u64
        } else {
            io::copy(&mut rest, &mut io::sink())?
        };
        match read {
            read if read < length as u64 => Err(FrameError::Truncated),
            read if read > buffer.len() as u64 => Ok(None),
            _ => Ok(Some(buffer.into())),
        }
    }
}

/// The half that writes.
pub(crate) struct Answers {
    socket: Mutex<UnixStream>,
    max_answer: u64,
}

impl Answers {
    pub(crate) fn new(socket: UnixStream, max_answer: u64) -> Self {
        Self { socket: Mutex::new(socket), max_answer }
    }

    /// Sends the outputs of a request, or says that they are too many.
    pub(crate) fn answer(&self, id: u64, outputs: &[Tensor]) -> Result<(), FrameError> {
        match payload_length(outputs) {
            Some(bytes) if bytes <= self.max_answer => self.send(&FromRunner::Answer { id, outputs: TensorHead::of_all(outputs) }, outputs),
            _ => {
                let text = format!("the model's outputs are larger than the limit of {} bytes", self.max_answer);
                self.refuse(id, Refusal::Execution(text))
            }
        }
    }

    /// Says why a request has no outputs.
    pub(crate) fn refuse(&self, id: u64, refusal: Refusal) -> Result<(), FrameError> {
        self.send(&FromRunner::Refused { id, refusal }, &[])
    }

    /// Says why there is no model.
    pub(crate) fn failed(&self, failure: StartFailure) -> Result<(), FrameError> {
        self.send(&FromRunner::Failed(failure), &[])
    }

    pub(crate) fn send(&self, message: &FromRunner, tensors: &[Tensor]) -> Result<(), FrameError> {
        let mut outgoing = Outgoing::default();
        outgoing.push(encode(message, tensors)?);
        let mut socket = self.socket.lock().unwrap_or_else(PoisonError::into_inner);
        while !outgoing.is_empty() {
            match socket.write_vectored(&outgoing.slices()) {
                Ok(0) => return Err(io::Error::from(io::ErrorKind::WriteZero).into()),
                Ok(written) => outgoing.advance(written),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}
