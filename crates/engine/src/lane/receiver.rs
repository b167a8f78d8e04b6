//! The half of a lane out of which outcomes come.
//!
//! Invariants: an answer belongs to the batch that was sent first and is not answered, or the runner is at fault; what the
//! runner announces costs memory only as it arrives; the first thing that a runner may not say is the last that is read.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::arrivals::Arrivals;
use super::shared::{LaneEnd, Sent, Shared};
use super::split::split;
use super::{Done, Timing};
use crate::channel::frame::FrameError;
use crate::channel::packet::{self, MAX_PACKET, Packet};
use crate::channel::wire::{Answer, Payload, Refusal, Reply};
use crate::check;
use crate::spec::RunnerError;

/// Where outcomes come out. Its owner has to call [`LaneReceiver::receive`] for as long as batches are outstanding.
pub struct LaneReceiver {
    shared: Arc<Shared>,
    buffer: Vec<u8>,
    /// An answer whose bytes are still coming.
    partial: Option<Partial>,
    over: bool,
    arrivals: Arrivals,
}

struct Partial {
    answer: Answer,
    length: u64,
    data: Vec<u8>,
}

impl LaneReceiver {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared, buffer: vec![0; MAX_PACKET], partial: None, over: false, arrivals: Arrivals::default() }
    }

    /// The next outcome, in the order of sending; `None` when the runner is gone, and what was outstanding is lost with
    /// it. Cancel safe.
    pub async fn receive(&mut self) -> Option<Done> {
        while !self.over {
            let received = tokio::select! {
                biased;
                received = self.arrivals.next(&self.shared, &mut self.buffer) => received,
                () = self.shared.flushing() => continue,
            };
            match received {
                Ok(0) => self.end(LaneEnd::Closed),
                Ok(length) => match self.packet(length) {
                    Ok(Some(done)) => return Some(done),
                    Ok(None) => {}
                    Err(error) => self.end(LaneEnd::Broken(error.to_string())),
                },
                Err(error) if error.kind() == std::io::ErrorKind::InvalidData => {
                    self.end(LaneEnd::Broken("a packet that is too long".to_owned()));
                }
                Err(_) => self.end(LaneEnd::Closed),
            }
        }
        None
    }

    fn end(&mut self, end: LaneEnd) {
        self.over = true;
        self.partial = None;
        self.shared.forget();
        // Whoever was first has told all that is needed.
        let _ = self.shared.wiring.end.try_send(end);
    }

    fn packet(&mut self, length: usize) -> Result<Option<Done>, FrameError> {
        let packet = self.buffer.get(..length).ok_or(FrameError::Truncated)?;
        match packet::parse::<Reply>(packet)? {
            Packet::Piece(bytes) => {
                let partial = self.partial.as_mut().ok_or(FrameError::Unexpected)?;
                let have = (partial.data.len() + bytes.len()) as u64;
                if have > partial.length || bytes.is_empty() {
                    return Err(FrameError::Payload);
                }
                partial.data.extend_from_slice(bytes);
                if have < partial.length {
                    return Ok(None);
                }
                let Some(Partial { answer, data, .. }) = self.partial.take() else { return Ok(None) };
                self.answered(answer, data.into()).map(Some)
            }
            Packet::Message(..) if self.partial.is_some() => Err(FrameError::Unexpected),
            Packet::Message(Reply::Refused { sequence, refusal }, b"") => self.refused(sequence, refusal).map(Some),
            Packet::Message(Reply::Refused { .. }, _) => Err(FrameError::Payload),
            Packet::Message(Reply::Answer(answer), payload) => {
                if !self.shared.is_next(answer.sequence) {
                    return Err(FrameError::Unexpected);
                }
                match answer.payload {
                    Payload::Here => {
                        let payload = Bytes::copy_from_slice(payload);
                        self.answered(answer, payload).map(Some)
                    }
                    _ if !payload.is_empty() => Err(FrameError::Payload),
                    Payload::Region(_) => self.answered(answer, Bytes::new()).map(Some),
                    Payload::Pieces(length) => {
                        let most = self.shared.wiring.max_answer;
                        if length == 0 || length > most {
                            return Err(FrameError::PayloadLength(length, most));
                        }
                        self.partial = Some(Partial { answer, length, data: Vec::new() });
                        Ok(None)
                    }
                }
            }
        }
    }

    fn refused(&self, sequence: u64, refusal: Refusal) -> Result<Done, FrameError> {
        let sent = self.shared.complete(sequence).ok_or(FrameError::Unexpected)?;
        let error = match refusal {
            Refusal::Input(text) => RunnerError::Input(check::text(&text)),
            Refusal::Execution(text) => RunnerError::Execution(check::text(&text)),
            Refusal::Broken(text) => RunnerError::BrokeProtocol(check::text(&text)),
            Refusal::Expired => RunnerError::Deadline("queued"),
        };
        Ok(Done { id: sent.id, outcome: Err(error), timing: Timing::default() })
    }

    /// All bytes of an answer are there: in `payload`, or in the region.
    fn answered(&self, answer: Answer, payload: Bytes) -> Result<Done, FrameError> {
        let Sent { id, rows, total, outputs, wished, input_bytes, inputs, place, .. } =
            self.shared.complete(answer.sequence).ok_or(FrameError::Unexpected)?;
        // The runner has done with it.
        drop(inputs);
        let facts = &self.shared.wiring;
        let (payload, is_shared) = match answer.payload {
            Payload::Region(span) => {
                let place = place.filter(|place| span.offset == place.offset() && span.length <= place.length());
                (place.ok_or(FrameError::Payload)?.into_bytes(), true)
            }
            Payload::Here | Payload::Pieces(_) => {
                drop(place);
                (payload, false)
            }
        };
        let [input, infer, output] = answer.timing.map(Duration::from_nanos);
        let answered: u64 = answer.outputs.iter().fold(0, |sum, head| sum.saturating_add(head.span.length).saturating_add(64));
        self.shared.learn(input_bytes, answered);
        let body = super::split::Body { bytes: payload, is_shared: is_shared && !facts.region.is_scarce(), is_private: !is_shared };
        let wanted = super::split::Wanted { outputs: &outputs, rows: &rows, total, wished: &wished };
        let tensors = split(&facts.metadata, &wanted, &answer.outputs, &body)?;
        Ok(Done { id, outcome: Ok(tensors), timing: Timing { input, infer, output } })
    }
}

impl fmt::Debug for LaneReceiver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LaneReceiver").field("over", &self.over).finish_non_exhaustive()
    }
}
