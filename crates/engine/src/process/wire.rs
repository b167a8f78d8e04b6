//! What the node and the supervisor of a server say to each other, and how it looks on their socket.
//!
//! A length (`u32`, little-endian) and a message in postcard. Both ends are the same binary, but the supervisor lives
//! beside foreign code, so the node believes no length. The end of the socket says: end everything.

use std::io::{self, Read, Write};
use std::path::PathBuf;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::spec::SandboxReport;

/// The longest message: a command has bounded arguments.
pub(crate) const MAX_MESSAGE: usize = 4 << 20;

/// What to start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Launch {
    pub program: PathBuf,
    pub arguments: Vec<String>,
    pub environment: Vec<(String, String)>,
    /// The version's files; the working directory; read only.
    pub directory: PathBuf,
    /// The one place to write to.
    pub temporary: PathBuf,
    /// What the server must not read.
    pub hidden: Vec<PathBuf>,
    /// The most private memory of one process, in bytes.
    pub memory: Option<u64>,
    /// Whether a process namespace is tried.
    pub namespaces: bool,
}

/// What the node tells the supervisor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum ToSupervisor {
    /// First, and once.
    Launch(Box<Launch>),
    /// Send this signal to the server.
    Signal(i32),
}

/// What the supervisor tells the node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum FromSupervisor {
    /// The program runs.
    Started(SandboxReport),
    /// It does not; the text is for the log.
    NotStarted(String),
    /// The server ended with this status.
    Status(i32),
    /// A signal ended the server.
    Signal(i32),
}

pub(crate) fn encode<M: Serialize>(message: &M) -> io::Result<Vec<u8>> {
    let body = postcard::to_stdvec(message).map_err(io::Error::other)?;
    let length = u32::try_from(body.len()).ok().filter(|length| *length as usize <= MAX_MESSAGE);
    let length = length.ok_or_else(|| io::Error::other("the message is too long"))?;
    Ok([&length.to_le_bytes()[..], &body].concat())
}

/// Takes the first whole message off `buffer`.
pub(crate) fn take<M: DeserializeOwned>(buffer: &mut bytes::BytesMut) -> io::Result<Option<M>> {
    let Some(prefix) = buffer.first_chunk::<4>() else { return Ok(None) };
    let length = u32::from_le_bytes(*prefix) as usize;
    if length > MAX_MESSAGE {
        return Err(io::ErrorKind::InvalidData.into());
    }
    if buffer.len() < 4 + length {
        return Ok(None);
    }
    let frame = buffer.split_to(4 + length);
    let body = frame.get(4..).unwrap_or_default();
    postcard::from_bytes(body).map(Some).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

/// Blocks until a message has come; `None` when the other end is gone.
pub(crate) fn read<M: DeserializeOwned>(mut socket: impl Read) -> io::Result<Option<M>> {
    let mut length = [0; 4];
    match socket.read_exact(&mut length) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        read => read?,
    }
    let length = u32::from_le_bytes(length) as usize;
    if length > MAX_MESSAGE {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut body = vec![0; length];
    socket.read_exact(&mut body)?;
    postcard::from_bytes(&body).map(Some).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

/// Blocks until the message is written.
pub(crate) fn write<M: Serialize>(mut socket: impl Write, message: &M) -> io::Result<()> {
    socket.write_all(&encode(message)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn both_ways_of_reading_agree() {
        let messages = [FromSupervisor::Started(SandboxReport::default()), FromSupervisor::Status(3), FromSupervisor::Signal(9)];
        let mut bytes = Vec::new();
        messages.iter().for_each(|message| write(&mut bytes, message).unwrap());
        let mut blocking = &bytes[..];
        let mut buffer = bytes::BytesMut::from(&bytes[..]);
        for message in &messages {
            assert_eq!(read::<FromSupervisor>(&mut blocking).unwrap().as_ref(), Some(message));
            assert_eq!(take::<FromSupervisor>(&mut buffer).unwrap().as_ref(), Some(message));
        }
        assert_eq!(read::<FromSupervisor>(&mut blocking).unwrap(), None);
        assert_eq!(take::<FromSupervisor>(&mut buffer).unwrap(), None);
    }

    proptest! {
        #[test]
        fn hostile_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = take::<FromSupervisor>(&mut bytes::BytesMut::from(&bytes[..]));
            let _ = read::<ToSupervisor>(&bytes[..]);
        }
    }
}
