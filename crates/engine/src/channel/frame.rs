//! How a message looks on the stream: its length (`u32`, little-endian) and the message in postcard.
//!
//! Invariant: no length is believed before it was compared with the limit. Reading from and writing to the socket is left
//! to the two ends.

use serde::Serialize;
use serde::de::DeserializeOwned;

/// The length of what stands before a message.
pub(crate) const PREFIX: usize = 4;
/// The longest message: names and shapes only, and the list of a version's files.
pub(crate) const MAX_MESSAGE: usize = 4 << 20;

/// Why bytes are not what was expected.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FrameError {
    #[error("a header of {0} bytes")]
    HeaderLength(u64),
    #[error("a payload of {0} bytes where at most {1} are allowed")]
    PayloadLength(u64, u64),
    #[error("an unreadable header")]
    Header(#[from] postcard::Error),
    #[error("bytes after the header's message")]
    Trailing,
    #[error("something that nobody waits for")]
    Unexpected,
    #[error("a payload that the tensors do not add up to")]
    Payload,
    #[error("a tensor that is none: {0}")]
    Tensor(String),
    #[error("the end of the channel inside a frame")]
    Truncated,
    #[error("the channel failed: {0}")]
    Io(#[from] std::io::Error),
}

impl FrameError {
    /// Whether the other end is just gone, which says nothing about what it sent.
    pub(crate) const fn is_end(&self) -> bool {
        matches!(self, Self::Truncated | Self::Io(_))
    }
}

/// Reads a length and holds it against the limit.
pub(crate) fn length(prefix: [u8; PREFIX]) -> Result<usize, FrameError> {
    let length = u32::from_le_bytes(prefix);
    match usize::try_from(length) {
        Ok(length) if length > 0 && length <= MAX_MESSAGE => Ok(length),
        _ => Err(FrameError::HeaderLength(length.into())),
    }
}

/// A message with its length before it.
pub(crate) fn encode<M: Serialize>(message: &M) -> Result<Vec<u8>, FrameError> {
    let mut frame = postcard::to_extend(message, vec![0; PREFIX])?;
    let length = frame.len() - PREFIX;
    let announced = u32::try_from(length).ok().filter(|_| length <= MAX_MESSAGE).ok_or(FrameError::HeaderLength(length as u64))?;
    frame.iter_mut().zip(announced.to_le_bytes()).for_each(|(to, from)| *to = from);
    Ok(frame)
}

/// The message in these bytes; nothing may follow it.
pub(crate) fn decode<M: DeserializeOwned>(bytes: &[u8]) -> Result<M, FrameError> {
    let (message, rest) = postcard::take_from_bytes(bytes)?;
    if rest.is_empty() { Ok(message) } else { Err(FrameError::Trailing) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::channel::message::{FromRunner, ToRunner};
    use crate::channel::wire::{Execute, Reply};
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn no_bytes_break_the_reader(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode::<FromRunner>(&bytes);
            let _ = decode::<ToRunner>(&bytes);
            let _ = decode::<Execute>(&bytes);
            let _ = decode::<Reply>(&bytes);
        }
    }

    #[test]
    fn lengths_are_held_against_the_limit() {
        let frame = encode(&ToRunner::Stop).unwrap();
        assert_eq!(length(frame[..PREFIX].try_into().unwrap()).unwrap(), frame.len() - PREFIX);
        assert!(matches!(decode::<ToRunner>(&frame[PREFIX..]), Ok(ToRunner::Stop)));
        assert!(matches!(length([0; 4]), Err(FrameError::HeaderLength(0))));
        assert!(matches!(length([255; 4]), Err(FrameError::HeaderLength(_))));
        assert!(matches!(decode::<ToRunner>(&[&frame[PREFIX..], &[0]].concat()), Err(FrameError::Trailing)));
    }
}
