//! A runner's end of a lane: one thread receives a batch, executes it elsewhere, and answers, again and again.
//!
//! Invariants: a batch's bytes are read where they lie, in the packet or in the region; an answer goes out whole or the
//! process ends; waiting costs processor time only where [`ActiveWait`] finds that it pays.

use std::io::{self, IoSlice};
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use plinth_runtime::{Clock, SystemClock};
use plinth_types::Tensor;

use crate::active_wait::{self, ActiveWait, Pushes};
use crate::backend::OutputPlace;
use crate::channel::frame::FrameError;
use crate::channel::packet::{self, MAX_PACKET, Packet};
use crate::channel::wire::{Answer, Execute, Payload, Refusal, Reply, Span, TensorHead};
use crate::lane::INLINE;
use crate::region::Whole;

/// The most pieces with one call; the kernel's own limit is 1024.
const MAX_SLICES: usize = 512;

pub(super) struct Lane {
    socket: OwnedFd,
    region: Whole,
    spare: Arc<Mutex<Option<Box<[u8]>>>>,
    active: ActiveWait,
}

/// What has come.
pub(super) struct Incoming {
    pub execute: Execute,
    /// `None` when there is no memory for it.
    pub payload: Option<Bytes>,
    /// On the monotonic clock of this process.
    pub arrived: Duration,
}

/// A packet in memory that is used again.
struct Packed {
    memory: Option<Box<[u8]>>,
    length: usize,
    spare: Arc<Mutex<Option<Box<[u8]>>>>,
}

impl AsRef<[u8]> for Packed {
    fn as_ref(&self) -> &[u8] {
        self.memory.as_deref().and_then(|memory| memory.get(..self.length)).unwrap_or_default()
    }
}

impl Drop for Packed {
    fn drop(&mut self) {
        *self.spare.lock().unwrap_or_else(PoisonError::into_inner) = self.memory.take();
    }
}

impl Lane {
    pub(super) fn new(socket: OwnedFd, region: Whole) -> Self {
        Self { socket, region, spare: Arc::default(), active: ActiveWait::default() }
    }

    /// Waits for the next batch; `None` when the node has closed the lane.
    pub(super) fn receive(&mut self) -> Result<Option<Incoming>, FrameError> {
        let Some(packet) = self.wait()? else { return Ok(None) };
        let arrived = SystemClock.monotonic();
        let (execute, payload) = match packet::parse::<Execute>(&packet)? {
            Packet::Message(execute, payload) => (execute, packet.slice_ref(payload)),
            Packet::Piece(_) => return Err(FrameError::Unexpected),
        };
        let payload = match execute.payload {
            Payload::Here => Some(payload),
            Payload::Region(span) => Some(Bytes::from_static(self.region.slice(span.offset, span.length).ok_or(FrameError::Payload)?)),
            Payload::Pieces(length) => self.pieces(length)?,
        };
        Ok(Some(Incoming { execute, payload, arrived }))
    }

    fn wait(&mut self) -> Result<Option<Bytes>, FrameError> {
        let spare = self.spare.lock().unwrap_or_else(PoisonError::into_inner).take();
        let mut memory = spare.unwrap_or_else(|| vec![0; MAX_PACKET].into_boxed_slice());
        let length = match self.look(&mut memory)? {
            Some(length) => length,
            None => packet::receive(&self.socket, &mut memory, true)?,
        };
        if length == 0 {
            return Ok(None);
        }
        Ok(Some(Bytes::from_owner(Packed { memory: Some(memory), length, spare: self.spare.clone() })))
    }

