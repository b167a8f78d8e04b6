//! How a message looks on the socket.
//!
//! A frame is twelve bytes of lengths (`u32` header, `u64` payload, little-endian), the header (a message in
//! postcard), and the payload: the tensors' bytes one after another, each beginning at a multiple of
//! [`ALIGNMENT`]. Invariant: no length is believed before it was compared with a limit, and memory for a long
//! payload is taken only as its bytes arrive. Reading from and writing to the socket is left to the two ends.

use std::collections::VecDeque;
use std::io::IoSlice;

use bytes::{Buf, Bytes};
use plinth_types::Tensor;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::message::TensorHead;

/// The length of what stands before the header.
pub(crate) const PREFIX: usize = 12;
/// The longest header. Names and shapes only, and the list of a version's files.
pub(crate) const MAX_HEADER: usize = 4 << 20;
/// Tensors begin at multiples of this, so that most need no copy in order to be aligned.
pub(crate) const ALIGNMENT: usize = 16;
/// How much memory is taken at once for bytes that have not arrived.
pub(crate) const GROWTH: usize = 1 << 20;
/// How many pieces go to the kernel with one call.
pub(crate) const MAX_SLICES: usize = 64;

const PADDING: [u8; ALIGNMENT] = [0; ALIGNMENT];

/// Why bytes are not a frame, or a message does not fit into one.
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
    #[error("an answer that nobody waits for")]
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

/// What the first bytes of a frame announce.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Lengths {
    pub header: usize,
    pub payload: usize,
}

impl Lengths {
    /// Reads the lengths and holds them against the limits.
    pub(crate) fn parse(prefix: [u8; PREFIX], max_payload: u64) -> Result<Self, FrameError> {
        let [h0, h1, h2, h3, p @ ..] = prefix;
        let (header, payload) = (u32::from_le_bytes([h0, h1, h2, h3]), u64::from_le_bytes(p));
        let header = usize::try_from(header).unwrap_or(usize::MAX);
        if header == 0 || header > MAX_HEADER {
            return Err(FrameError::HeaderLength(header as u64));
        }
        match usize::try_from(payload) {
            Ok(length) if payload <= max_payload => Ok(Self { header, payload: length }),
            _ => Err(FrameError::PayloadLength(payload, max_payload)),
        }
    }
}

/// A message and its tensors as pieces that go out in order. The tensors' bytes are not copied.
pub(crate) fn encode<M: Serialize>(message: &M, tensors: &[Tensor]) -> Result<Vec<Bytes>, FrameError> {
    let mut head = postcard::to_extend(message, vec![0; PREFIX])?;
    let header = head.len() - PREFIX;
    if header > MAX_HEADER {
        return Err(FrameError::HeaderLength(header as u64));
    }
    let mut pieces = Vec::with_capacity(1 + 2 * tensors.len());
    pieces.push(Bytes::new());
    let mut offset = 0usize;
    for tensor in tensors.iter().filter(|t| !t.data().is_empty()) {
        let start = aligned(offset)?;
        if let Some(padding) = PADDING.get(..start - offset).filter(|p| !p.is_empty()) {
            pieces.push(Bytes::from_static(padding_of(padding.len())));
        }
        pieces.push(tensor.data().clone());
        offset = start.checked_add(tensor.data().len()).ok_or(FrameError::Payload)?;
    }
    let header = u32::try_from(header).map_err(|_| FrameError::HeaderLength(header as u64))?;
    for (to, from) in head.iter_mut().zip(header.to_le_bytes().into_iter().chain((offset as u64).to_le_bytes())) {
        *to = from;
    }
    if let Some(first) = pieces.first_mut() {
        *first = head.into();
    }
    Ok(pieces)
}

const fn padding_of(length: usize) -> &'static [u8] {
    static ZEROS: [u8; ALIGNMENT] = PADDING;
    ZEROS.split_at(length).0
}

fn aligned(offset: usize) -> Result<usize, FrameError> {
    offset.checked_next_multiple_of(ALIGNMENT).ok_or(FrameError::Payload)
}

/// How long the payload of `tensors` is.
pub(crate) fn payload_length(tensors: &[Tensor]) -> Option<u64> {
    let mut offset = 0usize;
    for tensor in tensors.iter().filter(|t| !t.data().is_empty()) {
        offset = aligned(offset).ok()?.checked_add(tensor.data().len())?;
    }
    u64::try_from(offset).ok()
}

/// The message in a header; nothing may follow it.
pub(crate) fn decode<M: DeserializeOwned>(header: &[u8]) -> Result<M, FrameError> {
    let (message, rest) = postcard::take_from_bytes(header)?;
    if rest.is_empty() { Ok(message) } else { Err(FrameError::Trailing) }
}

/// The tensors of a frame: slices of the payload, each checked, all of it used.
pub(crate) fn tensors(heads: Vec<TensorHead>, payload: &Bytes) -> Result<Vec<Tensor>, FrameError> {
    let mut offset = 0usize;
    let mut tensors = Vec::with_capacity(heads.len());
    for head in heads {
        let length = usize::try_from(head.length).map_err(|_| FrameError::Payload)?;
        let data = if length == 0 {
            Bytes::new()
        } else {
            let start = aligned(offset)?;
            offset = start.checked_add(length).filter(|end| *end <= payload.len()).ok_or(FrameError::Payload)?;
            payload.slice(start..offset)
        };
        tensors.push(Tensor::new(head.name, head.datatype, head.shape, data).map_err(|e| FrameError::Tensor(e.to_string()))?);
    }
    if offset == payload.len() { Ok(tensors) } else { Err(FrameError::Payload) }
}