    /// Looks for a packet for a moment, where that pays.
    fn look(&mut self, memory: &mut [u8]) -> io::Result<Option<usize>> {
        let begun = SystemClock.monotonic();
        if !self.active.may(begun, pushes) {
            return Ok(None);
        }
        loop {
            match packet::receive(&self.socket, memory, false) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                received => {
                    let length = received?;
                    self.active.found(begun, pushes);
                    return Ok(Some(length));
                }
            }
            let now = SystemClock.monotonic();
            if now - begun >= active_wait::LONGEST {
                self.active.found_nothing(now, pushes);
                return Ok(None);
            }
            for _ in 0..8 {
                std::hint::spin_loop();
            }
        }
    }

    /// A payload that found no place in the region. Takes memory as it was announced, or none at all.
    fn pieces(&mut self, length: u64) -> Result<Option<Bytes>, FrameError> {
        let mut data = Vec::new();
        let fits = usize::try_from(length).is_ok_and(|length| data.try_reserve_exact(length).is_ok());
        let mut left = length;
        while left > 0 {
            let packet = self.wait()?.ok_or(FrameError::Truncated)?;
            let Packet::Piece(bytes) = packet::parse::<Execute>(&packet)? else { return Err(FrameError::Unexpected) };
            left = left.checked_sub(bytes.len() as u64).filter(|_| !bytes.is_empty()).ok_or(FrameError::Payload)?;
            if fits {
                data.extend_from_slice(bytes);
            }
        }
        Ok(fits.then(|| data.into()))
    }

    /// Where the outputs of a batch may lie.
    pub(super) fn place(&self, execute: &Execute) -> Result<OutputPlace, FrameError> {
        let Some(span) = execute.place else { return Ok(OutputPlace::none(execute.rows)) };
        self.region.output_place(span.offset, span.length, execute.rows).ok_or(FrameError::Payload)
    }

    /// Says why a batch has no outputs.
    pub(super) fn refuse(&self, sequence: u64, refusal: Refusal) -> Result<(), FrameError> {
        let head = packet::head(&Reply::Refused { sequence, refusal })?;
        Ok(packet::send(&self.socket, &[IoSlice::new(&head)], true)?)
    }

    /// Sends the outputs, by the way that suits their size. `timing` is finished here.
    pub(super) fn answer(
        &self,
        execute: &Execute,
        outputs: &[Tensor],
        mut place: OutputPlace,
        [arrived, begun, ended]: [Duration; 3],
    ) -> Result<(), FrameError> {
        let mut heads = Vec::with_capacity(outputs.len());
        let mut end = 0usize;
        for (index, tensor) in execute.outputs.iter().zip(outputs) {
            let offset = end.next_multiple_of(packet::ALIGNMENT);
            end = offset.checked_add(tensor.data().len()).ok_or(FrameError::Payload)?;
            let span = Span { offset: offset as u64, length: tensor.data().len() as u64 };
            heads.push(TensorHead { index: *index, shape: tensor.shape().clone(), span });
        }
        let total = end as u64;
        let anywhere = outputs.iter().any(|tensor| place.offset_of(tensor.data()).is_some());
        let payload = match execute.place {
            Some(granted) if (anywhere || total > INLINE) && put_all(&mut heads, outputs, &mut place) => Payload::Region(granted),
            _ if total <= INLINE => Payload::Here,
            _ => Payload::Pieces(total),
        };
        let nanos = |from: Duration, to: Duration| u64::try_from(to.saturating_sub(from).as_nanos()).unwrap_or(u64::MAX);
        let timing = [nanos(arrived, begun), nanos(begun, ended), nanos(ended, SystemClock.monotonic())];
        let answer = Reply::Answer(Answer { sequence: execute.sequence, timing, outputs: heads, payload });
        let Ok(head) = packet::head(&answer) else {
            let text = "the model has more outputs than an answer can carry".to_owned();
            return self.refuse(execute.sequence, Refusal::Execution(text));
        };
        match payload {
            Payload::Region(_) => packet::send(&self.socket, &[IoSlice::new(&head)], true)?,
            Payload::Here => self.send(&head, &padded(outputs))?,
            Payload::Pieces(_) => {
                self.send(&head, &[])?;
                self.send_pieces(outputs)?;
            }
        }
        Ok(())
    }

    fn send(&self, head: &[u8], body: &[&[u8]]) -> io::Result<()> {
        if body.len() >= MAX_SLICES {
            return packet::send(&self.socket, &[IoSlice::new(head), IoSlice::new(&body.concat())], true);
        }
        let slices: Vec<IoSlice<'_>> = std::iter::once(head).chain(body.iter().copied()).map(IoSlice::new).collect();
        packet::send(&self.socket, &slices, true)
    }

    fn send_pieces(&self, outputs: &[Tensor]) -> io::Result<()> {
        let (mut piece, mut room): (Vec<&[u8]>, usize) = (Vec::new(), packet::PIECE);
        for mut bytes in padded(outputs) {
            while !bytes.is_empty() {
                let (now, rest) = bytes.split_at(room.min(bytes.len()));
                (bytes, room) = (rest, room - now.len());
                piece.push(now);
                if room == 0 {
                    self.send(&packet::piece(), &piece)?;
                    piece.clear();
                    room = packet::PIECE;
                }
            }
        }
        if piece.is_empty() { Ok(()) } else { self.send(&packet::piece(), &piece) }
    }
}

/// Puts every output into the area that is not there yet, and writes down where; false when they do not all fit.
fn put_all(heads: &mut [TensorHead], outputs: &[Tensor], place: &mut OutputPlace) -> bool {
    let mut offsets = Vec::with_capacity(outputs.len());
    for tensor in outputs {
        let data = tensor.data();
        let offset = if data.is_empty() { Some(0) } else { place.offset_of(data).or_else(|| place.put(data)) };
        match offset {
            Some(offset) => offsets.push(offset as u64),
            None => return false,
        }
    }
    for (head, offset) in heads.iter_mut().zip(offsets) {
        head.span.offset = offset;
    }
    true
}

/// The outputs' bytes one after another, each at a multiple of the packet's alignment.
fn padded(outputs: &[Tensor]) -> Vec<&[u8]> {
    let (mut pieces, mut end): (Vec<&[u8]>, usize) = (Vec::with_capacity(2 * outputs.len()), 0);
    for tensor in outputs {
        let padding = packet::padding(end);
        pieces.extend([padding, tensor.data()].into_iter().filter(|piece| !piece.is_empty()));
        end += padding.len() + tensor.data().len();
    }
    pieces
}

fn pushes() -> i64 {
    Pushes::Thread.count()
}