/// Pieces on their way out.
#[derive(Debug, Default)]
pub(crate) struct Outgoing(VecDeque<Bytes>);

impl Outgoing {
    pub(crate) fn push(&mut self, pieces: Vec<Bytes>) {
        self.0.extend(pieces.into_iter().filter(|p| !p.is_empty()));
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether one call to the kernel can take more than what waits.
    pub(crate) fn has_room(&self) -> bool {
        self.0.len() < MAX_SLICES
    }

    /// The next pieces for one call to the kernel.
    pub(crate) fn slices(&self) -> Vec<IoSlice<'_>> {
        self.0.iter().take(MAX_SLICES).map(|piece| IoSlice::new(piece)).collect()
    }

    /// Forgets `written` bytes.
    pub(crate) fn advance(&mut self, mut written: usize) {
        while let Some(first) = self.0.front_mut() {
            if written < first.len() {
                first.advance(written);
                return;
            }
            written -= first.len();
            self.0.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::channel::message::{FromRunner, ToRunner};
    use plinth_types::{DataType, Shape};
    use proptest::prelude::*;

    fn tensor(name: &str, bytes: &[u8]) -> Tensor {
        Tensor::new(name, DataType::Uint8, Shape::new(vec![bytes.len() as u64]).unwrap(), Bytes::copy_from_slice(bytes)).unwrap()
    }

    fn join(pieces: &[Bytes]) -> Vec<u8> {
        pieces.iter().flat_map(|p| p.to_vec()).collect()
    }

    fn split(frame: &[u8]) -> (Vec<u8>, Bytes) {
        let lengths = Lengths::parse(frame[..PREFIX].try_into().unwrap(), 1 << 20).unwrap();
        assert_eq!(frame.len(), PREFIX + lengths.header + lengths.payload);
        (frame[PREFIX..PREFIX + lengths.header].to_vec(), Bytes::copy_from_slice(&frame[PREFIX + lengths.header..]))
    }

    proptest! {
        #[test]
        fn tensors_come_out_as_they_went_in(contents in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..50), 0..6)) {
            let sent: Vec<_> = contents.iter().enumerate().map(|(i, c)| tensor(&format!("t{i}"), c)).collect();
            let frame = join(&encode(&FromRunner::Answer { id: 7, outputs: TensorHead::of_all(&sent) }, &sent).unwrap());
            let (header, payload) = split(&frame);
            prop_assert_eq!(payload_length(&sent), Some(payload.len() as u64));
            let FromRunner::Answer { id: 7, outputs } = decode(&header).unwrap() else { panic!("another message") };
            prop_assert_eq!(tensors(outputs, &payload).unwrap(), sent);
        }

        #[test]
        fn no_header_and_no_payload_breaks_the_reader(header in proptest::collection::vec(any::<u8>(), 0..200), payload in proptest::collection::vec(any::<u8>(), 0..64)) {
            let payload = Bytes::from(payload);
            if let Ok(FromRunner::Answer { outputs, .. }) = decode::<FromRunner>(&header) {
                let _ = tensors(outputs, &payload);
            }
            let _ = decode::<ToRunner>(&header);
        }

        #[test]
        fn any_way_of_writing_gives_the_same_bytes(sizes in proptest::collection::vec(0usize..40, 0..90), step in 1usize..70) {
            let pieces: Vec<_> = sizes.iter().enumerate().map(|(i, n)| Bytes::from(vec![i as u8; *n])).collect();
            let expected = join(&pieces);
            let mut outgoing = Outgoing::default();
            outgoing.push(pieces);
            let mut written = Vec::new();
            while !outgoing.is_empty() {
                let now: Vec<u8> = outgoing.slices().iter().flat_map(|s| s.to_vec()).take(step).collect();
                outgoing.advance(now.len());
                written.extend(now);
            }
            prop_assert_eq!(written, expected);
        }
    }

    #[test]
    fn lengths_are_held_against_the_limits() {
        let prefix = |header: u32, payload: u64| {
            let mut bytes = [0; PREFIX];
            bytes[..4].copy_from_slice(&header.to_le_bytes());
            bytes[4..].copy_from_slice(&payload.to_le_bytes());
            bytes
        };
        assert_eq!(Lengths::parse(prefix(5, 100), 100).unwrap(), Lengths { header: 5, payload: 100 });
        assert!(matches!(Lengths::parse(prefix(0, 0), 100), Err(FrameError::HeaderLength(0))));
        assert!(matches!(Lengths::parse(prefix(u32::MAX, 0), 100), Err(FrameError::HeaderLength(_))));
        assert!(matches!(Lengths::parse(prefix(5, 101), 100), Err(FrameError::PayloadLength(101, 100))));
        assert!(matches!(Lengths::parse(prefix(5, u64::MAX), u64::MAX - 1), Err(FrameError::PayloadLength(..))));
    }

    #[test]
    fn lies_about_tensors_are_found() {
        let good = vec![tensor("a", b"12345"), tensor("b", b"678")];
        let payload = split(&join(&encode(&true, &good).unwrap())).1;
        let heads = || TensorHead::of_all(&good);
        assert_eq!(tensors(heads(), &payload).unwrap(), good);
        for lie in [0, 4, 6, u64::MAX] {
            let mut heads = heads();
            heads[1].length = lie;
            assert!(tensors(heads, &payload).is_err(), "{lie}");
        }
        let mut fewer = heads();
        fewer.pop();
        assert!(tensors(fewer, &payload).is_err(), "bytes of nobody");
        let header = postcard::to_stdvec(&ToRunner::Stop).unwrap();
        assert!(matches!(decode::<ToRunner>(&[header, vec![0]].concat()), Err(FrameError::Trailing)));
    }
}
